"""Kill -9 in the middle of inserts, a second process, and what is synced before an insert returns."""

import errno
import importlib.util
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from pipeline.errors import TerminalError, TransientError
from pipeline.storage.embedded import EmbeddedEngine

WRITER = Path(__file__).with_name("crash_writer.py")


@pytest.fixture(scope="module")
def writer():
    spec = importlib.util.spec_from_file_location("crash_writer", WRITER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start(folder, first, count, *before):
    process = subprocess.Popen(
        [*before, sys.executable, str(WRITER), str(folder), str(first), str(count)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


def rows_per_block(engine):
    lines = engine.query("SELECT source_id AS b, count() AS n, uniqExact(start) AS u FROM gaps GROUP BY b").splitlines()
    return {one["b"]: (one["n"], one["u"]) for one in map(msgspec.json.decode, lines)}


@pytest.mark.fault
def test_kill_9_loses_no_acknowledged_block_and_leaves_no_part_of_one(tmp_path, writer):
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    whole = (writer.ROWS, writer.ROWS)
    acknowledged: list[int] = []
    following = 0
    for _ in range(3):
        process = start(tmp_path, following, 100_000)
        time.sleep(chance.uniform(0.2, 0.7))
        process.kill()
        acknowledged += [
            int(line.split()[1]) for line in process.stdout.read().splitlines() if re.fullmatch(r"ack \d+", line)
        ]
        process.stdout.close()
        process.wait()
        in_doubt = acknowledged[-1] + 1 if acknowledged else 0
        engine = EmbeddedEngine(tmp_path)
        seen = rows_per_block(engine)
        assert set(seen) - {f"block-{in_doubt}"} == {f"block-{number}" for number in acknowledged}
        assert set(seen.values()) == {whole}
        # The block in doubt again, with its token: once, whether it had arrived or not.
        for _ in range(2):
            engine.insert("gaps", writer.block(in_doubt))
        assert rows_per_block(engine)[f"block-{in_doubt}"] == whole
        acknowledged.append(in_doubt)
        following = in_doubt + 1
        engine.close()
    assert len(acknowledged) > 20


def test_a_second_process_is_told_who_holds_the_database(tmp_path):
    process = start(tmp_path, 0, 100_000)
    try:
        with pytest.raises(TerminalError, match=f"is held by process {process.pid}$"):
            EmbeddedEngine(tmp_path)
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
    EmbeddedEngine(tmp_path).close()


def test_one_process_opens_it_once(engine, tmp_path):
    with pytest.raises(TerminalError, match="is held by process"):
        EmbeddedEngine(tmp_path)


def test_a_folder_that_cannot_be_is_an_error_of_ours(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TerminalError, match="cannot be used"):
        EmbeddedEngine(tmp_path / "file")


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, TransientError), (errno.EIO, TerminalError)])
def test_a_full_disk_is_waited_for_and_a_broken_one_is_not(engine, tmp_path, a_row, monkeypatch, number, kind):
    def fail(*_):
        raise OSError(number, "no")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fail)
        with pytest.raises(kind, match="cannot be written: no"):
            engine.insert("mentions", [a_row()])
    engine.insert("mentions", [a_row()])


def test_after_close_nothing_works_and_nothing_is_left_over(engine, tmp_path, a_row):
    engine.insert("mentions", [a_row()])
    engine.close()
    engine.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clickhouse", "clickhouse.lock"]
    with pytest.raises(TerminalError, match="is closed"):
        engine.query("SELECT 1")
    with pytest.raises(TerminalError, match="is closed"):
        engine.insert("mentions", [a_row()])


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace: apt-get install strace")
def test_the_files_of_a_part_and_its_folder_are_synced_before_the_insert_returns(tmp_path):
    """No power cut, but the order of system calls that one would need."""
    trace = tmp_path / "trace"
    process = start(
        tmp_path / "data", 0, 1, "strace", "-f", "-y", "-qq", "-s", "60", "-e", "trace=fsync,fdatasync,write,rename,renameat2", "-o", str(trace)
    )  # fmt: skip
    assert process.stdout.read() == "ack 0\n"
    process.stdout.close()
    assert process.wait() == 0
    calls = trace.read_text(errors="replace").splitlines()
    ready = next(i for i, call in enumerate(calls) if '"ready\\n"' in call)
    acknowledged = next(i for i, call in enumerate(calls) if '"ack 0\\n"' in call)
    window = calls[ready:acknowledged]
    synced = [call for call in window if re.search(r"f(data)?sync\(\d+<.*/store/", call)]
    assert any(re.search(r"tmp_insert_\w+/data\.bin>", call) for call in synced), "the data"
    assert any(re.search(r"tmp_insert_\w+>", call) for call in synced), "the folder"
    written = {found[1] for call in window if (found := re.search(r"write\(\d+<(.*/tmp_insert_[^>]*)>", call))}
    assert written
    for file in written:
        assert any(f"<{file}>" in call for call in synced), f"{file} was written and not synced"
