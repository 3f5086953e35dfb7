"""What a run left behind, in one form for both runtimes: rows by table, as plain values, each key once."""

import json
from typing import Any

from pipeline.storage.engine import Engine
from pipeline.storage.rows import MENTIONS, SIGNALS, STEP_COUNTS, Column, Table

Rows = dict[tuple[Any, ...], dict[str, Any]]

_WHEN_READ = {"ingest_time"}
"""Differs from run to run: when it was read."""


def stored(engine: Engine, table: Table, *, old: bool) -> Rows:
    """Rows of a table by key; of several with one key they must all say the same (but for when they were read).

    Args:
        engine: a database.
        table: of ``pipeline.storage.rows``.
        old: times are integers there (``old_server``).
    """
    columns = ", ".join(_selected(column, old=old) for column in table.columns if column.name not in _WHEN_READ)
    found: Rows = {}
    for line in engine.query(f"SELECT {columns} FROM {table.name}").splitlines():
        row = {name: _plain(value) for name, value in json.loads(line).items()}
        key = tuple(row[name] for name in table.key)
        assert found.setdefault(key, row) == row, f"{table.name}: two different rows have the key {key}"
    return found


def _selected(column: Column, *, old: bool) -> str:
    if old or "DateTime64" not in column.type:
        return column.name
    if column.type.startswith("Array"):
        return f"arrayMap(t -> toUnixTimestamp64Milli(t), {column.name}) AS {column.name}"
    return f"toUnixTimestamp64Milli({column.name}) AS {column.name}"


def _plain(value: Any) -> Any:
    """Numbers as numbers: some versions print 64 bits as text; float32 is printed with more or fewer digits."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, str) and value.lstrip("-").isdigit() and len(value) < 21:
        return int(value)
    return value


def everything(engine: Engine, *, old: bool) -> dict[str, Rows]:
    """Mentions as they stand, step counts and signals in all their revisions."""
    found = {table.name: stored(engine, table, old=old) for table in (MENTIONS, STEP_COUNTS, SIGNALS)}
    # Superseded revisions of a mention go when the server merges, whenever that is.
    latest: Rows = {}
    for (source_id, mention_id, revision), row in sorted(found[MENTIONS.name].items()):
        latest[source_id, mention_id] = row | {"revision": revision}
    return found | {MENTIONS.name: latest}


def differences(one: dict[str, Rows], other: dict[str, Rows]) -> list[str]:
    """In words, at most a few a table."""
    said = []
    for table, rows in one.items():
        others = other[table]
        for key in sorted(rows.keys() ^ others.keys(), key=str)[:5]:
            said.append(f"{table}: {key} only in the {'first' if key in rows else 'second'}")
        changed = [key for key in rows.keys() & others.keys() if rows[key] != others[key]]
        for key in sorted(changed, key=str)[:5]:
            parts = {
                name: (value, others[key][name]) for name, value in rows[key].items() if value != others[key][name]
            }
            said.append(f"{table}: {key}: {parts}")
        if rows.keys() != others.keys() or changed:
            said.append(f"{table}: {len(rows)} rows against {len(others)}, {len(changed)} differ")
    return said
