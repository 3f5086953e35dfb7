"""The first question of a replay: do the step counts of a signal's windows add up to the voices that it names?"""

import json
from collections.abc import Iterable, Mapping
from itertools import groupby, pairwise
from typing import NamedTuple

from pipeline.detection.entries import BACKFILL, TYPE_INDEX, UnitKey, entry_of
from pipeline.detection.replayed import Replayed, Stored, shown
from pipeline.detection.steps import Steps
from pipeline.detection.voices import tabulate
from schemas.policy import DetectionPolicy
from schemas.scored import ScoredRow
from schemas.step_count import StepCount
from schemas.vocabulary import ANY_OBJECTION


class _Stale(NamedTuple):
    """Voices of a step that could not open a spike."""

    likely: int
    possible: range


_NONE = _Stale(0, range(1))


class Windows:
    """The step counts of a signal's series against the voices that its revisions name."""

    def __init__(self, stored: Stored, policy: DetectionPolicy, found: Replayed) -> None:
        opening = stored.revisions[0]
        self._revisions, self._found = stored.revisions, found
        self._steps = Steps(policy.step, policy.time_zone)
        self._lateness = policy.allowed_lateness_ms
        self._show = shown(policy)
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
            self._check_sums(f"revision {signal.revision}", at, {signal.window: signal.observed}, late_too=True)

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

    def _check_sums(self, what: str, at: int, windows: Mapping[int, int], *, late_too: bool = False) -> None:
        """Voices of windows (in steps, shortest first) that end with a step: what a longer one adds is looked at by itself.

        An open spike is reviewed by late and undated voices as well (``late_too``), which could not have opened it.
        """
        stale: Mapping[int, _Stale] = {} if late_too else self._stale
        done = counted = 0
        for length, voices in windows.items():
            added = range(at - length + 1, at - done + 1)
            current, possible = sum(self._latest(step, stale) for step in added), {0}
            for step in added:
                possible = {total + value for total in possible for value in self._known(step, at, stale)}
            where = f"counts: voices in {len(added)} step{'s' * (len(added) != 1)} to {self._show(self._steps.start(at - done))}"
            words = f"{where}: {what} {voices - counted}, step counts {current}"
            if voices - counted not in possible:
                self._found.add("differs", words)
            elif voices - counted != current and len(possible) > 1:
                reason = (
                    "they were corrected, and are not stored with the time of it: an earlier revision gives the same"
                )
                self._found.add("untold", f"{words}; {reason}")
            done, counted = length, voices

    def _latest(self, step: int, stale: Mapping[int, _Stale]) -> int:
        """Voices of a step as it stands, but for the stale ones."""
        revisions = self._voices.get(step)
        return max(0, revisions[-1].count - stale.get(step, _NONE).likely) if revisions else 0

    def _known(self, step: int, at: int, stale: Mapping[int, _Stale]) -> set[int]:
        """Voices of a step, but for the stale ones, that may have been known at the close of another."""
        revisions = self._voices.get(step)
        if not revisions:
            return {0}
        if step < self._steps.index(self._steps.end(at - 1) - self._lateness):
            values = {revisions[-1].count}
        elif step == at:
            values = {revisions[0].count}
        else:  # it may have been empty at first
            values = {0, *(one.count for one in revisions if one.revision <= at - step)}
        return {max(0, value - number) for value in values for number in stale.get(step, _NONE).possible}
