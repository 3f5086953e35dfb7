"""The second question of a replay: do a signal's numbers follow from the state that it opened from, and from its policy?"""

import json

import msgspec
import numpy as np

from pipeline.detection.baseline import Prediction
from pipeline.detection.exposure import Floats, catalogue_of
from pipeline.detection.replayed import EXACT, Replayed, Rules, equal, word
from pipeline.detection.scan import SHARE_OF_RAMPS, corrected, threshold
from pipeline.detection.spikes import interval
from pipeline.detection.steps import Steps
from schemas.signal import Signal


def check_state(opening: Signal, rules: Rules, found: Replayed) -> None:
    """Add what differs between the numbers of an opening and the state that it opened from."""
    state = json.loads(opening.opening_state)
    p_values, voices, exposure = (np.array(state[name], np.float64) for name in ("p_values", "voices", "exposure"))
    expected = Prediction(np.array(state["mean"], np.float64), np.array(state["size"], np.float64))
    chances = len(p_values) - 1  # the last window is held against the past
    ramp = opening.kind == "ramp"
    window = chances if ramp else int(np.argmin(p_values[:chances]))
    mean, size = float(expected.mean[window]), float(expected.size[window])
    again: dict[str, object] = {
        "window": state["windows"][window],
        "observed": round(voices[window]),
        "expected": mean,
        "interval": interval(mean, size),
        "exposure": float(exposure[window]),
        "rate_ratio": float(voices[window]) / mean,
        "p_value": float(p_values[window]) if ramp else _corrected(p_values, chances, window),
    }
    for name, value in again.items():
        said = msgspec.to_builtins(getattr(opening, name))
        if not equal(said, value, 1e-6 if name == "exposure" else EXACT):  # six decimals are kept of it
            found.add("differs", f"{name}: the signal says {word(said)}, its opening state gives {word(value)}")
    said, tail = float(p_values[window]), float(expected.tail(voices)[window])
    if not equal(said, tail, EXACT):
        words = f"the state says {word(said)}, its counts and expectation give {word(tail)}"
        found.add("differs", f"opening_state.p_values: {words}")
    tails, limit = expected.middle_tail(voices), float(state["threshold"])
    mid_p, share = (float(tails[window]), SHARE_OF_RAMPS) if ramp else (_corrected(tails, chances, window), 1.0)
    if not mid_p < share * limit:
        found.add(
            "differs", f"threshold: the mid-p-value {word(mid_p)} is not below the promise of {word(share * limit)}"
        )
    _check_promise(opening, limit, rules, found)


def _corrected(tails: Floats, chances: int, window: int) -> float:
    return float(corrected(tails, chances)[window])


def _check_promise(opening: Signal, limit: float, rules: Rules, found: Replayed) -> None:
    if rules.catalogue is not None:
        lots = sum(map(len, catalogue_of(rules.catalogue).values()))
        length = Steps(rules.policy.step, rules.policy.time_zone).length
        promised = threshold(rules.policy, length, lots)
        if not equal(limit, promised, EXACT):
            found.add("differs", f"threshold: the opening state says {word(limit)}, the policy {word(promised)}")
    subject = opening.subject_id if opening.subject_kind == "product" else None
    own = (one.minimum_voices for one in rules.policy.products if one.product_id == subject)
    least = next((voices for voices in own if voices is not None), rules.policy.minimum_voices)
    if opening.observed < least:
        found.add("differs", f"observed: {opening.observed} is below minimum_voices {least}")
