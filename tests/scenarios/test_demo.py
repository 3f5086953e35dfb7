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
