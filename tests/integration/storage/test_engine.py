"""The embedded engine under the contract of all engines, and answers as clickhouse-driver reads them against its own."""

import json
import socket
import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from clickhouse_driver.bufferedreader import BufferedSocketReader
from clickhouse_driver.streams.native import BlockInputStream
from engine_contract import EngineContract

from pipeline.storage import native
from pipeline.storage.clickhouse import json_lines


class TestEmbeddedEngine(EngineContract):
    """As it stands; what only a modern engine has is in test_tables.py."""


def blocks(data: bytes) -> tuple[Sequence[tuple[str, str]], list[list[Any]]]:
    """Columns and values of Native bytes."""
    ours, theirs = socket.socketpair()
    threading.Thread(target=lambda: (theirs.sendall(data), theirs.close())).start()
    context = native._context()
    context.server_info = SimpleNamespace(used_revision=0, get_timezone=lambda: "UTC")
    stream = BlockInputStream(BufferedSocketReader(ours, 1 << 20), context)
    columns: Sequence[tuple[str, str]] = ()
    values: list[list[Any]] = []
    with ours:
        while True:
            try:
                block = stream.read()
            except EOFError:
                return columns, values
            columns = block.columns_with_types
            values = [[*before, *now] for before, now in zip(values, block.data, strict=True)] if values else block.data


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT number AS n, toString(number) AS s FROM numbers(3)",
        "SELECT toDateTime64('2026-01-02 03:04:05.006', 3, 'UTC') AS a, toDateTime64('1969-12-31 23:59:59.5', 1, 'UTC') AS b, "
        "toDateTime64('2026-01-02 03:04:05.123456', 6, 'Asia/Shanghai') AS c, toDateTime64('2026-01-02 03:04:05', 0, 'UTC') AS d",
        "SELECT toDateTime('2026-01-02 03:04:05', 'UTC') AS a, toDateTime('2106-02-07 06:28:15', 'UTC') AS b, "
        "toDate('2026-01-02') AS c, toDate32('1935-01-02') AS d",
        "SELECT [toDateTime64('2026-01-02 03:04:05.006', 3, 'UTC')] AS a, [NULL, 1] AS b, [[1.5], []] AS c, "
        "toNullable(toDateTime64(1, 3, 'UTC')) AS d, CAST(NULL, 'Nullable(DateTime64(3))') AS e",
        "SELECT toDecimal64(1.5, 4) AS a, toDecimal64(-12345678901234.5, 2) AS b, toDecimal32(100, 0) AS c",
        "SELECT toUUID('61f0c404-5cb3-11e7-907b-a6006ad3dba0') AS a, toIPv4('1.2.3.4') AS b, toIPv6('::1') AS c",
        "SELECT toFloat32(0.1) AS a, 0.1 AS b, [toFloat32(2.7)] AS c, nan AS d, -inf AS e, toFloat32(3) AS f",
        "SELECT true AS a, CAST('x', 'Enum8(\\'x\\' = 1)') AS b, toLowCardinality('w') AS c, toFixedString('abc', 3) AS d",
        "SELECT (1, 'a', toDateTime64(1, 3, 'UTC')) AS a, map('k', 1) AS b, map(1, toDate('2026-01-02')) AS c",
        "SELECT 18446744073709551615 AS a, toInt64(-9223372036854775808) AS b, toUInt64(1) AS c",
        "SELECT '漏水\\n\\t\"\\\\\\0' AS `a b`, '' AS empty",
        "SELECT 1 AS a WHERE 0",
        "EXISTS TABLE mentions",
        "DESCRIBE TABLE mentions",
    ],
)
def test_answers_are_printed_as_clickhouse_prints_them(engine, sql):
    expected = [json.loads(line) for line in engine.query(sql).splitlines()]
    columns, values = blocks(engine.query(sql, "Native"))
    assert [json.loads(line) for line in json_lines(columns, values).splitlines()] == expected


def test_bytes_that_are_no_text_are_mended(engine):
    assert json.loads(json_lines(*blocks(engine.query("SELECT unhex('ff41') AS a", "Native")))) == {"a": "\ufffdA"}
