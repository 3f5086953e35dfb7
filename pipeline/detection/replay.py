"""A signal made again of what is stored, and what comes out differently.

Three questions are asked, as none of them alone tells all:

1. *Counts*: do the step counts of its windows add up to the voices that the signal names, and its opening state? What
   detection knew at a step close is the latest revision published by then. Stored rows do not tell when they were
   published, only that the step's own close has revision 0, that each close adds one at most, and that a final step takes
   no more. Where several revisions may have been the known one and it matters, that is said rather than decided.
2. *State*: do expectation, interval, rate ratio, p-value and promise follow from the state that the signal opened from?
3. *Detection*: the detector itself, made again of the step counts and spikes of the past (`pipeline.detection.rebuild`), is
   given the stored mentions from before the windows on. It must say every revision of the signal again, with the same
   words and evidence.

The third tells most, and is as good as what is stored: `Replayed.losses` names what is known to be no longer what detection
had. Without losses every difference counts. With them, what history only moves a little (`CLOSE`) is a remark, the numbers
of the opening rest on the first two questions, and of the rest it is said that it cannot be told.
"""

import datetime as dt
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import numpy as np

from pipeline.detection.baseline import Posterior, Prediction
from pipeline.detection.detector import Outputs
from pipeline.detection.exposure import catalogue_of
from pipeline.detection.rebuild import SpokenBy, rebuild
from pipeline.detection.scan import Scan, threshold
from pipeline.detection.spikes import interval
from pipeline.detection.steps import Steps
from pipeline.detection.tally import BACKFILL, HARM, TYPE_INDEX, UnitKey, entry_of, tabulate
from schemas.catalogue import CatalogueEntry
from schemas.control import Gap, Watermark
from schemas.identity import signal_id
from schemas.policy import DAY_MS, DetectionPolicy
from schemas.scored import ScoredBlock, ScoredRow
from schemas.signal import Signal
from schemas.step_count import StepCount
from schemas.vocabulary import ANY_OBJECTION

EXACT = 1e-9
"""Relative difference of numbers that are equal."""
CLOSE = 0.05
"""Relative difference of an expectation that is put down to what the store has lost, if it has lost anything."""
CLOSE_P = 2.0
"""The same of a p-value, as a factor."""

_NUMBERS = (
    "observed",
    "voices",
    "expected",
    "interval",
    "exposure",
    "rate_ratio",
    "p_value",
    "window",
    "opening_state",
)
"""Fields of an opening that the first two questions answer."""
_EXPECTED = ("expected", "interval", "rate_ratio", "p_value", "concentration.drivers")
"""Fields that follow from the expectation."""
_SAID_AT_ONCE = ("evidence", "step_start", "historic")

Kind = Literal["differs", "untold", "remark"]
Show = Callable[[Any], str]


class Rules(NamedTuple):
    """What the signal was decided by, as its versions name it."""

    policy: DetectionPolicy
    policy_version: str
    catalogue: Sequence[CatalogueEntry] | None
    """None: unknown."""
    catalogue_version: str


class Stored(NamedTuple):
    """What is stored of a signal and its subject; see `span` for the times."""

    revisions: Sequence[Signal]
    """Of the signal, ascending."""
    spikes: Sequence[Signal]
    """All revisions of all spikes of the subject, ascending."""
    before: Sequence[StepCount]
    """The latest revision of the subject's cells before the span, ascending by step."""
    counts: Sequence[StepCount]
    """Every revision of its cells in the span, ascending by step and revision."""
    spoken: SpokenBy
    """What its mentions before the span are."""
    rows: Sequence[ScoredRow]
    """Its rows in the span, ascending by event time."""
    gaps: Sequence[Gap] = ()


class Finding(NamedTuple):
    """One thing that is not as it should be."""

    kind: Kind
    words: str


