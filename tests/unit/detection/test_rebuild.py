"""A detector made again of what was published: it expects, raises and keeps quiet as the one that was lost."""

from collections.abc import Iterable

import numpy as np
import pytest
from msgspec.structs import replace
from simulated import DAILY, DAY_0, day, days, mentions, row, run, watermark

from pipeline.detection.baseline import DRIFT, posterior
from pipeline.detection.detector import Detector, Outputs
from pipeline.detection.entries import TYPES, UnitKey
from pipeline.detection.rebuild import rebuild
from pipeline.errors import TerminalError
from schemas.catalogue import CatalogueEntry
from schemas.control import CatalogueUpdate, Gap, PolicyUpdate
from schemas.policy import DetectionPolicy
from schemas.scored import Retraction, ScoredBlock, ScoredRow
from schemas.signal import Signal
from schemas.step_count import StepCount

LOTS = ("L1", "L2", "L3", "L4")
SOLD = CatalogueUpdate("c", [CatalogueEntry("P", "p", [], lot, 5000.0, day(-100), day(-50)) for lot in LOTS])
KINDS = pytest.mark.parametrize("kind", ["mentions", "units"])


def lively(rng: np.random.Generator, number: int, lot: str, factor: float = 1.0) -> list[ScoredRow]:
    """A day of a lot with all that step counts do not tell: reposts, rewards, suggestions, repeated words, late rows."""
    rows = mentions(rng, number, lot=lot, talk=40, complaints=8 * factor, carrier="fast" if number % 2 else "slow")
    for what, share, changes in (
        ("price", 3, {}),
        ("price", 1, {"speech_act": "suggestion"}),
        ("product_quality", 1, {"flags": ["repost"]}),
        ("product_quality", 1, {"flags": ["incentivised"]}),
        ("product_quality", 1, {"near_duplicate_signature": 77}),
        ("product_quality", 0.3, {"flags": ["backfill"]}),
        ("delivery", 2, {}),
    ):
        at = str(len(rows))
        found = mentions(rng, number, lot=lot, talk=0, complaints=share, kind=what, **changes)
        rows += [replace(one, mention_id=f"{one.mention_id}-{at}", author=f"{one.author}-{at}") for one in found]
    return rows + [replace(one, subject_kind="carrier", subject_id=one.carrier, primary=False) for one in rows[:20]]


def world(length: int, *, noisy: range = range(0), seed: int = 3) -> list[list[ScoredRow]]:
    """Four lots; on the noisy days L1 is complained of four times as often."""
    rng = np.random.default_rng(seed)
    return [
        [one for lot in LOTS for one in lively(rng, number, lot, 4 if lot == "L1" and number in noisy else 1)]
        for number in range(length)
    ]


def published(outputs: Outputs) -> list[StepCount]:
    """The latest revision of each cell, as a reader of the table gets them."""
    cells = {
        (one.subject_kind, one.subject_id, one.product_batch_id, one.objection_type, one.step_start): one
        for one in sorted(outputs.step_counts, key=lambda one: one.revision)
    }
    return sorted(cells.values(), key=lambda one: one.step_start)


def last_of(outputs: Outputs) -> tuple[list[Signal], list[Signal]]:
    """The latest revision of the signals that are open, and of those that are closed."""
    last = {signal.signal_id: signal for signal in outputs.signals}
    return (
        [signal for signal in last.values() if signal.event != "closed"],
        [signal for signal in last.values() if signal.event == "closed"],
    )


def lost_and_made_again(
    kind: str, parts: list[list[ScoredRow]], at: int
) -> tuple[Detector, Detector, Outputs, list[ScoredBlock]]:
    """A detector stopped at a day, the one made of what it had published, what it had said, and what is yet to come."""
    first = [SOLD] if kind == "units" else []
    original = Detector(DAILY)
    outputs = run(original, [*first, *days(parts[:at])])
    opened, closed = last_of(outputs)
    entries = SOLD.entries or [] if kind == "units" else []
    again = rebuild(DAILY, "c", entries, published(outputs), opened, day(at), closed_signals=closed)
    return original, again, outputs, days(parts[at:], at)


