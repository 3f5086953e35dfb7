"""``complaint-radar backtest``: files of counts in either form, what is wrong with them, and what is written."""

import csv
import random
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigurationError
from pipeline.runtime.backtest import backtest, read_counts
from schemas.policy import DetectionPolicy

HEADER = "date,product,batch,objection_type,count,total"


def write(folder: Path, *lines: str, name: str = "counts.csv") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def alarms(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def noisy(length: int, *, burst: range = range(0), every: int = 1, seed: int = 1) -> list[str]:
    """Two series of weekly or daily counts around 4; one of them 20 higher in the burst."""
    rng = np.random.default_rng(seed)
    return [
        f"{name},{number * every},{rng.poisson(4) + (20 if name == 'b' and number in burst else 0)}"
        for name in ("a", "b")
        for number in range(length)
    ]


def test_lots_with_totals(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "note,total,count,date,product,batch,objection_type",
        "x,40,3,2025-02-28T00:00:00,P,L1,噪音",
        ",12.0,1.0,2025-03-01,P,L1,噪音",
    )
    table = read_counts(path)
    assert (table.time_column, table.key) == ("date", ("product", "batch", "objection_type"))
    assert table.series == [("P", "L1", "噪音")]
    assert table.count.tolist() == [3, 1]
    assert table.total is not None
    assert table.total.tolist() == [40, 12]
    assert table.line.tolist() == [2, 3]
    assert [step for step, _ in table.steps()] == [20147, 20148]  # days since 1970


def test_plain_series_out_of_order_with_a_mark_at_the_start(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeffseries,t,count", "s,21,0", "", '"r,1",7,5', "s,7,2")
    table = read_counts(path)
    assert (table.time_column, table.total, table.spacing) == ("t", None, 14)
    assert table.series == [("s",), ("r,1",)]
    assert [(step, rows.tolist()) for step, rows in table.steps()] == [(0, [1, 2]), (1, [0])]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "line 1 of counts.csv: there is no column product, batch and objection_type (or series), no date (or t), no"),
        (["series,t,total"], "there is no column count"),
        (["series,count"], "there is no column date (or t)"),
        (["product,batch,t,count"], "there is no column product, batch and objection_type (or series)"),
        (["series,t,count,t"], "column t stands there twice"),
        (["series,t,count"], "holds no counts"),
        (["series,t,count", "a,1,2", "a,2"], "line 3 of counts.csv, column count: is missing"),
        (["series,t,count", "a,x,2"], "line 2 of counts.csv, column t: 'x' does not do; a whole number is needed"),
        (["series,t,count", "a,1.5,2"], "line 2 of counts.csv, column t: '1.5' does not do"),
        (["series,t,count", f"a,{10**30},2"], "column t: '1000000000000000000000000000000' does not do"),
        (["series,t,count", "a,1,"], "line 2 of counts.csv, column count: '' does not do"),
        (["series,t,count", "a,1,-1"], "column count: '-1' does not do; a whole number from 0 to"),
        (["series,t,count", "a,1,inf"], "column count: 'inf' does not do"),
        (["series,t,count", "a,1,nan"], "column count: 'nan' does not do"),
        (["series,t,count", "a,1,2", "a,2,2", "a,1,2"], "line 4 of counts.csv, column t: this series has a count"),
        (["series,t,count", "a,1,2", "a,2,2", "a,99999999,2"], "line 4 of counts.csv, column t: 99,999,998 steps"),
        (["series,t,count,total", "a,1,2,1"], "line 2 of counts.csv, column count: 2 voices out of a total of 1 mentions"),
        (["series,t,count", 'a,1,"2', "b"], "line 3 of counts.csv"),
        ([HEADER, "2025-02-30,P,L,x,1,2"], "line 2 of counts.csv, column date: '2025-02-30' does not do; a day such as"),
        ([HEADER, "2025-02-03,P,L,x,1,2", "2025-02-03,P,L,y,1,3"], "line 3 of counts.csv, column total: another total"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, lines: list[str], words: str) -> None:
    path, out = write(tmp_path, *lines), tmp_path / "alarms.csv"
    out.write_text("as before", encoding="utf-8")
    with pytest.raises(ConfigurationError) as error:
        backtest(path, out)
    assert words in str(error.value)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["alarms.csv", "counts.csv"]
    assert out.read_text(encoding="utf-8") == "as before"


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    path = write(tmp_path, "series,t,count", "a,1,1")
    with pytest.raises(ConfigurationError, match=r"--counts: .*none.csv cannot be read"):
        backtest(tmp_path / "none.csv", tmp_path / "out.csv")
    with pytest.raises(ConfigurationError, match=r"--out: .* is no file in a folder that exists"):
        backtest(path, tmp_path / "none" / "out.csv")
    with pytest.raises(ConfigurationError, match=r"--out: .* is no file in a folder that exists"):
        backtest(path, tmp_path)
    (tmp_path / "other.csv").write_bytes("series,t,count\n噪,1,1\n".encode("gb18030"))
    with pytest.raises(ConfigurationError, match="is not UTF-8"):
        backtest(tmp_path / "other.csv", tmp_path / "out.csv")
    with pytest.raises(ConfigurationError, match=r"--step-days: 0.0 does not do"):
        backtest(path, tmp_path / "out.csv", step_days=0.0)
    dated = write(tmp_path, HEADER, "2025-02-03,P,L,x,1,2", name="dated.csv")
    with pytest.raises(ConfigurationError, match=r"--step-days: only with column t"):
        backtest(dated, tmp_path / "out.csv", step_days=7.0)


def test_a_row_is_written_for_each_count_in_its_order(tmp_path: Path) -> None:
    lines = noisy(60, burst=range(50, 54))
    path, out = write(tmp_path, "series,t,count", *lines), tmp_path / "alarms.csv"
    steps: list[tuple[int, int]] = []
    told = backtest(
        path,
        out,
        DetectionPolicy(false_signals_per_week=0.01),
        step_days=1.0,
        progress=lambda done, of: steps.append((done, of)),
    )
    assert steps == [(done, 60) for done in range(1, 61)]
    assert (told.opened, told.steps) == (1, 60)
    rows = alarms(out)
    assert list(rows[0]) == ["series", "t", "score", "alarm"]
    assert [(row["series"], row["t"]) for row in rows] == [tuple(line.split(",")[:2]) for line in lines]
    assert [row["score"] for row in rows[:7]] == [""] * 7
    assert all(float(row["score"]) >= 0 for row in rows if row["score"])
    assert float(rows[110]["score"]) > 5
    assert {row["t"] for row in rows if row["alarm"] == "1"} >= {"50", "51", "52", "53"}
    assert {row["series"] for row in rows if row["alarm"] == "1"} == {"b"}


def test_dates_are_written_as_days_and_lots_keep_their_names(tmp_path: Path) -> None:
    lines = [f"2025-01-{number:02}T10:00,P,L,O{kind},1,20" for number in range(1, 32) for kind in range(8)]
    backtest(write(tmp_path, HEADER, *lines), tmp_path / "alarms.csv")
    rows = alarms(tmp_path / "alarms.csv")
    assert list(rows[0]) == ["product", "batch", "objection_type", "date", "score", "alarm"]
    assert [row["objection_type"] for row in rows[:9]] == [*(f"O{kind}" for kind in range(8)), "O0"]
    assert rows[-1]["date"] == "2025-01-31"


def test_neither_the_order_of_rows_nor_the_unit_of_time_shows(tmp_path: Path) -> None:
    def scores(lines: list[str], every: int) -> dict[tuple[str, int], tuple[str, str]]:
        path = write(tmp_path, "series,t,count", *lines)
        backtest(path, tmp_path / "alarms.csv", step_days=1.0)
        return {
            (row["series"], int(row["t"]) // every): (row["score"], row["alarm"])
            for row in alarms(tmp_path / "alarms.csv")
        }

    lines = noisy(60, burst=range(50, 54))
    as_given = scores(lines, 1)
    assert scores(lines, 1) == as_given
    assert scores(random.Random(1).sample(lines, len(lines)), 1) == as_given
    assert scores(noisy(60, burst=range(50, 54), every=7), 7) == as_given


def test_a_prefix_says_the_same(tmp_path: Path) -> None:
    lines = noisy(80, burst=range(50, 54))
    backtest(write(tmp_path, "series,t,count", *lines), tmp_path / "all.csv")
    until = [line for line in lines if int(line.split(",")[1]) < 52]
    backtest(write(tmp_path, "series,t,count", *until), tmp_path / "part.csv")
    whole = {(row["series"], row["t"]): row for row in alarms(tmp_path / "all.csv")}
    assert all(whole[row["series"], row["t"]] == row for row in alarms(tmp_path / "part.csv"))


def test_the_promise_knows_how_long_a_step_is(tmp_path: Path) -> None:
    """Seven times the promise a step where steps are weeks: more spikes open."""
    rng = np.random.default_rng(4)
    lines = [f"s{name},{number},{rng.poisson(4)}" for name in range(40) for number in range(150)]
    path = write(tmp_path, "series,t,count", *lines)
    policy = DetectionPolicy(false_signals_per_week=20.0)
    daily = backtest(path, tmp_path / "daily.csv", policy, step_days=1.0)
    weekly = backtest(path, tmp_path / "weekly.csv", policy)
    assert weekly.opened > daily.opened


def test_series_that_share_a_unit_know_nothing_of_each_other(tmp_path: Path) -> None:
    """With one count missing each series is a product of its own: what is said of the others stays the same."""
    lines = [f"{line}" for seed in range(5) for line in noisy(80, burst=range(60, 66), seed=seed)]
    named = [f"{number // 160}{line}" for number, line in enumerate(lines)]
    whole = write(tmp_path, "series,t,count", *named, "z,0,1", *(f"z,{t},1" for t in range(1, 80)))
    apart = write(tmp_path, "series,t,count", *named, "z,0,1", name="apart.csv")
    assert len({one.product_id for one in read_counts(whole).names()}) == 2
    assert len({one.product_id for one in read_counts(apart).names()}) == 11
    told = []
    for path in (whole, apart):
        backtest(path, path.with_suffix(".out"), DetectionPolicy(series=11))
        told.append([one for one in alarms(path.with_suffix(".out")) if one["series"] != "z"])
    assert told[0] == told[1]
    assert any(one["alarm"] == "1" for one in told[0])
