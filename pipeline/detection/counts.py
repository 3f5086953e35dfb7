"""Step tables: the counts of closed steps, and their open revision as published `StepCount` rows.

A cell is one type of one unit in one step, or `any`. Its first row says ``provisional``; a row with the next revision
follows whenever the cell changed by the next step close, and one with status ``final`` when the step takes no more
corrections. Types without a voice are not published (absent means zero) until they had one.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.detection.entries import TYPES
from pipeline.detection.exposure import Bools, Floats, Ints
from pipeline.detection.units import Units
from pipeline.detection.voices import UnitTally
from schemas.step_count import StepCount
from schemas.vocabulary import ANY_OBJECTION, OBJECTION_TYPES, CountStatus, ExposureKind

CELL_NAMES = (*OBJECTION_TYPES, ANY_OBJECTION)
CELLS = len(CELL_NAMES)
ANY = TYPES
"""Column of the cell `any`."""
UNPUBLISHED = -1


class StepTable:
    """One closed step: a row for each unit that had mentions in it (n,), cells (n, 8)."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.rows: dict[int, int] = {}
        """Unit slot → row."""
        self.slots: Ints = np.zeros(0, np.int64)
        self.mentions: Ints = np.zeros(0, np.int64)
        self.organic: Ints = np.zeros(0, np.int64)
        self.quiet: Ints = np.zeros(0, np.int64)
        self.known: Ints = np.zeros(0, np.int64)
        self.count: Ints = np.zeros((0, CELLS), np.int64)
        self.fresh: Ints = np.zeros((0, TYPES), np.int64)
        self.exposure: Floats = np.zeros(0)
        self.by_units: Bools = np.zeros(0, np.bool_)
        self.revision: Ints = np.zeros((0, CELLS), np.int64)
        self.final = False
        self.dirty = True
        """Whether it has changed since it was last saved."""

    COLUMNS = ("slots", "mentions", "organic", "quiet", "known", "count", "fresh", "exposure", "by_units", "revision")

    def update(self, slots: Sequence[int], tallies: Sequence[UnitTally], units: Units, instant: float) -> Bools:
        """Put these units' tallies in. Returns the cells (n, 8) that changed; exposure as of ``instant`` (ms UTC)."""
        new = [slot for slot in slots if slot not in self.rows]
        if new:
            self._extend(new)
        at = np.array([self.rows[slot] for slot in slots], np.int64)
        where = self.slots[at]
        before = (self.count[at], self.mentions[at], self.exposure[at])
        totals = np.array([tally[:5] for tally in tallies], np.int64).reshape(len(at), 5)
        self.mentions[at], self.organic[at], self.quiet[at], self.known[at] = totals[:, :4].T
        self.count[at, :TYPES] = [tally.voices for tally in tallies]
        self.count[at, ANY] = totals[:, 4]
        self.fresh[at] = [tally.fresh for tally in tallies]
        self.by_units[at] = units.by_units[where]
        self.exposure[at] = np.where(self.by_units[at], units.field(where, instant), self.organic[at])
        changed = np.zeros((len(self.slots), CELLS), np.bool_)
        changed[at] = self.count[at] != before[0]
        changed[at, ANY] |= (self.mentions[at] != before[1]) | (self.exposure[at] != before[2])
        self.dirty = True
        return changed

    def _extend(self, new: list[int]) -> None:
        first = len(self.slots)
        self.rows.update((slot, first + offset) for offset, slot in enumerate(new))
        for name in self.COLUMNS:
            column = getattr(self, name)
            fill = np.full((len(new), *column.shape[1:]), UNPUBLISHED if name == "revision" else 0, column.dtype)
            setattr(self, name, np.concatenate((column, fill)))
        self.slots[first:] = new

    def publish(
        self, cells: Bools, units: Units, status: CountStatus, step_start: int, step: str, versions: str
    ) -> list[StepCount]:
        """Rows for these cells (n, 8), each one revision above the cell's last."""
        # A cell never published and zero is absent; `any` is absent only if the unit has no mention.
        present = np.concatenate((self.count[:, :TYPES] > 0, self.mentions[:, None] > 0), axis=1)
        rows, columns = np.nonzero(cells & (present | (self.revision > UNPUBLISHED)))
        self.revision[rows, columns] += 1
        self.dirty = True
        share = self._known_share(units)
        kinds: tuple[ExposureKind, ExposureKind] = ("mentions", "units")
        names: list[Any] = units.slots.keys
        return [
            StepCount(
                names[slot][0],
                names[slot][1],
                names[slot][2],
                CELL_NAMES[column],
                step_start,
                step,
                revision,
                count,
                mentions,
                exposure,
                kinds[by_units],
                known,
                status,
                versions,
            )
            for slot, column, revision, count, mentions, exposure, by_units, known in zip(
                self.slots[rows].tolist(),
                columns.tolist(),
                self.revision[rows, columns].tolist(),
                self.count[rows, columns].tolist(),
                self.mentions[rows].tolist(),
                self.exposure[rows].tolist(),
                self.by_units[rows].tolist(),
                share[rows].tolist(),
                strict=True,
            )
        ]

    def _known_share(self, units: Units) -> Floats:
        """Of each row's subject: the share of its mentions in the step whose lot is known."""
        subjects = units.subject[self.slots]
        size = len(units.subject_slots.keys)
        mentions = np.bincount(subjects, weights=self.mentions, minlength=size)
        known = np.bincount(subjects, weights=self.known, minlength=size)
        share: Floats = (known / np.maximum(mentions, 1.0))[subjects]
        return share
