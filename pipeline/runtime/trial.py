"""What a policy does with history: the signals that it opens, beside those of another policy and beside labelled events.

Where the history comes from is no matter here: see `pipeline.runtime.stored_backtest` (step counts in the database) and
`pipeline.runtime.mentions_backtest` (a file of mentions).
"""

import csv
import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

from pipeline.detection.entries import UnitKey
from pipeline.detection.lifecycle import RISES
from pipeline.detection.steps import LocalDays, Steps
from pipeline.errors import ConfigurationError
from schemas.policy import DAY_MS, DetectionPolicy
from schemas.signal import Signal
from schemas.vocabulary import OBJECTION_TYPES

Progress = Callable[[int, int], None]
"""Told how much is done, of how much."""

SeriesKey = tuple[UnitKey, str]
"""Unit and objection type."""

_EPOCH = dt.date(1970, 1, 1)


def start_of(day: str, zone: str) -> int:
    """When a day begins, ms UTC.

    Raises:
        ConfigurationError: it is no day.
    """
    try:
        number = (dt.date.fromisoformat(day) - _EPOCH).days
    except ValueError:
        raise ConfigurationError(f"--since: {day!r} is no day; one such as 2026-03-01 is needed") from None
    return LocalDays(zone).start(number)


def series_of(signal: Signal) -> SeriesKey:
    """What a signal is about."""
    return (signal.subject_kind, signal.subject_id, signal.product_batch_id), signal.objection_type


@dataclass
class Raised:
    """One signal that a policy opens."""

    revisions: list[Signal]
    told_at: int
    """When it was there to be seen, ms UTC: the close of the step that opened it; harm is told at once."""

    @property
    def opening(self) -> Signal:
        """Its first revision."""
        return self.revisions[0]

    @property
    def closed(self) -> int | None:
        """Start of the step that closed it, ms UTC; None: it is open at the end."""
        last = self.revisions[-1]
        return last.step_start if last.event == "closed" else None

    def meets(self, other: "Raised") -> bool:
        """Whether both are about the same and open at the same time at least once."""
        first, second = sorted((self, other), key=lambda one: one.opening.opened_step)
        kinds = {
            one.opening.kind in RISES for one in (self, other)
        }  # what one tells as a spike the other may as a ramp
        alike = series_of(self.opening) == series_of(other.opening) and len(kinds) == 1
        return alike and (first.closed is None or first.closed >= second.opening.opened_step)


@dataclass
class Trial:
    """A policy and what it does with history.

    Signals are taken revision by revision, in the order in which they are said.
    """

    policy: DetectionPolicy
    since: int
    """What opens in steps before is history, ms UTC."""
    until: int = 0
    """End of the last step, ms UTC."""
    signals: list[Raised] = field(default_factory=list)
    """In the order in which they open."""
    voices: dict[SeriesKey, dict[int, int]] = field(default_factory=dict)
    """Voices by start of the step, ms UTC, of the series of the signals at least; a step that lacks had none."""
    _known: dict[str, Raised] = field(default_factory=dict)

    def take(self, signal: Signal) -> None:
        """One more revision of a signal."""
        known = self._known.get(signal.signal_id)
        if known is not None:
            known.revisions.append(signal)
            return
        raised = self._known[signal.signal_id] = Raised([signal], self._told_at(signal))
        if signal.opened_step >= self.since:
            self.signals.append(raised)

    def _told_at(self, opening: Signal) -> int:
        if opening.kind == "severe":
            return max((one.event_time for one in opening.evidence), default=opening.step_start)
        return self.steps.end(self.steps.index(opening.opened_step))

    @property
    def steps(self) -> Steps:
        """The policy's."""
        return Steps(self.policy.step, self.policy.time_zone)

    @property
    def weeks(self) -> float:
        """How long it lasted."""
        return max(0, self.until - self.since) / (7 * DAY_MS)

    @property
    def a_week(self) -> float:
        """Signals a week."""
        return len(self.signals) / self.weeks if self.weeks else 0.0

    @property
    def open_spikes(self) -> set[SeriesKey]:
        """Series of which a spike or ramp is open now."""
        return {
            series_of(one.opening) for one in self._known.values() if one.opening.kind in RISES and one.closed is None
        }


class Compared(NamedTuple):
    """The signals of two policies."""

    both: list[tuple[Raised, Raised]]
    """Each of the first with the first one of the other's that is open at the same time."""
    only_first: list[Raised]
    only_second: list[Raised]


