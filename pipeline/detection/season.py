"""What comes back with the hour, the weekday and the time of year: sines and cosines of the step's number.

A Fourier form needs few numbers a series and no table of hours or weeks, and its terms are nearly uncorrelated over a
whole period, which is what lets `baseline` keep a variance a term and no covariances (West and Harrison, Bayesian
Forecasting and Dynamic Models, 2nd ed. 1997, ch. 8).
"""

from typing import NamedTuple

import numpy as np

from pipeline.detection.exposure import Floats, Ints

DAY, WEEK, YEAR = 1.0, 7.0, 365.25
"""Periods, in days."""
HARMONICS = {DAY: 4, WEEK: 3, YEAR: 2}
SPREAD = {DAY: 0.3, WEEK: 0.1, YEAR: 0.3}
"""Standard deviation expected of a term's coefficient, on the scale of the logarithm of the rate."""
LEAST_STEPS = 2.0
"""Shortest cycle that steps can show, in steps."""


class Season(NamedTuple):
    """The terms of one base step, p of them."""

    frequency: Floats
    """(p,): cycles a step."""
    sine: Floats
    """(p,): 1 for a sine, 0 for a cosine."""
    prior: Floats
    """(p,): variance of the coefficients before anything is known."""
    waits: Floats
    """(p,): steps that a series must have been known for before the term is learnt. A time of year cannot be told from
    slow drift before a year has passed."""

    def terms(self, step: int | Ints) -> Floats:
        """(..., p): value of each term at a step or at steps (...)."""
        angle = 2 * np.pi * ((np.asarray(step)[..., None] * self.frequency) % 1.0)
        terms: Floats = np.where(self.sine > 0, np.sin(angle), np.cos(angle))
        return terms


def season_of(step_days: float) -> Season:
    """The terms that steps of this length (days) can show. A year of whole weeks or more has a whole number of steps."""
    rows: list[tuple[float, float, float, float]] = []
    for period, harmonics in HARMONICS.items():
        steps = period / step_days
        if period == YEAR and step_days >= WEEK:
            steps = float(round(steps))
        for harmonic in range(1, harmonics + 1):
            if steps / harmonic >= LEAST_STEPS:
                wait = steps if period == YEAR else 0.0
                rows += [(harmonic / steps, sine, SPREAD[period] ** 2, wait) for sine in (0.0, 1.0)]
    columns = np.array(rows, np.float64).reshape(-1, 4).T
    return Season(*columns)


def log_factor(coefficients: Floats, terms: Floats) -> Floats:
    """Logarithm of the seasonal factor: coefficients (..., p) at the terms (n, p) of n steps → (n, ...); terms (p,) → (...)."""
    aligned = terms.reshape(*terms.shape[:-1], *(1,) * (coefficients.ndim - 1), -1)
    # Not a matrix product: its last bits depend on how many rows there are.
    total: Floats = np.zeros(np.broadcast_shapes(aligned.shape, coefficients.shape)[:-1])
    for index in range(terms.shape[-1]):
        total += aligned[..., index] * coefficients[..., index]
    return total
