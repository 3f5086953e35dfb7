"""Which mentions a signal rests on, and in whose words."""

from collections.abc import Iterable

from pipeline.detection.entries import NEVER_OPENS, Entry, Row
from schemas.signal import Evidence

MOST = 5


def strongest(entries: Iterable[Entry], type_index: int) -> list[Evidence]:
    """Up to five entries: gravest first, then strongest in emotion, then earliest; one of each near-duplicate group.

    Quotes are given for product subjects only: for others the mention is looked up in storage.
    """
    order = sorted(entries, key=lambda entry: (-entry.severity, -entry.intensity, entry.event_time, entry.mention_id))
    chosen: list[Evidence] = []
    groups: set[int] = set()
    for entry in order:
        if entry.signature and entry.signature in groups:
            continue
        groups.add(entry.signature)
        words = entry.quote_of(type_index) if entry.subject_kind == "product" else ""
        chosen.append(Evidence(entry.mention_id, entry.event_time, words))
        if len(chosen) == MOST:
            break
    return chosen


def opening(rows: Iterable[Row], type_index: int) -> list[Entry]:
    """The voices against a type that may open a spike."""
    return [
        row for row in rows if isinstance(row, Entry) and row.objects_to(type_index) and not row.flags & NEVER_OPENS
    ]


def historic(entries: Iterable[Entry], horizon_ms: int) -> bool:
    """Whether even the promptest of the entries was ingested later than the horizon after it happened."""
    return min((entry.ingest_time - entry.event_time for entry in entries), default=0) > horizon_ms
