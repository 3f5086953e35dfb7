"""Counts replayed: what live detection said of the mentions they were made of, step by step, and nothing of the future."""

from typing import NamedTuple

import numpy as np
import pytest
from msgspec.structs import replace
from simulated import DAILY, DAY_0, day, days, latest, mentions, run, watermark

from pipeline.detection.backtest import Backtest, Judged, Series
from pipeline.detection.detector import Detector, Outputs
from pipeline.errors import TerminalError
from schemas.catalogue import CatalogueEntry
from schemas.control import CatalogueUpdate
from schemas.scored import ScoredRow
from schemas.signal import Signal
from schemas.vocabulary import OBJECTION_TYPES

PROMISED = replace(DAILY, false_signals_per_week=20.0)
LOTS = ("L1", "L2", "L3")
KINDS = ("product_quality", "delivery", "price")


class World(NamedTuple):
    """Counts by step, type and lot; mentions by step and lot."""

    counts: dict[int, dict[Series, int]]
    totals: dict[int, dict[tuple[str, str], int]]


def said(number: int, rng: np.random.Generator, *, talk: float) -> list[ScoredRow]:
    """A day: delivery of L2 goes wrong twice, quality of L1 once; nobody speaks from day 60 to 79."""
    if 60 <= number < 80:
        return []
    rows = []
    for product in ("P", "Q"):
        for lot in LOTS:
            for kind in KINDS:
                wrong = (lot, kind, product) == ("L2", "delivery", "P") and (30 <= number < 38 or 56 <= number < 60)
                wrong |= (lot, kind, product) == ("L1", "product_quality", "Q") and 85 <= number < 95
                found = mentions(rng, number, lot=lot, talk=talk, complaints=12 if wrong else 3, kind=kind)
                rows += [
                    replace(one, mention_id=f"{product}{kind}{one.mention_id}", author=f"{product}{kind}{one.author}")
                    for one in found
                ]
                rows[-len(found) :] = [
                    replace(one, subject_id=product, product_id=product) for one in rows[-len(found) :]
                ]
    return rows


def live(parts: list[list[ScoredRow]], catalogue: list[CatalogueEntry]) -> Outputs:
    first = [CatalogueUpdate("c", catalogue)] if catalogue else []
    return run(Detector(PROMISED), [*first, *days(parts), watermark(len(parts) + 12)])


def counted(outputs: Outputs) -> World:
    """What the published counts say, types without a voice included."""
    world = World({}, {})
    for (product, lot, kind, number), count in latest(outputs).items():
        at = DAY_0 + number
        world.totals.setdefault(at, {})[product, lot] = count.mentions
        cells = world.counts.setdefault(at, {})
        for name in KINDS:
            cells.setdefault(Series(product, lot, name), 0)
        if kind != "any":
            cells[Series(product, lot, kind)] = count.count
    return world


def replayed(
    world: World, *, totals: bool = True, names: dict[str, str] | None = None, until: int = 1 << 40
) -> dict[int, tuple[list[Series], Judged]]:
    """Every step judged, under other names of the types if they are given."""
    series = sorted({one for step, cells in world.counts.items() if step < until for one in cells})
    place = {one: index for index, one in enumerate(series)}
    renamed = [one._replace(objection_type=(names or {}).get(one.objection_type, one.objection_type)) for one in series]
    backtest = Backtest(PROMISED, renamed, totals=totals)
    found = {}
    for step in sorted(step for step in world.counts if step < until):
        cells = world.counts[step]
        mentioned = np.array([world.totals[step][one[:2]] for one in cells]) if totals else None
        numbers = np.array([place[one] for one in cells])
        found[step] = list(cells), backtest.close(step, numbers, np.array(list(cells.values())), mentioned)
    return found


def told(signals: list[Signal]) -> list[tuple[object, ...]]:
    return [
        (one.signal_id, one.event, one.step_start, one.observed, one.expected, one.interval, one.p_value, one.voices)
        for one in signals
    ]


def everything(world: dict[int, tuple[list[Series], Judged]]) -> list[Signal]:
    return [signal for _, judged in world.values() for signal in judged.signals]


@pytest.mark.parametrize("exposure", ["mentions", "one unit"])
def test_it_says_what_live_detection_said(exposure: str) -> None:
    rng, totals = np.random.default_rng(11), exposure == "mentions"
    sold = [CatalogueEntry(product, "p", [], lot, 1.0) for product in ("P", "Q") for lot in LOTS]
    # With one unit always in the field and no other talk, live detection has the same constant exposure.
    parts = [said(number, rng, talk=6 if totals else 0) for number in range(110)]
    outputs = live(parts, [] if totals else sold)
    again = replayed(counted(outputs), totals=totals)
    spikes = [signal for signal in outputs.signals if signal.kind == "spike"]
    events = [signal.event for signal in spikes]
    assert events.count("opened") >= 3
    assert events.count("closed") >= 2
    before_the_end = [one for one in spikes if one.step_start <= day(109)]
    assert told(everything(again)) == told(before_the_end)


