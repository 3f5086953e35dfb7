"""What the rest of the pipeline asks of a ClickHouse engine, and the errors it may get back.

The engine decides once, at its edge, which errors are worth a retry (``TransientError``), which stop the process
(``TerminalError``) and which belong to a row (``InvalidMessage``). A statement that the engine refuses is a ``QueryError``.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from pipeline.errors import InvalidMessage, RadarError, TerminalError, TransientError

Query = Callable[[str], bytes]
"""Runs one SELECT and gives JSON lines: ``engine.query``, or ``ask`` with the format ``jsonl``."""


class QueryError(TerminalError):
    """The engine refuses a statement; the message is its own, in one line."""


class Engine(Protocol):
    """One database. Every call blocks; calls from several threads are taken one after the other."""

    def insert(self, table: str, structs: Sequence[Struct], generation: int = 0) -> None:
        """Write one block; on return it is on disk. All rows or none; the same block again writes nothing.

        Args:
            table: a name of ``rows.TABLES``.
            structs: n structs of that table.
            generation: of the scoring that made the rows (mentions only).

        Raises:
            InvalidMessage: some row cannot be stored; nothing was written.
            TransientError: try the same call again.
            TerminalError: it will not work.
        """

    def query(self, sql: str, format: str = "JSONEachRow") -> bytes:  # noqa: A002 - the SQL word for it
        """Run one statement and give its result in that output format of ClickHouse.

        Every engine has JSONEachRow, one JSON object a line; others are the engine's own.

        Raises:
            QueryError: the engine refuses it, or does not have the format.
            TransientError: a limit or a resource; try again.
        """

    def execute(self, sql: str) -> None:
        """Run one statement for its effect; an INSERT takes its rows from a SELECT. Errors as ``query``."""

    def close(self) -> None:
        """Release the database. Calling it twice is fine."""


# Numbers of ClickHouse's ErrorCodes.cpp; they are part of its interface and never reused.
_RETRY = frozenset({
    75,   # CANNOT_WRITE_TO_FILE_DESCRIPTOR: a full disk
    159,  # TIMEOUT_EXCEEDED
    160,  # TOO_SLOW
    201,  # QUOTA_EXCEEDED
    202,  # TOO_MANY_SIMULTANEOUS_QUERIES
    203,  # NO_FREE_CONNECTION
    209,  # SOCKET_TIMEOUT
    210,  # NETWORK_ERROR
    225,  # NO_ZOOKEEPER
    236,  # ABORTED: it shuts down
    241,  # MEMORY_LIMIT_EXCEEDED
    242,  # TABLE_IS_READ_ONLY
    243,  # NOT_ENOUGH_SPACE
    252,  # TOO_MANY_PARTS
    279,  # ALL_CONNECTION_TRIES_FAILED
    285,  # TOO_FEW_LIVE_REPLICAS
    286,  # UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE
    319,  # UNKNOWN_STATUS_OF_INSERT
    394,  # QUERY_WAS_CANCELLED
    439,  # CANNOT_SCHEDULE_TASK: no thread is free
    473,  # DEADLOCK_AVOIDED
    999,  # KEEPER_EXCEPTION
})  # fmt: skip
_ROW = frozenset({
    6,    # CANNOT_PARSE_TEXT
    26,   # CANNOT_PARSE_QUOTED_STRING
    27,   # CANNOT_PARSE_INPUT_ASSERTION_FAILED
    38,   # CANNOT_PARSE_DATE
    41,   # CANNOT_PARSE_DATETIME
    53,   # TYPE_MISMATCH
    69,   # ARGUMENT_OUT_OF_BOUND
    70,   # CANNOT_CONVERT_TYPE
    72,   # CANNOT_PARSE_NUMBER
    117,  # INCORRECT_DATA
    131,  # TOO_LARGE_STRING_SIZE
    190,  # SIZES_OF_ARRAYS_DONT_MATCH
    321,  # VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
    349,  # CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
    407,  # DECIMAL_OVERFLOW
    469,  # VIOLATED_CONSTRAINT
})  # fmt: skip

_CODE = re.compile(r"Code: (\d+)")


def insert_settings(table: str, columns: Sequence[Sequence[Any]]) -> dict[str, int | str]:
    """The settings of ClickHouse that every insert of this block has, on every engine.

    The token is the content's hash: a block that is sent again is known, one that differs in anything is not. Measured: 0.7 us
    a mention, a third of what encoding it costs. Merging equal keys of one block at once (``optimize_on_insert``) makes an
    insert five times as slow; the views do it. An ``async_insert`` would return before the block is on disk.

    Args:
        table: names the block in an error.
        columns: one list per column, before any encoder had them.

    Raises:
        InvalidMessage: a value that no column can hold.
    """
    try:
        content = msgspec.msgpack.encode(columns)
    except (UnicodeError, OverflowError, TypeError) as error:
        raise InvalidMessage("poison_row", f"table {table}: {error}") from error
    return {
        "insert_deduplicate": 1,
        "insert_deduplication_token": hashlib.blake2b(content, digest_size=16).hexdigest(),
        "optimize_on_insert": 0,
        "async_insert": 0,
    }


def insert_error(message: str) -> RadarError:
    """The error that ClickHouse's message means when it comes from an insert."""
    code = _code(message)
    if code in _ROW:
        return InvalidMessage("poison_row", _one_line(message))
    if code in _RETRY:
        return TransientError(_one_line(message))
    return TerminalError(_one_line(message))


def query_error(message: str) -> RadarError:
    """The error that ClickHouse's message means when it comes from a query."""
    if _code(message) in _RETRY:
        return TransientError(_one_line(message))
    return QueryError(_one_line(message))


def literal(text: str) -> str:
    """The text as a string literal of SQL."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\0", "\\0")
    return f"'{escaped}'"


def _code(message: str) -> int | None:
    found = _CODE.search(message)
    return int(found[1]) if found else None


def _one_line(message: str) -> str:
    text = re.sub(r"Code: \d+\. DB::Exception: |\(version [^)]*\)", "", message)
    return re.sub(r"\s+", " ", text).strip() or "the engine failed and did not say why"