@dataclass
class Replayed:
    """What came of a replay."""

    findings: list[Finding] = field(default_factory=list)
    confirmed: list[str] = field(default_factory=list)
    """What was asked by itself, and holds, in words."""
    losses: list[str] = field(default_factory=list)
    """What is stored and known to be no longer what detection had, in words."""

    @property
    def verdict(self) -> Literal["equal", "differs", "untold"]:
        """``untold``: nothing contradicts the signal, and not all of it could be made again."""
        kinds = {finding.kind for finding in self.findings}
        return "differs" if "differs" in kinds else "untold" if "untold" in kinds else "equal"

    def add(self, kind: Kind, words: str) -> None:
        """One more finding."""
        self.findings.append(Finding(kind, words))


def span(stored: Sequence[Signal], spikes: Sequence[Signal], policy: DetectionPolicy) -> tuple[int, int]:
    """The time (ms UTC, at step bounds) whose rows and counts are replayed through detection; what is before is history.

    Args:
        stored: the revisions of the signal.
        spikes: as in `Stored`.
        policy: that it was decided by.
    """
    steps = Steps(policy.step, policy.time_zone)
    opened, last = stored[0].opened_step, steps.index(stored[-1].step_start)

    def before(step: int) -> int:
        """A step before which nothing that is not final matters to what opens or closes in this one."""
        calm = step - max(*policy.windows, policy.close_after)
        return steps.index(steps.start(calm) - policy.allowed_lateness_ms)

    if stored[0].kind == "severe":
        first = steps.index(opened - 2 * max(policy.severity_pair_ms, policy.allowed_lateness_ms) - DAY_MS)
    else:
        first = before(steps.index(opened))
    # How steps are taken into the baseline depends on whether a spike is open then, and when it closes on calm steps.
    turns = {one.opened_step for one in spikes} | {one.step_start for one in spikes if one.event == "closed"}
    for turn in sorted(map(steps.index, turns), reverse=True):
        if first > before(turn) and turn >= first:
            first = before(turn)
    return steps.start(first), steps.end(last)


def replay(stored: Stored, rules: Rules) -> Replayed:
    """Make a signal again; see the top of this module.

    Raises:
        TerminalError: the step counts are of other steps than the policy's, or the signal's opening state is none.
        ConfigurationError: the policy's time zone is unknown.
    """
    found = Replayed()
    opening = stored.revisions[0]
    if opening.revision or opening.event != "opened":
        found.add("untold", f"revision 0 is not stored: the first is {opening.revision}, {opening.event}")
    unit = (opening.subject_kind, opening.subject_id, opening.product_batch_id)
    if signal_id(opening.kind, *unit, opening.objection_type, opening.opened_step) != opening.signal_id:
        found.add("differs", "signal_id: it is not the hash of what the signal says it is about and when it opened")
    if opening.kind == "spike":
        _Windows(stored, rules.policy, found).check()
        if not found.findings:
            found.confirmed.append("the step counts of its windows add up to what its opening state and revisions say")
        before = len(found.findings)
        _check_state(opening, rules, found)
        if len(found.findings) == before:
            found.confirmed.append(
                "its numbers and its opening follow from the state that it opened from, and from the policy"
            )
    if rules.catalogue is None:
        found.add("untold", f"detection was not made again: catalogue {rules.catalogue_version} is unknown")
        return found
    outputs = _detect(stored, rules, rules.catalogue)
    found.losses += _losses(stored, rules, outputs)
    again = {one.revision: one for one in outputs.signals if one.signal_id == opening.signal_id}
    _compare(stored, again, _shown(rules.policy), found)
    return found


# ---------------------------------------------------------------- counts


class _Stale(NamedTuple):
    """Voices of a step that could not open a spike."""

    likely: int
    possible: range


_NONE = _Stale(0, range(1))


