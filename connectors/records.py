"""Cuts a file of CSV or JSON lines into records, one linear pass, whatever the bytes are.

Encoding is decided line by line: strict UTF-8 (with or without a byte order mark), else strict GB18030. A CSV record
ends where its quoted cells are closed (RFC 4180); a quote that never closes costs its own line, not the rest of the file.
"""

import csv
import gzip
import re
import zlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import msgspec

from pipeline.errors import InvalidMessage, TransientError

MAX_RECORD_BYTES = 900_000
"""A record above this goes to the dead letters: a Kafka broker refuses messages of 1 MB."""
_MAX_RECORD_LINES = 10_000
_QUOTED_REST = re.compile(rb'(?:[^"]|"")*')

Format = Literal["csv", "jsonl"]
csv.field_size_limit(MAX_RECORD_BYTES)


class RawBytes(msgspec.Struct, frozen=True, gc=False):
    """The bytes of one record and where they stand in the (decompressed) file."""

    start: int
    end: int
    data: bytes
    complete: bool = True
    """False: the last record of the file, and its end (line feed or closing quote) is missing."""


def open_file(path: Path) -> BinaryIO:
    """The file, decompressed if its name ends in .gz."""
    return cast(BinaryIO, gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def decode(data: bytes) -> str:
    """The text of a line or record.

    Raises:
        InvalidMessage: neither UTF-8 nor GB18030.
    """
    try:
        return data.decode("utf-8-sig" if data.startswith(b"\xef\xbb\xbf") else "utf-8")
    except UnicodeDecodeError:
        pass
    try:
        return data.decode("gb18030")
    except UnicodeDecodeError as error:
        raise InvalidMessage(
            "wrong_encoding", f"neither UTF-8 nor GB18030 at byte {error.start} of the record"
        ) from None


def _lines(file: BinaryIO, start: int, stop: int) -> Iterator[RawBytes]:
    position = start
    try:
        while (not stop or position < stop) and (line := file.readline(MAX_RECORD_BYTES + 1)):
            begin, position = position, position + len(line)
            rest = line
            while not rest.endswith(b"\n") and len(line) > MAX_RECORD_BYTES and (rest := file.readline(1 << 20)):
                position += len(rest)  # too long to be kept: the reader of the record sees that it is
            yield RawBytes(begin, position, line, complete=rest.endswith(b"\n"))
    except (EOFError, zlib.error, OSError) as error:
        raise TransientError(
            f"the file ends early or is damaged after byte {position} of its content: {error}"
        ) from None


def cut(file: BinaryIO, start: int, form: Format, columns: int | None = None, stop: int = 0) -> Iterator[RawBytes]:
    """The records from ``start`` on, in file order; blank lines are skipped.

    Args:
        file: positioned at ``start``.
        start: bytes of the decompressed file before it.
        form: ``csv`` records may span lines inside quotes; ``jsonl`` records are lines.
        columns: of a CSV; by default the first record tells.
        stop: end of a record at which to stop; 0: the end of the file.
    """
    lines = _lines(file, start, stop)
    if form == "jsonl":
        yield from (line for line in lines if line.data.strip())
        return
    waiting: deque[RawBytes] = deque()
    while (record := _csv_record(waiting, lines, columns)) is not None:
        if record.data.strip():
            columns = columns or _columns(record.data)
            yield record


def _csv_record(waiting: deque[RawBytes], lines: Iterator[RawBytes], columns: int | None) -> RawBytes | None:
    """The next record: lines until its quoted cells are closed. If that gives no record, the first line alone."""
    first = waiting.popleft() if waiting else next(lines, None)
    if first is None or b'"' not in first.data or not _ends_quoted(first.data, quoted=False):
        return first
    taken, size, quoted, last = [first], len(first.data), True, False
    while quoted and size <= MAX_RECORD_BYTES and len(taken) < _MAX_RECORD_LINES:
        line = waiting.popleft() if waiting else next(lines, None)
        if line is None:
            last = True
            break
        taken.append(line)
        size, quoted = size + len(line.data), _ends_quoted(line.data, quoted=True)
    data = b"".join(part.data for part in taken)
    found = None if quoted else _columns(data)
    if found is not None and columns in (None, found):
        return RawBytes(first.start, taken[-1].end, data, taken[-1].complete)
    waiting.extendleft(reversed(taken[1:]))
    return RawBytes(first.start, first.end, first.data, complete=first.complete and not last)


def _ends_quoted(line: bytes, *, quoted: bool) -> bool:
    """Whether a line ends inside a quoted cell. Only a quote at the start of a cell opens one: 5" is five inches."""
    position = 0
    while position < len(line):
        if quoted:
            position = _QUOTED_REST.match(line, position).end() + 1  # type: ignore[union-attr]  # it matches anything
            if position > len(line):
                return True
            quoted = False
        elif line.startswith(b'"', position):
            quoted = True
            position += 1
            continue
        comma = line.find(b",", position)
        if comma < 0:
            return False
        position = comma + 1
    return quoted


def _columns(data: bytes) -> int | None:
    try:
        return len(csv_row(data))
    except InvalidMessage:
        return None


def csv_row(data: bytes) -> list[str]:
    """The cells of one CSV record.

    Raises:
        InvalidMessage: too large, wrong encoding, or quotes where they may not stand.
    """
    _check_size(data)
    text = decode(data)
    if '"' not in text:
        return text.rstrip("\r\n").split(",")
    if not text.rstrip("\r\n").startswith('"') and ',"' not in text:
        return text.rstrip("\r\n").split(",")  # quotes inside cells only, such as inches: they are characters
    try:
        return next(csv.reader([text], strict=True))
    except (csv.Error, StopIteration) as error:
        raise InvalidMessage("unreadable", f"not a CSV record: {error}") from None


def json_object(data: bytes) -> dict[str, Any]:
    """The object of one JSON line.

    Raises:
        InvalidMessage: too large, wrong encoding, not JSON, or not an object.
    """
    _check_size(data)
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            value = msgspec.json.decode(decode(data))
        except (msgspec.DecodeError, RecursionError) as error:
            raise InvalidMessage("unreadable", f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidMessage("wrong_type", f"a JSON object is needed, this is a {type(value).__name__}")
    return value


def _check_size(data: bytes) -> None:
    if len(data) > MAX_RECORD_BYTES:
        raise InvalidMessage("too_large", f"the record has more than {MAX_RECORD_BYTES} bytes")
