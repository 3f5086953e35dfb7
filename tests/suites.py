"""Runs the named suites one after the other, says how long each took, and fails if one failed."""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PYTEST = [str(BIN / "pytest"), "-q"]

SUITES: dict[str, list[list[str]]] = {
    "lint": [
        [str(BIN / "ruff"), "check", "-q", "."],
        [str(BIN / "ruff"), "format", "--check", "-q", "."],
        [str(BIN / "mypy")],
        [str(BIN / "lint-imports"), "--no-cache"],
    ],
    "unit": [[*PYTEST, "tests/unit"]],
    "contract": [[*PYTEST, "tests/contract"]],
    "scenarios": [[*PYTEST, "tests/scenarios"]],
    "deploy": [[*PYTEST, "tests/deploy"]],
    "integration": [[*PYTEST, "tests/integration", "-m", "not fault"]],
    "faults": [[*PYTEST, "tests/integration", "-m", "fault"]],
}


def main(names: list[str]) -> int:
    spent: list[tuple[str, float, bool]] = []
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RADAR_")}
    for name in names:
        begin = time.monotonic()
        good = True
        for command in SUITES[name]:
            # Not short-circuited: one run shows all that is wrong.
            good &= subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode == 0
        spent.append((name, time.monotonic() - begin, good))
    print("\nsuite           minutes")
    for name, seconds, good in spent:
        print(f"{name:<15} {seconds / 60:7.2f}  {'ok' if good else 'FAILED'}")
    return 0 if all(good for _, _, good in spent) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
