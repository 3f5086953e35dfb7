"""One ordinary struct of each table, and variations of it."""

import time
from typing import Any

import msgspec

from pipeline.storage.rows import DeadLetterReplay
from schemas.control import Gap
from schemas.dead_letter import DeadLetter
from schemas.scored import Objection, ScoredRow
from schemas.signal import Concentration, DriverShare, Evidence, Signal
from schemas.step_count import StepCount

EVENT_TIME = 1_735_700_000_000
ROW = ScoredRow(
    mention_id="m1",
    revision=0,
    deleted=False,
    subject_kind="product",
    subject_id="kettle",
    primary=True,
    product_id="kettle",
    product_batch_id="L1",
    attribution_confidence=0.5,
    version="",
    carrier="",
    region="",
    channel="review",
    source_id="shop",
    event_time=EVENT_TIME,
    ingest_time=EVENT_TIME + 1000,
    sentiment=-0.5,
    sentiment_probability=0.25,
    objections=[
        Objection("product_quality", "defect", (0, 2), "negative"),
        Objection("delivery", "late", (3, 5), "positive"),
    ],
    speech_act="complaint",
    emotion="anger",
    intensity=0.5,
    severity=2,
    author="a1",
    near_duplicate_signature=2**64 - 1,
    flags=["repost"],
    versions="v1",
    text="漏水，快递很快",
)
SIGNAL = Signal(
    signal_id="s1",
    revision=0,
    event="opened",
    kind="spike",
    tier="ticket",
    severity=2,
    historic=False,
    subject_kind="product",
    subject_id="kettle",
    product_batch_id="L1",
    objection_type="product_quality",
    opened_step=EVENT_TIME,
    step_start=EVENT_TIME,
    observed=9,
    expected=1.5,
    interval=(0.0, 4.0),
    exposure=1000.0,
    exposure_kind="units",
    rate_ratio=6.0,
    window=2,
    p_value=None,
    voices=9,
    concentration=Concentration("batch", "L1", [DriverShare("batch", "L1", 0.9, 0.1)]),
    evidence=[Evidence("m1", EVENT_TIME, "漏水")],
    opening_state="{}",
    versions="v1",
)
COUNT = StepCount(
    "product", "kettle", "L1", "any", EVENT_TIME, "1h", 0, 3, 10, 1000.0, "units", 1.0, "provisional", "v1"
)
LETTER = DeadLetter("d1", "shop", "connector", "wrong_type", "why", "file.csv:3", "{}", "h", EVENT_TIME)
GAP = Gap("shop", EVENT_TIME, None, "outage")

ONE_OF_EACH: dict[str, msgspec.Struct] = {
    "mentions": ROW,
    "signals": SIGNAL,
    "step_counts": COUNT,
    # Tables that forget take nothing old.
    "dead_letters": msgspec.structs.replace(LETTER, time=int(time.time() * 1000)),
    "dead_letter_replays": DeadLetterReplay("d1", int(time.time() * 1000)),
    "gaps": GAP,
}


def a_row(**changes: Any) -> ScoredRow:
    """The ordinary row with these fields changed."""
    return msgspec.structs.replace(ROW, **changes)


def a_signal(**changes: Any) -> Signal:
    return msgspec.structs.replace(SIGNAL, **changes)


def a_count(**changes: Any) -> StepCount:
    return msgspec.structs.replace(COUNT, **changes)


def a_letter(**changes: Any) -> DeadLetter:
    return msgspec.structs.replace(LETTER, **changes)
