"""What history and exposure lead one to expect of a series: a dynamic gamma-Poisson model with the exposure as offset.

The logarithm of a series' rate is a level that drifts plus a season (`season`). It is a dynamic generalised linear model
in the sense of West, Harrison and Migon (Journal of the American Statistical Association, 1985): the forecast of the
log rate is turned into a gamma distribution of the same mean and relative variance, the count updates it, and what the
logarithm and its variance changed by is shared out to level and season in proportion to their variances. Covariances are
not kept. The level alone is again gamma: so many ``events`` over so much ``exposure``, to which a prior worth a few
events at the rate of the sibling lots is added, so that a young lot is judged by its family until it has a history.

Counts are over-dispersed: variance = k (a mean + w mean^2), with k learnt for each series and drawn towards 1; the update
counts an event for k (a + w mean) voices. The predictive is negative binomial (gamma-Poisson; Gelman et al., Bayesian
Data Analysis, ch. 2) with that variance and the uncertainty of rate, season and exposure.

A step is absorbed when it is final and a guard gap lies between it and now, which keeps the beginning of a spike out of
the history it is held against. Voices beyond what is credible are cut before they are absorbed, so that a spike does not
raise its own baseline (the purpose of the reweighting in Noufaily et al., Statistics in Medicine 2013; cutting is
simpler and needs no second pass).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import betainc

from pipeline.detection.entries import TYPES
from pipeline.detection.exposure import Bools, Floats, Ints, activity
from pipeline.detection.season import Season, log_factor
from pipeline.detection.units import NEVER, Units
from schemas.policy import DAY_MS

GUARD_STEPS = 8
"""Steps up to the newest that are not history yet (as many as the longest window reaches, if that is less)."""
DRIFT = 2e-4
"""Variance by which the logarithm of a rate drifts in a day (its standard deviation in a month is 8 %)."""
SEASON_DRIFT = 1e-6
"""The same for each coefficient of the season."""
HALF_LIFE_DAYS = 60
"""A product's usual activity counts half after this long."""
PRIOR_VOICES = 5.0
"""Weight of the siblings' rate, in events."""
LONE_PRIOR_VOICES = 0.5
"""Weight of the vague prior of a unit without siblings (Jeffreys)."""
DISPERSION = 1.75
"""Variance over mean of a small count, before a series' own is known."""
WOBBLE = 0.04
"""Relative variance of a rate from step to step that no exposure explains, likewise."""
DISPERSION_WEIGHT = 10.0
"""Weight of the two, in steps with large counts."""
DISPERSION_RANGE = (0.05, 4.0)
"""What they may be multiplied by; the variance is never below the mean."""
DISPERSION_HALF_LIFE_DAYS = 1000
_TINY = 1e-9
CUT = 2.58
"""Standard deviations above the mean at which absorbed counts are cut; one voice more is always allowed."""
CUT_LOSS = 1.2
"""What squared errors are multiplied by, for the part of them that is cut."""
CUT_OPEN = 1.5
"""The cut without the voice more, while a spike of the series is open: a lasting change of level is learnt slowly."""
QUIET_CUT = 2.0
"""Multiple of the usual activity at which absorbed activity is cut: a promotion is not the new usual."""
MARK_DAYS = 28
"""So often the rates are marked; what they were between one and two marks ago is what slow ramps are held against."""
LONGEST_SILENCE_DAYS = 14
"""A product silent for longer than this was not heard, rather than in order: such steps are not absorbed."""


class Posterior(NamedTuple):
    """Of r series x 7 types: the rate is gamma(events, exposure); what the counts' prior variance is multiplied by."""

    events: Floats
    exposure: Floats
    dispersion: Floats

    def rate(self) -> Floats:
        """Mean rate per exposure; NaN where there is no history at all."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.exposure > 0, self.events / self.exposure, np.nan)

    def voices_an_event(self, mean: Floats) -> Floats:
        """Variance over mean of counts of such a mean; of a sum of counts: of such a mean on average, weighted by itself."""
        return np.maximum(self.dispersion * (DISPERSION + WOBBLE * np.nan_to_num(mean)), 1.0)


class Prediction(NamedTuple):
    """Counts expected were nothing wrong: negative binomial with this mean, variance = mean + mean^2 / size."""

    mean: Floats
    size: Floats

    def tail(self, observed: Floats) -> Floats:
        """P(X >= observed): the regularised incomplete beta function. 1 where there is nothing to expect by."""
        defined = (observed > 0) & (self.mean > 0)
        mean, size = np.where(defined, self.mean, 1.0), np.where(defined, self.size, 1.0)
        return np.where(defined, betainc(np.where(defined, observed, 1.0), size, mean / (size + mean)), 1.0)

    def middle_tail(self, observed: Floats) -> Floats:
        """P(X > observed) + P(X = observed) / 2: of discrete counts it is below a level as often as the level says, on average.

        The mid-p-value (Lancaster, Journal of the American Statistical Association, 1961).
        """
        return (self.tail(observed) + self.tail(observed + 1.0)) / 2.0

    def spread(self) -> Floats:
        """Standard deviation of the count; 0 where there is nothing to expect by."""
        defined = self.mean > 0
        mean, size = np.where(defined, self.mean, 0.0), np.where(defined, self.size, 1.0)
        return np.sqrt(mean + mean**2 / size)


def drifted(units: Units, slots: Ints, step: int, drift: float) -> tuple[Floats, Floats]:
    """Events and exposure (r, 7) of these slots' own history as of a step: the older it is, the less it weighs."""
    events = units.events[slots]
    kept = 1.0 / (1.0 + events * (drift * (step - units.as_of[slots]))[:, None])
    return events * kept, units.exposure[slots] * kept


