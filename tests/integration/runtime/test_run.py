"""The embedded runtime as a user runs it: the command, a file, a folder."""

import json
import random
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROWS = 2400


@contextmanager
def running(radar, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`run` at work: its process and the address of its admin port."""
    process = radar.start("run", *arguments)
    try:
        address = ""
        for line in process.stderr:
            if found := re.search(r"(http://\S+)/metrics", line):
                address = found.group(1)
                break
        assert address, "the admin port was not told"
        yield process, address
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def get(address: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not in {seconds} s: {what}"
        time.sleep(0.1)


def test_every_row_once_however_often_it_runs(radar, complaints) -> None:
    one = radar()
    complaints(one.folder / "complaints.csv", ROWS)
    for _ in range(3):
        one("run", "--until-end")
        assert one.number("SELECT count() FROM v_mentions") == ROWS
    assert one.number("SELECT count() FROM mentions") == ROWS
    assert one.number("SELECT uniqExact(mention_id) FROM v_mentions") == ROWS
    complaints(one.folder / "complaints.csv", 40, first=ROWS)
    one("run", "--until-end")
    assert one.number("SELECT count() FROM v_mentions") == ROWS + 40
    assert one.number("SELECT count() FROM v_step_counts") > 0
    assert one.number("SELECT countIf(text LIKE '%1390%') FROM v_mentions") == 0
    assert one.number("SELECT countIf(text LIKE '%<phone>%') FROM v_mentions") > 0


def test_a_changed_beginning_is_a_clear_error(radar, complaints) -> None:
    one = radar()
    path = one.folder / "complaints.csv"
    complaints(path, 50)
    one("run", "--until-end")
    path.write_text(path.read_text().replace("2026-01-01", "2026-01-02", 1))
    said = one("run", "--until-end", fails=1)
    assert "no longer what was read" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("seed", [1])
def test_killed_anywhere_nothing_is_lost_or_doubled(radar, complaints, seed: int) -> None:
    kill_and_compare(radar, complaints, seed, kills=3)


@pytest.mark.fault
@pytest.mark.parametrize("seed", [2, 3, 4])
def test_killed_anywhere_nothing_is_lost_or_doubled_more_often(radar, complaints, seed: int) -> None:
    kill_and_compare(radar, complaints, seed, kills=8)


@pytest.mark.parametrize("crash", ["SqliteCheckpoint.commit", "SqliteCheckpoint.told"])
def test_a_crash_between_rows_and_cursor_or_before_signals_are_told(radar, complaints, crash: str) -> None:
    """The two instants that a kill at random hardly ever meets: rows written and no cursor; cursor and nothing told."""
    one = radar()
    complaints(one.folder / "complaints.csv", ROWS)
    one("run", "--until-end", "--close")
    expected = snapshot(one)
    assert expected["signals"]
    empty_data_dir(one)
    script = (
        f"import os; from pipeline.runtime.checkpoint import SqliteCheckpoint; {crash} = lambda *_: os._exit(9); "
        "from pipeline.cli import main; main()"
    )
    command = [sys.executable, "-c", script, "run", "--until-end", "--close"]
    crashed = subprocess.run(
        command, cwd=one.folder, env=one.environment, capture_output=True, timeout=120, check=False
    )
    assert crashed.returncode == 9
    assert one.number("SELECT count() FROM mentions") == ROWS
    told = one.start("run", "--until-end", "--close").communicate(timeout=120)[1]
    assert "严重投诉" in told, "a signal that was committed and not told is told now"
    assert snapshot(one) == expected
    assert one.number("SELECT count() FROM v_mentions") == ROWS


def empty_data_dir(radar) -> None:
    for path in sorted(radar.data_dir.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def kill_and_compare(radar, complaints, seed: int, kills: int) -> None:
    dice = random.Random(seed)
    one = radar()
    rows = 40_000  # long enough to be killed in its middle
    complaints(one.folder / "complaints.csv", rows, seed=seed)
    seconds = timed_run(one)
    expected = snapshot(one)
    empty_data_dir(one)
    for _ in range(kills):
        process = one.start("run", "--until-end")
        time.sleep(dice.uniform(0.05, 1.0) * seconds)  # the moment of the kill, not a wait for something
        process.send_signal(signal.SIGKILL)
        process.communicate()
    one("run", "--until-end")
    assert snapshot(one) == expected


def timed_run(radar) -> float:
    begin = time.monotonic()
    radar("run", "--until-end")
    return max(1.0, time.monotonic() - begin)


def snapshot(radar) -> dict[str, object]:
    """What an analyst sees, without times of reading."""
    return {
        "mentions": radar.rows(
            "SELECT count() AS n, uniqExact(mention_id) AS u, sum(cityHash64(mention_id, text, severity)) AS h FROM v_mentions"
        ),
        "counts": radar.rows(
            "SELECT count() AS n, sum(count) AS c, sum(mentions) AS m, sum(cityHash64(subject_kind, subject_id, product_batch_id, "
            "objection_type, step_start, revision, count, mentions, status)) AS h FROM v_step_counts"
        ),
        "signals": radar.rows("SELECT signal_id, revision, event, kind, observed FROM v_signals ORDER BY signal_id"),
    }


def test_sql_answers_while_run_holds_the_database_and_when_it_does_not(radar, complaints) -> None:
    one = radar()
    complaints(one.folder / "complaints.csv", 500)
    with running(one) as (process, address):
        until(lambda: get(address + "/readyz")[0] == 200, "ready")
        until(lambda: 'radar_mentions_total{source="cars"} 500.0' in get(address + "/metrics")[1], "500 mentions")
        assert get(address + "/healthz") == (200, "ok\n")
        assert get(address + "/nothing")[0] == 404
        assert one.number("SELECT count() FROM v_mentions") == 500
        assert "only SELECT" in one("sql", "DROP TABLE mentions", fails=1)
        complaints(one.folder / "complaints.csv", 20, first=500)
        until(lambda: one.number("SELECT count() FROM v_mentions") == 520, "the appended rows")
        second = one("run", "--until-end", fails=1)
        assert "held by process" in second
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert one.number("SELECT count() FROM v_mentions") == 520
    assert one("sql", "SELECT 1 AS a", "--format", "csv").split() == ['"a"', "1"]
    assert "┌" in one("sql", "SELECT 1 AS a")


def test_bad_records_are_dead_letters_that_can_be_replayed(radar, complaints) -> None:
    one = radar()
    path = one.folder / "complaints.csv"
    complaints(path, 100)
    with path.open("a") as file:
        file.write("31.12.2025,威驰,2019,异响,900001\n")
        file.write("2026-01-05,威驰,2019\n")
    one("run", "--until-end")
    assert one.number("SELECT count() FROM v_mentions") == 100
    listed = one("dead-letters", "list")
    assert "wrong_type" in listed
    assert "unreadable" in listed
    identity = next(line.split()[0] for line in listed.splitlines() if "wrong_type" in line)
    assert "31.12.2025" in one("dead-letters", "show", identity)
    assert "1 dead letters read again, 0 taken in" in one("dead-letters", "replay", identity)
    config = one.config.read_text().replace("path: complaints.csv,", "path: complaints.csv, time_format: '%d.%m.%Y',")
    one.config.write_text(config)
    assert "1 taken in" in one("dead-letters", "replay", identity)
    assert one.number("SELECT count() FROM v_mentions") == 101
    assert "1 taken in" in one("dead-letters", "replay", identity)
    assert one.number("SELECT count() FROM v_mentions") == 101
    assert "no dead letters" in one("dead-letters", "replay", "ffff")


def test_a_block_that_the_database_refused_for_a_while_is_not_lost(radar, complaints) -> None:
    """As when its disk is full for longer than a block is retried: the run goes on from its last commit."""
    one = radar()
    complaints(one.folder / "complaints.csv", 1300)
    script = (
        "from pipeline.errors import TransientError; from pipeline.storage.embedded import EmbeddedEngine as E; insert = E.insert; "
        "left = [12]\n"
        "def failing(self, table, structs, generation=0):\n"
        "    if table == 'mentions' and left[0]: left[0] -= 1; raise TransientError('disk full')\n"
        "    return insert(self, table, structs, generation)\n"
        "E.insert = failing\nfrom pipeline.cli import main; main()"
    )
    command = [sys.executable, "-c", script, "run"]
    process = subprocess.Popen(command, cwd=one.folder, env=one.environment, stderr=subprocess.PIPE, text=True)
    try:
        for line in process.stderr:
            if "begun again" in line:
                break
        until(
            lambda: one.number("SELECT count() FROM v_mentions") == 1300, "all mentions, after the disk has room again"
        )
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()
    assert (
        one.number("SELECT sum(mentions) FROM v_step_counts WHERE subject_kind = 'channel' AND objection_type = 'any'")
        > 0
    )


def test_bad_configuration_is_exit_code_2(radar, complaints) -> None:
    one = radar(more="detection: {step: 1h}")
    complaints(one.folder / "complaints.csv", 5)
    said = one("run", "--until-end", fails=2)
    assert "detection: {step: 1d}" in said
    wrong = radar(more="detection: {stepp: 1d}")
    assert "did you mean step" in wrong("run", "--until-end", fails=2)
    assert "Traceback" not in said


def test_migrate_is_idempotent(radar, complaints) -> None:
    one = radar()
    complaints(one.folder / "complaints.csv", 5)
    assert "applied" in one("migrate")
    assert "nothing to do" in one("migrate")
    assert "nothing to do" in one("migrate", "--check")


def test_score_keeps_order_and_count(radar) -> None:
    one = radar()
    texts = ["洗衣机噪音太大了", "", "坏" * 1000]
    lines = [json.dumps({"id": str(n), "text": text, "channel": "review"}) for n, text in enumerate(texts)]
    (one.folder / "a.jsonl").write_text("\n".join([lines[0], "{broken", *lines[1:]]) + "\n")
    one("score", "--input", "a.jsonl", "--output", "b.jsonl")
    scored = [json.loads(line) for line in (one.folder / "b.jsonl").read_text().splitlines()]
    assert [one.get("id") for one in scored] == ["0", None, "1", "2"]
    assert "error" in scored[1]
    assert scored[0]["objections"][0]["type"] == "product_quality"
    assert scored[0]["sentiment"] < 0
    assert set(scored[0]) == {
        "id", "sentiment", "sentiment_probability", "objections", "speech_act", "emotion", "severity", "product_id",
        "product_batch_id", "attribution_confidence", "versions",
    }  # fmt: skip


def test_the_installed_package_is_what_is_tested() -> None:
    import pipeline
    import schemas

    for package in (pipeline, schemas):
        assert "site-packages" in str(Path(package.__file__ or "")), "the tests must run on the installed wheel"