def compare(one: Trial, other: Trial) -> Compared:
    """Which signals both open, and which only one of them."""
    found = [(signal, next(filter(signal.meets, other.signals), None)) for signal in one.signals]
    return Compared(
        [(signal, met) for signal, met in found if met is not None],
        [signal for signal, met in found if met is None],
        [signal for signal in other.signals if not any(map(signal.meets, one.signals))],
    )


# ---------------------------------------------------------------- labelled events


class Event(NamedTuple):
    """Something that is known to have happened, and that a signal should have told of."""

    subject_kind: str
    subject_id: str
    product_batch_id: str
    """Empty: any lot."""
    objection_type: str
    """Empty: any type."""
    start: int
    """ms UTC."""
    end: int
    """Excluded, ms UTC."""

    def is_told_by(self, raised: Raised) -> bool:
        """Whether a signal is about it and was opened while it lasted."""
        one = raised.opening
        # A rise that was told as the event began is of the step before; harm may be dated by its day alone.
        after = raised.told_at > self.start or (one.kind == "severe" and raised.told_at == self.start)
        return (
            (one.subject_kind, one.subject_id) == (self.subject_kind, self.subject_id)
            and self.product_batch_id in ("", one.product_batch_id)
            and self.objection_type in ("", one.objection_type)
            and after
            and one.opened_step < self.end
        )


class Caught(NamedTuple):
    """What became of an event."""

    event: Event
    by: Raised | None
    """The signal that told of it first; None: it was missed."""

    @property
    def delay_ms(self) -> int | None:
        """From its start until it was told."""
        return None if self.by is None else self.by.told_at - self.event.start


def caught(events: Sequence[Event], trial: Trial) -> list[Caught]:
    """What became of each event.

    Raises:
        ConfigurationError: an event lies outside of the history.
    """
    for one in events:
        if one.end <= trial.since or one.start >= trial.until:
            zone = ZoneInfo(trial.policy.time_zone)
            day = dt.datetime.fromtimestamp(one.start / 1000, zone).date()
            raise ConfigurationError(f"--events: the event of {one.subject_id} of {day} lies outside of the history")
    told = sorted(trial.signals, key=lambda raised: raised.told_at)
    return [Caught(one, next(filter(one.is_told_by, told), None)) for one in events]


_COLUMNS = ("subject_kind", "subject_id", "product_batch_id", "objection_type", "start", "end")


def read_events(path: Path, time_zone: str) -> list[Event]:
    """The labelled events of a CSV file: ``subject_kind,subject_id,product_batch_id,objection_type,start,end``.

    An empty kind is a product, an empty lot or type any. Start and end are days (the last one included) or ISO 8601 times.

    Raises:
        ConfigurationError: names line and column, and says what is allowed.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            rows = csv.DictReader(lines)
            if missing := [name for name in _COLUMNS if name not in (rows.fieldnames or ())]:
                raise ConfigurationError(f"--events: line 1 of {path.name}: there is no column {', no '.join(missing)}")
            return [_event(row, f"line {rows.line_num} of {path.name}", ZoneInfo(time_zone)) for row in rows]
    except UnicodeDecodeError:
        raise ConfigurationError(f"--events: {path} is not UTF-8") from None
    except OSError as error:
        raise ConfigurationError(f"--events: {path} cannot be read: {error.strerror}") from None


def _event(row: dict[str, str | None], where: str, zone: ZoneInfo) -> Event:
    kind, subject, lot, objection, start, end = ((row[name] or "").strip() for name in _COLUMNS)
    for name, value, allowed in (
        ("subject_kind", kind, ("", "product", "carrier", "region", "channel")),
        ("objection_type", objection, ("", *OBJECTION_TYPES)),
    ):
        if value not in allowed:
            raise ConfigurationError(
                f"--events: {where}, column {name}: {value!r} does not do; allowed: {', '.join(allowed[1:])}, or nothing"
            )
    begin, stop = _time(start, where, "start", zone), _time(end, where, "end", zone, whole_day=True)
    if stop <= begin:
        raise ConfigurationError(f"--events: {where}, column end: {end} is not after {start}")
    return Event(kind or "product", subject, lot, objection, begin, stop)


def _time(text: str, where: str, column: str, zone: ZoneInfo, *, whole_day: bool = False) -> int:
    try:
        time = dt.datetime.fromisoformat(text)
    except ValueError:
        words = f"{text!r} does not do; a day such as 2026-03-01 or a time such as 2026-03-01T08:00 is needed"
        raise ConfigurationError(f"--events: {where}, column {column}: {words}") from None
    if whole_day and len(text) <= len("2026-03-01"):
        time += dt.timedelta(days=1)
    return round((time if time.tzinfo else time.replace(tzinfo=zone)).timestamp() * 1000)
