"""What history and exposure lead one to expect of a series: a gamma-Poisson model with the exposure as offset.

A series' rate has a gamma posterior: its own discounted voices and exposure, plus a prior worth a few voices at the
rate of its sibling lots, so that a young lot is judged by its family until it has a history of its own. Counts are
then negative binomial (the gamma-Poisson predictive; Gelman et al., Bayesian Data Analysis, ch. 2). Further spread,
over-dispersion of the counts and the uncertainty of the exposure, is added to the relative variance of the mean.

A step is absorbed when it is final and no window reaches it any more: that gap keeps the beginning of a spike out of the
history it is held against. Voices beyond what is credible are cut before they are absorbed, so that a spike does not
raise its own baseline (the purpose of the reweighting in Noufaily et al., Statistics in Medicine 2013; cutting is
simpler and needs no second pass).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import betainc

from pipeline.detection.exposure import Bools, Floats, Ints, activity
from pipeline.detection.tally import TYPES
from pipeline.detection.units import NEVER, Units
from schemas.policy import DAY_MS

HALF_LIFE_DAYS = 60
"""History counts half after this long: slow drift is followed, a spike is not."""
PRIOR_VOICES = 5.0
"""Weight of the siblings' rate, in voices."""
LONE_PRIOR_VOICES = 0.5
"""Weight of the vague prior of a unit without siblings (Jeffreys)."""
DISPERSION = 1.5
"""Variance over mean of a step's count assumed before a series' own is known …"""
DISPERSION_WEIGHT = 100.0
"""… with the weight of so many expected voices."""
DISPERSION_RANGE = (1.2, 5.0)
_TINY = 1e-9
WOBBLE = 0.03
"""Relative variance of a rate from day to day that no exposure explains."""
CUT = 2.58
"""Standard deviations above the mean at which absorbed counts are cut; one voice more is always allowed."""
CUT_OPEN = 0.25
"""The same, without the voice more, while a spike of the series is open: a lasting change of level is learnt slowly."""
QUIET_CUT = 2.0
"""Multiple of the usual activity at which absorbed activity is cut: a promotion is not the new usual."""
LONGEST_SILENCE_DAYS = 14
"""A product silent for longer than this was not heard, rather than in order: such steps are not absorbed."""


