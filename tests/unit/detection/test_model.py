"""The statistics: exposure, prior, predictive, what history absorbs, intervals, thresholds, shares."""

import numpy as np
import pytest
from msgspec.structs import replace
from scipy.special import ndtr
from simulated import DAILY, day, days, mentions, row, run

from pipeline.detection.baseline import (
    CUT_OPEN,
    DISPERSION,
    LONE_PRIOR_VOICES,
    MARK_DAYS,
    PRIOR_VOICES,
    WOBBLE,
    Absorber,
    Posterior,
    Prediction,
    StepSums,
    offset,
    posterior,
    predict,
)
from pipeline.detection.concentration import Member, by_value, driver
from pipeline.detection.detector import Detector
from pipeline.detection.entries import TYPES, entry_of
from pipeline.detection.exposure import Lot, activity, units_in_field
from pipeline.detection.scan import STANDS_OUT, USUAL_MENTIONS, corrected, supported, threshold, volume
from pipeline.detection.season import log_factor, season_of
from pipeline.detection.spikes import interval
from pipeline.detection.units import Units
from schemas.policy import DAY_MS, HOUR_MS


def test_units_come_into_the_field_evenly() -> None:
    inf = np.inf
    columns = (
        np.full(6, 100.0),
        np.array([0.0, 0.0, 0.0, -inf, 5.0, 0.0]),
        np.array([10.0, 10.0, 10.0, -inf, -inf, 0.0]),
    )
    at = [units_in_field(*columns, instant)[i] for i, instant in enumerate((-5.0, 5.0, 20.0, 3.0, 7.0, 1.0))]
    assert at == [1.0, 50.0, 100.0, 100.0, 100.0, 100.0]


def test_activity_is_shrunken_and_never_below_one() -> None:
    factor = activity(np.array([290.0, 5.0, 20.0, 100.0]), np.array([90.0, 100.0, 5.0, np.nan]))
    assert factor == pytest.approx([3.0, 1.0, 2.0, 1.0])


DRIFT = 0.002


def family(*history: tuple[float, float]) -> Units:
    """Lots of one product with these voices and exposures of every type, as of step 0."""
    units = Units()
    units.add_subject(("product", "P"), 0)
    for number, (events, exposure) in enumerate(history):
        slot = units.add(("product", "P", f"L{number}"), 0, None)
        units.events[slot], units.exposure[slot] = events, exposure
    return units


def test_a_young_lot_is_judged_by_its_siblings() -> None:
    rates = posterior(family((0.0, 0.0), (9.5, 100.0), (10.0, 100.0)), np.array([0, 1]), 0, DRIFT)
    prior_rate = (19.5 + LONE_PRIOR_VOICES) / 200
    assert rates.events[:, 0] == pytest.approx([PRIOR_VOICES, 9.5 + PRIOR_VOICES])
    assert rates.rate()[0, 0] == pytest.approx(prior_rate)
    assert rates.exposure[1, 0] == pytest.approx(100 + PRIOR_VOICES / ((10 + LONE_PRIOR_VOICES) / 100))


def test_a_lone_lot_has_a_vague_prior_and_old_history_weighs_less() -> None:
    """Ten events have a relative variance of 0.1; fifty steps of drift add as much again."""
    rates = posterior(family((10.0, 100.0)), np.array([0]), 50, DRIFT)
    assert rates.events[0, 0] == pytest.approx(5.0 + LONE_PRIOR_VOICES)
    assert rates.exposure[0, 0] == pytest.approx(50.0)
    assert np.isnan(posterior(family((0.0, 0.0)), np.array([0]), 0, DRIFT).rate()).all()


def test_the_tail_is_that_of_the_negative_binomial() -> None:
    size, mean = 2.5, 4.0
    share = size / (size + mean)
    probabilities = [share**size]
    for count in range(200):
        probabilities.append(probabilities[-1] * (count + size) / (count + 1) * (1 - share))
    for observed in (1, 3, 12, 40):
        tail = Prediction(np.array(mean), np.array(size)).tail(np.array(float(observed)))
        assert tail == pytest.approx(1 - sum(probabilities[:observed]), abs=1e-9)


def test_mid_p_values_are_below_a_level_as_often_as_it_says() -> None:
    """On average over means; those of the tail are so more seldom."""
    means = np.geomspace(0.05, 20.0, 400)
    counts = np.arange(0.0, 300.0)[None]
    expected = Prediction(means[:, None] + 0 * counts, means[:, None] / 0.75 + 0 * counts)
    at_least = expected.tail(counts)
    chance = at_least - expected.tail(counts + 1.0)
    for level in (1e-2, 1e-3, 1e-4):
        below = [
            ((tail < level) * chance).sum() / len(means) / level for tail in (at_least, expected.middle_tail(counts))
        ]
        assert below[0] < 0.75
        assert below[1] == pytest.approx(1.0, abs=0.25)


