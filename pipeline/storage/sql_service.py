"""Questions in SQL to a database that another process holds.

The process that holds the database answers on a unix socket in the data folder (mode 0600: its user only), from one
thread with a session of its own that can only read. ``ask`` goes there, or, if nobody holds the database, opens it for
the one question.

A statement is refused before the engine sees it unless it is one SELECT, WITH, SHOW, DESCRIBE of a table, EXISTS, or
EXPLAIN of a SELECT: even a read-only session lets INTO OUTFILE, KILL and SYSTEM through. Then the session's own
``readonly = 1`` refuses all else (writing, table functions that read files or the network, other settings).

On the wire: a request is a length (4 bytes, big-endian) and JSON ``{"sql": …, "format": …}``; an answer is one byte
(0 well, 1 refused, 2 try again), a length (4 bytes) and the result, or the reason in UTF-8.
"""

import contextlib
import os
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from pipeline.errors import RadarError, TerminalError, TransientError
from pipeline.storage.embedded import DATABASE_FOLDER, EmbeddedEngine, Reader
from pipeline.storage.engine import QueryError

SOCKET_FILE = "sql.sock"
MAX_SQL_BYTES = 256 * 1024
"""Longest statement."""

MAX_RESULT_BYTES = 64 * 1024 * 1024
"""Largest result; a larger one, or one of more than a million rows, is refused, not cut. Only the format ``table``
shows 1,000 rows at most, and says so."""

MAX_SECONDS = 60
"""Longest run of one statement; ``SqlService.stop`` waits for one that is running."""

FORMATS = {
    "table": "PrettyCompactMonoBlock",
    "json": "JSON",
    "jsonl": "JSONEachRow",
    "csv": "CSVWithNames",
}
"""What a user may ask for, and ClickHouse's name for it."""

_CLIENT_SECONDS = 10.0
_OPENING_SECONDS = 10.0
_WELL, _REFUSED, _AGAIN = 0, 1, 2
_LONGEST_PATH = 100 if sys.platform == "linux" else 90
_LENGTH = struct.Struct(">I")
_HEAD = struct.Struct(">BI")

_FIRST_WORDS = ("select", "with", "show", "exists", "(")
_DESCRIBE = re.compile(r"desc(?:ribe)?\s+(?:table\s+)?[\w.`]+\s*")
_EXPLAIN = re.compile(
    r"explain\s+(?:(?:ast|syntax|plan|pipeline|estimate|query\s+tree)\s+)?(?:\w+\s*=\s*\d\s*,?\s*)*(?:select|with)\b.*",
    re.DOTALL,
)


class Request(msgspec.Struct, frozen=True):
    """One question."""

    sql: str
    format: str