def posterior(units: Units, slots: Ints, step: int, drift: float) -> Posterior:
    """The rates of these slots as of a step, each with the prior of its siblings (same subject, same exposure kind)."""
    count = len(units)
    pool = units.subject[:count] * 2 + units.by_units[:count]
    family = np.unique(pool[slots])
    members = np.flatnonzero(np.isin(pool, family)) if len(family) * 4 < count else np.arange(count)
    place = np.searchsorted(family, pool[members])
    inside = (place < len(family)) & (family[np.minimum(place, len(family) - 1)] == pool[members])
    members, place = members[inside], place[inside]

    def pooled(column: Floats) -> Floats:
        total = np.zeros((len(family), TYPES))
        np.add.at(total, place, column)
        return total[np.searchsorted(family, pool[slots])]

    events, exposure = drifted(units, slots, step, drift)
    all_events, all_exposure = drifted(units, members, step, drift)
    others = np.maximum(pooled(all_events) - events, 0.0)
    others_exposure = np.maximum(pooled(all_exposure) - exposure, 0.0)
    siblings = others_exposure > 1e-6 * (1.0 + exposure)
    voices = np.where(siblings, PRIOR_VOICES, LONE_PRIOR_VOICES)
    prior_exposure = np.where(siblings, PRIOR_VOICES * others_exposure / (others + LONE_PRIOR_VOICES), 0.0)
    dispersion = (units.squares[slots] + DISPERSION_WEIGHT) / (units.judged[slots] + DISPERSION_WEIGHT)
    return Posterior(events + voices, exposure + prior_exposure, np.clip(dispersion, *DISPERSION_RANGE))


def past(units: Units, slots: Ints, step: int, drift: float, dispersion: Floats) -> Posterior:
    """The rates of these slots as they were at the mark before the last, with what they may have drifted since; NaN before."""
    events, exposure = units.marks[slots, :, 0], units.marks[slots, :, 1]
    kept = 1.0 / (1.0 + events * (drift * (step - units.marked[slots, 0]))[:, None])
    return Posterior(np.maximum(events * kept, _TINY), exposure * kept, dispersion)


class Offset(NamedTuple):
    """What the rates of r series x 7 types are multiplied by, over a step or a window of steps."""

    total: Floats
    """Exposure times season, added up over the steps."""
    squares: Floats
    """The same of their squares."""
    unsure: Floats
    """Relative variance of the total."""


def offset(total: Floats, squares: Floats, by_units: Bools, unsure: Floats) -> Offset:
    """The offset of an exposure (r, 7).

    Where the exposure is mentions, it is those that do *not* object to the type, and the rate is the odds: so a share
    near one cannot saturate. They stand for an unknown volume of talk, whose gamma posterior (Jeffreys) adds half a
    mention and a relative variance of one over their number. Where it is units, ``unsure`` (r, 1) is the relative
    variance of the activity factor in them.
    """
    mentions = total + 0.5
    return Offset(np.where(by_units, total, mentions), squares, np.where(by_units, unsure, 1.0 / mentions))


