"""Runs every benchmark, one process each, and prints what they print: ``make bench``, ``make bench DATA=folder``."""

import argparse
import datetime as dt
import os
import platform
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
RUNS: tuple[tuple[str, ...], ...] = (
    ("sentiment_quality",),
    ("scoring",),
    ("detection",),
    ("storage",),
    ("embedded", "--mentions", "200000", "--lots", "100"),
    ("embedded", "--mentions", "1000000", "--lots", "100"),
    ("embedded", "--mentions", "200000", "--lots", "10000"),
    ("servers",),
)
NEEDS_DATA = {"sentiment_quality"}
TAKES_DATA = {*NEEDS_DATA, "scoring", "embedded"}


def main() -> int:
    """Run them; the number of those that failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with real texts; see docs/benchmarks.md")
    options = parser.parse_args()
    print(
        f"{dt.datetime.now(dt.UTC).date()}, {platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    )
    failed = 0
    for name, *arguments in RUNS:
        if name in NEEDS_DATA and options.data is None:
            print(f"\n== {name}: skipped, it needs real texts (DATA=folder)")
            continue
        data = ["--data", str(options.data)] if options.data is not None and name in TAKES_DATA else []
        print(f"\n== {' '.join((name, *arguments))}", flush=True)
        command = [sys.executable, "-m", f"tests.benchmarks.{name}", *arguments, *data]
        failed += subprocess.run(command, cwd=HERE.parents[1], check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
