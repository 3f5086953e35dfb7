"""Cuts a file of CSV or JSON lines into records, one linear pass, whatever the bytes are.

Encoding is decided line by line: strict UTF-8 (with or without a byte order mark), else strict GB18030. A CSV record
ends where its quotes are balanced (RFC 4180); a quote that never closes costs its own line, not the rest of the file.
"""

import csv
import gzip
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

Format = Literal["csv", "jsonl"]
csv.field_size_limit(MAX_RECORD_BYTES)


class RawRecord(msgspec.Struct, frozen=True, gc=False):
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


def _lines(file: BinaryIO, start: int) -> Iterator[RawRecord]:
    position = start
    try:
        while line := file.readline(MAX_RECORD_BYTES + 1):
            begin, position = position, position + len(line)
            rest = line
            while not rest.endswith(b"\n") and len(line) > MAX_RECORD_BYTES and (rest := file.readline(1 << 20)):
                position += len(rest)  # too long to be kept: the reader of the record sees that it is
            yield RawRecord(begin, position, line, complete=rest.endswith(b"\n"))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TransientError(
            f"compressed file ends early or is damaged after byte {position} of its content: {error}"
        ) from None


def cut(file: BinaryIO, start: int, form: Format) -> Iterator[RawRecord]:
    """The records from ``start`` on, in file order; blank lines are skipped.

    Args:
        file: positioned at ``start``.
        start: bytes of the decompressed file before it.
        form: ``csv`` records may span lines inside quotes; ``jsonl`` records are lines.
    """
    lines = _lines(file, start)
    if form == "jsonl":
        yield from (line for line in lines if line.data.strip())
        return
    waiting: deque[RawRecord] = deque()
    while (record := _csv_record(waiting, lines)) is not None:
        if record.data.strip():
            yield record


def _csv_record(waiting: deque[RawRecord], lines: Iterator[RawRecord]) -> RawRecord | None:
    """The next record: lines until the quotes are even. If they never are, the first line alone."""
    first = waiting.popleft() if waiting else next(lines, None)
    if first is None or first.data.count(b'"') % 2 == 0:
        return first
    taken = [first]
    size, quotes = len(first.data), first.data.count(b'"')
    while size <= MAX_RECORD_BYTES and len(taken) < _MAX_RECORD_LINES:
        line = waiting.popleft() if waiting else next(lines, None)
        if line is None:
            break
        taken.append(line)
        size, quotes = size + len(line.data), quotes + line.data.count(b'"')
        if quotes % 2 == 0:
            return RawRecord(first.start, line.end, b"".join(part.data for part in taken), line.complete)
    ended = size <= MAX_RECORD_BYTES and len(taken) < _MAX_RECORD_LINES
    waiting.extendleft(reversed(taken[1:]))
    return RawRecord(first.start, first.end, first.data, complete=first.complete and not ended)


def csv_row(data: bytes) -> list[str]:
    """The cells of one CSV record.

    Raises:
        InvalidMessage: too large, wrong encoding, or quotes where they may not stand.
    """
    _check_size(data)
    text = decode(data)
    if '"' not in text:
        return text.rstrip("\r\n").split(",")
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
    except (msgspec.DecodeError, UnicodeDecodeError):
        try:
            value = msgspec.json.decode(decode(data))
        except msgspec.DecodeError as error:
            raise InvalidMessage("unreadable", f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidMessage("wrong_type", f"a JSON object is needed, this is a {type(value).__name__}")
    return value


def _check_size(data: bytes) -> None:
    if len(data) > MAX_RECORD_BYTES:
        raise InvalidMessage("too_large", f"the record has more than {MAX_RECORD_BYTES} bytes")
