"""What must happen and what must stay quiet, as small simulated worlds of days."""

import json
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from msgspec.structs import replace
from simulated import DAILY, compacted, day, days, mentions, row, run, watermark

from pipeline.detection.detector import Detector, Outputs
from schemas.catalogue import CatalogueEntry
from schemas.control import CatalogueUpdate, Gap, PolicyUpdate
from schemas.policy import ProductPolicy, QuietPeriod
from schemas.scored import Retraction, ScoredBlock, ScoredRow
from schemas.signal import Signal

LOTS = ("L1", "L2", "L3", "L4")
SOLD = CatalogueUpdate("c", [CatalogueEntry("P", "p", [], lot, 5000.0, day(-100), day(-50)) for lot in LOTS])


def world(length: int, rows_of, seed: int = 3) -> list[list[ScoredRow]]:
    rng = np.random.default_rng(seed)
    return [[one for lot in LOTS for one in rows_of(rng, number, lot)] for number in range(length)]


def noisy(rng: np.random.Generator, number: int, lot: str) -> list[ScoredRow]:
    """From day 30 to day 50 lot L1 is complained of four times as often as its siblings."""
    factor = 4 if lot == "L1" and 30 <= number < 50 else 1
    return mentions(rng, number, lot=lot, talk=40, complaints=2 * factor)


def promotion(rng: np.random.Generator, number: int, lot: str) -> list[ScoredRow]:
    factor = 3 if 30 <= number < 37 else 1
    return mentions(rng, number, lot=lot, talk=40 * factor, complaints=2 * factor)


def opened(outputs: Outputs) -> list[Signal]:
    return [signal for signal in outputs.signals if signal.event == "opened"]


@pytest.mark.parametrize("kind", ["mentions", "units"])
@pytest.mark.parametrize("seed", [3, 4, 5])
def test_a_noisy_lot_fires_once_and_closes_while_its_siblings_stay_quiet(kind: str, seed: int) -> None:
    records = days(world(70, noisy, seed))
    outputs = run(Detector(DAILY), [SOLD, *records] if kind == "units" else records)
    (signal,) = opened(outputs)
    assert (signal.product_batch_id, signal.objection_type, signal.exposure_kind) == ("L1", "product_quality", kind)
    assert day(30) <= signal.opened_step <= day(34)
    assert (signal.concentration.dimension, signal.concentration.value) == ("batch", "L1")
    assert signal.observed > signal.interval[1] > signal.expected > signal.interval[0]
    assert signal.rate_ratio == pytest.approx(signal.observed / signal.expected)
    assert len(signal.evidence) == 5
    assert all(evidence.quote for evidence in signal.evidence)
    assert len(signal.opening_state) < 4096
    assert json.loads(signal.opening_state)["voices"][-1] >= signal.observed
    last = outputs.signals[-1]
    assert (last.event, last.signal_id) == ("closed", signal.signal_id)
    assert day(50) <= last.step_start <= day(57)
    assert [signal.revision for signal in outputs.signals] == list(range(len(outputs.signals)))
    assert len(outputs.signals) < 9
    assert last.voices > 100


@pytest.mark.parametrize("kind", ["mentions", "units"])
def test_a_promotion_that_triples_mentions_and_complaints_is_quiet(kind: str) -> None:
    records = days(world(50, promotion))
    assert run(Detector(DAILY), [SOLD, *records] if kind == "units" else records).signals == []


@pytest.mark.parametrize("catalogue", [True, False])
def test_a_lot_with_three_mentions_is_quiet(catalogue: bool) -> None:
    parts = world(30, lambda rng, number, lot: mentions(rng, number, lot=lot, talk=40, complaints=1))
    parts[-1] += [row(f"n{i}", day(29.5), "product_quality", product_batch_id="NEW") for i in range(3)]
    sold = CatalogueUpdate("c", [*SOLD.entries, CatalogueEntry("P", "p", [], "NEW", 500.0, day(20), day(60))])
    records = days(parts)
    assert run(Detector(DAILY), [sold, *records] if catalogue else records).signals == []


