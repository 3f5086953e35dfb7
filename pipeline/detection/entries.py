"""What a scored row says as far as detection needs it, and of which rows only the number matters."""

from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from schemas.scored import Objection, ScoredRow
from schemas.vocabulary import OBJECTING_ACTS, OBJECTION_TYPES

UnitKey = tuple[str, str, str]
"""Subject kind, subject id, lot: what is counted apart. The lot is empty where the subject is no product."""


def of_nothing(unit: UnitKey) -> bool:
    """Whether the product is unknown."""
    return unit[0] == "product" and not unit[1]


TYPES = len(OBJECTION_TYPES)
TYPE_INDEX: dict[str, int] = {name: index for index, name in enumerate(OBJECTION_TYPES)}

REPOST, INCENTIVISED, DEFAULT_REVIEW, OBSERVED, BACKFILL, QUIET = 1, 2, 4, 8, 16, 32
FLAG_BITS: dict[str, int] = {
    "repost": REPOST,
    "incentivised": INCENTIVISED,
    "default_review": DEFAULT_REVIEW,
    "observed": OBSERVED,
    "backfill": BACKFILL,
}
NOT_A_VOICE = REPOST | INCENTIVISED | DEFAULT_REVIEW
"""What was not said of the author's own accord is no voice."""
NOT_EXPOSURE = REPOST | INCENTIVISED
"""Left out of the exposure too: a storm in the denominator would dilute the rate, today and in the baseline."""
NEVER_OPENS = OBSERVED | BACKFILL
"""Counts in history, never opens a spike."""

QUOTE_LENGTH = 120
DANGER = 3
"""Severity of danger with nobody hurt: two such voices open a signal."""
HARM = 4
"""Severity of harm: one such voice opens a signal."""


Traits = tuple[UnitKey, int, str, str, int, str, str, str, str]
"""What a row that objects to nothing counts by: its unit, and the fields of `Kind` from ``revision`` to ``channel``."""


class Entry(msgspec.Struct, array_like=True, gc=False):
    """One scored row as far as detection needs it; ``types`` and ``flags`` are bit sets, times ms UTC."""

    mention_id: str
    revision: int
    subject_kind: str
    subject_id: str
    product_id: str
    product_batch_id: str
    event_time: int
    ingest_time: int
    types: int
    severity: int
    severe_type: int
    intensity: float
    author: str
    signature: int
    flags: int
    primary: bool
    version: str
    carrier: str
    region: str
    channel: str
    quotes: tuple[str, ...] = ()
    dead: bool = False
    step: int = 0
    """Number of the base step that it is counted in, as long as that is not final."""

    @property
    def count(self) -> int:
        """Live rows that it stands for."""
        return not self.dead

    @property
    def unit(self) -> UnitKey:
        """The unit that this entry is counted in."""
        return (self.subject_kind, self.subject_id, self.product_batch_id if self.subject_kind == "product" else "")

    @property
    def traits(self) -> Traits:
        """What it counts by if it objects to nothing."""
        return (
            self.unit,
            self.revision,
            self.product_id,
            self.product_batch_id,
            self.flags,
            self.version,
            self.carrier,
            self.region,
            self.channel,
        )

    @property
    def grave(self) -> bool:
        """Whether the severity path looks at it."""
        return self.severity >= DANGER and self.primary and not self.flags & NOT_A_VOICE

    @property
    def speaks(self) -> bool:
        """Whether it is a voice against anything, or grave; else it only adds to counts."""
        return self.types != 0 or self.grave

    def objects_to(self, type_index: int) -> bool:
        """Whether this is a voice against that type."""
        return not self.dead and bool(self.types >> type_index & 1)

    def quote_of(self, type_index: int) -> str:
        """The words that justify the type; empty where the row carried no text."""
        if not self.quotes:
            return ""
        position = (self.types & ((1 << type_index) - 1)).bit_count()
        return self.quotes[min(position, len(self.quotes) - 1)]


class Kind(msgspec.Struct, frozen=True, gc=False):
    """What a mention's rows count by: their units, and what they have in common."""

    units: tuple[UnitKey, ...]
    revision: int
    product_id: str
    product_batch_id: str
    flags: int
    version: str
    carrier: str
    region: str
    channel: str

    count: int = 1
    """Rows that it stands for, where it stands for rows that object to nothing."""

    def objects_to(self, type_index: int) -> bool:
        """Never."""
        return False


