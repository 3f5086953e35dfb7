"""Trailing-window scan: how unlikely are the voices of the last 1, 2, 4, 8 … steps, were nothing wrong?

Several window lengths catch both a sudden and a moderate rise. Each window's tail probability is multiplied by the
number of windows (Bonferroni: safe whatever their dependence; overlapping windows are strongly dependent, so the
promise of false signals is kept with room to spare). After a spike has closed, windows do not reach back to it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.detection.baseline import Absorber, Posterior, Prediction, posterior, predict
from pipeline.detection.counts import StepTable
from pipeline.detection.exposure import ACTIVITY_SHRINKAGE, Bools, Floats, Ints, activity
from pipeline.detection.tally import TYPES
from pipeline.detection.units import Units
from schemas.policy import DAY_MS, DetectionPolicy

MINIMUM_MENTIONS = 5
"""Mentions of the unit (reposts and rewarded ones apart) in the window below which there is no rate to speak of: three complaints alone are no spike."""
CALM = 0.05
"""A series is calm at a step when its window is no rarer than this, were nothing wrong."""
SERIES_WITHOUT_CATALOGUE = 700
"""Series that share the promise where neither the policy nor a catalogue tells their number: a hundred lots."""


def threshold(policy: DetectionPolicy, step_length: int, lots: int) -> float:
    """Probability a series and step below which a spike opens: the promised false signals, shared out by number.

    Args:
        policy: holds the promise, and perhaps the number of series.
        step_length: ms.
        lots: of the catalogue in force; 0 without one.
    """
    series = policy.series or (TYPES * lots if lots else SERIES_WITHOUT_CATALOGUE)
    return policy.false_signals_per_week * step_length / (7 * DAY_MS) / series


@dataclass
class Scan:
    """r unit slots x W windows ending at ``step``: counts and predictions (W, r, 7), exposure (W, r), newest (r, 7)."""

    step: int
    windows: tuple[int, ...]
    slots: Ints
    voices: Floats
    mentions: Floats
    exposure: Floats
    newest: Floats
    rates: Posterior
    expected: Prediction
    p_values: Floats

    def best(self) -> tuple[Ints, Floats]:
        """Of each series (r, 7): the window that is least likely (shortest of equals), and its corrected p-value."""
        window = np.argmin(self.p_values, axis=0)
        p_value = np.take_along_axis(self.p_values, window[None], axis=0)[0]
        return window, np.minimum(p_value * len(self.windows), 1.0)

    def tail(self, at: tuple[int, int, int]) -> float:
        """P(X >= voices) of one window, row and type, whether or not a spike could open there."""
        one = Prediction(self.expected.mean[at], self.expected.size[at])
        return float(one.tail(self.voices[at]))


@dataclass
class _Sums:
    fresh: Floats
    voices: Floats
    organic: Floats
    field: Floats
    quiet: Floats


class Scanner:
    """Scans the closed steps of one detector."""

    def __init__(
        self, units: Units, absorber: Absorber, middle: Callable[[int], float], silent: Callable[[int], bool]
    ) -> None:
        self._units = units
        self._absorber = absorber
        self._middle = middle
        self._silent = silent

    def scan(self, tables: Mapping[int, StepTable], step: int, slots: Ints, policy: DetectionPolicy) -> Scan:
        """Scan these slots at a step. Windows not allowed (reset, too few voices or mentions) have p-value 1."""
        units, windows = self._units, tuple(sorted(policy.windows))
        rates = posterior(units, slots, step, self._absorber.half_life)
        by_units = units.by_units[slots][:, None]
        per_window = [
            (sums, self._predict(rates, sums, window, slots, by_units))
            for window, sums in self._window_sums(tables, step, slots, windows)
        ]
        voices = np.stack([sums.fresh for sums, _ in per_window])
        mentions = np.stack([sums.organic for sums, _ in per_window])
        length = np.array(windows, np.float64)[:, None]
        exposure = np.stack([np.where(by_units[:, 0], sums.field, sums.organic) for sums, _ in per_window]) / length
        expected = Prediction(*(np.stack(parts) for parts in zip(*(e for _, e in per_window), strict=True)))
        reset = step - units.reset[slots][None] < np.array(windows)[:, None, None]
        worth = (
            (voices >= policy.minimum_voices)
            & (mentions[:, :, None] >= MINIMUM_MENTIONS)
            & (expected.mean > 0)
            & ~reset
        )
        p_values = _tail(expected, voices, worth & (voices > expected.mean))
        newest = np.zeros((len(slots), TYPES))
        if step in tables:
            _gather(tables[step], slots, [(tables[step].fresh, newest)])
        return Scan(step, windows, slots, voices, mentions, exposure, newest, rates, expected, p_values)

    def _predict(self, rates: Posterior, sums: _Sums, window: int, slots: Ints, by_units: Bools) -> Prediction:
        subjects = self._units.subject[slots]
        usual = self._absorber.usual(subjects) * window
        quiet = sums.quiet[subjects]
        factor = activity(quiet, usual)
        unsure = np.where(factor > 1, 1.0 / (quiet + ACTIVITY_SHRINKAGE), 0.0)
        exposure = np.where(
            by_units, (sums.field * factor)[:, None], np.maximum(sums.organic[:, None] - sums.voices, 0.0)
        )
        return predict(rates, exposure, by_units, unsure[:, None])

    def _window_sums(
        self, tables: Mapping[int, StepTable], step: int, slots: Ints, windows: tuple[int, ...]
    ) -> list[tuple[int, _Sums]]:
        units, count = self._units, len(slots)
        by_units = units.by_units[slots]
        sums = _Sums(
            np.zeros((count, TYPES)),
            np.zeros((count, TYPES)),
            np.zeros(count),
            np.zeros(count),
            np.zeros(len(units.subject_slots.keys)),
        )
        found = []
        for back in range(windows[-1]):
            table = tables.get(step - back)
            if table is not None:
                _gather(
                    table,
                    slots,
                    [
                        (table.fresh, sums.fresh),
                        (table.count[:, :TYPES], sums.voices),
                        (table.organic, sums.organic),
                    ],
                )
                sums.quiet += np.bincount(units.subject[table.slots], weights=table.quiet, minlength=len(sums.quiet))
            if by_units.any():
                counted = by_units & self._heard(table, step - back)[units.subject[slots]]
                sums.field += np.where(counted, units.field(slots, self._middle(step - back)), 0.0)
            if back + 1 in windows:
                found.append((back + 1, _Sums(*(part.copy() for part in vars(sums).values()))))
        return found

    def _heard(self, table: StepTable | None, step: int) -> Bools:
        """Of each subject slot: whether the step says something of it, be it by having no mention outside a gap."""
        size = len(self._units.subject_slots.keys)
        if not self._silent(step):
            return np.ones(size, np.bool_)
        spoken = np.zeros(size, np.bool_)
        if table is not None:
            spoken[self._units.subject[table.slots]] = True
        return spoken


def _gather(table: StepTable, slots: Ints, columns: list[tuple[Ints, Floats]]) -> None:
    """Add the table's columns to the totals, row by slot; ``slots`` is sorted, the table's slots are distinct."""
    place = np.minimum(np.searchsorted(slots, table.slots), len(slots) - 1)
    rows = np.flatnonzero(slots[place] == table.slots)
    place = place[rows]
    for column, total in columns:
        total[place] += column[rows]


def _tail(expected: Prediction, voices: Floats, worth: Bools) -> Floats:
    """Tail probabilities where they are worth computing, 1 elsewhere."""
    p_values = np.ones(voices.shape)
    part = Prediction(expected.mean[worth], expected.size[worth])
    p_values[worth] = part.tail(voices[worth])
    return p_values