def rates(detector: Detector, number: int) -> dict[tuple[UnitKey, int], float]:
    """Voices expected per exposure, by series."""
    units = detector._known.units
    slots = np.array(sorted(units.index.values()))
    found = posterior(units, slots, DAY_0 + number, DRIFT).rate()
    keys = {slot: key for key, slot in units.index.items()}
    return {(keys[slot], t): float(found[i, t]) for i, slot in enumerate(slots.tolist()) for t in range(TYPES)}


def opened(signals: Iterable[Signal]) -> list[Signal]:
    return [signal for signal in signals if signal.event == "opened"]


@KINDS
@pytest.mark.parametrize("noisy", [range(0), range(20, 30)])
def test_it_expects_what_the_lost_one_expected(kind: str, noisy: range) -> None:
    original, again, _, _ = lost_and_made_again(kind, world(60, noisy=noisy), 60)
    was, now = rates(original, 60), rates(again, 60)
    assert now.keys() == was.keys()
    spoken_of = [series for series in was if series[1] in (0, 3, 4)]
    assert len(spoken_of) == 3 * (len(LOTS) + 2)
    for series in spoken_of:
        assert now[series] == pytest.approx(was[series], rel=0.1), series


@KINDS
def test_without_what_step_counts_leave_out_it_is_the_same(kind: str) -> None:
    rng = np.random.default_rng(5)
    parts = [[one for lot in LOTS for one in mentions(rng, n, lot=lot, talk=20, complaints=3)] for n in range(40)]
    original, again, _, to_come = lost_and_made_again(kind, [*parts, *world(20, noisy=range(20))], 40)
    was, now = rates(original, 40), rates(again, 40)
    assert [now[series] for series in was] == pytest.approx(list(was.values()), rel=0.01, nan_ok=True)
    both = run(original, to_come).signals, run(again, to_come).signals
    assert [one.signal_id for one in both[0]] == [one.signal_id for one in both[1]]


@KINDS
@pytest.mark.parametrize("seed", [3, 4])
def test_it_raises_the_same_spike(kind: str, seed: int) -> None:
    original, again, _, to_come = lost_and_made_again(kind, world(45, noisy=range(30, 50), seed=seed), 29)
    (was,), (now,) = opened(run(original, to_come).signals), opened(run(again, to_come).signals)
    assert (now.signal_id, now.opened_step, now.observed) == (was.signal_id, was.opened_step, was.observed)
    assert now.expected == pytest.approx(was.expected, rel=0.1)
    assert now.evidence == was.evidence


@KINDS
def test_a_quiet_stream_stays_quiet(kind: str) -> None:
    for at in (1, 3, 8, 30):
        _, again, _, to_come = lost_and_made_again(kind, world(50), at)
        assert run(again, to_come).signals == []


@KINDS
@pytest.mark.parametrize("at", [31, 33, 40, 49])
def test_an_open_spike_goes_on_under_its_own_id(kind: str, at: int) -> None:
    original, again, before, to_come = lost_and_made_again(kind, world(65, noisy=range(30, 50)), at)
    (spike,) = opened(before.signals)
    was, now = run(original, to_come).signals, run(again, to_come).signals
    assert {one.signal_id for one in now} == {spike.signal_id}
    assert opened(now) == []
    assert [one.revision for one in now] == list(range(before.signals[-1].revision + 1, now[-1].revision + 1))
    assert now[-1].event == was[-1].event == "closed"
    assert now[-1].step_start == pytest.approx(was[-1].step_start, abs=2 * (day(1) - day(0)))
    assert now[-1].voices == pytest.approx(was[-1].voices, rel=0.1)


@KINDS
def test_a_spike_that_closed_is_not_opened_again(kind: str) -> None:
    parts = world(70, noisy=range(30, 50))
    (end,) = [one.step_start for one in run(Detector(DAILY), days(parts)).signals if one.event == "closed"]
    after = (end - day(0)) // (day(1) - day(0)) + 1
    for at in range(after, after + 4):
        _, again, before, to_come = lost_and_made_again(kind, parts, at)
        assert before.signals[-1].event == "closed"
        assert run(again, to_come).signals == []