class _Windows:
    """The step counts of a signal's series against the voices that its revisions name."""

    def __init__(self, stored: Stored, policy: DetectionPolicy, found: Replayed) -> None:
        opening = stored.revisions[0]
        self._revisions, self._found = stored.revisions, found
        self._steps = Steps(policy.step, policy.time_zone)
        self._lateness = policy.allowed_lateness_ms
        self._show = _shown(policy)
        unit = (opening.subject_kind, opening.subject_id, opening.product_batch_id)
        own = [one for one in stored.counts if (one.subject_kind, one.subject_id, one.product_batch_id) == unit]
        self._voices = self._cells(one for one in own if one.objection_type == opening.objection_type)
        self._whole = self._cells(one for one in own if one.objection_type == ANY_OBJECTION)
        self._stale = self._not_fresh(stored.rows, unit, TYPE_INDEX[opening.objection_type])

    def check(self) -> None:
        """Add what is found."""
        for name, cells in (("voices", self._voices), ("mentions", self._whole)):
            for step, revisions in cells.items():
                self._check_cell(name, step, revisions)
        opening = self._revisions[0]
        at, state = self._steps.index(opening.step_start), json.loads(opening.opening_state)
        if not any(step in self._whole for step in range(at - opening.window + 1, at + 1)):
            self._found.add("untold", "counts: the step counts of its windows are not stored any more")
            return
        told = zip(state.get("windows", ()), state.get("voices", ()), strict=True)
        self._check_sums("opening state", at, {length: round(voices) for length, voices in told})
        for signal in self._revisions[1:]:
            at = self._steps.index(signal.step_start)
            self._check_sums(f"revision {signal.revision}", at, {signal.window: signal.observed})

    def _cells(self, counts: Iterable[StepCount]) -> dict[int, list[StepCount]]:
        cells: dict[int, list[StepCount]] = {}
        for one in counts:
            cells.setdefault(self._steps.index(one.step_start), []).append(one)
        return cells

    def _not_fresh(self, rows: Iterable[ScoredRow], unit: UnitKey, type_index: int) -> dict[int, _Stale]:
        """By step: how many of its voices count in history only, as they were undated or came late."""
        entries = (entry_of(row) for row in rows)
        own = (entry for entry in entries if entry.unit == unit and entry.types >> type_index & 1)
        found = {}
        for step, group in groupby(own, key=lambda entry: self._steps.index(entry.event_time)):
            said, counted = list(group), self._voices.get(step)
            tally = tabulate(said)
            stale = tally.voices[type_index] - tally.fresh[type_index]
            agrees = counted is not None and counted[-1].count == tally.voices[type_index]
            # What came late may have been too late to be counted, and another voice that was counted withdrawn since.
            sure = agrees and not any(entry.flags & BACKFILL for entry in said)
            # Below 0: a late text may be that of two others, and make one voice of them.
            possible = range(stale, stale + 1) if sure else range(min(stale, 0), max(stale, 0) + 1)
            found[step] = _Stale(stale if agrees else 0, possible)
        return found

    def _check_cell(self, name: str, step: int, revisions: list[StepCount]) -> None:
        """A cell's revisions follow each other, and the final one says what the one before it said."""
        values = [one.count if name == "voices" else one.mentions for one in revisions]
        for at, (one, other) in enumerate(pairwise(revisions)):
            where = f"counts: {name} of {self._show(one.step_start)}"
            if one.revision == other.revision and values[at] != values[at + 1]:
                self._found.add(
                    "differs", f"{where}: revision {one.revision} is stored as {values[at]} and {values[at + 1]}"
                )
            elif other.status == "final" and one.status == "provisional" and values[at] != values[at + 1]:
                words = f"the final count is {values[at + 1]}, the one that it confirms {values[at]}"
                self._found.add("differs", f"{where}: {words}")

    def _check_sums(self, what: str, at: int, windows: Mapping[int, int]) -> None:
        """Voices of windows (in steps, shortest first) that end with a step: what a longer one adds is looked at by itself."""
        done = counted = 0
        for length, voices in windows.items():
            added = range(at - length + 1, at - done + 1)
            current, possible = sum(map(self._latest, added)), {0}
            for step in added:
                possible = {total + value for total in possible for value in self._known(step, at)}
            where = f"counts: voices in {len(added)} steps to {self._show(self._steps.start(at - done))}"
            words = f"{where}: {what} {voices - counted}, step counts {current}"
            if voices - counted not in possible:
                self._found.add("differs", words)
            elif voices - counted != current and len(possible) > 1:
                reason = (
                    "they were corrected, and are not stored with the time of it: an earlier revision gives the same"
                )
                self._found.add("untold", f"{words}; {reason}")
            done, counted = length, voices

    def _latest(self, step: int) -> int:
        """Fresh voices of a step as it stands."""
        revisions = self._voices.get(step)
        return max(0, revisions[-1].count - self._stale.get(step, _NONE).likely) if revisions else 0

    def _known(self, step: int, at: int) -> set[int]:
        """Fresh voices of a step that may have been known at the close of another."""
        revisions = self._voices.get(step)
        if not revisions:
            return {0}
        if step < self._steps.index(self._steps.end(at - 1) - self._lateness):
            values = {revisions[-1].count}
        elif step == at:
            values = {revisions[0].count}
        else:  # it may have been empty at first
            values = {0, *(one.count for one in revisions if one.revision <= at - step)}
        return {max(0, value - number) for value in values for number in self._stale.get(step, _NONE).possible}


