"""Columns to bytes of ClickHouse's Native format, by clickhouse-driver's own block writer over a buffer in memory.

So a server and the embedded engine get rows from one encoder. Verified with clickhouse-driver 0.2.11, whose writer is
meant for a socket: ``_Sink`` stands in for it.
"""

from collections.abc import Sequence

from clickhouse_driver.block import ColumnOrientedBlock
from clickhouse_driver.bufferedwriter import BufferedSocketWriter
from clickhouse_driver.context import Context
from clickhouse_driver.errors import Error as DriverError
from clickhouse_driver.streams.native import BlockOutputStream

from pipeline.errors import InvalidMessage
from pipeline.storage.rows import Table, Values

_BUFFER_BYTES = 1 << 20


class _Sink:
    """What the writer needs of a socket: it keeps what is sent."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        self.chunks.append(bytes(data))


class _NoServer:
    """A file has no protocol revision: 0 leaves out block info and custom serialisation."""

    used_revision = 0


def _context() -> Context:
    context = Context()
    context.server_info = _NoServer()
    context.settings = {}
    context.client_settings = {
        "use_numpy": False,
        "strings_as_bytes": False,
        "strings_encoding": "utf-8",
        "input_format_null_as_default": False,
    }
    return context


def encode(table: Table, columns: Sequence[Values]) -> bytes:
    """The block in Native format.

    Args:
        table: names and types of the columns.
        columns: one list per column, all of n values; the writer may change the lists.

    Raises:
        InvalidMessage: a value does not fit its column (type, range, or text that is no Unicode).
    """
    sink = _Sink()
    block = ColumnOrientedBlock([(column.name, column.type) for column in table.columns], list(columns))
    try:
        BlockOutputStream(BufferedSocketWriter(sink, _BUFFER_BYTES), _context()).write(block)
    except (DriverError, ValueError, TypeError, AttributeError, OverflowError) as error:
        # UnicodeError is a ValueError.
        raise InvalidMessage("poison_row", f"table {table.name}: {error}") from error
    return b"".join(sink.chunks)
