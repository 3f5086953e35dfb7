"""A signal made again of what was stored comes out equal; whatever was changed since is told, or that it cannot be."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pytest
from msgspec.structs import astuple, replace
from simulated import DAILY, day, days, mentions, row, run, watermark

from pipeline.detection.detector import Detector, Outputs
from pipeline.detection.entries import entry_of
from pipeline.detection.rebuild import Spoken
from pipeline.detection.replay import replay as replay_stored
from pipeline.detection.replay import span
from pipeline.detection.replay_state import check_state
from pipeline.detection.replayed import Replayed, Rules, Stored
from pipeline.detection.steps import Steps
from pipeline.detection.voices import tabulate
from schemas.catalogue import CatalogueEntry
from schemas.control import CatalogueUpdate, Gap, PolicyUpdate
from schemas.policy import DetectionPolicy, ProductPolicy
from schemas.scored import Retraction, ScoredBlock, ScoredRow
from schemas.signal import Concentration, Signal
from schemas.step_count import StepCount

LOTS = ("L1", "L2", "L3", "L4")
SOLD = [CatalogueEntry("P", "p", [], lot, 5000.0, day(-100), day(-50)) for lot in LOTS]
RULES = {"units": Rules(DAILY, "p", SOLD, "c"), "mentions": Rules(DAILY, "p", [], "")}
KINDS = pytest.mark.parametrize("kind", ["units", "mentions"])


def lively(rng: np.random.Generator, number: int, lot: str) -> list[ScoredRow]:
    """A day of a lot with reposts, rewards, suggestions, repeated words, undated rows; L1 is noisy from day 30 to 38."""
    factor = 4 if lot == "L1" and 30 <= number < 38 else 1
    rows = mentions(rng, number, lot=lot, talk=40, complaints=5 * factor, carrier="fast" if number % 2 else "slow")
    for what, share, changes in (
        ("price", 1, {"speech_act": "suggestion"}),
        ("product_quality", 1, {"flags": ["repost"]}),
        ("product_quality", 1, {"flags": ["incentivised"]}),
        ("product_quality", 1, {"near_duplicate_signature": 77}),
        ("product_quality", 0.5, {"flags": ["observed"]}),
        ("delivery", 2, {}),
    ):
        at = str(len(rows))
        found = mentions(rng, number, lot=lot, talk=0, complaints=share, kind=what, **changes)
        rows += [replace(one, mention_id=f"{one.mention_id}-{at}", author=f"{one.author}-{at}") for one in found]
    return rows


def world(length: int = 50) -> list[list[ScoredRow]]:
    rng = np.random.default_rng(3)
    return [[one for lot in LOTS for one in lively(rng, number, lot)] for number in range(length)]


WORLD = world()
ROWS = [one for rows in WORLD for one in rows]


def detected(rules: Rules, records: Iterable[Any]) -> Outputs:
    first = [PolicyUpdate(rules.policy_version, rules.policy)]
    return run(
        Detector(rules.policy),
        [*first, CatalogueUpdate(rules.catalogue_version, list(rules.catalogue or [])), *records],
    )


def stored_of(
    revisions: list[Signal],
    counts: Iterable[StepCount],
    signals: Iterable[Signal],
    rows: Iterable[ScoredRow],
    rules: Rules,
) -> Stored:
    """What a database gives of a signal."""
    policy, about = rules.policy, (revisions[0].subject_kind, revisions[0].subject_id)
    steps = Steps(policy.step, policy.time_zone)
    spikes = [one for one in signals if one.kind == "spike" and (one.subject_kind, one.subject_id) == about]
    since, until = span(revisions, spikes, policy)
    cells = sorted(
        (one for one in counts if (one.subject_kind, one.subject_id) == about),
        key=lambda one: (one.step_start, one.revision),
    )
    latest = {(*astuple(one)[:5],): one for one in cells}
    own = sorted(
        (one for one in rows if (one.subject_kind, one.subject_id) == about),
        key=lambda one: (one.event_time, one.mention_id),
    )
    said: dict[Any, list[Any]] = {}
    for one in own:
        said.setdefault((steps.index(one.event_time), entry_of(one).unit), []).append(entry_of(one))
    tallies: Mapping[Any, Any] = {key: tabulate(entries) for key, entries in said.items()}
    return Stored(
        revisions,
        spikes,
        [one for one in latest.values() if one.step_start < since],
        [one for one in cells if since <= one.step_start < until],
        {key: Spoken(tally.mentions, tally.organic, tally.quiet) for key, tally in tallies.items()},
        [one for one in own if since <= one.event_time < until],
    )


def of_spike(outputs: Outputs) -> list[Signal]:
    first = next(one for one in outputs.signals if one.kind == "spike")
    return [one for one in outputs.signals if one.signal_id == first.signal_id]


@pytest.fixture(scope="module", params=["units", "mentions"])
def noisy(request) -> tuple[Stored, Rules]:
    """A spike that opened, grew and closed."""
    rules = RULES[request.param]
    outputs = detected(rules, days(WORLD))
    revisions = of_spike(outputs)
    assert {one.event for one in revisions} == {"opened", "updated", "closed"}
    return stored_of(revisions, outputs.step_counts, outputs.signals, ROWS, rules), rules


def words(replayed: Replayed, kind: str = "differs") -> str:
    return "\n".join(one.words for one in replayed.findings if one.kind == kind)


def changed(stored: Stored, number: int, **fields: Any) -> Stored:
    revisions = list(stored.revisions)
    revisions[number] = replace(revisions[number], **fields)
    return stored._replace(revisions=revisions)


def test_every_revision_of_a_spike_comes_out_again(noisy: tuple[Stored, Rules]) -> None:
    replayed = replay_stored(*noisy)
    assert (replayed.verdict, replayed.findings, replayed.losses) == ("equal", [], [])
    assert len(replayed.confirmed) == 2


FIELDS: dict[str, Callable[[Signal], Any]] = {
    "observed": lambda one: one.observed + 1,
    "voices": lambda one: one.voices + 1,
    "expected": lambda one: one.expected * 1.001,
    "interval": lambda one: (one.interval[0], one.interval[1] + 1),
    "exposure": lambda one: one.exposure + 1,
    "rate_ratio": lambda one: one.rate_ratio + 0.01,
    "p_value": lambda one: (one.p_value or 0) * 1.01 + 1e-12,
    "severity": lambda _: 3,
    "historic": lambda _: True,
    "tier": lambda _: "page",
    "concentration": lambda _: Concentration("carrier", "fast", []),
    "evidence": lambda one: one.evidence[1:],
    "versions": lambda one: one.versions + "x",
}


@pytest.mark.parametrize("name", FIELDS)
def test_any_changed_field_is_named(noisy: tuple[Stored, Rules], name: str) -> None:
    stored, rules = noisy
    for number in (0, len(stored.revisions) - 1):
        value = FIELDS[name](stored.revisions[number])
        replayed = replay_stored(changed(stored, number, **{name: value}), rules)
        assert replayed.verdict == "differs"
        assert name in words(replayed)


def test_a_changed_quote_and_a_changed_state_are_named(noisy: tuple[Stored, Rules]) -> None:
    stored, rules = noisy
    one = stored.revisions[0]
    evidence = [replace(one.evidence[0], quote="别的话"), *one.evidence[1:]]
    assert "evidence.1.quote: the signal says 别的话" in words(
        replay_stored(changed(stored, 0, evidence=evidence), rules)
    )
    state = one.opening_state.replace('"gamma_events":', '"gamma_events":1')
    replayed = replay_stored(changed(stored, 0, opening_state=state), rules)
    assert "opening_state.gamma_events" in words(replayed)
    other = stored._replace(revisions=[replace(one, product_batch_id="L2") for one in stored.revisions])
    assert "signal_id" in words(replay_stored(other, rules))


def test_a_signal_that_lacks_a_revision(noisy: tuple[Stored, Rules]) -> None:
    stored, rules = noisy
    revisions = list(stored.revisions)
    assert "1 more revision of it" in words(
        replay_stored(stored._replace(revisions=[*revisions[:1], *revisions[2:]]), rules)
    )
    assert "revision 0 is not stored" in words(replay_stored(stored._replace(revisions=revisions[1:]), rules), "untold")
    extra = replace(revisions[-1], revision=len(revisions))
    assert "does not say it again" in words(replay_stored(stored._replace(revisions=[*revisions, extra]), rules))


def test_a_changed_step_count_of_a_window_is_told(noisy: tuple[Stored, Rules]) -> None:
    stored, rules = noisy
    opening = stored.revisions[0]

    def with_one_more(one: StepCount, statuses: tuple[str, ...]) -> StepCount:
        own = (one.product_batch_id, one.objection_type) == ("L1", "product_quality")
        hit = own and one.step_start == opening.opened_step and one.status in statuses
        return replace(one, count=one.count + 1) if hit else one

    both = stored._replace(counts=[with_one_more(one, ("provisional", "final")) for one in stored.counts])
    assert "counts: voices in 1 step to 2024-11-04: opening state" in words(replay_stored(both, rules))
    final = stored._replace(counts=[with_one_more(one, ("final",)) for one in stored.counts])
    assert "the final count is" in words(replay_stored(final, rules))


def test_a_changed_past_is_told(noisy: tuple[Stored, Rules]) -> None:
    stored, rules = noisy
    before = [replace(one, count=one.count + (one.count > 0)) for one in stored.before]
    replayed = replay_stored(stored._replace(before=before), rules)
    assert replayed.verdict == "differs"
    assert "opening_state.gamma_events" in words(replayed)


def test_counts_that_are_gone_cannot_be_told(noisy: tuple[Stored, Rules]) -> None:
    stored, rules = noisy
    replayed = replay_stored(stored._replace(before=[], counts=[]), rules)
    assert replayed.verdict == "untold"
    assert "are not stored any more" in words(replayed, "untold")


def test_an_unknown_catalogue_leaves_the_opening_to_be_checked(noisy: tuple[Stored, Rules]) -> None:
    stored, rules = noisy
    replayed = replay_stored(stored, rules._replace(catalogue=None, catalogue_version="gone"))
    assert (replayed.verdict, len(replayed.confirmed)) == ("untold", 2)
    assert "catalogue gone is unknown" in words(replayed, "untold")


def test_another_policy_is_another_promise(noisy: tuple[Stored, Rules]) -> None:
    stored, rules = noisy
    stricter = rules._replace(policy=replace(DAILY, false_signals_per_week=0.5))
    assert "threshold" in words(replay_stored(stored, stricter))


@KINDS
def test_late_rows_make_an_opening_a_matter_of_its_state(kind: str) -> None:
    """Twenty mentions of the past come after their step was closed: detection cannot be had back as it was."""
    rules = RULES[kind]
    opened = of_spike(detected(rules, days(WORLD)))[0].opened_step
    number = (opened - day(0)) // (day(1) - day(0))
    late = [row(f"late{i}", opened - 1000 - i, "product_quality", flags=["backfill"]) for i in range(20)]
    records = days(WORLD[: number + 1])
    records += [ScoredBlock(late), *days(WORLD[number + 1 :], number + 1)]
    outputs = detected(rules, records)
    replayed = replay_stored(
        stored_of(of_spike(outputs)[:1], outputs.step_counts, outputs.signals, [*ROWS, *late], rules), rules
    )
    assert replayed.verdict in ("equal", "untold")
    assert "do not agree" not in "".join(replayed.losses), "counts were corrected with them"
    assert not words(replayed)


def test_an_edit_after_the_opening_is_not_taken_for_a_change() -> None:
    rules = RULES["units"]
    opened = of_spike(detected(rules, days(WORLD)))[0].opened_step
    number = (opened - day(0)) // (day(1) - day(0))
    withdrawn = next(one for one in WORLD[number] if one.product_batch_id == "L1" and entry_of(one).types & 1)
    back = ScoredBlock([], [Retraction(withdrawn.mention_id, 1)])
    outputs = detected(rules, [*days(WORLD[: number + 1]), back, *days(WORLD[number + 1 :], number + 1)])
    rows = [one for one in ROWS if one.mention_id != withdrawn.mention_id]
    replayed = replay_stored(stored_of(of_spike(outputs)[:1], outputs.step_counts, outputs.signals, rows, rules), rules)
    assert replayed.verdict == "equal", "its own close has revision 0, which is what detection knew"
    assert "observed: the signal says" in words(replayed, "remark")
    assert replayed.losses == ["the counts of 1 replayed steps were corrected after their close"]


def test_an_edit_of_a_step_before_the_opening_cannot_be_placed() -> None:
    rules = RULES["units"]
    opened = of_spike(detected(rules, days(WORLD)))[0].opened_step
    number = (opened - day(0)) // (day(1) - day(0))
    withdrawn = next(one for one in WORLD[number - 1] if one.product_batch_id == "L1" and entry_of(one).types & 1)
    back = ScoredBlock([], [Retraction(withdrawn.mention_id, 1)])
    outputs = detected(rules, [*days(WORLD[: number + 1]), back, *days(WORLD[number + 1 :], number + 1)])
    rows = [one for one in ROWS if one.mention_id != withdrawn.mention_id]
    replayed = replay_stored(stored_of(of_spike(outputs)[:1], outputs.step_counts, outputs.signals, rows, rules), rules)
    assert (replayed.verdict, words(replayed)) == ("untold", "")
    assert "an earlier revision gives the same" in words(replayed, "untold")


def test_hours_carriers_and_a_spike_that_follows_another() -> None:
    policy = DetectionPolicy(step="1h", time_zone="UTC", series=100)
    rules = Rules(policy, "p", [], "")
    rng = np.random.default_rng(5)
    records, rows = [], []
    for hour in range(24 * 12):
        loud = 24 * 8 <= hour < 24 * 8 + 12 or 24 * 9 <= hour < 24 * 9 + 12
        found = mentions(
            rng, hour / 24, lot="L1", talk=10, complaints=8 if loud else 1, kind="delivery", carrier="slow", subject_kind="carrier",
            subject_id="slow", primary=False, text="",
        )  # fmt: skip
        shifted = [replace(one, event_time=day(hour / 24) + one.event_time % 3_600_000, product_batch_id=f"L{i % 7}",
                           mention_id=f"{hour}-{i}", author=f"{hour}-{i}") for i, one in enumerate(found)]  # fmt: skip
        rows += shifted
        records += [ScoredBlock(shifted), watermark((hour + 1) / 24)]
    outputs = detected(rules, records)
    identities = dict.fromkeys(one.signal_id for one in outputs.signals)
    assert len(identities) == 2
    for identity in identities:
        revisions = [one for one in outputs.signals if one.signal_id == identity]
        assert revisions[0].subject_kind == "carrier"
        replayed = replay_stored(stored_of(revisions, outputs.step_counts, outputs.signals, rows, rules), rules)
        assert (replayed.verdict, replayed.findings) == ("equal", [])


def test_gaps_are_taken_as_they_were() -> None:
    rules = RULES["mentions"]
    gap = Gap("s", day(20), day(23), "outage")
    parts = [rows if not 20 <= number < 23 else [] for number, rows in enumerate(WORLD)]
    outputs = detected(rules, [gap, *days(parts)])
    rows = [one for part in parts for one in part]
    stored = stored_of(of_spike(outputs), outputs.step_counts, outputs.signals, rows, rules)
    assert replay_stored(stored._replace(gaps=[gap]), rules).verdict == "equal"


def severe_world() -> list[list[ScoredRow]]:
    parts = [list(rows) for rows in WORLD[:30]]
    parts[12].append(row("harm", day(12.5), "product_quality", severity=4, text="烫伤了孩子"))
    parts[20].append(row("one", day(20.5), "price", severity=3, product_batch_id="L3", text="冒烟"))
    parts[23].append(row("two", day(23.5), "price", severity=3, product_batch_id="L3", text="漏电"))
    return parts


@KINDS
def test_severe_signals_come_out_of_the_mentions(kind: str) -> None:
    rules = RULES[kind]
    parts = severe_world()
    outputs = detected(rules, days(parts))
    identities = dict.fromkeys(one.signal_id for one in outputs.signals)
    assert len(identities) == 2
    rows = [one for part in parts for one in part]
    for identity in identities:
        revisions = [one for one in outputs.signals if one.signal_id == identity]
        stored = stored_of(revisions, outputs.step_counts, outputs.signals, rows, rules)
        assert (replay_stored(stored, rules).verdict, replay_stored(stored, rules).findings) == ("equal", [])
        louder = changed(stored, len(revisions) - 1, voices=9)
        assert "voices: the signal says 9" in words(replay_stored(louder, rules))
        unsaid = stored._replace(rows=[one for one in stored.rows if one.severity < 3])
        assert replay_stored(unsaid, rules).verdict == "untold", "the mentions are gone, and counts tell that they are"


def test_harm_said_at_once_whose_step_is_not_closed() -> None:
    rules = RULES["mentions"]
    parts = severe_world()[:13]
    outputs = detected(rules, days(parts)[:-1])
    (opening,) = outputs.signals
    rows = [one for part in parts for one in part]
    assert replay_stored(stored_of([opening], outputs.step_counts, [], rows, rules), rules).verdict in (
        "equal",
        "untold",
    )


@pytest.mark.parametrize("seed", range(4))
def test_nothing_that_happens_to_mentions_looks_like_a_change(seed: int) -> None:
    """Late rows, too late ones, withdrawn ones, late texts that are those of two others: never told as a difference."""
    rng, rules = np.random.default_rng(seed), RULES[("units", "mentions")[seed % 2]]
    records: list[Any] = []
    rows = {one.mention_id: one for one in ROWS}
    for number, part in enumerate(WORLD):
        for name in rng.choice([one.mention_id for one in part], 4).tolist() if number > 25 else ():
            back = int(rng.integers(0, 6))
            late = row(f"late-{number}-{name}", day(number - back) + 1000, "product_quality", flags=["backfill"])
            late = replace(late, near_duplicate_signature=int(rng.integers(1, 5)), author=rows[name].author)
            gone = WORLD[number - back][int(rng.integers(0, 60))].mention_id
            records.append(ScoredBlock([late], [Retraction(gone, 1)]))
            rows[late.mention_id] = late
            rows.pop(gone, None)
        records += days([part], number)
    outputs = detected(rules, records)
    assert outputs.signals
    for identity in dict.fromkeys(one.signal_id for one in outputs.signals):
        revisions = [one for one in outputs.signals if one.signal_id == identity]
        stored = stored_of(revisions, outputs.step_counts, outputs.signals, rows.values(), rules)
        replayed = replay_stored(stored, rules)
        assert words(replayed) == ""
        assert replayed.losses


def test_a_slow_ramp_comes_out_again() -> None:
    """Its rate is held against what the rates were one and two months before: they must be made again of the counts."""
    rng = np.random.default_rng(1)
    parts = []
    for number in range(150):
        factor = 1 + 0.8 * min(max(number - 60, 0), 60) / 60
        said = [mentions(rng, number, lot=lot, talk=80, complaints=20 * (factor if lot == "L1" else 1)) for lot in LOTS]
        parts.append([one for of_lot in said for one in of_lot])
    rules = RULES["mentions"]._replace(policy=replace(DAILY, false_signals_per_week=1 / 52))
    outputs = detected(rules, days(parts))
    (identity,) = {one.signal_id for one in outputs.signals}
    revisions = [one for one in outputs.signals if one.signal_id == identity]
    assert revisions[0].kind == "ramp"
    rows = [one for part in parts for one in part]
    replayed = replay_stored(stored_of(revisions, outputs.step_counts, outputs.signals, rows, rules), rules)
    assert (replayed.verdict, replayed.findings) == ("equal", [])
    assert len(replayed.confirmed) == 2


def test_a_product_with_its_own_least_voices_is_held_against_them() -> None:
    policy = replace(DAILY, minimum_voices=6, products=(ProductPolicy("P", minimum_voices=2),))
    rng = np.random.default_rng(0)
    parts = [mentions(rng, number, lot="L1", talk=8, complaints=0.02 if number < 60 else 5) for number in range(63)]
    opening = next(one for one in run(Detector(policy), days(parts)).signals if one.event == "opened")
    assert opening.observed < 6
    for rules, agrees in ((policy, True), (replace(policy, products=()), False)):
        found = Replayed()
        check_state(opening, Rules(rules, "", None, ""), found)
        assert (found.findings == []) == agrees