# ---------------------------------------------------------------- state


def _check_state(opening: Signal, rules: Rules, found: Replayed) -> None:
    """The numbers of an opening against the state that it opened from."""
    state = json.loads(opening.opening_state)
    scan = scan_of(state)
    window = int(scan.best()[0][0, 0])
    at = (window, 0, 0)
    mean, size = float(scan.expected.mean[at]), float(scan.expected.size[at])
    again: dict[str, object] = {
        "window": scan.windows[window],
        "observed": round(scan.voices[at]),
        "expected": mean,
        "interval": interval(mean, size),
        "exposure": float(scan.exposure[window, 0]),
        "rate_ratio": float(scan.voices[at]) / mean,
        "p_value": float(scan.best()[1][0, 0]),
    }
    for name, value in again.items():
        said = msgspec.to_builtins(getattr(opening, name))
        if not _equal(said, value, 1e-6 if name == "exposure" else EXACT):  # six decimals are kept of it
            found.add("differs", f"{name}: the signal says {_word(said)}, its opening state gives {_word(value)}")
    tail = scan.tail(at)
    if not _equal(float(scan.p_values[at]), tail, EXACT):
        words = f"says {_word(float(scan.p_values[at]))}, its counts and expectation give {_word(tail)}"
        found.add("differs", f"opening_state.p_values: the state {words}")
    _check_promise(opening, state, rules, found)


def _check_promise(opening: Signal, state: Mapping[str, Any], rules: Rules, found: Replayed) -> None:
    limit = float(state["threshold"])
    if rules.catalogue is not None:
        lots = sum(map(len, catalogue_of(rules.catalogue).values()))
        length = Steps(rules.policy.step, rules.policy.time_zone).length
        promised = threshold(rules.policy, length, lots)
        if not _equal(limit, promised, EXACT):
            found.add("differs", f"threshold: the opening state says {_word(limit)}, the policy {_word(promised)}")
    if opening.p_value is None or not opening.p_value < limit:
        found.add("differs", f"p_value: {_word(opening.p_value)} is not below the promise of {_word(limit)}")
    if opening.observed < rules.policy.minimum_voices:
        found.add("differs", f"observed: {opening.observed} is below minimum_voices {rules.policy.minimum_voices}")


def scan_of(state: Mapping[str, Any]) -> Scan:
    """The scan of one series as an opening state keeps it: (W, 1, 1)."""

    def column(name: str) -> Any:
        return np.array(state[name], np.float64)[:, None, None]

    def alone(_subject: int) -> Scan:
        return scan

    nothing = np.full((1, 1), np.nan)
    scan = Scan(
        step=0,
        windows=tuple(state["windows"]),
        slots=np.zeros(1, np.int64),
        voices=column("voices"),
        mentions=column("mentions")[:, :, 0],
        exposure=column("exposure")[:, :, 0],
        newest=nothing,
        rates=Posterior(nothing, nothing, nothing),
        expected=Prediction(column("mean"), column("size")),
        p_values=column("p_values"),
        family=alone,
    )
    return scan


# ---------------------------------------------------------------- detection


