"""Prints what the chart makes of values files, without Helm: python tests/deploy/render.py [VALUES.yaml …] (later ones win)."""

import sys
from pathlib import Path
from typing import Any

import helm_python
import yaml

CHART = Path(__file__).resolve().parents[2] / "deploy/helm/complaint-radar"


def merged(old: Any, new: Any) -> Any:
    """Maps are merged, everything else is replaced, as Helm does with several values files."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    return old | {key: merged(old.get(key), value) for key, value in new.items()}


def main(paths: list[str]) -> int:
    values: Any = {}
    for path in paths:
        values = merged(values, yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {})
    try:
        with helm_python.Chart.load(CHART) as chart:
            rendered = chart.render(values, name="radar", namespace="default")
    except helm_python.HelmError as error:
        print(error, file=sys.stderr)
        return 1
    for path in sorted(rendered, key=lambda one: one.endswith(".txt")):
        if rendered[path].strip():
            print(f"# {path}\n{rendered[path].strip()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