Row = Entry | Kind


def gathered(rows: Iterable[Row]) -> list[Row]:
    """The same rows with those as one that object to nothing and are of one kind."""
    found: list[Row] = []
    calm: dict[int, list[Kind]] = {}
    for row in rows:
        if isinstance(row, Kind):
            calm.setdefault(id(row), []).append(row)
        else:
            found.append(row)
    return found + [replace(alike[0], count=len(alike)) for alike in calm.values()]


def unit_of(row: ScoredRow | Entry) -> UnitKey:
    """The unit that a row is counted in."""
    return (row.subject_kind, row.subject_id, row.product_batch_id if row.subject_kind == "product" else "")


_ALIKE = (
    *("revision", "event_time", "ingest_time", "severity", "intensity", "author", "flags"),
    *("product_id", "product_batch_id", "version", "carrier", "region", "channel"),
)
_row_says = attrgetter(*_ALIKE, "deleted", "objections", "speech_act", "near_duplicate_signature")
_entry_says = attrgetter(*_ALIKE, "types", "severe_type", "signature")

RowOrEntry = TypeVar("RowOrEntry", ScoredRow, Entry)


def rows_together(rows: Iterable[ScoredRow]) -> Iterator[tuple[ScoredRow, list[UnitKey]]]:
    """Each mention's row, and the units of those rows behind it that say the same, are not primary and carry no text."""
    return _together(rows, _row_says, attrgetter("primary", "text"))


def entries_together(entries: Iterable[Entry]) -> Iterator[tuple[Entry, list[UnitKey]]]:
    """The same of entries."""
    return _together(entries, _entry_says, attrgetter("primary", "quotes"))


def _together(
    rows: Iterable[RowOrEntry], says: Callable[[Any], Any], leads: Callable[[Any], Any]
) -> Iterator[tuple[RowOrEntry, list[UnitKey]]]:
    first: RowOrEntry | None = None
    others: list[UnitKey] = []
    for row in rows:
        if first is not None:
            if (
                row.mention_id == first.mention_id
                and row.author == first.author
                and not any(leads(row))
                and says(row) == says(first)
            ):
                others.append(unit_of(row))
                continue
            yield first, others
        first, others = row, []
    if first is not None:
        yield first, others


def entry_of(row: ScoredRow) -> Entry:
    """The entry of a row: which types it is a voice against, and what it may be evidence for."""
    flags = named = 0
    for flag in row.flags:
        flags |= FLAG_BITS[flag]
    negative = [objection for objection in row.objections if objection.polarity == "negative"] if row.objections else []
    for objection in negative:
        named |= 1 << TYPE_INDEX[objection.type]
    if not named and not flags & NOT_A_VOICE:
        flags |= QUIET
    voice = named and row.speech_act in OBJECTING_ACTS and not flags & NOT_A_VOICE
    types = named if voice else 0
    return Entry(
        row.mention_id,
        row.revision,
        row.subject_kind,
        row.subject_id,
        row.product_id,
        row.product_batch_id,
        row.event_time,
        row.ingest_time,
        types,
        row.severity,
        (named & -named).bit_length() - 1 if named else 0,
        row.intensity,
        row.author,
        row.near_duplicate_signature,
        flags,
        row.primary,
        row.version,
        row.carrier,
        row.region,
        row.channel,
        _quotes(row, types, negative) if row.text and (types or row.severity >= DANGER) else (),
    )


def _quotes(row: ScoredRow, types: int, negative: list[Objection]) -> tuple[str, ...]:
    """One quote a voiced type, in the order of the types; without one, the words of the first objection or the start."""
    first: dict[int, str] = {}
    for objection in negative:
        first.setdefault(TYPE_INDEX[objection.type], quote(row.text, *objection.span))
    if not types:
        return (first[min(first)] if first else quote(row.text, 0, 0),)
    return tuple(first[index] for index in sorted(first))


def quote(text: str, start: int, end: int) -> str:
    """At most ``QUOTE_LENGTH`` characters of the text around a span, on one line."""
    if len(text) > QUOTE_LENGTH:
        margin = max(0, QUOTE_LENGTH - (end - start)) // 2
        start = max(0, min(start - margin, len(text) - QUOTE_LENGTH))
        text = text[start : start + QUOTE_LENGTH]
    return text.replace("\r", " ").replace("\n", " ")