def _detect(stored: Stored, rules: Rules, catalogue: Sequence[CatalogueEntry]) -> Outputs:
    """What the detector says of the span."""
    policy, steps = rules.policy, Steps(rules.policy.step, rules.policy.time_zone)
    since, until = span(stored.revisions, stored.spikes, policy)
    past = {one.signal_id: one for one in stored.spikes if one.step_start < since}
    detector = rebuild(
        policy,
        rules.catalogue_version,
        catalogue,
        stored.before,
        [one for one in past.values() if one.event != "closed"],
        since,
        policy_version=rules.policy_version,
        closed_signals=[one for one in past.values() if one.event == "closed"],
        gaps=stored.gaps,
        spoken=stored.spoken,
    )
    total = Outputs()
    for step, rows in groupby(stored.rows, key=lambda row: steps.index(row.event_time)):
        for record in (ScoredBlock(list(rows)), Watermark("", steps.end(step))):
            _gather(total, detector.absorb(record))
    _gather(total, detector.absorb(Watermark("", until)))
    return total


def _gather(total: Outputs, outputs: Outputs) -> None:
    total.step_counts += outputs.step_counts
    total.signals += outputs.signals


def _losses(stored: Stored, rules: Rules, outputs: Outputs) -> list[str]:
    """Where what is stored is known to be no longer what detection had."""
    policy, show = rules.policy, _shown(rules.policy)
    steps = Steps(policy.step, policy.time_zone)
    losses = []
    changed = sorted({key[-1] for key in _unlike(stored.counts, outputs.step_counts)})
    if changed:
        named = ", ".join(map(show, changed[:5])) + (" …" if len(changed) > 5 else "")
        losses.append(f"mentions and step counts of {len(changed)} steps of the replay do not agree: {named}")
    late = sum(one.revision > 0 or "backfill" in one.flags for one in stored.rows)
    if late:
        losses.append(f"{late} mentions of the replayed steps were edited or came late, and when is not stored")
    corrected = {one.step_start for one in stored.counts if one.revision and one.status == "provisional"}
    if corrected:
        losses.append(f"the counts of {len(corrected)} replayed steps were corrected after their close")
    whole = [one for one in stored.before if one.objection_type == ANY_OBJECTION]
    unlike = sum(
        (known := stored.spoken.get((steps.index(one.step_start), _unit(one)))) is None
        or known.mentions != one.mentions
        for one in whole
    )
    if unlike:
        losses.append(
            f"mentions and step counts do not agree in {unlike} of {len(whole)} lots and steps of its history"
        )
    made_by = {row.versions for row in stored.rows}
    told = stored.revisions[0].versions
    if any(not told.startswith(one) for one in made_by):
        losses.append(f"mentions have been scored by more than one version: {', '.join(sorted(made_by))}")
    if len({one.versions for one in (*stored.before, *stored.counts)}) > 1:
        losses.append(
            "models, policy or catalogue changed in its history, and stored counts do not tell at which close"
        )
    return losses


def _unit(one: StepCount) -> UnitKey:
    return (one.subject_kind, one.subject_id, one.product_batch_id)


def _unlike(stored: Iterable[StepCount], again: Iterable[StepCount]) -> Iterator[tuple[UnitKey, str, int]]:
    """Cells (unit, type, step start) whose latest counts are not the same."""
    last, other = ({(_unit(one), one.objection_type, one.step_start): one for one in part} for part in (stored, again))
    for key in last.keys() | other.keys():
        counts = [(one.count, one.mentions if one.objection_type == ANY_OBJECTION else 0) for one in (
            last.get(key), other.get(key)) if one is not None]  # fmt: skip
        if (counts[0] != counts[-1]) if len(counts) == 2 else counts[0] != (0, 0):
            yield key


# ---------------------------------------------------------------- comparison