def test_few_mentions_are_drawn_up_to_the_usual_volume() -> None:
    length = np.array([1.0, 16.0])[:, None, None]
    mentions = np.array([[1.0, 10.0, 40.0, 1000.0], [160.0, 160.0, 160.0, 32000.0]])[:, :, None]
    drawn = volume(mentions, length)
    assert drawn[1] == pytest.approx(mentions[1])
    alone = (1.0 + USUAL_MENTIONS) / (1.0 + USUAL_MENTIONS / 10.0)
    assert drawn[0, :, 0] == pytest.approx([alone, 10.0, 40.0, 1010.0 / 1.005])
    assert volume(0 * mentions, length) == pytest.approx(0 * mentions, abs=1e-6)


def test_nothing_to_expect_by_is_no_surprise() -> None:
    prediction = Prediction(np.array([np.nan, 0.0, 2.0]), np.array([np.nan, 0.0, 5.0]))
    assert prediction.tail(np.array([9.0, 9.0, 0.0])).tolist() == [1.0, 1.0, 1.0]
    assert prediction.spread()[:2].tolist() == [0.0, 0.0]


def test_p_values_are_honest_where_the_mean_is_known() -> None:
    """Of counts drawn from the model, at most a share alpha (and, as counts are coarse, not far less) is below alpha."""
    rng = np.random.default_rng(1)
    for mean, size in ((0.5, 3.0), (4.0, 8.0), (60.0, 20.0)):
        counts = rng.poisson(mean * rng.gamma(size, 1 / size, 200_000)).astype(float)
        tails = Prediction(np.full(counts.shape, mean), np.full(counts.shape, size)).tail(counts)
        for alpha in (0.05, 0.01, 0.001):
            rate = float(np.mean(tails < alpha))
            assert rate < alpha * 1.15 + 3 * np.sqrt(alpha / counts.size)
            assert rate > alpha * 0.1


def test_the_promise_of_false_signals_holds_on_quiet_lots() -> None:
    """20 lots x 7 types, over-dispersed and with busy and slow days, 150 days: no more signals than promised."""
    rng = np.random.default_rng(2)
    policy = replace(DAILY, series=20 * TYPES, false_signals_per_week=1.0)
    parts = []
    kinds = (
        "product_quality",
        "service_attitude",
        "service_efficiency",
        "price",
        "delivery",
        "after_sales",
        "expectation_gap",
    )
    for number in range(150):
        busy = rng.gamma(10, 0.1)
        rows = []
        for lot in range(20):
            for at, kind in enumerate(kinds):
                wobble = rng.gamma(20, 0.05)
                found = mentions(rng, number, lot=f"L{lot}", talk=3 * busy, complaints=0.4 * busy * wobble, kind=kind)
                rows += [
                    replace(one, mention_id=f"{one.mention_id}-{at}", author=f"{one.author}-{at}") for one in found
                ]
        parts.append(rows)
    opened = [signal for signal in run(Detector(policy), days(parts)).signals if signal.event == "opened"]
    assert len(opened) <= 150 / 7


def test_a_share_near_one_does_not_saturate() -> None:
    """Ten of ten mentions complain where a fifth used to: rare, although ten cannot be many times the share."""
    rates = Posterior(np.array([[20.0]]), np.array([[80.0]]), np.array([[1.2 / DISPERSION]]))
    none = np.array([[0.0]])
    expected = predict(rates, offset(none, none, np.array([[False]]), none))
    assert float(expected.tail(np.array([[10.0]]))[0, 0]) < 1e-3


NO_SEASON = season_of(1000.0)
NO_SPIKES = np.zeros((0, 2), np.int64)


def absorb_days(voices: list[float], alarmed: bool = False, talk: float = 40.0) -> Units:
    units = family((0.0, 0.0))
    absorber = Absorber(units, DAY_MS, lambda _: False, NO_SEASON)
    open_spikes = np.array([[0, 0]] if alarmed else [], np.int64).reshape(-1, 2)
    for step, count in enumerate(voices):
        cell = np.zeros((1, TYPES))
        cell[0, 0] = count
        sums = StepSums(step, np.array([0]), np.array([talk]), np.array([talk - count]), cell)
        absorber.absorb(sums, float(step), open_spikes if step >= 30 else open_spikes[:0])
    return units


def test_a_spike_does_not_raise_its_own_baseline() -> None:
    before, after = absorb_days([2.0] * 30), absorb_days([2.0] * 30 + [20.0] * 5)
    rate_before = before.events[0, 0] / before.exposure[0, 0]
    assert after.events[0, 0] / after.exposure[0, 0] < 2.2 * rate_before  # uncut it were 3.6 times that
    while_open = absorb_days([2.0] * 30 + [20.0] * 5, alarmed=True)
    assert while_open.events[0, 0] / while_open.exposure[0, 0] < (1.6 + CUT_OPEN) * rate_before


