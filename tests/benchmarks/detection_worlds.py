"""Detection on simulated worlds whose truth is known: the ceiling, and whether p-values and promise are kept.

    python -m tests.benchmarks.detection_worlds oracle FOLDER...            # writes FOLDER/oracle-alarms.csv
    python -m tests.benchmarks.detection_worlds calibration FOLDER...       # backtests, prints a table a folder

A folder holds ``counts.csv`` as `complaint-radar backtest` takes it; ``truth.csv``: the key columns, ``start`` and ``end``
of each outbreak (both in the column of the time, inclusive); and ``oracle.csv``: key and time columns, ``mu`` and ``phi``
of each count and, where it is over-dispersed beyond that, ``size`` (variance = phi mu + mu^2 / size).

- *Oracle*: the scan of the policy (windows, which of them count, least voices and mentions, a voice in the newest step), with
  the true mean and variance of each window in place of what a baseline leads to expect. ``--bare`` without the least
  numbers, ``--plain`` with all windows counting. What a detector lacks to it is the baseline's to answer for.
- *Calibration*: of the steps without an outbreak (after ``--from`` steps, and but for ``--grace`` steps after each
  outbreak), the share with a p-value up to 0.01, by the true mean of the count; spikes opened in them a week over all
  series, against what is promised; and the time a series-step takes. The true mean only sorts the results.
"""

import argparse
import csv
import datetime as dt
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from msgspec import structs

from pipeline.detection.baseline import Prediction
from pipeline.detection.exposure import Bools, Floats
from pipeline.detection.scan import MINIMUM_MENTIONS, corrected, supported
from pipeline.runtime.backtest import LEAST_P_VALUE, LONGEST_WINDOW_DAYS, NUMBERED_STEP_DAYS, Counts, read_counts, run
from schemas.policy import DetectionPolicy

STRATA = (0.0, 0.3, 1.0, 3.0, 10.0, 30.0, np.inf)
PROMISES = (20.0, 5.0, 1.0)
CLAIMED = 0.01


@dataclass
class World:
    """A folder, as arrays of series x steps."""

    table: Counts
    count: Floats
    total: Floats | None
    mean: Floats
    """NaN where the truth is not told."""
    variance: Floats
    promotion: Bools | None

    @classmethod
    def read(cls, folder: Path) -> "World":
        table = read_counts(folder / "counts.csv")
        shape = len(table.series), int(table.time.max() - table.time.min()) + 1
        count, mean, variance = np.zeros(shape), np.full(shape, np.nan), np.full(shape, np.nan)
        row = table.number, table.time - table.time.min()
        count[row] = table.count
        total = None
        if table.total is not None:
            total = np.zeros(shape)
            total[row] = table.total
        world = cls(table, count, total, mean, variance, None)
        for at, told in world.rows(folder / "oracle.csv", table.time_column):
            mu = float(told["mu"])
            mean[at] = mu
            variance[at] = float(told["phi"]) * mu + (mu**2 / float(told["size"]) if "size" in told else 0.0)
            if "promo" in told:
                if world.promotion is None:
                    world.promotion = np.zeros(shape, np.bool_)
                world.promotion[at] = told["promo"] == "1"
        return world

    def rows(self, path: Path, time_column: str) -> Iterator[tuple[tuple[int, int], dict[str, str]]]:
        number = {key: index for index, key in enumerate(self.table.series)}
        with path.open(encoding="utf-8", newline="") as lines:
            for told in csv.DictReader(lines):
                yield (number[tuple(told[name] for name in self.table.key)], self.step(told[time_column])), told

    def step(self, when: str) -> int:
        """Position of a time."""
        at = dt.date.fromisoformat(when[:10]).toordinal() if self.table.time_column == "date" else int(when)
        return at - int(self.table.time.min())

    def quiet(self, folder: Path, first: int, grace: int) -> Bools:
        """The steps judged: no outbreak, and none shortly before."""
        judged = np.zeros(self.count.shape, np.bool_)
        judged[:, first:] = True
        for (series, start), told in self.rows(folder / "truth.csv", "start"):
            judged[series, start : self.step(told["end"]) + 1 + grace] = False
        return judged


def trailing(values: Floats, length: int) -> Floats:
    """Sums over the last so many steps; NaN where they reach back beyond what is known."""
    longer = np.concatenate((np.full((len(values), length - 1), np.nan), values), axis=1)
    return np.lib.stride_tricks.sliding_window_view(longer, length, axis=1).sum(axis=2)


