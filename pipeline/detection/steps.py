"""Base steps: which step an event time falls into, and when a step starts and ends.

A step of ``1h`` is an hour of UTC. A step of ``1d`` is a local calendar day of the policy's time zone, so it may last
23 or 25 hours where clocks change. Steps are numbered: hours, or days, since 1970-01-01.
"""

from datetime import date, datetime, time
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pipeline.errors import ConfigurationError
from schemas.policy import DAY_MS, HOUR_MS

_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()


class LocalDays:
    """Calendar days of one time zone, numbered since 1970-01-01; every boundary is computed once and kept."""

    def __init__(self, time_zone: str) -> None:
        try:
            self._zone = ZoneInfo(time_zone)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ConfigurationError(f"time_zone: {time_zone!r} is no IANA time zone") from error
        self._bounds: dict[int, tuple[int, int]] = {}

    def start(self, index: int) -> int:
        """First instant of the day, ms UTC (where midnight is skipped by a clock change: the instant of the change)."""
        return self._bounds_of(index)[0]

    def end(self, index: int) -> int:
        """First instant of the next day, ms UTC."""
        return self._bounds_of(index)[1]

    def index(self, instant: int) -> int:
        """Number of the local day that holds the instant (ms UTC)."""
        # Zones lie within a day of UTC, so the local day is the UTC day or one beside it.
        guess = instant // DAY_MS
        start, end = self._bounds.get(guess) or self._bounds_of(guess)
        return guess - 1 + (instant >= start) + (instant >= end)

    def _bounds_of(self, index: int) -> tuple[int, int]:
        bounds = self._bounds.get(index)
        if bounds is None:
            bounds = self._bounds[index] = (self._midnight(index), self._midnight(index + 1))
        return bounds

    def _midnight(self, index: int) -> int:
        # fold=0 takes the first of two equal midnights, and the offset before a skipped one: both are the day's start.
        day = date.fromordinal(_EPOCH_ORDINAL + index)
        return round(datetime.combine(day, time(), self._zone).timestamp() * 1000)


class Steps:
    """Step arithmetic of one policy (``step`` is ``1h`` or ``1d``)."""

    def __init__(self, step: str, time_zone: str) -> None:
        self.days = LocalDays(time_zone)
        self._hourly = step == "1h"
        self.length = HOUR_MS if self._hourly else DAY_MS
        """Nominal length of a step, ms."""

    def index(self, instant: int) -> int:
        """Number of the step that holds the instant (ms UTC)."""
        return instant // HOUR_MS if self._hourly else self.days.index(instant)

    def start(self, index: int) -> int:
        """First instant of the step, ms UTC."""
        return index * HOUR_MS if self._hourly else self.days.start(index)

    def end(self, index: int) -> int:
        """First instant after the step, ms UTC."""
        return (index + 1) * HOUR_MS if self._hourly else self.days.end(index)
