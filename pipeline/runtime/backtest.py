"""``complaint-radar backtest --counts``: the detector over counts that stand in a CSV file, told step by step.

**In**: ``date,product,batch,objection_type,count`` or ``series,t,count``, each with or without ``total`` (and either time
column with either key). ``count`` is objecting voices, ``total`` all mentions of that lot in that step. A date is a day
(what follows the tenth character is ignored), ``t`` any whole number. Other columns are ignored; rows in any order.
With ``total``, a type of a lot that has a row for another type is 0 where it has none of its own; without, a missing row is
silence (see `pipeline.detection.backtest`).

A step is as long as the greatest common divisor of the distances between the times in the file, so dates a week apart are
weekly steps. How long a step is settles the season (weekdays, the time of year), the promise and which windows are scanned:
none longer than four weeks. Dates tell it; series that are numbered only are taken for weekly, as is the custom of
surveillance, unless said otherwise. Drift and silence are reckoned in steps, as if each were a day: what is counted weekly
changes as slowly from count to count.

**Out**: the key columns, the time, ``score`` and ``alarm``, a row for each of the counts, in their order. ``score`` is
-log10 of the scan's p-value, corrected for its windows (0: no spike may open now; empty: too early to say); ``alarm`` is 1
while a spike is open.
"""

import csv
import datetime as dt
import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np
from msgspec.structs import replace

from pipeline.detection.backtest import Backtest, Series
from pipeline.detection.entries import TYPES
from pipeline.detection.exposure import Bools, Floats, Ints
from pipeline.errors import ConfigurationError
from pipeline.runtime.trial import Progress
from schemas.policy import DetectionPolicy
from schemas.vocabulary import OBJECTION_TYPES

if TYPE_CHECKING:
    import _csv

PRODUCT_KEY = ("product", "batch", "objection_type")
SERIES_KEY = ("series",)
MOST_STEPS = 1_000_000
"""Steps between the first and the last of a file: steps are days to detection, and no calendar goes on for ever."""
LARGEST = 10**9
"""Counts above this are taken for a mistake."""
LARGEST_WHOLE = 2**53
NUMBERED_STEP_DAYS = 7.0
"""Length of a step of column ``t``."""
LONGEST_WINDOW_DAYS = 28.0
LEAST_P_VALUE = 1e-300
_EPOCH = dt.date(1970, 1, 1).toordinal()


