"""What a policy would have done: stored step counts replayed through the detector, told as the spikes that it opens.

Both ``complaint-radar backtest --from-store`` and ``policy check --since`` ask here. Only products are replayed: whether a lot
explains the excess of a carrier, region or channel only mentions tell. Severe signals do not depend on counts. What comes
before the time that is asked about is replayed as well, half a year of it, so that the detector has its history.
"""

import csv
import datetime as dt
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from pipeline.detection.backtest import Rejudged, rejudge
from pipeline.detection.rebuild import MEMORY_MS
from pipeline.detection.steps import LocalDays, Steps
from pipeline.detection.tally import TYPE_INDEX, UnitKey
from pipeline.errors import ConfigurationError
from pipeline.runtime.backtest import LEAST_P_VALUE, Progress, whole_file
from pipeline.storage import history
from pipeline.storage.engine import Query
from schemas.catalogue import CatalogueEntry
from schemas.control import Gap
from schemas.policy import DAY_MS, DetectionPolicy
from schemas.signal import Signal
from schemas.step_count import StepCount
from schemas.vocabulary import ANY_OBJECTION

SeriesKey = tuple[UnitKey, str]
"""Unit and objection type."""


class Counted(NamedTuple):
    """What is stored of the time that is asked about and of its history."""

    since: int
    """Start of the day asked for, ms UTC."""
    counts: Sequence[StepCount]
    """The latest revision of each cell, ascending by step."""
    gaps: Sequence[Gap]


@dataclass
class Spike:
    """One spike that a policy opens."""

    opening: Signal
    closed: int | None = None
    """Start of the step that closed it, ms UTC; None: it is open at the end."""

    @property
    def series(self) -> SeriesKey:
        """What it is about."""
        one = self.opening
        return (one.subject_kind, one.subject_id, one.product_batch_id), one.objection_type

    def meets(self, other: "Spike") -> bool:
        """Whether both are of one series and open at the same time at least once."""
        first, second = sorted((self, other), key=lambda one: one.opening.opened_step)
        reaches = first.closed is None or first.closed >= second.opening.opened_step
        return self.series == other.series and reaches


@dataclass
class Run:
    """What a policy does with stored counts."""

    spikes: list[Spike] = field(default_factory=list)
    """In the order in which they open, since the time asked for."""
    steps: int = 0
    weeks: float = 0.0

    @property
    def a_week(self) -> float:
        """Spikes a week."""
        return len(self.spikes) / self.weeks if self.weeks else 0.0


Row = tuple[StepCount, float, bool]
"""A count, the p-value held against the promise (NaN: none), and whether a spike is open once its step is closed."""


def read(query: Query, policy: DetectionPolicy, since: str) -> Counted:
    """The step counts of products from half a year before a day on.

    Args:
        query: of the database.
        policy: whose time zone the day is of.
        since: the day, as 2026-03-01.

    Raises:
        ConfigurationError: no day, or nothing is stored since then.
    """
    try:
        day = dt.date.fromisoformat(since)
    except ValueError:
        raise ConfigurationError(f"--since: {since!r} is no day; one such as 2026-03-01 is needed") from None
    start = LocalDays(policy.time_zone).start((day - dt.date(1970, 1, 1)).days)
    counts = list(history.step_counts_in_parts(query, start - MEMORY_MS, sys.maxsize, kind="product"))
    if not counts or counts[-1].step_start < start:
        raise ConfigurationError(f"--since: no step counts of products are stored since {since}")
    return Counted(start, counts, history.gaps(query))


def run(
    counted: Counted,
    policy: DetectionPolicy,
    catalogue: Sequence[CatalogueEntry],
    *,
    progress: Progress = lambda done, steps: None,
    each: Callable[[Row], None] | None = None,
) -> Run:
    """Give the counts to a detector under a policy.

    Args:
        counted: what is stored.
        policy: tried.
        catalogue: taken for all of the past.
        progress: told after each step.
        each: given every count of a type since the time asked for.

    Raises:
        ConfigurationError: the counts are of other steps than the policy's.
    """
    steps = Steps(policy.step, policy.time_zone)
    _check_steps(counted, policy, steps)
    done, of_step = Run(), _by_step(counted, steps)
    open_spikes: dict[SeriesKey, Spike] = {}
    for number, judged in enumerate(rejudge(policy, catalogue, counted.counts, counted.gaps), 1):
        for signal in judged.signals:
            _live(signal, open_spikes, done, counted.since)
        if steps.start(judged.step) >= counted.since and each is not None:
            for row in _rows(judged, of_step[judged.step], open_spikes):
                each(row)
        progress(number, len(of_step))
    done.steps = sum(steps.start(step) >= counted.since for step in of_step)
    done.weeks = (steps.end(max(of_step)) - counted.since) / (7 * DAY_MS)
    return done


