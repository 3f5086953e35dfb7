"""What must not show in the outcome: blocks, order within the lateness, duplicates, restarts, what was taken back."""

import random

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from simulated import DAILY, compacted, day, latest, row, run, watermark

from pipeline.detection.detector import Detector
from schemas.catalogue import CatalogueEntry
from schemas.control import CatalogueUpdate, ControlRecord, Gap
from schemas.policy import DAY_MS, DetectionPolicy
from schemas.scored import Retraction, ScoredBlock, ScoredRow

EAGER = replace(DAILY, false_signals_per_week=400.0, minimum_history=2, close_after=2)
"""Raises many signals, so that their life shows."""

POLICIES = st.sampled_from(
    [
        EAGER,
        replace(EAGER, step="1h", windows=(1, 3, 12), time_zone="Asia/Shanghai"),
        replace(EAGER, allowed_lateness_ms=0, minimum_history=0),
    ]
)

TYPES = ("product_quality", "delivery", "price")
DAYS = 14
EXAMPLES = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def said(rng: np.random.Generator, number: int, instant: int) -> list[ScoredRow]:
    """One mention, as its product sees it and, at times, its carrier."""
    objects = rng.random() < 0.5
    flags = [
        flag for flag in ("repost", "incentivised", "default_review", "observed", "backfill") if rng.random() < 0.04
    ]
    changes = {
        "subject_id": str(rng.choice(["P", "Q", ""], p=[0.6, 0.35, 0.05])),
        "product_batch_id": str(rng.choice(["L1", "L2", ""])),
        "carrier": str(rng.choice(["fast", "slow"])),
        "author": str(rng.choice(["", f"a{rng.integers(30)}"])),
        "near_duplicate_signature": int(rng.choice([0, 7, rng.integers(1, 2**63)])),
        "intensity": round(float(rng.random()), 3),
        "severity": int(rng.choice([1, 2, 3, 4], p=[0.55, 0.36, 0.06, 0.03])) if objects else 0,
        "flags": flags,
        "ingest_time": instant + int(rng.choice([1000, 3 * DAY_MS])),
    }
    types = [str(name) for name in rng.choice(TYPES, size=int(rng.integers(1, 3)), replace=False)] if objects else []
    rows = [row(f"m{number}", instant, *types, **changes)]
    if rng.random() < 0.3:
        carried = {**changes, "subject_id": changes["carrier"], "product_id": changes["subject_id"]}
        rows.append(
            row(f"m{number}", instant, *types, **{**carried, "subject_kind": "carrier", "primary": False, "text": ""})
        )
    return rows


def segments(seed: int, *, edits: bool = True, spare_harm: bool = False) -> list[list[ScoredRow | Retraction]]:
    """What comes between daily watermarks, day by day; a few rows are a day late or two days early."""
    rng = np.random.default_rng(seed)
    found: list[list[ScoredRow | Retraction]] = [[] for _ in range(DAYS)]
    number = 0
    for today in range(DAYS):
        burst = 3 if today in (6, 7, 8) else 1
        for _ in range(int(rng.poisson(12 * burst))):
            number += 1
            instant = day(today) + int(rng.integers(DAY_MS))
            rows = said(rng, number, instant)
            if spare_harm:
                rows = [replace(one, severity=min(one.severity, 2)) for one in rows]
            shift = int(rng.choice([0, 1, -1, -2], p=[0.9, 0.04, 0.03, 0.03]))
            where = min(max(today + shift, 0), DAYS - 1)
            if shift > 0:  # the connector says so of what is older than it had promised
                rows = [replace(one, flags=["backfill"]) for one in rows]
            found[where] += rows
            if edits and rng.random() < 0.08:
                later = min(where + int(rng.integers(2)), DAYS - 1)
                found[later].append(Retraction(f"m{number}", 1))
                if rng.random() < 0.7:
                    moved = {
                        "revision": 1,
                        "product_batch_id": "L2",
                        "event_time": instant + int(rng.choice([0, DAY_MS])),
                    }
                    found[later] += [replace(one, **moved) for one in rows]
    return found


def block(items: list[ScoredRow | Retraction]) -> ScoredBlock:
    return ScoredBlock(
        [item for item in items if isinstance(item, ScoredRow)],
        [item for item in items if isinstance(item, Retraction)],
    )


CATALOGUE = CatalogueUpdate(
    "c1",
    [
        CatalogueEntry("P", "p", [], "L1", 800.0, day(-30), day(10)),
        CatalogueEntry("P", "p", [], "L2", 400.0, None, None),
        CatalogueEntry("P", "p", [], "L3", 900.0, day(-3), day(20)),
    ],
)