def test_one_harmed_customer_is_said_at_once_and_only_once() -> None:
    detector = Detector(DAILY)
    harmed = row("m1", day(5.5), "expectation_gap", "product_quality", severity=4)
    outputs = detector.absorb(ScoredBlock([harmed]))
    (signal,) = outputs.signals
    assert (signal.kind, signal.tier, signal.severity, signal.event) == ("severe", "page", 4, "opened")
    assert (signal.objection_type, signal.opened_step, signal.historic) == ("product_quality", day(5), False)
    assert (signal.observed, signal.voices, signal.p_value) == (1, 1, None)
    assert [evidence.quote for evidence in signal.evidence] == ["声音太大了"]
    again = detector.absorb(ScoredBlock([harmed, row("m2", day(5.4), "product_quality", severity=4)]))
    assert again.signals == []
    (update,) = detector.absorb(watermark(6)).signals
    assert (update.signal_id, update.event, update.revision, update.voices) == (signal.signal_id, "updated", 1, 2)
    (closed,) = detector.absorb(watermark(20)).signals
    assert (closed.event, closed.step_start) == ("closed", day(12))


def test_harm_that_one_voice_told_needs_no_second_revision() -> None:
    outputs = run(Detector(DAILY), [ScoredBlock([row("m1", day(5.5), severity=4)]), watermark(7)])
    (signal,) = outputs.signals
    assert signal.objection_type == "product_quality"


@pytest.mark.parametrize(
    ("changes", "signals"),
    [
        ({"flags": ["repost"]}, 0),
        ({"flags": ["incentivised"]}, 0),
        ({"primary": False}, 0),
        ({"severity": 3}, 0),
        ({"flags": ["observed"]}, 1),
        ({"subject_id": "", "product_id": "", "product_batch_id": ""}, 1),
    ],
)
def test_what_opens_a_severe_signal(changes: dict[str, object], signals: int) -> None:
    harmed = row("m", day(1), "product_quality", **{"severity": 4, **changes})
    assert len(run(Detector(DAILY), [ScoredBlock([harmed]), watermark(3)]).signals) == signals


def test_harm_by_an_unknown_product_is_not_taken_back_when_its_step_is_final() -> None:
    harm = row("m", day(1.5), "product_quality", severity=4, product_id="", subject_id="", product_batch_id="")
    detector = Detector(DAILY)
    (opened,) = detector.absorb(ScoredBlock([harm])).signals
    assert (opened.event, opened.subject_id) == ("opened", "")
    told = [signal for end in range(2, 30) for signal in detector.absorb(watermark(end)).signals]
    assert [(signal.event, signal.voices, len(signal.evidence)) for signal in told] == [("closed", 1, 1)]


def test_old_harm_is_historic() -> None:
    late = row("m", day(1), "product_quality", severity=4, ingest_time=day(1) + DAILY.alerting_horizon_ms + 1)
    (signal,) = Detector(DAILY).absorb(ScoredBlock([late])).signals
    assert signal.historic


def test_harm_taken_back_before_its_step_closes_is_closed() -> None:
    records = [
        ScoredBlock([row("m", day(1), "price", severity=4)]),
        ScoredBlock([], [Retraction("m", 1)]),
        watermark(2),
    ]
    assert [(s.event, s.voices) for s in run(Detector(DAILY), records).signals] == [("opened", 1), ("closed", 0)]


@pytest.mark.parametrize("restart", [False, True])
def test_a_pair_in_place_of_harm_taken_back_is_reviewed_at_the_next_close(restart: bool) -> None:
    """It has the id of the signal that was closed in the same close, and is another one."""
    dangers = [row(f"d{n}", day(1.2 + n / 10), "price", severity=3, author=f"a{n}") for n in range(4)]
    detector = Detector(DAILY)
    first = [ScoredBlock([row("m", day(1.1), "price", severity=4)]), ScoredBlock(dangers, [Retraction("m", 1)])]
    signals = run(detector, [*first, watermark(2)]).signals
    if restart:
        detector = Detector.restore(DAILY, [(key, value) for key, value in detector.changes() if value is not None])
    signals += run(detector, [ScoredBlock([row("q", day(2.5))]), watermark(3)]).signals
    told = [(signal.event, signal.voices) for signal in signals]
    assert told == [("opened", 1), ("closed", 0), ("opened", 2), ("updated", 4)]