def test_a_severe_signal_is_neither_taken_back_nor_said_again() -> None:
    harm = [row(f"h{i}", day(10.2 + i / 10), "price", severity=4, author=f"a{i % 2}") for i in range(3)]
    quiet = [[row(f"q{n}", day(n + 0.5))] for n in range(30)]
    original = Detector(DAILY)
    before = run(original, [*days(quiet[:10]), ScoredBlock(harm), *days(quiet[10:13], 10)])
    open_signals, _ = last_of(before)
    again = rebuild(DAILY, "", [], published(before), iter(open_signals), day(13))
    to_come = days(quiet[13:], 13)
    was, now = run(original, to_come).signals, run(again, to_come).signals
    assert [(one.event, one.revision, one.voices, one.step_start) for one in now] == [
        (one.event, one.revision, one.voices, one.step_start) for one in was
    ]
    assert now[0].voices == 2
    third = row("h9", day(13.5), "price", severity=3)
    told = run(rebuild(DAILY, "", [], published(before), open_signals, day(13)), [ScoredBlock([third]), watermark(14)])
    assert [(one.event, one.voices, len(one.evidence)) for one in told.signals] == [("updated", 3, 4)]


def test_harm_of_the_open_step_is_read_again_and_said_once() -> None:
    harm = ScoredBlock([row("h", day(5.5), "price", severity=4)])
    before = run(Detector(DAILY), [ScoredBlock([row("m", day(4.5))]), watermark(5), harm])
    again = rebuild(DAILY, "", [], published(before), before.signals, day(5))
    assert run(again, [harm, watermark(6)]).signals == []
    (closed,) = run(again, [watermark(20)]).signals
    assert (closed.event, closed.voices, closed.signal_id) == ("closed", 1, before.signals[0].signal_id)


def test_harm_ahead_of_the_watermark_waits_for_its_step() -> None:
    harm = ScoredBlock([row("h", day(6.5), "price", severity=4)])
    before = run(Detector(DAILY), [ScoredBlock([row("m", day(4.5))]), watermark(5), harm])
    again = rebuild(DAILY, "", [], published(before), before.signals, day(5))
    assert run(again, [harm, watermark(6), watermark(7), watermark(8)]).signals == []


def test_a_pair_that_had_opened_is_not_taken_back() -> None:
    first = [row("d1", day(4.5), "price", severity=3), row("d2", day(5.5), "price", severity=3)]
    original = Detector(DAILY)
    before = run(original, [ScoredBlock(first[:1]), watermark(5), ScoredBlock(first[1:]), watermark(6)])
    assert [one.event for one in before.signals] == ["opened"]
    again = rebuild(DAILY, "", [], published(before), before.signals, day(6))
    was, now = run(original, [watermark(30)]).signals, run(again, [watermark(30)]).signals
    assert [replace(one, opening_state="") for one in now] == [replace(one, opening_state="") for one in was]
    assert (now[0].event, now[0].voices) == ("closed", 2)


def test_closed_steps_take_nothing_more_and_are_not_published_again() -> None:
    parts = world(10)
    original = Detector(DAILY)
    again = rebuild(DAILY, "", [], published(run(original, days(parts))), [], day(10))
    late = run(again, [ScoredBlock(parts[9], [Retraction("L1-8-c0", 1)]), watermark(11)])
    assert (late.step_counts, late.signals) == ([], [])
    assert again.too_late == len(parts[9])


def test_gaps_that_are_given_are_no_silence() -> None:
    sold = [*days(world(20)), Gap("s", day(20), day(30), "down"), watermark(30)]
    original = Detector(DAILY)
    outputs = run(original, [SOLD, *sold, *days(world(33)[30:], 30)])
    gap = Gap("s", day(20), day(30), "down")
    entries = SOLD.entries or []
    again = rebuild(DAILY, "c", entries, published(outputs), [], day(33), gaps=[gap])
    deaf = rebuild(DAILY, "c", entries, published(outputs), [], day(33))
    # Steps that windows still reach are no history yet: let them pass.
    for one in (original, again, deaf):
        one.absorb(watermark(42))
    series = ("product", "P", "L2"), 0
    was = rates(original, 42)[series]
    assert rates(again, 42)[series] == pytest.approx(was, rel=0.03)
    assert rates(deaf, 42)[series] < 0.9 * was