def predict(rates: Posterior, over: Offset, season_variance: Floats | float = 0.0) -> Prediction:
    """What the rates lead one to expect over an offset; ``season_variance``: (r, 7), of the log of the season."""
    rate = rates.rate()
    mean = rate * over.total
    unsure = 1.0 / rates.events + over.unsure + season_variance
    typical = rate * over.squares / np.maximum(over.total, _TINY)
    return Prediction(mean, mean / (rates.voices_an_event(typical) - 1.0 + mean * unsure + _TINY))


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
        season: the terms that the units' coefficients are of.
    """

    def __init__(self, units: Units, step_length: int, silent: Callable[[int], bool], season: Season) -> None:
        steps_a_day = DAY_MS // step_length
        self._units = units
        self._step_length = step_length
        self._silent = silent
        self._season = season
        self.drift = DRIFT / steps_a_day
        self._season_drift = SEASON_DRIFT / steps_a_day
        self._dispersion_half_life = float(DISPERSION_HALF_LIFE_DAYS * steps_a_day)
        self.half_life = float(HALF_LIFE_DAYS * steps_a_day)
        self._longest_silence = LONGEST_SILENCE_DAYS * steps_a_day
        self._mark_steps = MARK_DAYS * steps_a_day

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
        units, terms = self._units, self._season.terms(step)
        self._mark(slots, step)
        self._age_season(slots, step)
        seasonal = exposure * np.exp(log_factor(units.season[slots], terms))
        over = offset(seasonal, seasonal**2, units.by_units[slots][:, None], np.zeros((len(slots), 1)))
        rates = posterior(units, slots, step, self.drift)
        expected = predict(rates, over, log_factor(units.season_variance[slots], terms**2))
        known = ~np.isnan(expected.mean)
        mean = np.where(known, expected.mean, 0.0)
        spread = np.where(known, expected.spread(), 0.0)
        open_spike = self._among(slots, alarmed)
        cut = np.where(
            known, np.minimum(voices, mean + np.where(open_spike, CUT_OPEN, CUT) * spread + ~open_spike), voices
        )
        voices_an_event = rates.voices_an_event(mean)
        explained = voices_an_event * mean / np.maximum(spread**2, _TINY)
        self._learn_dispersion(slots, step, explained * (cut - mean) ** 2, mean, known & ~open_spike)
        self._learn_rates(slots, step, cut / voices_an_event, over.total / voices_an_event, terms)
        units.as_of[slots] = step
        units.dirty.update(slots.tolist())

    def _mark(self, slots: Ints, step: int) -> None:
        """Where a mark lies between the last step taken in and this one: keep what the rates were."""
        units = self._units
        due = slots[step // self._mark_steps > units.as_of[slots] // self._mark_steps]
        now = np.stack((units.events[due], units.exposure[due]), axis=2)
        units.marks[due] = np.concatenate((units.marks[due, :, 2:], now), axis=2)
        units.marked[due] = np.stack((units.marked[due, 1], units.as_of[due]), axis=1)

    def _age_season(self, slots: Ints, step: int) -> None:
        """Coefficients drift; those that wait for a series to be old enough begin to be learnt when it is."""
        units, season = self._units, self._season
        elapsed = (step - units.as_of[slots])[:, None, None]
        variance = units.season_variance[slots]
        old_enough = (step - units.first[slots])[:, None, None] >= season.waits
        fresh = np.where(old_enough, season.prior, 0.0)
        units.season_variance[slots] = np.where(variance > 0, variance + self._season_drift * elapsed, fresh)

    def _learn_dispersion(self, slots: Ints, step: int, squares: Floats, mean: Floats, judged: Bools) -> None:
        """Squared errors over what they were expected to be before anything was known; small counts say little.

        Of the squared errors that part is given which the uncertainty of the rate does not explain.
        """
        units = self._units
        prior = np.maximum(DISPERSION * mean + WOBBLE * mean**2, _TINY)
        weight = np.where(judged, mean / (mean + 1.0), 0.0)
        decay = 0.5 ** ((step - units.as_of[slots]) / self._dispersion_half_life)[:, None]
        units.squares[slots] = units.squares[slots] * decay + CUT_LOSS * weight * squares / prior
        units.judged[slots] = units.judged[slots] * decay + weight

    def _learn_rates(self, slots: Ints, step: int, gained: Floats, exposed: Floats, terms: Floats) -> None:
        """Update level and season by so many events over so much exposure (season included), both (r, 7)."""
        units = self._units
        events, exposure = drifted(units, slots, step, self.drift)
        heard = (events > 0) & (exposure > 0)
        events, exposure = np.where(heard, events, 1.0), np.where(heard, exposure, 1.0)
        season_variance = units.season_variance[slots]
        level_variance = 1.0 / events
        forecast = level_variance + log_factor(season_variance, terms**2)
        after = 1.0 / forecast + gained
        change = np.log(after / (1.0 / forecast + events / exposure * exposed))
        shrink = 1.0 - 1.0 / (forecast * after)
        # What was not heard of before begins with what is heard of it now, and half a voice.
        begun = np.where(exposed > 0, gained + 0.5 / DISPERSION, 0.0)
        posterior_events = 1.0 / (level_variance - shrink * level_variance**2 / forecast)
        rate = events / exposure * np.exp(level_variance / forecast * change)
        units.events[slots] = np.where(heard, posterior_events, begun)
        units.exposure[slots] = np.where(heard, posterior_events / rate, exposed)
        share = np.where(heard[:, :, None], season_variance * terms / forecast[:, :, None], 0.0)
        units.season[slots] += share * change[:, :, None]
        units.season_variance[slots] -= share * season_variance * terms * shrink[:, :, None]

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
        rates = posterior(units, slots, step, self.drift)
        exposure = (field * steps)[:, None] / rates.voices_an_event(rates.rate() * field[:, None])
        self._mark(slots, step)
        self._age_season(slots, step)
        self._learn_rates(slots, step, 0.0 * exposure, exposure, 0.0 * self._season.prior)
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