def _compare(stored: Stored, again: Mapping[int, Signal], show: Show, found: Replayed) -> None:
    """Every stored revision against the one that detection says."""
    opening, harm = stored.revisions[0], {row.mention_id for row in stored.rows if row.severity >= HARM}
    for one in stored.revisions:
        other = again.get(one.revision)
        what = f"revision {one.revision} ({one.event})"
        if other is None:
            found.add("untold" if found.losses else "differs", f"{what}: detection does not say it again")
            continue
        for name, said, made in _differences(one, other):
            if one.revision and name.startswith("opening_state") and one.opening_state == opening.opening_state:
                continue  # that has been said of the opening
            kind = _weight(one, name, said, made, harm, lossy=bool(found.losses))
            word = show if name in ("opened_step", "step_start") else _word
            found.add(kind, f"{what}: {name}: the signal says {word(said)}, made again it is {word(made)}")
    last = stored.revisions[-1]
    more = again.keys() - {one.revision for one in stored.revisions}
    # What is said at once is stored before its step closes, which says more.
    if more and not (last.kind == "severe" and not last.revision):
        found.add(
            "untold" if found.losses else "differs", f"detection says {len(more)} more revisions of it in these steps"
        )


def _weight(one: Signal, name: str, said: object, made: object, harm: set[str], *, lossy: bool) -> Kind:
    """How much a difference counts."""
    top = name.partition(".")[0]
    if one.kind == "severe" and not one.revision and top in _SAID_AT_ONCE and one.evidence:
        # Of several on one day, the one that came first is said at once; the step close corrects it.
        return "remark" if one.evidence[0].mention_id in harm and len(harm) > 1 else "differs"
    if not lossy:
        return "differs"
    if one.kind == "spike" and not one.revision and top in _NUMBERS:
        return "remark"
    return "remark" if name.startswith(_EXPECTED) and _close(top, said, made) else "untold"


def _close(name: str, said: Any, made: Any) -> bool:
    if name == "p_value":
        return bool(made <= said * CLOSE_P and said <= made * CLOSE_P)
    if name == "interval":  # of whole numbers, so one more or less is nothing
        return all(abs(one - other) <= 1 + CLOSE * one for one, other in zip(said, made, strict=True))
    return _equal(said, made, CLOSE)


def _differences(one: Signal, other: Signal) -> Iterator[tuple[str, object, object]]:
    """Field by field, what has names taken apart: name, what the first says, what the second."""
    for name in one.__struct_fields__:
        said, made = (msgspec.to_builtins(getattr(signal, name)) for signal in (one, other))
        if name == "opening_state":
            said, made = json.loads(said), json.loads(made)
        yield from _apart(name, said, made)


def _apart(name: str, said: Any, made: Any) -> Iterator[tuple[str, object, object]]:
    if isinstance(said, dict) and isinstance(made, dict):
        for key in sorted(said.keys() | made.keys()):
            yield from _apart(f"{name}.{key}", said.get(key), made.get(key))
    elif _items(said) and _items(made) and _word(said) == _word(made):  # the same mentions or values, in other words
        for number, (one, other) in enumerate(zip(said, made, strict=True), 1):
            yield from _apart(f"{name}.{number}", one, other)
    elif not _equal(said, made, EXACT):
        yield name, said, made


def _items(value: object) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(one, dict) for one in value)


def _equal(one: Any, other: Any, relative: float) -> bool:
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(_equal(*pair, relative) for pair in zip(one, other, strict=True))
    if isinstance(one, int | float) and isinstance(other, int | float):
        return abs(one - other) <= relative * max(abs(one), abs(other))
    return bool(one == other)


def _word(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_word, value)) or "nothing"
    if isinstance(value, dict):  # evidence or a driver, by what it is of
        return str(value.get("mention_id", "")) or f"{value.get('dimension')} {value.get('value')}"
    return f"{value:.6g}" if isinstance(value, float) else "nothing" if value is None else str(value)


def _shown(policy: DetectionPolicy) -> Show:
    """What writes a step's start (ms UTC) as the policy's days or hours."""
    zone, form = ZoneInfo(policy.time_zone), "%Y-%m-%d" if policy.step == "1d" else "%Y-%m-%d %H:%M"
    return lambda start: dt.datetime.fromtimestamp(start / 1000, zone).strftime(form)