def after_silence(step: int, gap: range = range(0)) -> tuple[float, float]:
    """A lot that is spoken of at step 0 and ``step``: steps that count for the usual activity, exposure of the lot."""
    units = Units()
    units.add_subject(("product", "P"), 0)
    units.add(("product", "P", "L"), 0, Lot(100.0, None, None))
    absorber = Absorber(units, DAY_MS, gap.__contains__, NO_SEASON)
    for at in (0, step):
        cell = np.zeros((1, TYPES))
        absorber.absorb(StepSums(at, np.array([0]), np.ones(1), np.zeros(1), cell), float(at), NO_SPIKES)
    return units.weight[0], units.exposure[0, 0] / units.events[0, 0]


@pytest.mark.parametrize("silent", [(), (27, 28, 29)])
def test_rates_are_marked_every_28_days_also_across_a_silence(silent: tuple[int, ...]) -> None:
    units = Units()
    units.add_subject(("product", "P"), 0)
    units.add(("product", "P", "L"), 0, Lot(100.0, None, None))
    absorber = Absorber(units, DAY_MS, lambda _: False, NO_SEASON)
    for step in range(2 * MARK_DAYS + 1):
        if step not in silent:
            cell = np.ones((1, TYPES))
            absorber.absorb(StepSums(step, np.array([0]), np.ones(1), np.zeros(1), cell), float(step), NO_SPIKES)
    assert units.marked[0].tolist() == [26 if silent else 27, 55]
    assert (units.marks[0] > 0).all()


def test_silence_is_zeros_unless_it_was_a_gap_or_too_long() -> None:
    fading = 0.5 ** (np.arange(11) / 60)
    weight, all_heard = after_silence(10)
    assert weight == pytest.approx(fading.sum())
    weight, six_silent = after_silence(10, range(3, 9))
    assert weight == pytest.approx(fading[[0, 1, 8, 9, 10]].sum())
    weight, too_long = after_silence(16)
    assert weight == pytest.approx(1 + 0.5 ** (16 / 60))
    # Half a voice in 11, 5 or 2 days over 100 units each (recent ones weigh more).
    assert [all_heard, six_silent, too_long] == pytest.approx([2200, 1000, 400], rel=0.1)


def test_a_season_is_learnt_and_a_year_only_after_one() -> None:
    """Counts of 40 that double on two weekdays: after some weeks each weekday is expected as it is."""
    season, units = season_of(1.0), Units(len(season_of(1.0).prior))
    units.add_subject(("product", "P"), 0)
    slot = units.add(("product", "P", "L"), 0, None)
    absorber, rng = Absorber(units, DAY_MS, lambda _: False, season), np.random.default_rng(3)
    for step in range(200):
        cell = np.zeros((1, TYPES))
        cell[0, 0] = rng.poisson(80 if step % 7 in (2, 3) else 40)
        sums = StepSums(step, np.array([0]), np.array([1000.0]), np.zeros(1), cell)
        absorber.absorb(sums, float(step), NO_SPIKES)
    factor = [np.exp(log_factor(units.season[slot], season.terms(step))[0]) for step in range(7)]
    assert np.array(factor) / factor[0] == pytest.approx([1, 1, 2, 2, 1, 1, 1], rel=0.15)
    assert not units.season_variance[slot, :, season.waits > 200].any()
    assert units.season_variance[slot, :, season.waits == 0].all()


def test_seasons_have_the_terms_that_steps_can_show() -> None:
    cycles = {
        days: sorted({round(1 / frequency, 2) for frequency in season_of(days).frequency})
        for days in (1 / 24, 1.0, 7.0)
    }
    assert cycles[1 / 24] == [6.0, 8.0, 12.0, 24.0, 56.0, 84.0, 168.0, 4383.0, 8766.0]
    assert cycles[1.0] == [2.33, 3.5, 7.0, 182.62, 365.25]
    assert cycles[7.0] == [26.0, 52.0]
    assert season_of(1.0).terms(10) == pytest.approx(season_of(1.0).terms(10 + 1461 * 7))


def test_the_dispersion_of_a_series_is_learnt_from_its_own_counts() -> None:
    def learnt(counts: list[float]) -> float:
        return float(posterior(absorb_days(counts, talk=1e6), np.array([0]), len(counts), DRIFT).dispersion[0, 0])

    rng = np.random.default_rng(4)
    even, wild = rng.poisson(10, 300), rng.poisson(rng.gamma(10 / 4, 4, 300))  # variance over mean: 1 and 5
    usual = DISPERSION + WOBBLE * 10
    assert learnt(even.tolist()) * usual == pytest.approx(1.0, rel=0.3)
    assert learnt(wild.tolist()) * usual == pytest.approx(5.0, rel=0.3)


