"""Policies tried on the demo's history: what was opened live opens again, and another promise opens otherwise."""

import csv
import re
from pathlib import Path

import pytest
from streams import source, write_catalogue, write_demo

PROMISE = 1 / 52


@pytest.fixture
def one(radar, demo_folder: Path):
    made = radar(
        sources=[str(source("demo", "demo.jsonl"))],
        more=f"data_dir: {demo_folder}\ncatalogue: catalogue.csv\ndetection: {{step: 1d, false_signals_per_week: {PROMISE}, series: 70}}",
    )
    write_catalogue(made.folder / "catalogue.csv")
    (made.folder / "policy.yaml").write_text("{step: 1d, false_signals_per_week: 1, series: 70}", encoding="utf-8")
    return made


STORED = ("backtest", "--from-clickhouse", "--since", "2026-03-20")


def test_what_was_opened_live_opens_again(one, demo_folder: Path) -> None:
    out = one(*STORED, "--out", "out.csv")
    (live,) = one.rows(
        "SELECT toString(toDate(opened_step, 'Asia/Shanghai')) AS day, observed, round(expected, 1) AS expected "
        "FROM signals WHERE kind = 'spike' AND revision = 0"
    )
    assert "in 5.9 weeks: 1 signal, 0.17 a week" in out
    voices = f"{live['observed']} voices, {live['expected']} expected"
    assert f"{live['day']}  washer-w7 L2603  product_quality: {voices}" in out
    assert "last decided by policy" not in out
    with (one.folder / "out.csv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert min(row["step_start"] for row in rows) == "2026-03-20T00:00:00+08:00"
    alarms = {(row["batch"], row["objection_type"]) for row in rows if row["alarm"] == "1"}
    assert alarms == {("L2603", "product_quality")}
    assert one(*STORED, "--data-dir", str(demo_folder)) == out, "its policy and catalogue are in the folder"


def test_another_promise_against_the_present_one(one, demo_folder: Path) -> None:
    check = ("policy", "check", "policy.yaml", "--since", "2026-03-20")
    out = one(*check)
    assert "promise: 1 false signals a week over 70 live series: a spike opens below a mid-p-value of 0.002" in out
    found = re.search(r"in 5.9 weeks: (\d) signals, 0.\d\d a week; under the present policy 1 signal, 0.17 a week", out)
    assert found, out
    assert "opened under both: 1" in out
    assert " earlier" in out
    assert f"opened only under this one: {int(found[1]) - 1}" in out
    assert "not opened any more: 0" in out
    assert one(*check, "--data-dir", str(demo_folder)) == out
    assert "in 5.9 weeks: 1 signal," in one("policy", "check", "--since", "2026-03-20")


def test_a_gate(one) -> None:
    events = one.folder / "events.csv"
    head = "subject_kind,subject_id,product_batch_id,objection_type,start,end\n"
    events.write_text(f"{head},washer-w7,L2603,product_quality,2026-04-10,2026-04-29\n", encoding="utf-8")
    gate = (*STORED, "--policy", "policy.yaml", "--events", "events.csv", "--max-signals-per-week")
    out = one(*gate, "1", "--report", "report.html")
    assert re.search(r"caught after [1-6]\.0 days; under the present policy caught after [6-9]\.0 days\n", out), out
    assert "\nwill do\n" in out
    told = re.search(r"in 5.9 weeks: (\d) signals, (0.\d\d) a week", out)
    assert told, out
    assert (one.folder / "report.html").read_text(encoding="utf-8").count("<svg") == int(told[1])
    assert f"{told[2]} signals a week, and at most 0.3 are wanted" in one(*gate, "0.3", fails=1)
    events.write_text(f"{head},washer-w7,L2604,,2026-04-10,2026-04-29\n", encoding="utf-8")
    assert "will not do: 1 labelled event missed" in one(*gate, "1", fails=1)


def test_mentions_open_what_they_opened_live(one) -> None:
    write_demo(one.folder / "demo.jsonl")
    out = one("backtest", "--mentions", "demo.jsonl")
    assert "in 8.6 weeks: 2 signals" in out
    for live in one.rows(
        "SELECT kind, subject_id, product_batch_id AS lot, observed, voices FROM signals WHERE revision = 0"
    ):
        voices = f"{live['observed']} voices" if live["kind"] == "spike" else f"severity 4, {live['voices']} voice"
        assert f"{live['subject_id']} {live['lot']}  product_quality: {voices}" in out
    hours = "{step: 1h, false_signals_per_week: 1}"
    (one.folder / "hours.yaml").write_text(hours, encoding="utf-8")
    out = one("backtest", "--mentions", "demo.jsonl", "--policy", "hours.yaml", "--since", "2026-04-10")
    assert "  voices an hour from 2026-04-" in out
    assert "latte-01 C0315  product_quality: severity 4, 1 voice" in out


def test_what_cannot_be_tried(one) -> None:
    assert "no step counts of products are stored since" in one("policy", "check", "--since", "2027-01-01", fails=2)
    (one.folder / "hours.yaml").write_text("step: 1h", encoding="utf-8")
    assert "cannot be tried on step counts of 1d" in one(
        "policy", "check", "hours.yaml", "--since", "2026-03-20", fails=2
    )
    (one.folder / "empty.jsonl").write_text("{}\n", encoding="utf-8")
    for arguments, words in (
        ((), "one of them is needed"),
        (("--from-clickhouse",), "needs --since"),
        (("--from-clickhouse", "--counts", "x.csv"), "and no more"),
        (("--counts", "x.csv", "--out", "y.csv", "--since", "2026-03-20"), "goes with --step-days only"),
        (("--mentions", "x.csv", "--out", "y.csv"), "of counts only"),
        (("--mentions", "x.jsonl"), "--mentions: x.jsonl is no file"),
        (("--mentions", "empty.jsonl"), "no mention that could be taken in; refused were 1"),
        (("--mentions", "empty.jsonl", "--source", "shop"), "'shop' is no source; the configuration has: demo"),
        ((*STORED[1:], "--report", "."), "--report: . is no file"),
    ):
        assert words in one("backtest", *arguments, fails=2), arguments