def test_its_state_can_be_saved() -> None:
    _, again, _, to_come = lost_and_made_again("units", world(45, noisy=range(30, 50)), 33)
    records = [(key, value) for key, value in again.changes() if value is not None]
    restored = Detector.restore(DAILY, records)
    assert restored.changes()[:-1] == []
    assert run(restored, to_come) == run(again, to_come)


def test_with_the_version_of_its_policy_it_is_restored_by_whoever_does_not_know_the_policy() -> None:
    again = rebuild(DAILY, "c", SOLD.entries or [], [], [], day(10), policy_version="p1")
    header = again.changes()[-1]
    run(again, [PolicyUpdate("p1", DAILY), SOLD])
    assert again.changes() == [header], "both are in force"
    records = [(key, value) for key, value in rebuild_with("p1").changes() if value is not None]
    counts = run(Detector.restore(DetectionPolicy(), records), [ScoredBlock([row("m", day(10.5))]), watermark(11)])
    assert {(one.step, one.versions) for one in counts.step_counts} == {("1d", "v policy=p1 catalogue=c")}
    records = [(key, value) for key, value in rebuild_with("").changes() if value is not None]
    with pytest.raises(TerminalError, match="1d in UTC"):
        Detector.restore(DetectionPolicy(), records)


def rebuild_with(policy_version: str) -> Detector:
    return rebuild(DAILY, "c", SOLD.entries or [], [], [], day(10), policy_version=policy_version)


def test_nothing_published_makes_a_new_detector_at_the_watermark() -> None:
    again = rebuild(DAILY, "", [], [], [], day(10))
    counts = run(again, [ScoredBlock([row("old", day(9.5)), row("new", day(10.5))]), watermark(11)]).step_counts
    assert ({one.step_start for one in counts}, again.too_late) == ({day(10)}, 1)
    parts = world(3)
    assert run(rebuild(DAILY, "", [], [], [], None), days(parts)) == run(Detector(DAILY), days(parts))


def test_spikes_older_than_the_counts_that_are_left() -> None:
    parts = world(45, noisy=range(30, 50))
    outputs = run(Detector(DAILY), days(parts[:40]))
    (spike,) = last_of(outputs)[0]
    for kept, heard in ((36, 4), (40, 1)):
        counts = [one for one in published(outputs) if one.step_start >= day(kept)]
        again = rebuild(DAILY, "", [], counts, [spike], day(40))
        assert again._known.heard == heard, "history begins with the counts"
        assert opened(run(again, days(parts[40:], 40)).signals) == []


def test_a_stale_cell_does_not_tell_the_mentions() -> None:
    early = [row("m1", day(1.2), "price"), row("m2", day(1.3))]
    late = [row("m3", day(1.4), flags=["backfill"]), row("n", day(2.5))]
    outputs = run(Detector(DAILY), [ScoredBlock(early), watermark(2), ScoredBlock(late), watermark(3)])
    table = rebuild(DAILY, "", [], published(outputs), [], None)._known.tables[DAY_0 + 1]
    assert (table.mentions.tolist(), table.count[0].tolist()) == ([3], [0, 0, 0, 1, 0, 0, 0, 1])
    back = ScoredBlock([row("n", day(2.5))], [Retraction("m2", 1)])
    outputs = run(Detector(DAILY), [ScoredBlock(early), watermark(2), back, watermark(3)])
    assert rebuild(DAILY, "", [], published(outputs), [], None)._known.tables[DAY_0 + 1].mentions.tolist() == [1]


def test_counts_that_do_not_fit_are_refused() -> None:
    counts = published(run(Detector(DAILY), days(world(3))))
    with pytest.raises(TerminalError, match="1d from"):
        rebuild(replace(DAILY, step="1h"), "", [], counts, [], None)
    with pytest.raises(TerminalError, match="Asia/Shanghai"):
        rebuild(replace(DAILY, time_zone="Asia/Shanghai"), "", [], counts, [], None)
    with pytest.raises(TerminalError, match="in the order"):
        rebuild(DAILY, "", [], counts[::-1], [], None)