def test_a_longer_window_counts_while_all_shorter_ones_stand_out() -> None:
    expected = Prediction(np.array([4.0, 8.0, 16.0])[:, None], np.full((3, 1), 1e9))
    enough = [mean + STANDS_OUT * np.sqrt(mean) + 0.1 for mean in (4.0, 8.0, 16.0)]
    assert supported(np.array(enough)[:, None], expected)[:, 0].tolist() == [True, True, True]
    assert supported(np.array([4.0, 40.0, 50.0])[:, None], expected)[:, 0].tolist() == [True, False, False]
    assert supported(np.array([40.0, 8.0, 50.0])[:, None], expected)[:, 0].tolist() == [True, True, False]


def test_p_values_are_corrected_for_the_chances_a_scan_takes() -> None:
    """Of independent normal counts: the share of steps below a corrected p-value is that p-value."""
    rng, windows = np.random.default_rng(6), (1, 2, 4, 8, 16)
    total = np.cumsum(rng.standard_normal((400, 2000)), axis=1)
    z = np.stack([(total[:, 16:] - total[:, 16 - w : -w]) / np.sqrt(w) for w in windows])
    counts = np.logical_and.accumulate(np.concatenate((np.ones((1, *z.shape[1:]), bool), z[:-1] > STANDS_OUT)), axis=0)
    tail = np.where(counts, ndtr(-z), 1.0).min(axis=0)
    for level in (0.01, 0.001):
        assert (corrected(tail, 5) <= level).mean() == pytest.approx(level, rel=0.12)
    assert (np.diff(corrected(10.0 ** np.arange(-9, 0.1, 0.1), 5)) >= 0).all()
    assert corrected(np.array([1e-12, 0.9]), 2) == pytest.approx([2e-12, 0.9])


def test_interval_by_hand() -> None:
    assert interval(3.0, 1e9) == (0.0, 7.0)  # Poisson with mean 3
    assert interval(0.0, 1.0) == (0.0, 0.0)
    low, high = interval(1000.0, 50.0)
    assert 700 < low < 760 < 1250 < high < 1320


def test_threshold_shares_the_promise_by_number() -> None:
    assert threshold(replace(DAILY, series=70), DAY_MS, 0) == pytest.approx(1 / 7 / 70)
    assert threshold(replace(DAILY, series=None), HOUR_MS, 100) == pytest.approx(1 / 168 / 700)
    assert threshold(replace(DAILY, series=None), DAY_MS, 0) == pytest.approx(1 / 7 / 700)


def test_driver_by_hand() -> None:
    members = [Member("slow", 18.0, 1.0, 50.0), Member("fast", 2.0, 1.0, 50.0)]
    share, clear = driver("carrier", members) or pytest.fail("no driver")
    assert (share.value, share.share_of_exposure) == ("slow", 0.5)
    assert share.share_of_excess == pytest.approx(17 / 18)
    assert clear
    even = [Member("slow", 11.0, 1.0, 50.0), Member("fast", 9.0, 1.0, 50.0)]
    assert (driver("carrier", even) or pytest.fail("no driver"))[1] is False
    most = [Member("new", 40.0, 10.0, 75.0), Member("old", 5.0, 4.0, 25.0)]
    assert (driver("batch", most) or pytest.fail("no driver"))[1]
    assert driver("carrier", members[:1]) is None
    assert driver("carrier", [Member("a", 1.0, 2.0, 1.0), Member("b", 0.0, 2.0, 1.0)]) is None


def test_by_value_leaves_unknown_values_out() -> None:
    rows = [row("1", day(0), "price", carrier="x"), row("2", day(0), carrier="x"), row("3", day(0), "price")]
    assert by_value(map(entry_of, rows), 3, lambda entry: entry.carrier, 2.0) == [Member("x", 1.0, 2.0, 1.5)]


def test_slots_are_reused_lowest_first_and_the_longest_silent_go() -> None:
    units = Units()
    units.maximum = 2
    lots = {"P": {"A": Lot(10.0, None, None), "B": Lot(None, None, None)}}
    units.register([("product", "P", "A"), ("carrier", "C", "")], 5, 0, lots)
    assert units.index == {("carrier", "C", ""): 0, ("product", "P", "A"): 1, ("product", "P", "B"): 2}
    assert units.by_units[:3].tolist() == [False, True, False]
    units.last_seen[:3] = [7, 6, 8]
    units.evict(set())
    assert units.index == {("carrier", "C", ""): 0, ("product", "P", "B"): 2}
    units.register([("product", "Q", "")], 9, 4, {})
    assert units.index["product", "Q", ""] == 1
    units.evict({0, 1, 2})
    assert len(units.index) == 3
