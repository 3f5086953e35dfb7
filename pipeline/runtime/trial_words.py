"""What a policy does with history, in lines for a terminal."""

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from zoneinfo import ZoneInfo

from pipeline.detection.lifecycle import RISES
from pipeline.runtime.trial import Caught, Raised, Trial, compare, series_of
from schemas.policy import DAY_MS, HOUR_MS, DetectionPolicy

_LISTED = 20
"""Signals that are listed of each kind."""
_BEFORE = 30
"""Steps before the opening of a signal that its picture shows …"""
_SHOWN = 60
"""… of so many at most."""
_BARS = "▁▂▃▄▅▆▇█"


def length(ms: int) -> str:
    """A duration as the configuration writes it."""
    for unit, size in (("d", DAY_MS), ("h", HOUR_MS), ("m", 60_000)):
        if ms and not ms % size:
            return f"{ms // size}{unit}"
    return f"{ms // 1000}s"


def many(number: int, what: str) -> str:
    """A number of things."""
    return f"{number} {what}{'s' * (number != 1)}"


def summary(trial: Trial, present: Trial | None) -> str:
    """How many signals a policy opens, and how many the present one, if that is another."""
    against = f"; under the present policy {_rate(present)}" if present else ""
    return f"in {trial.weeks:.1f} weeks: {_rate(trial)}{against}"


def told(trial: Trial, present: Trial | None = None) -> Iterator[str]:
    """The signals of a policy, as against those of the present one, if that is another."""
    if present is None:
        yield from _listed(trial, trial.signals)
        return
    both, only, lost = compare(trial, present)
    yield f"opened under both: {len(both)}"
    yield from _listed(trial, [one for one, _ in both], [_moved(one.told_at - other.told_at) for one, other in both])
    yield f"opened only under this one: {len(only)}"
    yield from _listed(trial, only)
    yield f"not opened any more: {len(lost)}"
    yield from _listed(present, lost)


def told_of_events(found: Sequence[Caught], trial: Trial, present: Sequence[Caught] = ()) -> Iterator[str]:
    """What became of labelled events; ``present``: and of the same under the present policy, if that is another."""
    hits = [one for one in found if one.by is not None]
    yield f"labelled events: {len(hits)} of {len(found)} caught"
    for number, one in enumerate(found):
        event = one.event
        about = " ".join(filter(None, (event.subject_id, event.product_batch_id, event.objection_type)))
        against = f"; under the present policy {_fate(present[number])}" if present else ""
        yield f"  {when(event.start, trial.policy)}  {about}: {_fate(one)}{against}"
    others = sum(not any(one.event.is_told_by(raised) for one in found) for raised in trial.signals)
    yield f"  signals of no labelled event: {others}"


def failures(trial: Trial, most: float | None, found: Sequence[Caught]) -> Iterator[str]:
    """What a change of policy must not bring with it, and this one does."""
    if most is not None and trial.a_week > most:
        yield f"{trial.a_week:.2g} signals a week, and at most {most:g} are wanted"
    if missed := sum(one.by is None for one in found):
        yield f"{many(missed, 'labelled event')} missed"


def shown(raised: Raised, policy: DetectionPolicy) -> str:
    """One line about a signal."""
    one = raised.opening
    until = "open at the end" if raised.closed is None else f"until {when(raised.closed, policy)}"
    ramp = "slow ramp, " if one.kind == "ramp" else ""
    numbers = f"{ramp}{many(one.observed, 'voice')}, {one.expected:.1f} expected, p={one.p_value or 0:.1e}"
    if one.kind == "severe":
        numbers = f"severity {one.severity}, {many(one.voices, 'voice')}"
    subject = one.subject_id or "unknown product"
    named = subject if one.subject_kind == "product" else f"{one.subject_kind} {subject}"
    return f"{when(one.opened_step, policy)}  {named} {one.product_batch_id or '-'}  {one.objection_type}: {numbers}; {until}"


def when(time: int, policy: DetectionPolicy) -> str:
    """A time (ms UTC) as the policy's days or hours."""
    form = "%Y-%m-%d" if policy.step == "1d" else "%Y-%m-%d %H:%M"
    return dt.datetime.fromtimestamp(time / 1000, ZoneInfo(policy.time_zone)).strftime(form)


def picture(raised: Raised, trial: Trial) -> tuple[list[int], list[int], list[float | None]]:
    """The series of a signal from before it opened until it closed, or to the end.

    Returns:
        Starts of the steps, ms UTC; voices in each; what was expected in a step, by the signal's windows, where it tells.
    """
    steps, counts = trial.steps, trial.voices.get(series_of(raised.opening), {})
    opened, last = steps.index(raised.opening.opened_step), steps.index(trial.until - 1)
    if raised.closed is not None:
        last = min(last, steps.index(raised.closed))
    numbers = range(opened - _BEFORE, min(last, opened - _BEFORE + _SHOWN - 1) + 1)
    expected: dict[int, float] = {}
    for one in raised.revisions:
        if one.kind in RISES:
            at = steps.index(one.step_start)
            expected |= dict.fromkeys(range(at - one.window + 1, at + 1), one.expected / one.window)
    starts = [steps.start(number) for number in numbers]
    return starts, [counts.get(start, 0) for start in starts], [expected.get(number) for number in numbers]


def sparkline(values: Iterable[int]) -> str:
    """Bars from 0 to the greatest."""
    values = list(values)
    top = max(values, default=0) or 1
    return "".join(_BARS[value * (len(_BARS) - 1) // top] for value in values)


def _rate(trial: Trial) -> str:
    return f"{many(len(trial.signals), 'signal')}, {trial.a_week:.2g} a week"


def _fate(one: Caught) -> str:
    return "missed" if one.delay_ms is None else f"caught after {one.delay_ms / DAY_MS:.1f} days"


def _moved(by: int) -> str:
    return f"; {length(abs(by))} {'later' if by > 0 else 'earlier'}" if by else "; at the same time"


def _listed(trial: Trial, signals: Sequence[Raised], more: Sequence[str] = ()) -> Iterator[str]:
    unit = {"1d": "a day", "1h": "an hour"}[trial.policy.step]
    for number, one in enumerate(signals[:_LISTED]):
        yield f"  {shown(one, trial.policy)}{more[number] if more else ''}"
        starts, voices, _ = picture(one, trial)
        yield f"    {sparkline(voices)}  voices {unit} from {when(starts[0], trial.policy)}, at most {max(voices)}"
    if len(signals) > _LISTED:
        yield f"  … and {len(signals) - _LISTED} more"