class Posterior(NamedTuple):
    """Of r series x 7 types: the rate is gamma(events, exposure); dispersion of the counts around their mean."""

    events: Floats
    exposure: Floats
    dispersion: Floats

    def rate(self) -> Floats:
        """Mean rate per exposure; NaN where there is no history at all."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.exposure > 0, self.events / self.exposure, np.nan)


class Prediction(NamedTuple):
    """Counts expected were nothing wrong: negative binomial with this mean, variance = mean + mean^2 / size."""

    mean: Floats
    size: Floats

    def tail(self, observed: Floats) -> Floats:
        """P(X >= observed): the regularised incomplete beta function. 1 where there is nothing to expect by."""
        defined = (observed > 0) & (self.mean > 0)
        mean, size = np.where(defined, self.mean, 1.0), np.where(defined, self.size, 1.0)
        return np.where(defined, betainc(np.where(defined, observed, 1.0), size, mean / (size + mean)), 1.0)

    def spread(self) -> Floats:
        """Standard deviation of the count; 0 where there is nothing to expect by."""
        defined = self.mean > 0
        mean, size = np.where(defined, self.mean, 0.0), np.where(defined, self.size, 1.0)
        return np.sqrt(mean + mean**2 / size)


def posterior(units: Units, slots: Ints, step: int, half_life: float) -> Posterior:
    """The rates of these slots as of a step, each with the prior of its siblings (same subject, same exposure kind)."""
    count = len(units)
    decay = 0.5 ** ((step - units.as_of[:count]) / half_life)
    pool = units.subject[:count] * 2 + units.by_units[:count]
    family = np.unique(pool[slots])
    members = np.flatnonzero(np.isin(pool, family)) if len(family) * 4 < count else np.arange(count)
    place = np.searchsorted(family, pool[members])
    inside = (place < len(family)) & (family[np.minimum(place, len(family) - 1)] == pool[members])
    members, place = members[inside], place[inside]
    weight = decay[members, None]

    def pooled(column: Floats) -> Floats:
        total = np.zeros((len(family), TYPES))
        np.add.at(total, place, column[members] * weight)
        return total[np.searchsorted(family, pool[slots])]

    own = decay[slots, None]
    events, exposure = units.events[slots] * own, units.exposure[slots] * own
    others = np.maximum(pooled(units.events) - events, 0.0)
    others_exposure = np.maximum(pooled(units.exposure) - exposure, 0.0)
    siblings = others_exposure > 1e-6 * (1.0 + exposure)
    voices = np.where(siblings, PRIOR_VOICES, LONE_PRIOR_VOICES)
    with np.errstate(divide="ignore", invalid="ignore"):
        prior_exposure = np.where(siblings, PRIOR_VOICES * others_exposure / (others + LONE_PRIOR_VOICES), 0.0)
    squares, expected = units.squares[slots] * own, units.expected[slots] * own
    dispersion = (squares + DISPERSION_WEIGHT * DISPERSION) / (expected + DISPERSION_WEIGHT)
    dispersion = np.clip(dispersion, *DISPERSION_RANGE)
    return Posterior(events + voices, exposure + prior_exposure, dispersion)


def predict(rates: Posterior, exposure: Floats, by_units: Bools, unsure: Floats) -> Prediction:
    """What the rates lead one to expect over an exposure (r, 7).

    Where the exposure is mentions, it is those that do *not* object to the type, and the rate is the odds: so a share
    near one cannot saturate. They stand for an unknown volume of talk, whose gamma posterior (Jeffreys) adds half a
    mention and a relative variance of one over their number. Where it is units, ``unsure`` (r, 1) is the relative
    variance of the activity factor in them.
    """
    mentions = exposure + 0.5
    mean = rates.rate() * np.where(by_units, exposure, mentions)
    relative = 1.0 / rates.events + WOBBLE + np.where(by_units, unsure, 1.0 / mentions)
    return Prediction(mean, mean / (rates.dispersion - 1.0 + mean * relative + _TINY))


class StepSums(NamedTuple):
    """One final step of the units that had mentions in it: slots (n,), the rest (n,) or (n, 7)."""

    step: int
    slots: Ints
    organic: Floats
    quiet: Floats
    voices: Floats


class Absorber:
    """Takes final steps into the baselines of one detector's units.

    Args:
        units: the columns to keep up.
        step_length: nominal, ms.
        silent: whether a step lies wholly in a gap of a source.
    """

    def __init__(self, units: Units, step_length: int, silent: Callable[[int], bool]) -> None:
        steps_a_day = DAY_MS // step_length
        self._units = units
        self._step_length = step_length
        self._silent = silent
        self.half_life = float(HALF_LIFE_DAYS * steps_a_day)
        self._longest_silence = LONGEST_SILENCE_DAYS * steps_a_day

    def usual(self, subjects: Ints) -> Floats:
        """Usual quiet mentions a step of each subject slot; NaN before the first absorbed step."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._units.quiet[subjects] / self._units.weight[subjects]

    def absorb(self, sums: StepSums, instant: float, alarmed: Ints) -> None:
        """Take one final step in.

        Args:
            sums: the step.
            instant: the middle of the step, ms UTC.
            alarmed: (m, 2) slot and type of the series with an open spike.
        """
        units = self._units
        subjects = np.unique(units.subject[sums.slots])
        self._absorb_silence(subjects, sums.step, instant)
        factor = self._absorb_activity(sums, subjects)
        family = units.family(sums.slots)
        slots = family[units.by_units[family] | np.isin(family, sums.slots)]
        position = np.searchsorted(slots, sums.slots)
        voices, organic = np.zeros((len(slots), TYPES)), np.zeros(len(slots))
        voices[position], organic[position] = sums.voices, sums.organic
        by_units = units.by_units[slots][:, None]
        field = units.field(slots, instant) * factor[units.subject[slots]]
        exposure = np.where(by_units, field[:, None], np.maximum(organic[:, None] - voices, 0.0))
        self._update(slots, sums.step, voices, exposure, alarmed)

    def _update(self, slots: Ints, step: int, voices: Floats, exposure: Floats, alarmed: Ints) -> None:
        units = self._units
        rates = posterior(units, slots, step, self.half_life)
        by_units = units.by_units[slots][:, None]
        expected = predict(rates, exposure, by_units, np.zeros((len(slots), 1)))
        known = ~np.isnan(expected.mean)
        mean = np.where(known, expected.mean, 0.0)
        variance = np.where(known, expected.spread() ** 2, 0.0)
        open_spike = self._among(slots, alarmed)
        allowed = np.where(open_spike, CUT_OPEN * np.sqrt(variance), CUT * np.sqrt(variance) + 1.0)
        cut = np.where(known, np.minimum(voices, mean + allowed), voices)
        # Of the squared error, what the uncertainty of the mean does not explain is the counts' own spread.
        judged = known & ~open_spike
        squares = (cut - mean) ** 2 - (variance - rates.dispersion * mean)
        decay = 0.5 ** ((step - units.as_of[slots]) / self.half_life)[:, None]
        for column, gain in (
            (units.events, cut),
            (units.exposure, exposure),
            (units.squares, np.where(judged, squares, 0.0)),
            (units.expected, np.where(judged, mean, 0.0)),
        ):
            column[slots] = column[slots] * decay + gain
        units.as_of[slots] = step
        units.dirty.update(slots.tolist())

    @staticmethod
    def _among(slots: Ints, alarmed: Ints) -> Bools:
        """(r, 7): which series of these slots (ascending) have an open spike."""
        found = np.zeros((len(slots), TYPES), np.bool_)
        place = np.minimum(np.searchsorted(slots, alarmed[:, 0]), len(slots) - 1)
        hit = slots[place] == alarmed[:, 0]
        found[place[hit], alarmed[hit, 1]] = True
        return found

    def _absorb_silence(self, subjects: Ints, step: int, instant: float) -> None:
        """Steps without a mention of a subject since its last absorbed one are zeros, if they are not too many.

        They matter to lots whose exposure goes on without mentions; it is taken at the middle of the silence.
        """
        units = self._units
        run = step - units.absorbed[subjects] - 1
        short = (run > 0) & (run <= self._longest_silence)
        subjects, run = subjects[short], run[short]
        if not len(subjects):
            return
        back = np.arange(run.max())
        heard = np.array([not self._silent(step - 1 - number) for number in back.tolist()])
        fading = np.cumsum(np.where(heard, 0.5 ** (back / self.half_life), 0.0))
        steps = np.zeros(len(units.subject_slots.keys))
        steps[subjects] = fading[run - 1]
        decay = 0.5 ** (run / self.half_life)
        units.quiet[subjects] *= decay
        units.weight[subjects] = units.weight[subjects] * decay + steps[subjects]
        units.absorbed[subjects] = step - 1
        slots = units.family(np.array([units.index[units.members[subject][0]] for subject in subjects.tolist()]))
        slots = slots[units.by_units[slots]]
        if len(slots):
            ago = np.zeros(len(steps))
            ago[subjects] = (run + 1) / 2 * self._step_length
            owner = units.subject[slots]
            self._absorb_zeros(slots, step - 1, units.field(slots, instant - ago[owner]), steps[owner])

    def _absorb_zeros(self, slots: Ints, step: int, field: Floats, steps: Floats) -> None:
        """No voices over so many (discounted) steps up to this one, with so many units in the field."""
        units = self._units
        rate = np.nan_to_num(posterior(units, slots, step, self.half_life).rate())
        exposure = (field * steps)[:, None]
        decay = 0.5 ** ((step - units.as_of[slots]) / self.half_life)[:, None]
        for column, gain in (
            (units.events, 0.0 * exposure),
            (units.exposure, exposure),
            (units.squares, rate**2 * field[:, None] * exposure),
            (units.expected, rate * exposure),
        ):
            column[slots] = column[slots] * decay + gain
        units.as_of[slots] = step

    def _absorb_activity(self, sums: StepSums, subjects: Ints) -> Floats:
        """Activity factor of the step by subject slot, and the subjects' usual activity brought up to date."""
        units = self._units
        size = len(units.subject_slots.keys)
        quiet = np.bincount(units.subject[sums.slots], weights=sums.quiet, minlength=size).astype(np.float64)
        usual = np.full(size, np.nan)
        usual[subjects] = self.usual(subjects)
        factor = activity(quiet, usual)
        limit = np.where(np.isnan(usual), np.inf, QUIET_CUT * usual + 10.0)
        first = units.absorbed[subjects] == NEVER
        elapsed = np.where(first, 0, sums.step - units.absorbed[subjects])
        decay = 0.5 ** (elapsed / self.half_life)
        units.quiet[subjects] = units.quiet[subjects] * decay + np.minimum(quiet, limit)[subjects]
        units.weight[subjects] = units.weight[subjects] * decay + 1.0
        units.absorbed[subjects] = sums.step
        units.dirty_subjects.update(subjects.tolist())
        return factor
