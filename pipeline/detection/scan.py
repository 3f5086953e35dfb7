"""Trailing-window scan: how unlikely are the voices of the last 1, 2, 4, 8 … steps, were nothing wrong?

Several window lengths catch both a sudden and a moderate rise. A longer window counts only while every shorter one
stands out too: what is past, a single bad day or a spike that is over, is not told again on each of the days after it, and
fewer chances are taken.

The smallest tail probability of the windows that count is corrected for how many chances there were. Of independent
normal counts with dyadic windows the corrected p-value exceeds the smallest tail probability p by a factor that hardly
depends on the number of windows and grows with -log10 p (1.4 at 0.01, 2.1 at 0.001, 2.6 at 0.0001, by simulation);
the line through these, and never more than Bonferroni's number of windows, is taken. Nine of ten steps below a threshold
follow none: the same numbers tell how often a spike opens. Small counts are coarse: their p-values lie below a level more
seldom than it says, up to four times. So the promise, which is one of numbers, is kept by mid-p-values, which are as often
below it on average; the p-values that are told claim no more than they keep for each count.

After a spike has closed, windows do not reach back to it.

A slow ramp is learnt while it lasts, so the longest window is held against the past as well: the rate of one to two months
ago, with what it may have drifted since. That is one chance and needs no correction.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from pipeline.detection.baseline import Absorber, Posterior, Prediction, offset, past, posterior, predict
from pipeline.detection.counts import StepTable
from pipeline.detection.entries import TYPES
from pipeline.detection.exposure import ACTIVITY_SHRINKAGE, Bools, Floats, Ints, activity
from pipeline.detection.rules import in_quiet_period, minimum_voices
from pipeline.detection.season import Season, log_factor
from pipeline.detection.units import Units
from schemas.policy import DAY_MS, DetectionPolicy

MINIMUM_MENTIONS = 5
"""Mentions of the unit (reposts and rewarded ones apart) in the window below which there is no rate to speak of: three complaints alone are no spike."""
USUAL_MENTIONS = 10.0
"""Weight of the usual volume of talk, in mentions, where a window has fewer than usual."""
STANDS_OUT = 1.75
"""Standard deviations above what is expected that a window must hold for longer ones to count."""
CHANCES = (0.06, 0.66)
"""Factor of the correction: the first plus the second times -log10 of the tail probability."""
CALM = 0.05
"""A series is calm at a step when its window is no rarer than this, were nothing wrong."""
SHARE_OF_RAMPS = 0.2
"""Share of the promise that is given to ramps. The scan gets all of it: of small counts it leaves more than this unused."""
SERIES_WITHOUT_CATALOGUE = 700
"""Series that share the promise where neither the policy nor a catalogue tells their number: a hundred lots."""


def threshold(policy: DetectionPolicy, step_length: int, lots: int) -> float:
    """Probability a series and step below which a signal opens: the promised false signals, shared out by number.

    Args:
        policy: holds the promise, and perhaps the number of series.
        step_length: ms.
        lots: of the catalogue in force; 0 without one.
    """
    series = policy.series or (TYPES * lots if lots else SERIES_WITHOUT_CATALOGUE)
    return policy.false_signals_per_week * step_length / (7 * DAY_MS) / series


def volume(mentions: Floats, length: Floats) -> Floats:
    """Mentions that stand for the volume of talk in W windows, shortest first: few are drawn up towards the usual number.

    Where nine of a lot's ten mentions of a day object, the tenth alone says little of how many might have. Talk that is
    livelier than usual stands as it is, like the activity of a product.

    Args:
        mentions: (W, r, 7), those that do not object to the type, season included.
        length: (W, 1, 1), steps.
    """
    usual = np.maximum(mentions[-1] * length / length[-1], 1e-9)
    drawn: Floats = np.maximum(mentions, (mentions + USUAL_MENTIONS) / (1.0 + USUAL_MENTIONS / usual))
    return drawn


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
    """r unit slots x W windows ending at ``step``: counts and predictions (W, r, 7), exposure (W, r), newest (r, 7).

    The last window is the longest once more, held against the past.
    """

    step: int
    windows: tuple[int, ...]
    slots: Ints
    voices: Floats
    """Those that may open a spike."""
    every: Floats
    """Those that came late or undated as well."""
    mentions: Floats
    exposure: Floats
    newest: Floats
    rates: Posterior
    expected: Prediction
    p_values: Floats
    mid_p: Floats
    family: Callable[[int], "Scan"]
    """The same scan of all units of one subject slot: siblings are looked at only where a spike is told of."""

    def best(self) -> tuple[Ints, Floats, Floats]:
        """Of each series (r, 7): the window that is least likely (shortest of equals), its corrected p- and mid-p-value."""
        window = np.argmin(self.p_values[:-1], axis=0)
        p_value, mid_p = (np.take_along_axis(tail, window[None], axis=0)[0] for tail in (self.p_values, self.mid_p))
        return window, corrected(p_value, self.chances), corrected(mid_p, self.chances)

    @property
    def chances(self) -> int:
        """Windows of the scan."""
        return len(self.windows) - 1

    @property
    def ramp(self) -> int:
        """Position of the window that is held against the past."""
        return len(self.windows) - 1

    def tail(self, at: tuple[int, int, int]) -> float:
        """P(X >= voices, late ones too) of one window, row and type, whether or not a spike could open there."""
        one = Prediction(self.expected.mean[at], self.expected.size[at])
        return float(one.tail(self.every[at]))

    def p_value(self, at: tuple[int, int, int]) -> float:
        """The same, corrected for the scan."""
        return self._corrected(self.tail(at), at[0])

    def p_opening(self, at: tuple[int, int, int]) -> float:
        """The corrected p-value of those voices that may open a signal."""
        return self._corrected(float(self.p_values[at]), at[0])

    def _corrected(self, tail: float, window: int) -> float:
        return tail if window == self.ramp else float(corrected(np.array(tail), self.chances))


class _Said(NamedTuple):
    """What n steps, newest first, say of r units and S subjects."""

    fresh: Floats
    """(n, r, 7)"""
    voices: Floats
    """(n, r, 7): history included."""
    organic: Floats
    """(n, r)"""
    quiet: Floats
    """(n, S)"""


class _Sums(NamedTuple):
    """Over the steps of W windows: r units, 7 types, S subjects, p terms of the season."""

    fresh: Floats
    """(W, r, 7)"""
    voices: Floats
    """(W, r, 7)"""
    organic: Floats
    """(W, r)"""
    exposure: Floats
    """(W, r)"""
    total: Floats
    """(W, r, 7): exposure times season …"""
    squares: Floats
    """… and its squares, step by step."""
    quiet: Floats
    """(W, S)"""
    terms: Floats
    """(W, p)"""


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

    def look(
        self, tables: Mapping[int, StepTable], step: int, alarmed: Iterable[int], policy: DetectionPolicy
    ) -> Scan | None:
        """Scan the units with an open spike and those where one may open; None where there is none.

        One may open where somebody objects now and enough did in all windows; most units of a step are not worth more than
        this look at their counts.

        Args:
            tables: of the steps that the windows reach back to; what is missing was silent.
            step: the newest.
            alarmed: slots of the units with an open spike.
            policy: the windows and what is enough.
        """
        spoken = [] if step not in tables else tables[step].slots[(tables[step].fresh > 0).any(axis=1)].tolist()
        slots = np.array(sorted({*spoken, *alarmed}), np.int64)
        if not len(slots):
            return None
        said = self._said(tables, step, slots, policy)
        voices, mentions = said.fresh.sum(axis=0), said.organic.sum(axis=0)
        least = minimum_voices(policy, self._units, slots)[:, None]
        enough = (voices >= least) & (mentions >= MINIMUM_MENTIONS)[:, None]
        worth = ((said.fresh[0] > 0) & enough).any(axis=1) | np.isin(slots, list(alarmed))
        if not worth.any():
            return None
        said = said._replace(fresh=said.fresh[:, worth], voices=said.voices[:, worth], organic=said.organic[:, worth])
        return self._scan(tables, step, slots[worth], said, policy)

    def _scan(
        self, tables: Mapping[int, StepTable], step: int, slots: Ints, said: _Said, policy: DetectionPolicy
    ) -> Scan:
        """Scan these slots. Windows not allowed (reset, too few voices or mentions) have p-value 1."""
        units, lengths = self._units, sorted(policy.windows)
        windows = (*lengths, lengths[-1])
        rates = posterior(units, slots, step, self._absorber.drift)
        before = past(units, slots, step, self._absorber.drift, rates.dispersion)
        length = np.array(windows, np.float64)[:, None]
        sums = self._window_sums(tables, step, slots, said, windows)
        voices, mentions = sums.fresh, sums.organic
        expected = self._predict(rates, before, sums, length, slots)
        reset = step - units.reset[slots][None] < np.array(windows)[:, None, None]
        worth = (
            (voices >= minimum_voices(policy, units, slots)[:, None])
            & (mentions[:, :, None] >= MINIMUM_MENTIONS)
            & (expected.mean > 0)
            & ~reset
            & ~self._reaches_quiet(step, slots, policy)[:, :, None]
        )
        worth[-1] &= units.marked[slots][:, :1] > units.reset[slots]  # what closed has been told: it is no past
        worth[:-1] &= supported(voices[:-1], Prediction(expected.mean[:-1], expected.size[:-1]))
        worth &= voices > expected.mean
        p_values, mid_p = _tails(expected, voices, worth)

        @cache
        def family(subject: int) -> Scan:
            members = units.members_of(subject)
            return self._scan(tables, step, members, self._said(tables, step, members, policy), policy)

        exposure = sums.exposure / length
        return Scan(
            step,
            windows,
            slots,
            voices,
            sums.voices,
            mentions,
            exposure,
            said.fresh[0],
            rates,
            expected,
            p_values,
            mid_p,
            family,
        )

    def _predict(self, rates: Posterior, before: Posterior, sums: _Sums, length: Floats, slots: Ints) -> Prediction:
        """Of each window, of the last one by the rates of before; ``length`` (W, 1): its steps."""
        units, subjects = self._units, self._units.subject[slots]
        by_units = units.by_units[slots][:, None]
        quiet = sums.quiet[:, subjects]
        factor = activity(quiet, self._absorber.usual(subjects) * length)[:, :, None]
        unsure = np.where(factor > 1, 1.0 / (quiet + ACTIVITY_SHRINKAGE)[:, :, None], 0.0)
        factor = np.where(by_units, factor, 1.0)
        total = np.where(by_units, sums.total, volume(sums.total, length[:, :, None]))
        over = offset(total * factor, sums.squares * factor**2, by_units, unsure)
        season = log_factor(units.season_variance[slots], (sums.terms / length) ** 2)
        by_now, by_past = predict(rates, over, season), predict(before, over, season)
        return Prediction(*(np.concatenate((now[:-1], then[-1:])) for now, then in zip(by_now, by_past, strict=True)))

    def _window_sums(
        self, tables: Mapping[int, StepTable], step: int, slots: Ints, said: _Said, windows: tuple[int, ...]
    ) -> _Sums:
        units, by_units = self._units, self._units.by_units[slots]
        steps = np.arange(step, step - windows[-1], -1)
        field = np.zeros_like(said.organic)
        if by_units.any():
            instants = np.array([self._middle(index) for index in steps.tolist()])[:, None]
            heard = np.stack([self._heard(tables.get(index), index) for index in steps.tolist()])
            counted = by_units & heard[:, units.subject[slots]]
            field = np.where(counted, units.field(slots, instants), 0.0)
        terms = self._season.terms(steps)
        not_objecting = np.maximum(said.organic[:, :, None] - said.voices, 0.0)
        exposure = np.where(by_units[:, None], field[:, :, None], not_objecting)
        exposure *= np.exp(log_factor(units.season[slots], terms))
        measured = np.where(by_units, field, said.organic)
        parts = (said.fresh, said.voices, said.organic, measured, exposure, exposure**2)
        ends = np.array(windows) - 1
        return _Sums(*(np.cumsum(part, axis=0)[ends] for part in (*parts, said.quiet, terms)))

    def _reaches_quiet(self, step: int, slots: Ints, policy: DetectionPolicy) -> Bools:
        """(W, r): windows that reach into a quiet period, the last one once more."""
        lengths = sorted(policy.windows)
        instants = np.array([self._middle(step - back) for back in range(lengths[-1])])
        touched = np.logical_or.accumulate(in_quiet_period(policy, self._units, slots, instants), axis=0)
        reached: Bools = touched[np.array([*lengths, lengths[-1]]) - 1]
        return reached

    def _said(self, tables: Mapping[int, StepTable], step: int, slots: Ints, policy: DetectionPolicy) -> _Said:
        """What the steps of the longest window say of these slots."""
        number, subjects = max(policy.windows), len(self._units.subject_slots.keys)
        shape = (number, len(slots), TYPES)
        said = _Said(np.zeros(shape), np.zeros(shape), np.zeros(shape[:2]), np.zeros((number, subjects)))
        known = [(back, tables[step - back]) for back in range(number) if step - back in tables]
        if not known:
            return said
        everyone = np.concatenate([table.slots for _, table in known])
        back = np.repeat([back for back, _ in known], [len(table.slots) for _, table in known])
        place = np.full(len(self._units), -1)
        place[slots] = np.arange(len(slots))
        row = place[everyone]
        wanted = np.flatnonzero(row >= 0)
        at = (back[wanted], row[wanted])
        said.fresh[at] = np.concatenate([table.fresh for _, table in known])[wanted]
        said.voices[at] = np.concatenate([table.count for _, table in known])[wanted, :TYPES]
        said.organic[at] = np.concatenate([table.organic for _, table in known])[wanted]
        owner = back * subjects + self._units.subject[everyone]
        quiet = np.concatenate([table.quiet for _, table in known])
        said.quiet[:] = np.bincount(owner, weights=quiet, minlength=number * subjects).reshape(number, subjects)
        return said

    def _heard(self, table: StepTable | None, step: int) -> Bools:
        """Of each subject slot: whether the step says something of it, be it by having no mention outside a gap."""
        size = len(self._units.subject_slots.keys)
        if not self._silent(step):
            return np.ones(size, np.bool_)
        spoken = np.zeros(size, np.bool_)
        if table is not None:
            spoken[self._units.subject[table.slots]] = True
        return spoken


def _tails(expected: Prediction, voices: Floats, worth: Bools) -> tuple[Floats, Floats]:
    """Tail probabilities and their mid-p-values where they are worth computing, 1 elsewhere."""
    tail, middle = np.ones(voices.shape), np.ones(voices.shape)
    part = Prediction(expected.mean[worth], expected.size[worth])
    tail[worth], middle[worth] = part.tail(voices[worth]), part.middle_tail(voices[worth])
    return tail, middle