def stream(parts: list[list[ScoredRow | Retraction]], size: int = 10**6) -> list[ScoredBlock | ControlRecord]:
    """The segments as blocks of a size, with a catalogue, a gap and daily watermarks in band."""
    records: list[ScoredBlock | ControlRecord] = [CATALOGUE]
    for today, items in enumerate(parts):
        if today == 9:
            records.append(Gap("s", day(10), day(11), "down"))
        records += [block(items[at : at + size]) for at in range(0, len(items), size)]
        records.append(watermark(today + 1))
    return [*records, watermark(DAYS + 12)]


@EXAMPLES
@given(st.integers(0, 10**6), st.integers(1, 7), POLICIES, st.booleans())
def test_blocks_do_not_show(seed: int, size: int, policy: DetectionPolicy, edits: bool) -> None:
    # With one exception, see below.
    parts = segments(seed, edits=edits, spare_harm=edits)
    whole, cut = run(Detector(policy), stream(parts)), run(Detector(policy), stream(parts, size))
    assert compacted(whole) == compacted(cut)


@EXAMPLES
@given(st.integers(0, 10**6), st.booleans())
def test_order_between_watermarks_does_not_show(seed: int, edits: bool) -> None:
    # With one exception: harm that is said at once and edited before its step closes has been said, or not.
    parts = segments(seed, edits=edits, spare_harm=edits)
    shuffled = [random.Random(seed).sample(items, len(items)) for items in parts]
    assert compacted(run(Detector(EAGER), stream(parts, 5))) == compacted(run(Detector(EAGER), stream(shuffled, 3)))


@EXAMPLES
@given(st.integers(0, 10**6))
def test_duplicates_change_nothing(seed: int) -> None:
    parts = segments(seed)
    rng = random.Random(seed)
    doubled = []
    for today, items in enumerate(parts):
        old = [item for earlier in parts[max(0, today - 3) : today] for item in earlier if rng.random() < 0.2]
        doubled.append(items + old + items)
    once, twice = run(Detector(EAGER), stream(parts)), run(Detector(EAGER), stream(doubled, 4))
    assert compacted(once) == compacted(twice)


@EXAMPLES
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 3), POLICIES)
def test_stopping_and_going_on_equals_never_stopping(
    seed: int, every: int, save_every: int, policy: DetectionPolicy
) -> None:
    records = stream(segments(seed), 6)
    straight = [Detector(policy)]
    expected = [straight[0].absorb(record) for record in records]
    detector, saved, at_save, found = Detector(policy), {}, 0, []
    for number, record in enumerate(records, 1):
        found.append(detector.absorb(record))
        if number % save_every == 0:
            for key, value in detector.changes():
                saved.pop(key, None) if value is None else saved.__setitem__(key, value)
            at_save = number
        if number % every == 0 and at_save == number:
            detector = Detector.restore(policy, saved.items())
            assert detector.changes()[:-1] == []  # nothing but the header
    assert found == expected


@EXAMPLES
@given(st.integers(0, 10**6))
def test_what_was_taken_back_in_time_was_never_said(seed: int) -> None:
    parts = segments(seed, edits=False, spare_harm=True)
    rng = random.Random(seed)
    taken: set[str] = {item.mention_id for items in parts for item in items if rng.random() < 0.1}
    without = [[item for item in items if item.mention_id not in taken] for items in parts]
    retracted = [items + [Retraction(m, 1) for m in {i.mention_id for i in items} & taken] for items in parts]
    never, back = run(Detector(EAGER), stream(without)), run(Detector(EAGER), stream(retracted))
    zero = {key: count for key, count in latest(back).items() if count.mentions or count.count}
    kept = {key: count for key, count in latest(never).items() if count.mentions or count.count}
    assert zero == kept
    assert compacted(never)[1] == compacted(back)[1]


@EXAMPLES
@given(st.integers(0, 10**6))
def test_counts_do_not_depend_on_when_late_rows_come(seed: int) -> None:
    parts = segments(seed, edits=False)
    on_time: list[list[ScoredRow | Retraction]] = [[] for _ in parts]
    for items in parts:
        for item in items:
            on_time[(item.event_time - day(0)) // DAY_MS].append(item)
    late, early = latest(run(Detector(EAGER), stream(parts))), latest(run(Detector(EAGER), stream(on_time)))
    facts = {key: (count.count, count.mentions, count.exposure, count.status) for key, count in late.items()}
    assert facts == {key: (count.count, count.mentions, count.exposure, count.status) for key, count in early.items()}


def test_the_streams_of_this_file_raise_signals_of_all_sorts() -> None:
    signals = [signal for seed in range(20) for signal in run(Detector(EAGER), stream(segments(seed))).signals]
    assert {signal.kind for signal in signals} == {"spike", "severe"}
    assert {signal.event for signal in signals} == {"opened", "updated", "closed"}
    assert {signal.subject_kind for signal in signals} == {"product", "carrier"}
