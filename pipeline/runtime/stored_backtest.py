"""Step counts that are stored, replayed through the detector under a policy.

Both ``complaint-radar backtest --from-clickhouse`` and ``policy check --since`` ask here. Only products are replayed: whether
a lot explains the excess of a carrier, region or channel only mentions tell. Severe signals do not depend on counts. What
comes before the time that is asked about is replayed as well, half a year of it, so that the detector has its history.
"""

import csv
import datetime as dt
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from pipeline.detection.backtest import Rejudged, rejudge
from pipeline.detection.entries import TYPE_INDEX, UnitKey
from pipeline.detection.rebuild import MEMORY_MS
from pipeline.detection.steps import Steps
from pipeline.errors import ConfigurationError
from pipeline.runtime.backtest import LEAST_P_VALUE, whole_file
from pipeline.runtime.trial import Progress, SeriesKey, Trial, series_of, start_of
from pipeline.storage import history
from pipeline.storage.engine import Query
from schemas.catalogue import CatalogueEntry
from schemas.control import Gap
from schemas.policy import DetectionPolicy
from schemas.step_count import StepCount
from schemas.vocabulary import ANY_OBJECTION


class Counted(NamedTuple):
    """What is stored of the time that is asked about and of its history."""

    since: int
    """Start of the day asked for, ms UTC."""
    counts: Sequence[StepCount]
    """The latest revision of each cell, ascending by step."""
    gaps: Sequence[Gap]


Row = tuple[StepCount, float, bool]
"""A count, the corrected p-value of the scan (NaN: none), and whether a spike is open once its step is closed."""


def read(query: Query, policy: DetectionPolicy, since: str) -> Counted:
    """The step counts of products from half a year before a day on.

    Args:
        query: of the database.
        policy: whose time zone the day is of.
        since: the day, as 2026-03-01.

    Raises:
        ConfigurationError: no day, or nothing is stored since then.
    """
    start = start_of(since, policy.time_zone)
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
) -> Trial:
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
    steps, trial = Steps(policy.step, policy.time_zone), Trial(policy, counted.since)
    _check_steps(counted, policy, steps)
    of_step = _by_step(counted, steps)
    for number, judged in enumerate(rejudge(policy, catalogue, counted.counts, counted.gaps), 1):
        for signal in judged.signals:
            trial.take(signal)
        if each is not None and steps.start(judged.step) >= counted.since:
            for row in _rows(judged, of_step[judged.step], trial.open_spikes):
                each(row)
        progress(number, len(of_step))
    trial.until = steps.end(max(of_step))
    wanted = {series_of(one.opening) for one in trial.signals}
    for one in counted.counts:
        key = (one.subject_kind, one.subject_id, one.product_batch_id), one.objection_type
        if key in wanted:
            trial.voices.setdefault(key, {})[one.step_start] = one.count
    return trial


def _check_steps(counted: Counted, policy: DetectionPolicy, steps: Steps) -> None:
    for one in counted.counts:
        if one.step != policy.step:
            raise ConfigurationError(
                f"detection.step: {policy.step} cannot be tried on step counts of {one.step}; write `step: {one.step}`, or "
                "try it on mentions: `backtest --mentions`"
            )
        if steps.start(steps.index(one.step_start)) != one.step_start:
            raise ConfigurationError(
                f"time_zone: {policy.time_zone} cannot be tried on what is stored, whose days begin at other times"
            )


def _by_step(counted: Counted, steps: Steps) -> dict[int, list[StepCount]]:
    found: dict[int, list[StepCount]] = {}
    for one in counted.counts:
        found.setdefault(steps.index(one.step_start), []).append(one)
    return found


def _rows(judged: Rejudged, counts: Sequence[StepCount], open_spikes: set[SeriesKey]) -> Iterator[Row]:
    place = {unit: row for row, unit in enumerate(judged.units)}
    for one in counts:
        if one.objection_type != ANY_OBJECTION:
            unit: UnitKey = (one.subject_kind, one.subject_id, one.product_batch_id)
            row = place.get(unit)
            p_value = np.nan if row is None else float(judged.p_values[row, TYPE_INDEX[one.objection_type]])
            yield one, p_value, (unit, one.objection_type) in open_spikes


def backtest(
    counted: Counted, policy: DetectionPolicy, catalogue: Sequence[CatalogueEntry], out: Path | None, progress: Progress
) -> Trial:
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
