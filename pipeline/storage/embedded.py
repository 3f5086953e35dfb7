"""ClickHouse in this process (chdb), the only file that imports it. Good for chdb-core-lite 26.5 and chdb-core 26.9.

What the library brings along, and what is done about it:

- One path per process and one process per path. A second process gets an empty error from it, so a lock file of ours
  says who holds the database.
- Native bytes cannot be given inline, so a block goes through one file in the data folder, written again and again.
- chdb-core-lite prints a number whose exponent has three digits, the middle one a 0, without that digit (1e-100 as 1e-10,
  1e205 as 1e25); what is stored and compared is right.
- A returned insert is on disk because every table is made with ``fsync_after_insert`` and ``fsync_part_directory``.
"""

import errno
import fcntl
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from pipeline.errors import HeldError, TerminalError, TransientError
from pipeline.storage import native
from pipeline.storage.engine import insert_error, insert_settings, literal, query_error
from pipeline.storage.rows import TABLES, columns_of

DATABASE_FOLDER = "clickhouse"
_LOCK_FILE = "clickhouse.lock"
_BLOCK_FILE = "block.native"
_MAX_RESULT_ROWS = 1_000_000
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class EmbeddedEngine:
    """The database in a data folder, held by this process alone until ``close``."""

    def __init__(self, path: Path) -> None:
        """Open the database in the data folder ``path``, or make it.

        Raises:
            TerminalError: another process (or this one) holds it, or the folder cannot be used.
        """
        self.path = path
        self._mutex = threading.Lock()
        self._session: Any = None
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = _hold(path / _LOCK_FILE)
        except OSError as error:
            raise TerminalError(f"the data folder {path} cannot be used: {error.strerror}") from error
        try:
            self._session = _open_session(path / DATABASE_FOLDER)
        except RuntimeError as error:
            self.close()
            raise TerminalError(f"the database in {path} cannot be opened: {error}") from error

    def insert(self, table: str, structs: Sequence[Struct], generation: int = 0) -> None:
        """Write one block; see ``Engine.insert``."""
        if not structs:
            return
        spec = TABLES[table]
        columns = columns_of(spec, structs, generation)
        settings = ", ".join(f"{name} = {_value(value)}" for name, value in insert_settings(table, columns).items())
        data = native.encode(spec, columns)
        names = ", ".join(column.name for column in spec.columns)
        file = self.path / _BLOCK_FILE
        sql = f"INSERT INTO {table} ({names}) FROM INFILE {literal(str(file))} SETTINGS {settings} FORMAT Native"
        with self._mutex:
            try:
                file.write_bytes(data)
                self._live().query(sql)
            except OSError as error:
                kind = TransientError if error.errno in _DISK_FULL else TerminalError
                raise kind(f"the data folder {self.path} cannot be written: {error.strerror}") from error
            except RuntimeError as error:
                raise insert_error(str(error)) from error
            finally:
                file.unlink(missing_ok=True)

    def query(self, sql: str, format: str = "JSONEachRow") -> bytes:  # noqa: A002 - the SQL word for it
        """Run one statement; see ``Engine.query``."""
        with self._mutex:
            return _run(self._live(), sql, format)

    def execute(self, sql: str) -> None:
        """Run one statement for its effect; see ``Engine.execute``."""
        self.query(sql)

    def reader(self, max_seconds: int, max_result_bytes: int) -> "Reader":
        """A second session on the same database that can only read, within limits. Close it before the engine."""
        self._live()
        return Reader(self.path, max_seconds, max_result_bytes)

    def close(self) -> None:
        """Release the database and its lock. Calling it twice is fine."""
        with self._mutex:
            if self._session is not None:
                self._session.close()
                self._session = None
            self._lock.close()

    def _live(self) -> Any:
        if self._session is None:
            raise TerminalError(f"the database in {self.path} is closed")
        return self._session


class Reader:
    """A session that cannot write and cannot be made to: ``readonly`` cannot be unset, nor its limits lifted.

    The engine still lets some statements through that read no table (files by INTO OUTFILE, KILL, SYSTEM): whoever takes
    statements from a person goes through ``sql_service``, which refuses them first.
    """

    def __init__(self, path: Path, max_seconds: int, max_result_bytes: int) -> None:
        self._session = _open_session(path / DATABASE_FOLDER)
        self._session.query(
            f"SET max_execution_time = {max_seconds}, max_result_bytes = {max_result_bytes}, "
            # Bytes alone are no bound: a constant column counts once, however many rows it is printed in.
            f"max_result_rows = {_MAX_RESULT_ROWS}, result_overflow_mode = 'throw', output_format_pretty_color = 0"
        )
        self._session.query("SET readonly = 1")

    def query(self, sql: str, format: str = "JSONEachRow") -> bytes:  # noqa: A002 - the SQL word for it
        """Run one statement and give its result in that output format. Errors as ``Engine.query``."""
        return _run(self._session, sql, format)

    def close(self) -> None:
        """End the session. Calling it twice is fine."""
        self._session.close()


def _open_session(folder: Path) -> Any:
    # Imported late: it costs 150 MB, and commands that ask a running process need none of it.
    from chdb import session

    make: Any = session.Session
    return make(str(folder))


def _run(session: Any, sql: str, output_format: str) -> bytes:
    try:
        return bytes(session.query(sql, output_format).bytes())
    except RuntimeError as error:
        raise query_error(str(error)) from error


def _value(setting: int | str) -> str:
    return literal(setting) if isinstance(setting, str) else str(setting)


def _hold(file: Path) -> Any:
    """The lock file, open and locked, with our process id inside.

    The file stays when the lock goes: removing it would let two processes lock two files of one name.
    """
    lock = os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise HeldError(f"the database in {file.parent} is held by process {holder}") from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock
