"""Rows and streams for the tests of detection."""

from collections.abc import Iterable, Sequence

from numpy.random import Generator

from pipeline.detection.detector import Detector, Outputs
from schemas.control import ControlRecord, Watermark
from schemas.policy import DAY_MS, DetectionPolicy
from schemas.scored import Objection, ScoredBlock, ScoredRow
from schemas.signal import Signal
from schemas.step_count import StepCount

DAILY = DetectionPolicy(step="1d", time_zone="UTC", series=100)
DAY_0 = 20_000
"""Number of the first day of simulated streams."""


def day(number: float) -> int:
    """An instant, ms UTC, so many days after the stream's first midnight."""
    return round((DAY_0 + number) * DAY_MS)


def row(mention_id: str, event_time: int, *types: str, **changes) -> ScoredRow:
    """A complaint about those types, or a mention that objects to nothing."""
    fields = {
        "mention_id": mention_id,
        "revision": 0,
        "deleted": False,
        "subject_kind": "product",
        "subject_id": "P",
        "primary": True,
        "product_id": "P",
        "product_batch_id": "L1",
        "attribution_confidence": 1.0,
        "version": "",
        "carrier": "",
        "region": "",
        "channel": "review",
        "source_id": "s",
        "event_time": event_time,
        "ingest_time": event_time + 60_000,
        "sentiment": 0.0,
        "sentiment_probability": 0.5,
        "objections": [Objection(name, "", (0, 2), "negative") for name in types],
        "speech_act": "complaint" if types else "other",
        "emotion": "neutral",
        "intensity": 0.5,
        "severity": 1 if types else 0,
        "author": "a-" + mention_id,
        "near_duplicate_signature": 0,
        "flags": [],
        "versions": "v",
        "text": "声音太大了",
    }
    return ScoredRow(**{**fields, **changes})


def watermark(number: float) -> Watermark:
    return Watermark("", day(number))


def mentions(
    rng: Generator, number: float, *, lot: str, talk: float, complaints: float, kind: str = "product_quality", **changes
) -> list[ScoredRow]:
    """One day of a lot: Poisson numbers of quiet mentions and of complaints."""
    rows = []
    for what, mean in (((), talk), ((kind,), complaints)):
        for index in range(int(rng.poisson(mean))):
            name = f"{lot}-{number}-{'c' if what else 'q'}{index}"
            instant = day(number) + int(rng.integers(DAY_MS))
            rows.append(row(name, instant, *what, product_batch_id=lot, **changes))
    return rows


def run(detector: Detector, records: Iterable[ScoredBlock | ControlRecord]) -> Outputs:
    """All outputs of a stream."""
    total = Outputs()
    for record in records:
        outputs = detector.absorb(record)
        total.step_counts += outputs.step_counts
        total.signals += outputs.signals
    return total


def compacted(outputs: Outputs) -> tuple[list[StepCount], list[Signal]]:
    """What a reader of the topics is left with: counts by key and revision, the last revision of each signal.

    Without harm that was taken back before its step closed: whether it was said at all, at once, depends on whether the
    retraction came in the same block.
    """
    counts = {
        (c.subject_kind, c.subject_id, c.product_batch_id, c.objection_type, c.step_start, c.revision): c
        for c in outputs.step_counts
    }
    last = {s.signal_id: s for s in outputs.signals}
    signals = {key: s for key, s in last.items() if s.voices or s.event != "closed"}
    return [counts[key] for key in sorted(counts)], [signals[key] for key in sorted(signals)]


def latest(outputs: Outputs) -> dict[tuple[str, str, str, int], StepCount]:
    """The last revision of each cell: (subject, lot, type, day since the stream's first)."""
    found: dict[tuple[str, str, str, int], StepCount] = {}
    for count in sorted(outputs.step_counts, key=lambda count: count.revision):
        number = count.step_start // DAY_MS - DAY_0
        found[count.subject_id, count.product_batch_id, count.objection_type, number] = count
    return found


def days(blocks: Sequence[list[ScoredRow]], first: int = 0) -> list[ScoredBlock | ControlRecord]:
    """A stream of one block a day, each followed by the watermark that closes it."""
    records: list[ScoredBlock | ControlRecord] = []
    for number, rows in enumerate(blocks, first):
        records += [ScoredBlock(rows), watermark(number + 1)]
    return records