def test_the_alarm_is_on_while_the_spike_is_open() -> None:
    rng = np.random.default_rng(11)
    world = counted(live([said(number, rng, talk=6) for number in range(110)], []))
    again = replayed(world)
    wrong = Series("P", "L2", "delivery")
    alarms = [step - DAY_0 for step, (cells, judged) in again.items() if judged.open_spike[cells.index(wrong)]]
    first = [number for number in alarms if number < 50]
    assert 30 <= first[0] <= 32
    assert first == list(range(first[0], first[-1] + 1))
    assert 38 <= first[-1] < 50
    for step, (cells, judged) in again.items():
        for signal in judged.signals:
            if signal.event == "opened":
                series = Series(signal.subject_id, signal.product_batch_id, signal.objection_type)
                assert judged.p_values[cells.index(series)] == signal.p_value
                assert step * 86_400_000 == signal.step_start


def test_no_score_before_there_is_a_history_and_none_stands_out_without_a_voice() -> None:
    series = [Series("P", "L", "price")]
    backtest = Backtest(DAILY, series, totals=True)
    one = np.array([0])
    p_values = [
        backtest.close(100 + number, one, np.array([count]), np.array([50])).p_values[0]
        for number, count in enumerate([2] * 10 + [0, 20, 0])
    ]
    assert np.isnan(p_values[: DAILY.minimum_history]).all()
    assert p_values[10] == 1.0
    assert p_values[11] < 1e-4
    assert p_values[12] == 1.0


@pytest.mark.parametrize("totals", [True, False])
def test_what_types_are_called_does_not_matter(totals: bool) -> None:
    rng = np.random.default_rng(7)
    world = counted(live([said(number, rng, talk=6) for number in range(50)], []))
    same = replayed(world, totals=totals)
    other = replayed(world, totals=totals, names={"product_quality": "噪音", "delivery": "O2", "price": "price"})
    for step, (_, judged) in same.items():
        np.testing.assert_array_equal(other[step][1].p_values, judged.p_values)
        np.testing.assert_array_equal(other[step][1].open_spike, judged.open_spike)


def test_more_than_seven_types_of_a_product_do_not_meet() -> None:
    """Ten types of three lots: each is judged as if it were alone."""
    rng = np.random.default_rng(3)
    names = [*OBJECTION_TYPES, "O1", "O2", "O3"]
    series = [Series("P", lot, name) for lot in LOTS for name in names]
    counts = rng.poisson(4, (60, len(series)))
    counts[40:44, 8] += 15
    together, every = Backtest(DAILY, series, totals=True), np.arange(len(series))
    alone = {
        name: Backtest(DAILY, [one for one in series if one.objection_type == name], totals=True) for name in names
    }
    for number, row in enumerate(counts):
        judged = together.close(number, every, row, np.full(len(series), 200))
        for place, name in enumerate(names):
            own = alone[name].close(number, np.arange(3), row[place :: len(names)], np.full(3, 200))
            np.testing.assert_array_equal(judged.p_values[place :: len(names)], own.p_values)
        opened = [together.series_of(signal) for signal in judged.signals if signal.event == "opened"]
        assert (series[8] in opened) == (number == 40)


@pytest.mark.parametrize("totals", [True, False])
@pytest.mark.parametrize("until", [35, 58, 88])
def test_nothing_after_a_step_changes_what_is_said_of_it(totals: bool, until: int) -> None:
    rng = np.random.default_rng(5)
    parts = [
        [one for one in said(number, rng, talk=6) if number >= 40 or one.product_batch_id != "L3"]
        for number in range(100)
    ]
    world = counted(live(parts, []))
    whole, part = replayed(world, totals=totals), replayed(world, totals=totals, until=DAY_0 + until)
    assert len(part) < len(whole)
    for step, (cells, judged) in part.items():
        assert whole[step][0] == cells
        np.testing.assert_array_equal(whole[step][1].p_values, judged.p_values)
        np.testing.assert_array_equal(whole[step][1].open_spike, judged.open_spike)


def test_a_run_is_the_same_each_time() -> None:
    rng = np.random.default_rng(9)
    world = counted(live([said(number, rng, talk=6) for number in range(50)], []))
    assert told(everything(replayed(world))) == told(everything(replayed(world)))


def test_a_step_is_closed_once() -> None:
    backtest = Backtest(DAILY, [Series("P", "L", "price")], totals=False)
    backtest.close(5, np.array([0]), np.array([1]))
    with pytest.raises(TerminalError, match="in the order of their steps"):
        backtest.close(5, np.array([0]), np.array([1]))
