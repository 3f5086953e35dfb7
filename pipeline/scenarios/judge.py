"""What was raised against what a scenario expects: nothing may be missing, and nothing may be there besides."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pipeline.scenarios.story import Days, Expected, Scenario
from schemas.signal import Signal


class Judgement(NamedTuple):
    """In words, one line a signal; both empty: all is as expected."""

    missing: list[str]
    extra: list[str]


def judge(scenario: Scenario, told: Sequence[Signal]) -> Judgement:
    """Hold all revisions of all signals, in the order in which they were told, against the scenario."""
    opened = [signal for signal in told if signal.event == "opened"]
    closed = {signal.signal_id: scenario.day_of(signal.step_start) for signal in told if signal.event == "closed"}
    missing = []
    for expected in scenario.expected:
        fitting = next((one for one in opened if _fits(scenario, expected, one, closed.get(one.signal_id))), None)
        if fitting is None:
            missing.append(_wanted(expected))
        else:
            opened.remove(fitting)
    return Judgement(missing, [raised(scenario, one, closed.get(one.signal_id)) for one in opened])


def _fits(scenario: Scenario, expected: Expected, signal: Signal, closed: int | None) -> bool:
    about = (expected.kind, expected.subject_kind, expected.subject, expected.lot, expected.type)
    said = (signal.kind, signal.subject_kind, signal.subject_id, signal.product_batch_id, signal.objection_type)
    return (
        about == said
        and expected.verdict == signal.concentration.dimension
        and expected.historic == signal.historic
        and _within(scenario.day_of(signal.opened_step), expected.days)
        and (expected.closed is None or (closed is not None and _within(closed, expected.closed)))
    )


def _within(day: int, days: Days) -> bool:
    return days[0] <= day <= days[1]


def _wanted(expected: Expected) -> str:
    closing = f", closed {_span(expected.closed)}" if expected.closed else ""
    subject = (expected.kind, expected.subject, expected.lot, expected.type, expected.verdict)
    return " / ".join([*filter(None, subject), f"{_span(expected.days)}{closing}"])


def raised(scenario: Scenario, signal: Signal, closed: int | None) -> str:
    """A signal in the words of a scenario."""
    verdict = signal.concentration
    subject: Iterable[str] = (
        signal.kind,
        signal.subject_id,
        signal.product_batch_id,
        signal.objection_type,
        f"{verdict.dimension} {verdict.value}".strip(),
        "historic" if signal.historic else "",
    )
    closing = "" if closed is None else f", closed day {closed}"
    return " / ".join([*filter(None, subject), f"day {scenario.day_of(signal.opened_step)}{closing}"])


def _span(days: Days) -> str:
    return f"days {days[0]} to {days[1]}"
