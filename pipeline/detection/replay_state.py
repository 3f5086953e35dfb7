"""The second question of a replay: do a signal's numbers follow from the state that it opened from, and from its policy?"""

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from pipeline.detection.baseline import Posterior, Prediction
from pipeline.detection.exposure import catalogue_of
from pipeline.detection.replayed import EXACT, Replayed, Rules, equal, word
from pipeline.detection.scan import Scan, threshold
from pipeline.detection.spikes import interval
from pipeline.detection.steps import Steps
from schemas.signal import Signal


def check_state(opening: Signal, rules: Rules, found: Replayed) -> None:
    """Add what differs between the numbers of an opening and the state that it opened from."""
    state = json.loads(opening.opening_state)
    scan = scan_of(state)
    window = int(scan.best()[0][0, 0])
    at = (window, 0, 0)
    mean, size = float(scan.expected.mean[at]), float(scan.expected.size[at])
    again: dict[str, object] = {
        "window": scan.windows[window],
        "observed": round(scan.voices[at]),
        "expected": mean,
        "interval": interval(mean, size),
        "exposure": float(scan.exposure[window, 0]),
        "rate_ratio": float(scan.voices[at]) / mean,
        "p_value": float(scan.best()[1][0, 0]),
    }
    for name, value in again.items():
        said = msgspec.to_builtins(getattr(opening, name))
        if not equal(said, value, 1e-6 if name == "exposure" else EXACT):  # six decimals are kept of it
            found.add("differs", f"{name}: the signal says {word(said)}, its opening state gives {word(value)}")
    tail = scan.tail(at)
    if not equal(float(scan.p_values[at]), tail, EXACT):
        words = f"says {word(float(scan.p_values[at]))}, its counts and expectation give {word(tail)}"
        found.add("differs", f"opening_state.p_values: the state {words}")
    _check_promise(opening, float(scan.best()[2][0, 0]), float(state["threshold"]), rules, found)


def _check_promise(opening: Signal, mid_p: float, limit: float, rules: Rules, found: Replayed) -> None:
    if rules.catalogue is not None:
        lots = sum(map(len, catalogue_of(rules.catalogue).values()))
        length = Steps(rules.policy.step, rules.policy.time_zone).length
        promised = threshold(rules.policy, length, lots)
        if not equal(limit, promised, EXACT):
            found.add("differs", f"threshold: the opening state says {word(limit)}, the policy {word(promised)}")
    if not mid_p < limit:
        found.add("differs", f"threshold: the mid-p-value {word(mid_p)} is not below the promise of {word(limit)}")
    if opening.observed < rules.policy.minimum_voices:
        found.add("differs", f"observed: {opening.observed} is below minimum_voices {rules.policy.minimum_voices}")


def scan_of(state: Mapping[str, Any]) -> Scan:
    """The scan of one series as an opening state keeps it: (W, 1, 1)."""

    def column(name: str) -> Any:
        return np.array(state[name], np.float64)[:, None, None]

    def alone(_subject: int) -> Scan:
        return scan

    voices, expected, p_values = column("voices"), Prediction(column("mean"), column("size")), column("p_values")
    nothing = np.full((1, 1), np.nan)
    scan = Scan(
        step=0,
        windows=tuple(state["windows"]),
        slots=np.zeros(1, np.int64),
        voices=voices,
        mentions=column("mentions")[:, :, 0],
        exposure=column("exposure")[:, :, 0],
        newest=nothing,
        rates=Posterior(nothing, nothing, nothing),
        expected=expected,
        p_values=p_values,
        mid_p=np.where(p_values < 1, expected.middle_tail(voices), 1.0),
        family=alone,
    )
    return scan