@pytest.mark.parametrize(
    ("second", "signals"),
    [
        ({"author": "b"}, 1),
        ({"author": "a"}, 0),
        ({"author": "b", "near_duplicate_signature": 9}, 0),
        ({"author": "b", "product_batch_id": "L2"}, 0),
        ({"author": "b", "at": day(8.1)}, 0),
    ],
)
def test_two_voices_of_danger_open_a_signal(second: dict[str, object], signals: int) -> None:
    first = row("m1", day(1), "delivery", severity=3, author="a", near_duplicate_signature=9)
    fields = {"severity": 3, "near_duplicate_signature": 0, **second}
    other = row("m2", fields.pop("at", day(7.5)), "delivery", **fields)
    outputs = run(Detector(DAILY), [ScoredBlock([first]), watermark(4), ScoredBlock([other]), watermark(9)])
    assert len(outputs.signals) == signals
    for signal in outputs.signals:
        assert (signal.tier, signal.severity, signal.voices, signal.opened_step) == ("page", 3, 2, day(7))
        assert [evidence.mention_id for evidence in signal.evidence] == ["m1", "m2"]


def carried(rng: np.random.Generator, number: int, *, failing: Sequence[str]) -> list[ScoredRow]:
    """Four lots brought by two carriers; from day 30 one fails with these lots and many of its mentions complain of it."""
    rows = []
    for lot in LOTS:
        for carrier in ("fast", "slow"):
            late = 8.0 if lot in failing and carrier == "slow" and number >= 30 else 0.6
            rows += [
                replace(one, mention_id=f"{one.mention_id}-{carrier}", author=f"{one.author}-{carrier}")
                for one in mentions(rng, number, lot=lot, talk=20, complaints=late, kind="delivery", carrier=carrier)
            ]
    seen_by_carrier = [
        replace(one, subject_kind="carrier", subject_id=one.carrier, primary=False, text="") for one in rows
    ]
    return rows + seen_by_carrier


def test_a_failing_carrier_is_named_and_no_lot_is_blamed() -> None:
    rng = np.random.default_rng(8)
    outputs = run(Detector(DAILY), days([carried(rng, number, failing=LOTS) for number in range(40)]))
    assert {(s.subject_kind, s.subject_id, s.objection_type, s.tier) for s in outputs.signals} == {
        ("carrier", "slow", "delivery", "ticket")
    }
    assert all(evidence.quote == "" for signal in outputs.signals for evidence in signal.evidence)


def test_a_failing_carrier_is_told_once_and_not_for_each_region_and_channel() -> None:
    rng = np.random.default_rng(8)
    parts = []
    for number in range(40):
        rows = [replace(one, region=f"R{index % 3}") for index, one in enumerate(carried(rng, number, failing=LOTS))]
        own = [one for one in rows if one.subject_kind == "product"]
        rows += [replace(one, subject_kind="region", subject_id=one.region, primary=False, text="") for one in own]
        rows += [replace(one, subject_kind="channel", subject_id="review", primary=False, text="") for one in own]
        parts.append(rows)
    outputs = run(Detector(DAILY), days(parts))
    assert {(s.subject_kind, s.subject_id) for s in outputs.signals} == {("carrier", "slow")}


@pytest.mark.parametrize("seed", range(1, 4))
def test_one_lot_that_one_of_five_carriers_is_late_with_is_told_at_once(seed: int) -> None:
    """The lot's excess is the carrier's and the carrier's the lot's: one of the two must tell it."""
    rng = np.random.default_rng(seed)
    parts = []
    for number in range(40):
        rows = []
        for lot, carrier, region in product(LOTS, ("c1", "c2", "c3", "c4", "c5"), ("r1", "r2")):
            late = 8.0 if (lot, carrier) == ("L1", "c1") and number >= 35 else 0.15
            own = mentions(
                rng, number, lot=lot, talk=6, complaints=late, kind="delivery", carrier=carrier, region=region
            )
            place = f"{carrier}-{region}"
            rows += [
                replace(one, mention_id=f"{one.mention_id}-{place}", author=f"{one.author}-{place}") for one in own
            ]
        rows += [replace(one, subject_kind="carrier", subject_id=one.carrier, primary=False, text="") for one in rows]
        parts.append(rows)
    told = opened(run(Detector(DAILY), days(parts)))
    assert min(one.opened_step for one in told) <= day(36)


def test_one_bad_lot_does_not_raise_the_channel_it_is_complained_of_in() -> None:
    rng = np.random.default_rng(9)
    parts = world(40, lambda _, number, lot: noisy(rng, number, lot))
    both = [
        [*rows, *(replace(r, subject_kind="channel", subject_id="review", primary=False) for r in rows)]
        for rows in parts
    ]
    assert {signal.subject_kind for signal in run(Detector(DAILY), days(both)).signals} == {"product"}


