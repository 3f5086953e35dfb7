"""Policies tried on the demo's stored counts: what was opened live opens again, and another promise opens otherwise."""

import csv
from pathlib import Path

import pytest
from streams import write_catalogue

PROMISE = 1 / 52


@pytest.fixture
def one(radar, demo_folder: Path):
    made = radar(
        more=f"data_dir: {demo_folder}\ncatalogue: catalogue.csv\ndetection: {{step: 1d, false_signals_per_week: {PROMISE}}}"
    )
    write_catalogue(made.folder / "catalogue.csv")
    return made


def test_what_was_opened_live_opens_again(one) -> None:
    out = one("backtest", "--from-store", "--since", "2026-03-20", "--out", "out.csv")
    (live,) = one.rows(
        "SELECT toString(toDate(opened_step, 'Asia/Shanghai')) AS day, observed, round(expected, 1) AS expected "
        "FROM signals WHERE kind = 'spike' AND revision = 0"
    )
    assert "1 spikes in 5.9 weeks" in out
    voices = f"{live['observed']} voices, {live['expected']} expected"
    assert f"{live['day']}  washer-w7 L2603  product_quality: {voices}" in out
    with (one.folder / "out.csv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert min(row["step_start"] for row in rows) == "2026-03-20T00:00:00+08:00"
    alarms = {(row["batch"], row["objection_type"]) for row in rows if row["alarm"] == "1"}
    assert alarms == {("L2603", "product_quality")}


def test_another_promise_against_the_present_one(one) -> None:
    (one.folder / "policy.yaml").write_text("{step: 1d, false_signals_per_week: 1}", encoding="utf-8")
    out = one("policy", "check", "policy.yaml", "--since", "2026-03-20")
    assert "promise: 1 false signal a week over 7 x 10 = 70 live series: a spike opens below p = 0.002" in out
    assert "spikes in 5.9 weeks: 2 (0.34 a week), under the present policy 1 (0.17 a week)" in out
    assert "opened under both: 1" in out
    assert " earlier" in out
    assert "opened only under this one: 1" in out
    assert "not opened any more: 0" in out
    assert "1 spikes in 5.9 weeks" in one("policy", "check", "--since", "2026-03-20")


def test_what_cannot_be_tried(one) -> None:
    assert "no step counts of products are stored since" in one("policy", "check", "--since", "2027-01-01", fails=2)
    (one.folder / "hours.yaml").write_text("step: 1h", encoding="utf-8")
    assert "cannot be tried on what is stored" in one("policy", "check", "hours.yaml", "--since", "2026-03-20", fails=2)
    for arguments in ((), ("--from-store",), ("--from-store", "--counts", "x.csv")):
        one("backtest", *arguments, fails=2)
