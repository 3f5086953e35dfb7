"""What was raised against what a scenario expects: nothing may be missing, and nothing may be there besides."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pipeline.scenarios.story import Days, Expected, Scenario
from schemas.signal import Signal


class Judgement(NamedTuple):
    """In words, one line a signal; both empty: all is as expected."""

    missing: list[str]
    """Did not come, or came with another verdict, or closed on another day than it must."""
    extra: list[str]


def judge(scenario: Scenario, told: Iterable[Signal]) -> Judgement:
    """Hold all revisions of all signals, in the order in which they were told, against the scenario."""
    raised = Raised(scenario, told)
    missing = []
    for expected in scenario.expected:
        signal = raised.take(expected)
        if signal is None:
            missing.append(f"{_wanted(expected)} / {_span(expected.days)}")
        else:
            missing += [f"{_wanted(expected)}: {fault}" for fault in raised.faults(signal, expected)]
    return Judgement(missing, [raised.in_words(signal) for signal in raised.opened])


class Raised:
    """What a scenario gave rise to.

    Args:
        scenario: its days are spoken of.
        told: all revisions of all signals.
    """

    def __init__(self, scenario: Scenario, told: Iterable[Signal]) -> None:
        self._day_of = scenario.day_of
        told = list(told)
        self.opened = [signal for signal in told if signal.event == "opened"]
        """Those that nobody has taken yet."""
        self._closed = {one.signal_id: self._day_of(one.step_start) for one in told if one.event == "closed"}

    def take(self, expected: Expected) -> Signal | None:
        """The first signal that is about this and opened in time."""
        for signal in self.opened:
            about = (
                signal.kind,
                signal.subject_kind,
                signal.subject_id,
                signal.product_batch_id,
                signal.objection_type,
            )
            wanted = (expected.kind, expected.subject_kind, expected.subject, expected.lot, expected.type)
            if about == wanted and _within(self._day_of(signal.opened_step), expected.days):
                self.opened.remove(signal)
                return signal
        return None

    def faults(self, signal: Signal, expected: Expected) -> Iterator[str]:
        """What is wrong about a signal that had to come."""
        verdict, closed = signal.concentration.dimension, self._closed.get(signal.signal_id)
        if verdict != expected.verdict:
            yield f"its verdict is {verdict}, not {expected.verdict}"
        if signal.historic != expected.historic:
            yield "it is historic" if signal.historic else "it is not historic"
        if expected.closed and (closed is None or not _within(closed, expected.closed)):
            yield f"it closed {'never' if closed is None else f'on day {closed}'}, not on {_span(expected.closed)}"

    def in_words(self, signal: Signal) -> str:
        """A signal in the words of a scenario."""
        verdict, closed = signal.concentration, self._closed.get(signal.signal_id)
        parts = (
            signal.kind,
            signal.subject_id,
            signal.product_batch_id,
            signal.objection_type,
            f"{verdict.dimension} {verdict.value}".strip(),
            "historic" if signal.historic else "",
            f"day {self._day_of(signal.opened_step)}{'' if closed is None else f', closed day {closed}'}",
        )
        return " / ".join(filter(None, parts))


def _wanted(expected: Expected) -> str:
    parts = (expected.kind, expected.subject, expected.lot, expected.type, expected.verdict)
    return " / ".join(filter(None, parts))


def _within(day: int, days: Days) -> bool:
    return days[0] <= day <= days[1]


def _span(days: Days) -> str:
    return f"days {days[0]} to {days[1]}"