def storm(number: int, **changes: object) -> list[ScoredRow]:
    return [
        row(f"s{number}-{i}", day(number + 0.5), "product_quality", **{"author": f"s{i}", **changes})
        for i in range(200)
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"flags": ["repost"]},
        {"flags": ["incentivised"]},
        {"flags": ["default_review"]},
        {"flags": ["backfill"]},
        {"flags": ["observed"]},
        {"near_duplicate_signature": 99},
        {"speech_act": "question"},
    ],
)
def test_storms_that_are_no_rise_in_complaints_are_quiet(changes: dict[str, object]) -> None:
    parts = world(40, lambda rng, number, lot: mentions(rng, number, lot=lot, talk=40, complaints=2))
    parts[30] += storm(30, **changes)
    assert run(Detector(DAILY), days(parts)).signals == []


def test_a_repost_storm_neither_hides_the_next_rise_nor_invents_one() -> None:
    parts = world(70, noisy)
    parts[25] += storm(25, flags=["repost"])
    (signal,) = opened(run(Detector(DAILY), days(parts)))
    assert day(30) <= signal.opened_step <= day(34)


def test_old_complaints_filed_on_one_day_are_historic() -> None:
    parts = world(40, noisy)
    filed = day(45)
    late = [[replace(one, ingest_time=filed) for one in rows] for rows in parts]
    signals = opened(run(Detector(DAILY), days(late)))
    assert signals
    assert all(signal.historic for signal in signals)


def test_an_outage_neither_lowers_the_baseline_nor_raises_a_spike() -> None:
    sold = world(60, lambda rng, number, lot: mentions(rng, number, lot=lot, talk=40, complaints=2))
    records = [SOLD, *days(sold[:30]), Gap("s", day(30), day(42), "down"), watermark(42), *days(sold[42:], 42)]
    assert run(Detector(DAILY), records).signals == []


def test_a_backfill_does_not_make_an_open_spike_look_calm() -> None:
    """What comes late opens nothing; a spike that is open is reviewed by all that was said."""
    parts = world(48, noisy)
    for number in range(36, 44):
        parts[number] = [replace(one, flags=["backfill"]) for one in parts[number]]
    signals = run(Detector(DAILY), days(parts)).signals
    assert [signal.event for signal in signals].count("opened") == 1
    assert "closed" not in [signal.event for signal in signals if signal.step_start < day(48)]


def test_a_slow_ramp_is_told_once_though_it_is_learnt_while_it_lasts() -> None:
    """Over sixty days the rate of one lot rises by four fifths and stays there."""

    def rising(rng: np.random.Generator, number: int, lot: str) -> list[ScoredRow]:
        factor = 1 + 0.8 * min(max(number - 60, 0), 60) / 60 * (lot == "L1")
        return mentions(rng, number, lot=lot, talk=80, complaints=20 * factor)

    yearly = replace(DAILY, false_signals_per_week=1 / 52)
    signals = run(Detector(yearly), days(world(180, rising, seed=1))).signals
    assert {(s.kind, s.product_batch_id, s.tier) for s in signals} == {("ramp", "L1", "ticket")}
    assert [s.event for s in signals if s.event != "updated"] == ["opened", "closed"]
    assert day(80) < signals[0].opened_step < day(150)


def test_a_sudden_spike_is_told_beside_an_open_ramp() -> None:
    def rising(rng: np.random.Generator, number: int, lot: str) -> list[ScoredRow]:
        factor = 1 + 0.8 * min(max(number - 60, 0), 60) / 60 * (lot == "L1")
        sudden = 3 if lot == "L1" and 135 <= number < 140 else 1
        return mentions(rng, number, lot=lot, talk=80, complaints=20 * factor * sudden)

    yearly = replace(DAILY, false_signals_per_week=1 / 52)
    told = opened(run(Detector(yearly), days(world(145, rising, seed=1))))
    assert [(one.kind, one.product_batch_id) for one in told] == [("ramp", "L1"), ("spike", "L1")]


