"""The order of syncs that a power cut needs: a block's rows are on disk before the cursor that stands for them.

Shown by a trace of the system calls. It is no power cut: that a disk does what it says is taken on trust.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed: the order of syncs is not traced"
)

_CALL = re.compile(r"^(\d+)\s+(\w+)\(\d+<([^>]*)>.*?(<unfinished \.\.\.>)?$")
_RESUMED = re.compile(r"^(\d+)\s+<\.\.\. (\w+) resumed>")


def finished_calls(trace: Path) -> Iterator[tuple[str, str]]:
    """Name of the call and the file it was on, in the order in which the calls came back."""
    waiting: dict[str, tuple[str, str]] = {}
    for line in trace.read_text(encoding="utf-8", errors="replace").splitlines():
        if found := _CALL.match(line):
            process, call, path, unfinished = found.groups()
            if unfinished:
                waiting[process] = (call, path)
            else:
                yield call, path
        elif (resumed := _RESUMED.match(line)) and resumed.group(1) in waiting:
            yield waiting.pop(resumed.group(1))


def test_rows_are_synced_before_the_cursor(radar, complaints, radar_command: Path) -> None:
    one = radar()
    complaints(one.folder / "complaints.csv", 16_000)  # more than one block
    trace = one.folder / "trace"
    subprocess.run(
        ["strace", "-f", "-y", "-qq", "-e", "trace=write,pwrite64,writev,fsync,fdatasync", "-o", trace,
         radar_command, "run", "--until-end"],
        cwd=one.folder, env=one.environment, check=True, capture_output=True, timeout=240,
    )  # fmt: skip
    written: set[str] = set()  # files of inserted parts with bytes that are not known to be on disk
    parts = commits_after_parts = 0
    for call, path in finished_calls(trace):
        synced = call in ("fsync", "fdatasync")
        if "/tmp_insert_" in path:
            (written.discard if synced else written.add)(path)
            parts += synced and path.endswith("/data.bin")
        elif synced and path.endswith("checkpoint.sqlite-wal"):
            assert not written, f"a checkpoint was synced before {sorted(written)[:3]}"
            commits_after_parts += parts > 0
    assert parts >= 6, "mentions, counts of at least two blocks"
    assert commits_after_parts >= 2
