"""What holds at a step close: policy, step arithmetic, and the names that go into every output."""

from typing import NamedTuple

import numpy as np

from pipeline.detection.exposure import Bools, Floats, Ints
from pipeline.detection.steps import Steps
from pipeline.detection.units import Units
from schemas.policy import DetectionPolicy


class Rules(NamedTuple):
    """The rules in force."""

    policy: DetectionPolicy
    steps: Steps
    versions: str
    """Models, policy and catalogue, as outputs name them."""
    lots: int
    """Of the catalogue in force; 0 without one."""

    def middle(self, step: int) -> float:
        """The middle of a step, ms UTC: when its exposure is taken."""
        return (self.steps.start(step) + self.steps.end(step)) / 2


def minimum_voices(policy: DetectionPolicy, units: Units, slots: Ints) -> Ints:
    """(r,): distinct voices in the window below which no spike of a unit opens."""
    own = {one.product_id: one.minimum_voices for one in policy.products if one.minimum_voices is not None}
    return _of_products(policy.minimum_voices, own, units, slots)


def minimum_history(policy: DetectionPolicy, units: Units, slots: Ints) -> Ints:
    """(r,): closed steps of a unit's subject before its first spike."""
    own = {one.product_id: one.minimum_history for one in policy.products if one.minimum_history is not None}
    return _of_products(policy.minimum_history, own, units, slots)


def _of_products(usual: int, own: dict[str, int], units: Units, slots: Ints) -> Ints:
    if not own:
        return np.full(len(slots), usual)
    return np.array([own.get(key[1], usual) if key[0] == "product" else usual for key in units.keys(slots)], np.int64)


def in_quiet_period(policy: DetectionPolicy, units: Units, slots: Ints, instants: Floats) -> Bools:
    """(n, r): which of these steps, told by their middles (n,), lie in a quiet period of a unit."""
    found = np.zeros((len(instants), len(slots)), np.bool_)
    for period in policy.quiet_periods:
        inside = (period.since <= instants) & (instants < period.until)
        meant = [
            not period.products or (key[0] == "product" and key[1] in period.products) for key in units.keys(slots)
        ]
        found |= inside[:, None] & np.array(meant, np.bool_)
    return found