def oracle(world: World, policy: DetectionPolicy, *, bare: bool, plain: bool) -> Floats:
    """The score of each count, were all known that can be known."""
    longest = LONGEST_WINDOW_DAYS if world.table.time_column == "date" else LONGEST_WINDOW_DAYS / NUMBERED_STEP_DAYS
    windows = [length for length in sorted(policy.windows) if length <= longest]
    voices, mean, variance = (
        np.stack([trailing(part, window) for window in windows]) for part in (world.count, world.mean, world.variance)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = Prediction(mean, mean**2 / np.maximum(variance - mean, 1e-9))
        worth = (voices > mean) & (mean > 0)
        if not plain:
            worth &= supported(voices, expected)
    if not bare:
        worth &= (voices >= policy.minimum_voices) & (world.count >= 1)
        if world.total is not None:
            worth &= np.stack([trailing(world.total, window) for window in windows]) >= MINIMUM_MENTIONS
    tails = np.ones(voices.shape)
    tails[worth] = Prediction(mean[worth], expected.size[worth]).tail(voices[worth])
    return -np.log10(np.maximum(corrected(tails.min(axis=0), len(windows)), LEAST_P_VALUE)) + 0.0


def write_oracle(folder: Path, policy: DetectionPolicy, *, bare: bool, plain: bool) -> None:
    world = World.read(folder)
    table, score = world.table, oracle(world, policy, bare=bare, plain=plain)
    with (folder / "oracle-alarms.csv").open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow((*table.key, table.time_column, "score"))
        for number, when in zip(table.number.tolist(), table.time.tolist(), strict=True):
            told = dt.date.fromordinal(when).isoformat() if table.time_column == "date" else when
            writer.writerow((*table.series[number], told, f"{score[number, when - int(table.time.min())]:.6f}"))


@dataclass
class Run:
    """A backtest of a world, as arrays of series x steps."""

    score: Floats
    alarm: Bools
    seconds: float
    """Of this process, a series-step."""

    @classmethod
    def of(cls, table: Counts, policy: DetectionPolicy, shape: tuple[int, int], step_days: float) -> "Run":
        begin = time.process_time()
        told = run(table, policy, step_days=step_days)
        spent = (time.process_time() - begin) / len(told.scores)
        score, alarm = np.full(shape, np.nan), np.zeros(shape, np.bool_)
        row = table.number, table.time - table.time.min()
        score[row], alarm[row] = told.scores, told.alarms
        return cls(score, alarm, spent)


def calibration(folder: Path, policy: DetectionPolicy, first: int, grace: int, step_days: float) -> None:
    world = World.read(folder)
    judged = world.quiet(folder, first, grace)
    weeks = judged.sum() / len(judged) * step_days / 7
    observed = []
    for promise in PROMISES:
        promised = structs.replace(policy, false_signals_per_week=promise)
        told = Run.of(world.table, promised, judged.shape, step_days)
        opened = told.alarm[:, 1:] & ~told.alarm[:, :-1] & judged[:, 1:]
        observed.append(f"{promise:g}: {opened.sum() / weeks:.2f}")
    print(f"{folder.name}: {told.seconds * 1e6:.1f} us a series-step, false positives where p <= {CLAIMED}:")
    claimed = told.score >= -np.log10(CLAIMED)
    for low, high in pairwise(STRATA):
        stratum = judged & (world.mean >= low) & (world.mean < high)
        if stratum.any():
            print(f"  mean {low:g} to {high:g}: {claimed[stratum].mean():.2%} of {stratum.sum()}")
    print(f"  all: {claimed[judged].mean():.2%}")
    if world.promotion is not None:
        print(f"  promotion days: {claimed[judged & world.promotion].mean():.2%}")
    print(f"  false signals a week over all series, promised: observed: {', '.join(observed)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("oracle", "calibration"))
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--bare", action="store_true", help="the oracle without least voices and mentions")
    parser.add_argument("--plain", action="store_true", help="the oracle with all windows counting")
    parser.add_argument("--from", dest="first", type=int, help="steps left out at first; 90, of column t 575")
    parser.add_argument("--grace", type=int, help="steps left out after an outbreak; 14, of column t 4")
    parser.add_argument("--step-days", type=float, default=7.0, help="how long a step of column t is; 7")
    options = parser.parse_args()
    policy = DetectionPolicy()
    for folder in options.folders:
        if options.what == "oracle":
            write_oracle(folder, policy, bare=options.bare, plain=options.plain)
            continue
        with (folder / "counts.csv").open(encoding="utf-8") as lines:
            daily = "date" in lines.readline().strip().split(",")
        first = options.first if options.first is not None else 90 if daily else 575
        grace = options.grace if options.grace is not None else 14 if daily else 4
        calibration(folder, policy, first, grace, 1.0 if daily else options.step_days)


if __name__ == "__main__":
    main()