@pytest.mark.parametrize("seed", range(3))
def test_a_young_sibling_without_a_past_is_not_blamed_for_a_ramp(seed: int) -> None:
    def rising(rng: np.random.Generator, number: int, lot: str) -> list[ScoredRow]:
        if lot == "L2":
            return mentions(rng, number, lot=lot, talk=40, complaints=14) if number >= 115 else []
        if lot != "L1":
            return []
        return mentions(rng, number, lot=lot, talk=40, complaints=4 + 8 * min(max(number - 120, 0), 60) / 60)

    ramps = [one for one in opened(run(Detector(DAILY), days(world(175, rising, seed=seed)))) if one.kind == "ramp"]
    assert [one.product_batch_id for one in ramps] == ["L1"]
    assert ramps[0].concentration.value != "L2"


def test_a_lasting_change_is_told_once_and_not_as_a_ramp_again() -> None:
    def higher(rng: np.random.Generator, number: int, lot: str) -> list[ScoredRow]:
        return mentions(rng, number, lot=lot, talk=80, complaints=12 if lot == "L1" and number >= 60 else 4)

    yearly = replace(DAILY, false_signals_per_week=1 / 52)
    assert [one.kind for one in opened(run(Detector(yearly), days(world(200, higher))))] == ["spike"]


def test_months_without_data_are_passed_over_at_once() -> None:
    hourly = replace(DAILY, step="1h")
    detector = Detector(hourly)
    run(detector, [ScoredBlock([row("m", day(0.5), "price")]), watermark(1), watermark(2000)])
    assert detector.absorb(ScoredBlock([row("n", day(2000.5), "price")])).signals == []
    counts = detector.close_all().step_counts
    assert {count.step_start for count in counts} == {day(2000.5)}


def test_a_quiet_period_is_not_told_and_neither_is_what_it_leaves_in_the_windows() -> None:
    parts = world(70, noisy)
    # The noise is from day 30 to day 50; from day 34 on it would be told.
    for products, opened_later in (((), False), (("P",), False), (("another",), True)):
        period = QuietPeriod(day(30), day(50), products, "everybody knows")
        signals = run(Detector(replace(DAILY, quiet_periods=(period,))), days(parts)).signals
        assert bool(signals) == opened_later
    harm = row("h", day(40.5), "product_quality", severity=4)
    parts[40].append(harm)
    period = QuietPeriod(day(30), day(50))
    signals = run(Detector(replace(DAILY, quiet_periods=(period,))), days(parts)).signals
    assert {signal.kind for signal in signals} == {"severe"}


def test_a_product_may_take_more_voices_or_a_longer_history() -> None:
    parts = world(60, noisy)
    usual = opened(run(Detector(DAILY), days(parts)))
    assert len(usual) == 1
    for own in (ProductPolicy("P", minimum_voices=10_000), ProductPolicy("P", minimum_history=100)):
        assert run(Detector(replace(DAILY, products=(own,))), days(parts)).signals == []
    other = replace(DAILY, products=(ProductPolicy("Q", minimum_voices=10_000),))
    assert opened(run(Detector(other), days(parts))) == usual
    fewer = replace(DAILY, minimum_voices=10_000, products=(ProductPolicy("P", minimum_voices=3),))
    assert [one.signal_id for one in opened(run(Detector(fewer), days(parts)))] == [usual[0].signal_id]


def test_a_policy_takes_effect_at_the_next_step() -> None:
    parts = world(40, noisy)
    strict = PolicyUpdate("p2", replace(DAILY, minimum_voices=10_000))
    outputs = run(Detector(DAILY), [*days(parts[:28]), strict, *days(parts[28:], 28)])
    assert outputs.signals == []
    assert outputs.step_counts[-1].versions == "v policy=p2"


def test_closing_a_history_closes_the_open_step_and_leaves_it_provisional() -> None:
    detector = Detector(DAILY)
    detector.absorb(ScoredBlock([row("m", day(3.2), "price")]))
    counts = detector.close_all().step_counts
    assert [(c.objection_type, c.count, c.status) for c in counts] == [
        ("price", 1, "provisional"),
        ("any", 1, "provisional"),
    ]
    assert detector.close_all().step_counts == []
    finals = detector.absorb(watermark(9)).step_counts
    assert [(c.objection_type, c.revision, c.status) for c in finals] == [("price", 1, "final"), ("any", 1, "final")]


def test_signals_are_the_same_hours_and_days_after_a_long_watermark_jump() -> None:
    parts = world(60, noisy)
    one_jump = [*(ScoredBlock(rows) for rows in parts), watermark(60)]
    assert compacted(run(Detector(DAILY), days(parts))) == compacted(run(Detector(DAILY), one_jump))
