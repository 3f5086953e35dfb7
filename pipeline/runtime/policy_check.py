"""``complaint-radar policy check``: what a detection policy means, in plain words, and where its values work against each other.

Every value is explained, and what cannot work at all is refused. What the policy would have done is asked of stored counts
(`pipeline.runtime.stored_backtest`).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.detection.baseline import GUARD_STEPS, Posterior, offset, predict
from pipeline.detection.entries import TYPES
from pipeline.detection.scan import CALM, SERIES_WITHOUT_CATALOGUE, corrected, threshold
from pipeline.detection.steps import Steps
from pipeline.errors import ConfigurationError
from pipeline.runtime.trial_words import length, many, when
from pipeline.settings import FilesSourceSettings, duration_ms
from schemas.policy import DetectionPolicy, ProductPolicy, QuietPeriod

DEFAULT = DetectionPolicy()
HARDLY_ANY = 0.01
"""Voices expected where hardly any are: the least that a spike can take."""
_EXPECTED = (1.0, 5.0, 20.0)
_HISTORY_VOICES = 50.0
"""Voices in the history of the series that the words about the promise take for an example."""


class Context(NamedTuple):
    """What a policy stands beside."""

    lots: int = 0
    """Of the catalogue; 0 without one."""
    sources: Sequence[FilesSourceSettings] = ()


def _steps(number: int, policy: DetectionPolicy) -> str:
    return many(number, {"1d": "day", "1h": "hour"}[policy.step])


_WORDS: dict[str, tuple[str, Callable[[DetectionPolicy], str]]] = {
    "step": (
        "step",
        lambda p: "voices are counted, and spikes decided, once "
        + (f"a local day of {p.time_zone}, when the day is over" if p.step == "1d" else "an hour, when the hour is over"),
    ),
    "time_zone": ("time_zone", lambda p: f"a day begins at midnight of {p.time_zone}"),
    "false_signals_per_week": (
        "false_signals_per_week",
        lambda p: "the promise; more: more spikes, earlier and of smaller rises; less: fewer, later and of greater rises only",
    ),
    "series": (
        "series",
        lambda p: f"the promise is shared among {p.series} series, whatever the catalogue holds"
        if p.series
        else "the promise is shared among the 7 types of each lot of the catalogue",
    ),
    "minimum_voices": (
        "minimum_voices",
        lambda p: f"no spike opens on fewer than {p.minimum_voices} distinct voices in its window",
    ),
    "minimum_history": (
        "minimum_history",
        lambda p: f"no spike of a product before it has been followed for {_steps(p.minimum_history, p)}",
    ),
    "windows": (
        "windows",
        lambda p: f"voices of the last {', '.join(map(str, p.windows))} steps are looked at together; not to be configured",
    ),
    "close_after": ("close_after", lambda p: f"a spike closes after {_steps(p.close_after, p)} of calm in a row"),
    "allowed_lateness_ms": (
        "allowed_lateness",
        lambda p: f"a closed step takes corrections for {length(p.allowed_lateness_ms)}; then it is final, its mentions are "
        "forgotten by detection, and it becomes history",
    ),
    "severity_pair_ms": (
        "severity_pair",
        lambda p: f"two customers who tell of danger (severity 3) within {length(p.severity_pair_ms)} open a page, and a severe "
        "signal closes when nothing grave was said for that long (or for allowed_lateness, if that is longer)",
    ),
    "alerting_horizon_ms": (
        "alerting_horizon",
        lambda p: f"a signal whose newest words were read more than {length(p.alerting_horizon_ms)} after they were said is history, "
        "and pages nobody",
    ),
    "products": ("products", lambda p: "; ".join(map(_of_product, p.products)) or "all products are judged alike"),
    "quiet_periods": (
        "quiet_periods",
        lambda p: "; ".join(_of_period(one, p) for one in p.quiet_periods) or "spikes and ramps may open at any time",
    ),
}  # fmt: skip


def _of_product(one: ProductPolicy) -> str:
    voices = [] if one.minimum_voices is None else [f"{many(one.minimum_voices, 'voice')} at least"]
    history = [] if one.minimum_history is None else [f"{many(one.minimum_history, 'step')} of history"]
    return f"{one.product_id} takes {' and '.join(voices + history) or 'what all take'}"


def _of_period(one: QuietPeriod, policy: DetectionPolicy) -> str:
    of = f" of {', '.join(one.products)}" if one.products else ""
    why = f" ({one.reason})" if one.reason else ""
    return f"no spike and no ramp{of} opens from {when(one.since, policy)} until {when(one.until, policy)}{why}; harm is told"


def refuse(policy: DetectionPolicy, context: Context) -> None:
    """Refuse what cannot work.

    Raises:
        ConfigurationError: names the key, the value and what is allowed.
    """
    if policy.alerting_horizon_ms == 0:
        raise ConfigurationError(
            "detection.alerting_horizon: 0s does not do: everything is read after it was said, so every signal would be history "
            "and page nobody; above 0 is needed"
        )
    decisions = policy.false_signals_per_week / _limit(policy, context)
    if policy.false_signals_per_week > decisions:
        raise ConfigurationError(
            f"detection.false_signals_per_week: {policy.false_signals_per_week:g} does not do: no more than {decisions:g} decisions are "
            f"taken in a week, one a step of each of {_series(policy, context)} series; at most that is allowed"
        )


def explain(policy: DetectionPolicy, context: Context) -> Iterator[str]:
    """The promise, then every value, a line each."""
    yield from _promise(policy, context)
    for name, (key, words) in _WORDS.items():
        value, default = getattr(policy, name), getattr(DEFAULT, name)
        known = "the default" if value == default else f"default {_shown(name, default)}"
        yield f"{key} {_shown(name, value)} ({known}): {words(policy)}"


def warnings(policy: DetectionPolicy, context: Context) -> Iterator[str]:
    """Values that work against each other, a line each."""
    yield from _of_the_promise(policy, context)
    yield from _of_time(policy, context)


def _of_the_promise(policy: DetectionPolicy, context: Context) -> Iterator[str]:
    limit, least = _limit(policy, context), voices_needed(HARDLY_ANY, policy, context)
    all_series = TYPES * context.lots
    if policy.series and all_series and policy.series != all_series:
        kept = policy.false_signals_per_week * all_series / policy.series
        yield (
            f"series {policy.series}: the catalogue has {context.lots} lots, that is {all_series} series: the promise of "
            f"{policy.false_signals_per_week:g} false signals a week becomes {kept:.2g}"
        )
    chosen = (
        policy.minimum_voices != DEFAULT.minimum_voices
        or policy.false_signals_per_week != DEFAULT.false_signals_per_week
    )
    if chosen and policy.minimum_voices < least:
        yield (
            f"minimum_voices {policy.minimum_voices} never decides: under a promise of {policy.false_signals_per_week:g} a spike takes "
            f"{least} voices or more, even where hardly any are expected"
        )
    if limit > CALM:
        yield (
            f"false_signals_per_week {policy.false_signals_per_week:g}: a spike opens below a mid-p-value of {limit:.2g}, and a p-value above "
            f"{CALM:g} counts as calm: such a spike closes after close_after steps and may open again"
        )


def _of_time(policy: DetectionPolicy, context: Context) -> Iterator[str]:
    step, longest = Steps(policy.step, policy.time_zone).length, max(policy.windows)
    lateness, horizon = policy.allowed_lateness_ms, policy.alerting_horizon_ms
    if lateness < (longest - 1) * step:
        yield (
            f"allowed_lateness {length(lateness)} is shorter than the longest window of {_steps(longest, policy)}: evidence and what "
            "explains the excess are taken from the newest part of such a window only"
        )
    earliest = max(min(GUARD_STEPS, longest) - 1, lateness // step + 1)
    if policy.minimum_history != DEFAULT.minimum_history and policy.minimum_history < earliest:
        yield (
            f"minimum_history {policy.minimum_history} never decides: a step becomes history {_steps(earliest, policy)} after it, when "
            "it is final and lies back far enough, and before that nothing can be expected"
        )
    if horizon < step:
        yield (
            f"alerting_horizon {length(horizon)} is shorter than a step of {policy.step}: what was said early in a step is history "
            "before the step closes"
        )
    if policy.severity_pair_ms == 0:
        yield "severity_pair 0s: two customers who tell of danger open a signal only if they do so in the same millisecond"
    for source in context.sources:
        if duration_ms(source.max_lateness) > horizon:
            yield (
                f"sources.{source.name}.max_lateness {source.max_lateness} is longer than alerting_horizon {length(horizon)}: what comes so "
                "late is taken in and pages nobody"
            )


def _promise(policy: DetectionPolicy, context: Context) -> Iterator[str]:
    limit, unit = _limit(policy, context), {"1d": "day", "1h": "hour"}[policy.step]
    number = _series(policy, context)
    over = f"{TYPES} x {context.lots} = {number}" if context.lots and not policy.series else f"{number}"
    yield (
        f"promise: {policy.false_signals_per_week:g} false signals a week over {over} live series: "
        f"a spike opens below a mid-p-value of {limit:.2g} a series and {unit}"
    )
    if not context.lots and not policy.series:
        yield f"  without a catalogue {SERIES_WITHOUT_CATALOGUE} series are assumed, a hundred lots"
    examples = {"hardly any": HARDLY_ANY} | {f"{mean:g}": mean for mean in _EXPECTED}
    least = {
        words: max(policy.minimum_voices, voices_needed(mean, policy, context)) for words, mean in examples.items()
    }
    takes = ", ".join(f"{voices} where {words} are expected" for words, voices in least.items())
    yield f"  that takes, in a step of a lot that has been sold for some months, voices: {takes}"


def voices_needed(mean: float, policy: DetectionPolicy, context: Context) -> int:
    """Voices in a step from which a spike may open, where so many are expected of a series with some months of history."""
    one = np.ones((1, 1))
    rates = Posterior(_HISTORY_VOICES * one, _HISTORY_VOICES / mean * one, one)
    expected = predict(rates, offset(one, one, one > 0, 0 * one))
    limit = _limit(policy, context)
    low, high = 0, 1

    def rare(voices: int) -> bool:
        mid_p = corrected(expected.middle_tail(np.full((1, 1), float(voices))), len(policy.windows))
        return float(mid_p[0, 0]) < limit

    while not rare(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if rare(middle) else (middle, high)
    return high


def _limit(policy: DetectionPolicy, context: Context) -> float:
    return threshold(policy, Steps(policy.step, policy.time_zone).length, context.lots)


def _series(policy: DetectionPolicy, context: Context) -> int:
    return policy.series or TYPES * context.lots or SERIES_WITHOUT_CATALOGUE


def _shown(name: str, value: object) -> str:
    if name.endswith("_ms") and isinstance(value, int):
        return length(value)
    if name in ("products", "quiet_periods"):
        return str(len(value)) if isinstance(value, tuple) else ""
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "7 x lots" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