class SqlService:
    """Answers questions about an engine's database until it is stopped."""

    def __init__(self, engine: EmbeddedEngine, data_dir: Path) -> None:
        self._engine = engine
        self._data_dir = data_dir
        self._listener: socket.socket | None = None
        self._reader: Reader | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def start(self) -> None:
        """Open the socket and answer in a thread.

        Raises:
            TerminalError: the socket cannot be made.
        """
        self._reader = self._engine.reader(MAX_SECONDS, MAX_RESULT_BYTES)
        try:
            self._listener = _listen(self._data_dir)
        except OSError as error:
            self._reader.close()
            raise TerminalError(f"no socket for SQL in {self._data_dir}: {error.strerror}") from error
        self._thread = threading.Thread(target=self._serve, name="sql-service", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no more questions, finish the one that runs, remove the socket. Calling it twice is fine."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            (self._data_dir / SOCKET_FILE).unlink(missing_ok=True)
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _serve(self) -> None:
        assert self._listener is not None  # noqa: S101 - set by start
        while not self._stopping.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            # A client that hangs up or sends rubbish is its own problem.
            with connection, contextlib.suppress(OSError, msgspec.DecodeError, EOFError):
                connection.settimeout(_CLIENT_SECONDS)
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        assert self._reader is not None  # noqa: S101 - set by start
        (length,) = _LENGTH.unpack(_receive(connection, _LENGTH.size))
        if length > 2 * MAX_SQL_BYTES:
            code, body = _REFUSED, b"the statement is too long"
        else:
            request = msgspec.json.decode(_receive(connection, length), type=Request)
            code, body = _outcome(self._reader, request)
        connection.sendall(_HEAD.pack(code, len(body)) + body)


def ask(data_dir: Path, sql: str, output_format: str = "table") -> bytes:
    """Run one reading statement on the database of a data folder, wherever it is held.

    Args:
        data_dir: the data folder.
        sql: one statement; at most ``MAX_SQL_BYTES``.
        output_format: a key of ``FORMATS``.

    Returns:
        The result in that format, at most ``MAX_RESULT_BYTES``.

    Raises:
        QueryError: the statement is refused or wrong; the message says why.
        TransientError: the time limit, or the holder of the database went away during the question.
        TerminalError: there is no database, or a process holds it that does not answer.
    """
    if not (data_dir / DATABASE_FOLDER).is_dir():
        raise TerminalError(f"no database in {data_dir}")
    request = Request(permitted(sql), output_format)
    give_up = time.monotonic() + _OPENING_SECONDS
    while True:
        answer = _ask_holder(data_dir, request)
        if answer is not None:
            return answer
        try:
            engine = EmbeddedEngine(data_dir)
        except TerminalError:
            # Held, and no socket: it is starting, stopping, or answering a question like this one.
            if time.monotonic() > give_up:
                raise
            time.sleep(0.1)
            continue
        try:
            return _ask_engine(engine, request)
        finally:
            engine.close()


def permitted(sql: str) -> str:
    """The statement, if it is one that reads; without the semicolon at its end.

    Deliberately coarse: it looks at words, not at grammar, so that nothing depends on reading SQL as the engine does.

    Raises:
        QueryError: it is not.
    """
    text = sql.strip().rstrip(";").rstrip()
    if len(text.encode("utf-8", "replace")) > MAX_SQL_BYTES:
        raise QueryError(f"the statement is longer than {MAX_SQL_BYTES} bytes")
    if not text:
        raise QueryError("no statement")
    if ";" in text:
        raise QueryError("one statement at a time; within a string write a semicolon as char(59)")
    lower = re.sub(r"\A(?:\s|--[^\n]*\n)+", "", text.lower())
    if "outfile" in lower:
        raise QueryError("INTO OUTFILE is refused (and the word outfile anywhere): redirect the output instead")
    reads = lower.startswith(_FIRST_WORDS) or _DESCRIBE.fullmatch(lower) or _EXPLAIN.fullmatch(lower)
    if not reads:
        raise QueryError("only SELECT, WITH, SHOW, EXISTS, DESCRIBE of a table and EXPLAIN of a SELECT are answered")
    return text


def _outcome(reader: Reader, request: Request) -> tuple[int, bytes]:
    try:
        return _WELL, _run(reader, request)
    except TransientError as error:
        return _AGAIN, str(error).encode("utf-8", "replace")
    except RadarError as error:
        return _REFUSED, str(error).encode("utf-8", "replace")


def _run(reader: Reader, request: Request) -> bytes:
    if request.format not in FORMATS:
        raise QueryError(f"unknown output format {request.format!r}: take one of {', '.join(FORMATS)}")
    result = reader.query(permitted(request.sql), FORMATS[request.format])
    if len(result) > MAX_RESULT_BYTES:
        raise QueryError(f"the result has more than {MAX_RESULT_BYTES} bytes: add a LIMIT or aggregate")
    return result


def _ask_engine(engine: EmbeddedEngine, request: Request) -> bytes:
    reader = engine.reader(MAX_SECONDS, MAX_RESULT_BYTES)
    try:
        return _run(reader, request)
    finally:
        reader.close()


def _ask_holder(data_dir: Path, request: Request) -> bytes | None:
    """The answer of the process that holds the database; None if nobody listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_CLIENT_SECONDS)
        try:
            with _address(data_dir) as address:
                connection.connect(address)
        except (FileNotFoundError, ConnectionRefusedError):
            # Refused: the file of a process that was killed.
            return None
        except OSError as error:
            raise TerminalError(f"the socket for SQL in {data_dir} does not answer: {error}") from error
        # The holder may be busy with another question first.
        connection.settimeout(2 * MAX_SECONDS + _CLIENT_SECONDS)
        try:
            data = msgspec.json.encode(request)
            connection.sendall(_LENGTH.pack(len(data)) + data)
            code, length = _HEAD.unpack(_receive(connection, _HEAD.size))
            body = _receive(connection, length)
        except (OSError, EOFError) as error:
            raise TransientError("the process that holds the database went away during the question") from error
    if code == _WELL:
        return body
    raise (TransientError if code == _AGAIN else QueryError)(body.decode("utf-8", "replace"))


def _listen(data_dir: Path) -> socket.socket:
    """A listening socket in the data folder that only its user may use."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # We hold the database, so a file of that name belongs to a process that was killed.
        (data_dir / SOCKET_FILE).unlink(missing_ok=True)
        with _address(data_dir) as address:
            listener.bind(address)
        # Before listen nobody can connect, so the mode is never too wide for anyone.
        (data_dir / SOCKET_FILE).chmod(0o600)
        listener.listen(8)
        listener.settimeout(0.2)
    except OSError:
        listener.close()
        raise
    return listener


@contextlib.contextmanager
def _address(data_dir: Path) -> Iterator[str]:
    """The socket's path in the few bytes a unix address has room for (108 on Linux, 104 elsewhere).

    A deep folder is opened and named by its descriptor, which Linux can do.
    """
    path = str(data_dir / SOCKET_FILE)
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield path
        return
    if sys.platform != "linux":
        raise OSError(None, f"the path {path} is too long for a socket: use a data folder with a shorter one")
    folder = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{SOCKET_FILE}"
    finally:
        os.close(folder)


def _receive(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = connection.recv(min(size - len(data), 1 << 20))
        if not chunk:
            raise EOFError
        data += chunk
    return bytes(data)