def _check_steps(counted: Counted, policy: DetectionPolicy, steps: Steps) -> None:
    for one in counted.counts:
        if one.step != policy.step or steps.start(steps.index(one.step_start)) != one.step_start:
            raise ConfigurationError(
                f"detection.step, time_zone: {policy.step} in {policy.time_zone} cannot be tried on what is stored: counts of steps of "
                f"{one.step} that begin otherwise"
            )


def _by_step(counted: Counted, steps: Steps) -> dict[int, list[StepCount]]:
    found: dict[int, list[StepCount]] = {}
    for one in counted.counts:
        found.setdefault(steps.index(one.step_start), []).append(one)
    return found


def _live(signal: Signal, open_spikes: dict[SeriesKey, Spike], done: Run, since: int) -> None:
    spike = Spike(signal)
    if signal.event == "opened":
        open_spikes[spike.series] = spike
        if signal.opened_step >= since:
            done.spikes.append(spike)
    elif signal.event == "closed":
        open_spikes.pop(spike.series).closed = signal.step_start


def _rows(judged: Rejudged, counts: Sequence[StepCount], open_spikes: dict[SeriesKey, Spike]) -> Iterator[Row]:
    place = {unit: row for row, unit in enumerate(judged.units)}
    for one in counts:
        if one.objection_type != ANY_OBJECTION:
            unit: UnitKey = (one.subject_kind, one.subject_id, one.product_batch_id)
            row = place.get(unit)
            p_value = np.nan if row is None else float(judged.p_values[row, TYPE_INDEX[one.objection_type]])
            yield one, p_value, (unit, one.objection_type) in open_spikes


def compare(one: Run, other: Run) -> tuple[list[tuple[Spike, Spike]], list[Spike], list[Spike]]:
    """Spikes that both open (each with the first of the other's that is open at the same time), and those of only one."""
    both = [(spike, met) for spike in one.spikes if (met := next(filter(spike.meets, other.spikes), None)) is not None]
    only_one = [spike for spike in one.spikes if not any(map(spike.meets, other.spikes))]
    return both, only_one, [spike for spike in other.spikes if not any(map(spike.meets, one.spikes))]


def shown(spike: Spike, policy: DetectionPolicy) -> str:
    """One line about a spike."""
    one, zone = spike.opening, ZoneInfo(policy.time_zone)
    form = "%Y-%m-%d" if policy.step == "1d" else "%Y-%m-%d %H:%M"

    def when(start: int) -> str:
        return dt.datetime.fromtimestamp(start / 1000, zone).strftime(form)

    until = "open at the end" if spike.closed is None else f"until {when(spike.closed)}"
    return (
        f"{when(one.opened_step)}  {one.subject_id} {one.product_batch_id or '-'}  {one.objection_type}: {one.observed} voices, "
        f"{one.expected:.1f} expected, p={one.p_value:.1e}; {until}"
    )


def backtest(
    counted: Counted, policy: DetectionPolicy, catalogue: Sequence[CatalogueEntry], out: Path | None, progress: Progress
) -> Run:
    """Replay and, with ``out``, write a row for each count of a type: key, start of its step, count, score, alarm.

    ``score`` and ``alarm`` are those of `pipeline.runtime.backtest`.

    Raises:
        ConfigurationError: the file cannot be written, or as `run`.
    """
    if out is None:
        return run(counted, policy, catalogue, progress=progress)
    zone = ZoneInfo(policy.time_zone)
    with whole_file(out) as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(("product", "batch", "objection_type", "step_start", "count", "score", "alarm"))

        def write(row: Row) -> None:
            one, p_value, alarm = row
            score = "" if np.isnan(p_value) else f"{0.0 - np.log10(max(p_value, LEAST_P_VALUE)) + 0.0:.6f}"
            start = dt.datetime.fromtimestamp(one.step_start / 1000, zone).isoformat()
            key = (one.subject_id, one.product_batch_id, one.objection_type)
            writer.writerow((*key, start, one.count, score, int(alarm)))

        return run(counted, policy, catalogue, progress=progress, each=write)
