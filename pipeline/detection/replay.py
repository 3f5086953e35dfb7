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
had. Without losses every difference counts. With them, what history only moves a little is a remark (`pipeline.detection.replay_compare`), the numbers
of the opening rest on the first two questions, and of the rest it is said that it cannot be told.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from pipeline.detection.detector import Outputs
from pipeline.detection.lifecycle import RISES
from pipeline.detection.rebuild import rebuild
from pipeline.detection.replay_compare import compare
from pipeline.detection.replay_counts import Windows
from pipeline.detection.replay_state import check_state
from pipeline.detection.replayed import Replayed, Rules, Stored, shown
from pipeline.detection.steps import Steps
from pipeline.detection.tally import UnitKey
from schemas.catalogue import CatalogueEntry
from schemas.control import Watermark
from schemas.identity import signal_id
from schemas.policy import DAY_MS, DetectionPolicy
from schemas.scored import ScoredBlock
from schemas.signal import Signal
from schemas.step_count import StepCount
from schemas.vocabulary import ANY_OBJECTION


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
    if opening.kind in RISES:
        Windows(stored, rules.policy, found).check()
        if not found.findings:
            found.confirmed.append("the step counts of its windows add up to what its opening state and revisions say")
        before = len(found.findings)
        check_state(opening, rules, found)
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
    compare(stored, again, shown(rules.policy), found)
    return found


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
    policy, show = rules.policy, shown(rules.policy)
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
