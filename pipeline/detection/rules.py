"""What holds at a step close: policy, step arithmetic, and the names that go into every output."""

from typing import NamedTuple

from pipeline.detection.steps import Steps
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