@dataclass
class Counts:
    """A file of counts, a row each (n,), in the order of the file."""

    time_column: str
    """``date`` or ``t``."""
    key: tuple[str, ...]
    """Key columns."""
    series: list[tuple[str, ...]]
    """Distinct keys, in the order of their first rows."""
    number: Ints
    """Position of each row's series."""
    time: Ints
    """``t``, or the date's proleptic Gregorian ordinal."""
    count: Ints
    total: Ints | None
    line: Ints
    """Of the file, from 1."""

    @cached_property
    def times(self) -> Ints:
        """The distinct times, ascending."""
        return np.unique(self.time)

    @cached_property
    def spacing(self) -> int:
        """Distance between two steps: days, or what ``t`` counts."""
        return int(np.gcd.reduce(np.diff(self.times))) or 1

    def names(self) -> list[Series]:
        """The series as detection knows them; without a product each is one of its own.

        Types of a lot know nothing of each other, and the exposure is constant without totals: where every series has a
        count at each step, seven of them pass for the types of one product, at a fraction of the cost.
        """
        if self.key == PRODUCT_KEY:
            return [Series(*key) for key in self.series]
        if self.total is None and len(self.count) == len(self.series) * len(self.times):
            return [
                Series(str(number // TYPES), "", OBJECTION_TYPES[number % TYPES]) for number in range(len(self.series))
            ]
        return [Series(name, "", "product_quality") for (name,) in self.series]

    def steps(self) -> Iterator[tuple[int, Ints]]:
        """Each step's number, ascending, and the positions of its rows. A file of days is numbered as detection does."""
        first = int(self.times[0])
        offset = first - _EPOCH if self.time_column == "date" else 0
        order = np.argsort(self.time, kind="stable")
        bounds = np.searchsorted(self.time[order], self.times, side="right").tolist()
        start = 0
        for time, end in zip(self.times.tolist(), bounds, strict=True):
            yield offset + (time - first) // self.spacing, order[start:end]
            start = end


@dataclass(frozen=True)
class Told:
    """What a run came to, in the order of the rows."""

    scores: Floats
    """NaN: none."""
    alarms: Bools
    opened: int
    """Spikes opened."""
    steps: int


def backtest(
    counts: Path,
    out: Path,
    policy: DetectionPolicy | None = None,
    *,
    step_days: float | None = None,
    progress: Progress = lambda done, steps: None,
) -> Told:
    """Replay the detector over a file of counts and write what it says of each; see the top of this module.

    Args:
        counts: the file.
        out: written when all is done, over what stood there.
        policy: its base step and time zone are not used: the steps are those of the file.
        step_days: how long a step of column ``t`` is, in days; a week if None.
        progress: told after each step.

    Raises:
        ConfigurationError: a file that cannot be read or written, or is no such file: names line and column.
    """
    if step_days is not None and not 0 < step_days < LARGEST:
        raise ConfigurationError(f"--step-days: {step_days} does not do; a number above 0 is needed")
    check_out(out)
    table = read_counts(counts)
    if step_days is not None and table.time_column == "date":
        raise ConfigurationError("--step-days: only with column t; dates tell how long a step is")
    told = run(table, policy or DetectionPolicy(), step_days=step_days, progress=progress)
    _write(out, table, told)
    return told


def check_out(out: Path, option: str = "--out") -> None:
    """Refuse what cannot be a file, before any work is done.

    Raises:
        ConfigurationError: a folder, or in a folder that does not exist.
    """
    if out.is_dir() or not out.parent.is_dir():
        raise ConfigurationError(f"{option}: {out} is no file in a folder that exists")


def run(
    table: Counts,
    policy: DetectionPolicy,
    *,
    step_days: float | None = None,
    progress: Progress = lambda done, steps: None,
) -> Told:
    """The same without files; ``step_days`` is not looked at where dates tell it."""
    days = table.spacing if table.time_column == "date" else step_days or NUMBERED_STEP_DAYS
    # Every step is a day to detection: the promise is stretched or shrunk to what it is of the weeks that go by.
    promised = policy.false_signals_per_week * days
    windows = tuple(length for length in policy.windows if length * days <= LONGEST_WINDOW_DAYS) or (
        min(policy.windows),
    )
    policy = replace(policy, step="1d", time_zone="UTC", false_signals_per_week=promised, windows=windows)
    replayed = Backtest(policy, table.names(), totals=table.total is not None, step_days=float(days))
    scores, alarms = np.full(len(table.count), np.nan), np.zeros(len(table.count), np.bool_)
    opened, steps = 0, len(table.times)
    for done, (step, rows) in enumerate(table.steps(), 1):
        totals = None if table.total is None else table.total[rows]
        judged = replayed.close(step, table.number[rows], table.count[rows], totals)
        # Adding 0 takes the sign off the score of a p-value of 1.
        scores[rows] = 0.0 - np.log10(np.maximum(judged.p_values, LEAST_P_VALUE)) + 0.0
        alarms[rows] = judged.open_spike
        opened += sum(signal.event == "opened" for signal in judged.signals)
        progress(done, steps)
    return Told(scores, alarms, opened, steps)


# ---------------------------------------------------------------- reading


def read_counts(path: Path) -> Counts:
    """A file of counts.

    Raises:
        ConfigurationError: names the line and the column, and says what is allowed.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            table = _Reading(path.name, csv.reader(lines, strict=True)).read()
    except UnicodeDecodeError:
        raise ConfigurationError(f"--counts: {path} is not UTF-8") from None
    except OSError as error:
        raise ConfigurationError(f"--counts: {path} cannot be read: {error.strerror}") from None
    _check(path.name, table)
    return table


@dataclass
class _Reading:
    """Reads one file; knows where it is, for the messages."""

    name: str
    rows: "_csv.Reader"
    known: dict[tuple[str, ...], int] = field(default_factory=dict)
    days: dict[str, int] = field(default_factory=dict)

    def read(self) -> Counts:
        try:
            header = [name.strip() for name in next(self.rows, [])]
            time_column, key = _form(self.name, header)
            columns = self._columns(header, time_column, key)
        except csv.Error as error:
            raise self.wrong(None, str(error)) from None
        number, time, count, total, line = (np.frombuffer(column, np.int64) for column in columns)
        if not len(count):
            raise ConfigurationError(f"--counts: {self.name} holds no counts")
        with_total = total if "total" in header else None
        return Counts(time_column, key, list(self.known), number, time, count, with_total, line)

    def _columns(self, header: list[str], time_column: str, key: tuple[str, ...]) -> tuple["array[int]", ...]:
        columns = number, time, count, total, line = tuple(array("q") for _ in range(5))
        at = {name: header.index(name) for name in (*key, time_column, "count")}
        at_key = [at[name] for name in key]
        at_time, at_count = at[time_column], at["count"]
        at_total = header.index("total") if "total" in header else None
        time_of, known = self._day if time_column == "date" else self._whole, self.known
        for row in self.rows:
            if not row:
                continue  # an empty line
            if len(row) < len(header):
                raise self.wrong(header[len(row)], "is missing")
            series = tuple([row[index] for index in at_key])
            number.append(known.setdefault(series, len(known)))
            time.append(time_of(row[at_time], time_column))
            count.append(self._amount(row[at_count], "count"))
            if at_total is not None:
                total.append(self._amount(row[at_total], "total"))
            line.append(self.rows.line_num)
        return columns

    def _amount(self, text: str, column: str) -> int:
        value = self._whole(text, column)
        if not 0 <= value <= LARGEST:
            raise self.wrong(column, f"{text!r} does not do; a whole number from 0 to {LARGEST:,} is needed")
        return value

    def _whole(self, text: str, column: str) -> int:
        """A whole number; one written as a decimal number (3.0) is one too."""
        with suppress(ValueError):
            value = int(text)
            if abs(value) < LARGEST_WHOLE:
                return value
        with suppress(ValueError):
            number = float(text)
            if number.is_integer() and abs(number) < LARGEST_WHOLE:
                return int(number)
        raise self.wrong(column, f"{text!r} does not do; a whole number is needed")

    def _day(self, text: str, column: str) -> int:
        day = self.days.get(text)
        if day is None:
            try:
                day = self.days[text] = dt.date.fromisoformat(text.strip()[:10]).toordinal()
            except ValueError:
                raise self.wrong(column, f"{text!r} does not do; a day such as 2025-01-31 is needed") from None
        return day

    def wrong(self, column: str | None, what: str) -> ConfigurationError:
        where = f"line {self.rows.line_num} of {self.name}" + (f", column {column}" if column else "")
        return ConfigurationError(f"--counts: {where}: {what}")


def _form(name: str, header: list[str]) -> tuple[str, tuple[str, ...]]:
    """Time column and key columns of a file with this header."""
    key = next((key for key in (PRODUCT_KEY, SERIES_KEY) if set(key) <= set(header)), None)
    time_column = next((column for column in ("date", "t") if column in header), None)
    lacking = [
        what
        for what, there in (
            ("product, batch and objection_type (or series)", key),
            ("date (or t)", time_column),
            ("count", "count" in header),
        )
        if not there
    ]
    if key is None or time_column is None or lacking:
        raise ConfigurationError(f"--counts: line 1 of {name}: there is no column {', no '.join(lacking)}")
    twice = [column for column in (*key, time_column, "count", "total") if header.count(column) > 1]
    if twice:
        raise ConfigurationError(f"--counts: line 1 of {name}: column {twice[0]} stands there twice")
    return time_column, key


def _check(name: str, table: Counts) -> None:
    """What can only be seen of several rows together."""
    span = int(table.times[-1] - table.times[0]) // table.spacing
    if span >= MOST_STEPS:
        latest = int(table.line[np.argmax(table.time)])
        raise ConfigurationError(
            f"--counts: line {latest} of {name}, column {table.time_column}: {span:,} steps of {table.spacing} after the first;"
            f" at most {MOST_STEPS:,} are allowed"
        )
    order = np.lexsort((table.line, table.number, table.time))
    again = (np.diff(table.number[order]) == 0) & (np.diff(table.time[order]) == 0)
    if again.any():
        first, second = _two_lines(table, order, again)
        raise ConfigurationError(
            f"--counts: line {second} of {name}, column {table.time_column}: this series has a count of that time in line"
            f" {first}"
        )
    if table.total is not None:
        _check_totals(name, table, table.total)


def _check_totals(name: str, table: Counts, total: Ints) -> None:
    more = np.flatnonzero(table.count > total)
    if len(more):
        row = int(more[0])
        raise ConfigurationError(
            f"--counts: line {table.line[row]} of {name}, column count: {table.count[row]} voices out of a total of"
            f" {total[row]} mentions"
        )
    lots: dict[tuple[str, ...], int] = {}
    lot_of = np.array([lots.setdefault(key[:2], len(lots)) for key in table.series], np.int64)
    lot = lot_of[table.number]
    order = np.lexsort((table.line, lot, table.time))
    same = (np.diff(lot[order]) == 0) & (np.diff(table.time[order]) == 0)
    differs = same & (np.diff(total[order]) != 0)
    if differs.any():
        first, second = _two_lines(table, order, differs)
        raise ConfigurationError(
            f"--counts: line {second} of {name}, column total: another total than in line {first};"
            " it is the mentions of the lot, the same for all types of a step"
        )


def _two_lines(table: Counts, order: Ints, where: Bools) -> tuple[int, int]:
    """The lines of the first pair of neighbours in this order for which it holds."""
    place = int(np.argmax(where))
    return int(table.line[order[place]]), int(table.line[order[place + 1]])


# ---------------------------------------------------------------- writing


def _write(out: Path, table: Counts, told: Told) -> None:
    with whole_file(out) as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow((*table.key, table.time_column, "score", "alarm"))
        writer.writerows(_lines(table, told))


@contextmanager
def whole_file(out: Path, option: str = "--out") -> Iterator[TextIO]:
    """A file to write, made beside its place and renamed when all is in it: a run that fails leaves no half of it.

    Raises:
        ConfigurationError: it cannot be written.
    """
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.unfinished")
    try:
        with unfinished.open("w", encoding="utf-8", newline="") as lines:
            yield lines
        unfinished.replace(out)
    except OSError as error:
        raise ConfigurationError(f"{option}: {out} cannot be written: {error.strerror}") from None
    finally:
        unfinished.unlink(missing_ok=True)


def _lines(table: Counts, told: Told) -> Iterator[tuple[object, ...]]:
    times: dict[int, object] = {time: time for time in table.times.tolist()}
    if table.time_column == "date":
        times = {time: dt.date.fromordinal(time).isoformat() for time in times}
    columns = (table.number, table.time, told.scores, told.alarms)
    for number, time, score, alarm in zip(*(column.tolist() for column in columns), strict=True):
        yield (*table.series[number], times[time], "" if score != score else f"{score:.6f}", int(alarm))
