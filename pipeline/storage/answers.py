"""A server's answer, which comes as JSON lines, in the forms that people ask for."""

import csv
import io
from typing import Any, Literal

import msgspec
from rich.console import Console
from rich.table import Table

Form = Literal["table", "json", "csv"]


def shown(lines: bytes, form: str) -> str:
    """The rows as a table, as JSON (``{"data": [...], "rows": n}``) or as CSV with a header; ends in a line feed if not empty."""
    rows: list[dict[str, Any]] = [msgspec.json.decode(line) for line in lines.splitlines()]
    if form == "json":
        return msgspec.json.format(msgspec.json.encode({"data": rows, "rows": len(rows)}), indent=2).decode() + "\n"
    if not rows:
        return ""
    out = io.StringIO()
    if form == "csv":
        writer = csv.DictWriter(out, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue()
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console(file=out, width=10_000).print(table)  # lines are not wrapped, as ClickHouse does it
    return out.getvalue()
