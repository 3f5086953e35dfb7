"""Trailing-window scan: how unlikely are the voices of the last 1, 2, 4, 8 … steps, were nothing wrong?

Several window lengths catch both a sudden and a moderate rise. A longer window counts only while every shorter one
stands out too: what is past, a single bad day or a spike that is over, is not told again on each of the days after it, and
fewer chances are taken.

The smallest tail probability of the windows that count is corrected for how many chances there were. Of independent
normal counts with dyadic windows the corrected p-value exceeds the smallest tail probability p by a factor that hardly
depends on the number of windows and grows with -log10 p (1.4 at 0.01, 2.1 at 0.001, 2.6 at 0.0001, by simulation);
the line through these, and never more than Bonferroni's number of windows, is taken. Nine of ten steps below a threshold
follow none: the same numbers tell how often a spike opens. Small counts are coarse and take fewer chances than that: their
corrected p-values are on the safe side.

After a spike has closed, windows do not reach back to it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.detection.baseline import Absorber, Posterior, Prediction, offset, posterior, predict
from pipeline.detection.counts import StepTable
from pipeline.detection.exposure import ACTIVITY_SHRINKAGE, Bools, Floats, Ints, activity
from pipeline.detection.season import Season, log_factor
from pipeline.detection.tally import TYPES
from pipeline.detection.units import Units
from schemas.policy import DAY_MS, DetectionPolicy

MINIMUM_MENTIONS = 5
"""Mentions of the unit (reposts and rewarded ones apart) in the window below which there is no rate to speak of: three complaints alone are no spike."""
STANDS_OUT = 1.75
"""Standard deviations above what is expected that a window must hold for longer ones to count."""
CHANCES = (0.06, 0.66)
"""Factor of the correction: the first plus the second times -log10 of the tail probability."""
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


def supported(voices: Floats, expected: Prediction) -> Bools:
    """Of windows along the first axis, shortest first: those of which all shorter ones stand out."""
    stands_out = voices > expected.mean + STANDS_OUT * expected.spread()
    found = np.ones(voices.shape, np.bool_)
    found[1:] = np.logical_and.accumulate(stands_out[:-1], axis=0)
    return found


def corrected(tail: Floats, windows: int) -> Floats:
    """The p-value of a scan whose smallest tail probability is this one."""
    chances = CHANCES[0] - CHANCES[1] * np.log10(np.maximum(tail, 1e-300))
    return np.minimum(tail * np.clip(chances, 1.0, windows), 1.0)


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
        return window, corrected(p_value, len(self.windows))

    def tail(self, at: tuple[int, int, int]) -> float:
        """P(X >= voices) of one window, row and type, whether or not a spike could open there."""
        one = Prediction(self.expected.mean[at], self.expected.size[at])
        return float(one.tail(self.voices[at]))

    def p_value(self, at: tuple[int, int, int]) -> float:
        """The same, corrected for the scan."""
        return float(corrected(np.array(self.tail(at)), len(self.windows)))


@dataclass
class _Sums:
    """Over the steps of a window: r units, 7 types, S subjects, p terms of the season."""

    fresh: Floats
    exposure: Floats
    """(r,)"""
    total: Floats
    """(r, 7): exposure times season …"""
    squares: Floats
    """… and its squares, step by step."""
    organic: Floats
    quiet: Floats
    """(S,)"""
    terms: Floats
    """(p,)"""


class Scanner:
    """Scans the closed steps of one detector."""

    def __init__(
        self,
        units: Units,
        absorber: Absorber,
        middle: Callable[[int], float],
        silent: Callable[[int], bool],
        season: Season,
    ) -> None:
        self._units = units
        self._absorber = absorber
        self._middle = middle
        self._silent = silent
        self._season = season

    def scan(self, tables: Mapping[int, StepTable], step: int, slots: Ints, policy: DetectionPolicy) -> Scan:
        """Scan these slots at a step. Windows not allowed (reset, too few voices or mentions) have p-value 1."""
        units, windows = self._units, tuple(sorted(policy.windows))
        rates = posterior(units, slots, step, self._absorber.drift)
        per_window = [
            (sums, self._predict(rates, sums, window, slots))
            for window, sums in self._window_sums(tables, step, slots, windows)
        ]
        voices = np.stack([sums.fresh for sums, _ in per_window])
        mentions = np.stack([sums.organic for sums, _ in per_window])
        length = np.array(windows, np.float64)[:, None]
        exposure = np.stack([sums.exposure for sums, _ in per_window]) / length
        expected = Prediction(*(np.stack(parts) for parts in zip(*(e for _, e in per_window), strict=True)))
        reset = step - units.reset[slots][None] < np.array(windows)[:, None, None]
        worth = (
            (voices >= policy.minimum_voices)
            & (mentions[:, :, None] >= MINIMUM_MENTIONS)
            & (expected.mean > 0)
            & ~reset
        )
        worth &= supported(voices, expected) & (voices > expected.mean)
        p_values = _tail(expected, voices, worth)
        newest = np.zeros((len(slots), TYPES))
        if step in tables:
            _gather(tables[step], slots, [(tables[step].fresh, newest)])
        return Scan(step, windows, slots, voices, mentions, exposure, newest, rates, expected, p_values)

    def _predict(self, rates: Posterior, sums: _Sums, window: int, slots: Ints) -> Prediction:
        units, subjects = self._units, self._units.subject[slots]
        by_units = units.by_units[slots][:, None]
        quiet = sums.quiet[subjects]
        factor = activity(quiet, self._absorber.usual(subjects) * window)
        unsure = np.where(factor > 1, 1.0 / (quiet + ACTIVITY_SHRINKAGE), 0.0)
        factor = np.where(by_units, factor[:, None], 1.0)
        over = offset(sums.total * factor, sums.squares * factor**2, by_units, unsure[:, None])
        return predict(rates, over, log_factor(units.season_variance[slots], (sums.terms / window) ** 2))

    def _window_sums(
        self, tables: Mapping[int, StepTable], step: int, slots: Ints, windows: tuple[int, ...]
    ) -> list[tuple[int, _Sums]]:
        shapes = ((len(slots), TYPES), (len(slots),), (len(slots), TYPES), (len(slots), TYPES), (len(slots),))
        subjects, terms = len(self._units.subject_slots.keys), len(self._season.prior)
        sums = _Sums(*(np.zeros(shape) for shape in (*shapes, (subjects,), (terms,))))
        found = []
        for back in range(windows[-1]):
            self._add_step(sums, tables.get(step - back), step - back, slots)
            if back + 1 in windows:
                found.append((back + 1, _Sums(*(part.copy() for part in vars(sums).values()))))
        return found

    def _add_step(self, sums: _Sums, table: StepTable | None, step: int, slots: Ints) -> None:
        units, by_units = self._units, self._units.by_units[slots]
        voices, organic = np.zeros((len(slots), TYPES)), np.zeros(len(slots))
        if table is not None:
            columns = [(table.fresh, sums.fresh), (table.count[:, :TYPES], voices), (table.organic, organic)]
            _gather(table, slots, columns)
            sums.quiet += np.bincount(units.subject[table.slots], weights=table.quiet, minlength=len(sums.quiet))
        field = np.zeros(len(slots))
        if by_units.any():
            counted = by_units & self._heard(table, step)[units.subject[slots]]
            field = np.where(counted, units.field(slots, self._middle(step)), 0.0)
        terms = self._season.terms(step)
        exposure = np.where(by_units[:, None], field[:, None], np.maximum(organic[:, None] - voices, 0.0))
        exposure *= np.exp(log_factor(units.season[slots], terms))
        sums.organic += organic
        sums.exposure += np.where(by_units, field, organic)
        sums.total += exposure
        sums.squares += exposure**2
        sums.terms += terms

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
