"""`complaint-radar demo`: sixty scripted days, judged by their expected and forbidden signals."""

import re


def test_the_demo_raises_what_it_must_and_nothing_else(radar) -> None:
    one = radar()
    out = one("demo", "--data-dir", "demo-data")
    assert "every expected signal came" in out
    assert "not expected" not in out
    assert "<phone>" in out
    assert not re.search(r"1[3-9]\d{9}", out), "no phone number is printed"
    assert "L2603" in out


def test_the_demo_starts_in_a_new_folder_only(radar) -> None:
    one = radar()
    (one.folder / "full").mkdir()
    (one.folder / "full" / "file").touch()
    assert "is not empty" in one("demo", "--data-dir", "full", fails=2)


def test_another_scenario_is_shown_by_its_name(radar) -> None:
    one = radar()
    listed = one("demo", "--list")
    assert all(f"{name} " in listed for name in ("demo", "a", "g", "outage"))
    out = one("demo", "--scenario", "C")
    assert "every expected signal came" in out
    assert "M0324" in out
    assert "there are a, b, c" in one("demo", "--scenario", "nonesuch", fails=2)


def test_what_is_not_reached_yet_is_said(radar) -> None:
    one = radar()
    (one.folder / "mine.yaml").write_text(
        """
name: mine
title: {zh: 无, en: nothing}
story: {zh: 无事发生, en: nothing happens}
days: 10
products:
  - {id: p, name: 云净W7洗衣机, mentions: 5, complaints: {}, lots: [{id: L-01, units: 100}]}
expected:
  - {kind: ramp, subject: p, lot: L-01, type: price, verdict: none, days: [5, 9]}
shortfall:
  missing: {zh: 没有人说, en: nobody says so}
""",
        encoding="utf-8",
    )
    out = one("demo", "--scenario", "mine.yaml", fails=1)
    assert "missing" in out
    assert "known shortfall" in out
    assert "nobody says so" in out
