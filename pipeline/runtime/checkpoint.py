"""What must survive a crash, committed at once: how far the sources were read, detection's state, what is to be told.

The order that makes it safe: the rows of a block are in the engine, synced, *before* the commit here. After a crash in
between, the block is read again, and its rows are the same rows (equal keys). After the commit nothing comes again.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from pipeline.errors import TerminalError
from schemas.codec import VERSIONS, decode, encode
from schemas.signal import Signal

StateChange = tuple[bytes, bytes | None]
"""A state record and its new value; None: it is gone."""


class Checkpoint(Protocol):
    """One transaction per input partition: outputs, state, position."""

    def commit(self, outputs: Sequence[Signal], state: Iterable[StateChange], position: Mapping[str, bytes]) -> None:
        """Make all three durable, or none. Returns when they are on disk."""
        ...


_SCHEMA = """
CREATE TABLE IF NOT EXISTS cursor (source_id TEXT PRIMARY KEY, cursor BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT, version INTEGER NOT NULL, signal BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS replay (
    dead_letter_id TEXT PRIMARY KEY, source_id TEXT NOT NULL, locator TEXT NOT NULL, payload_hash TEXT NOT NULL
) WITHOUT ROWID;
"""


class SqliteCheckpoint:
    """The embedded twin of a Kafka transaction: one SQLite transaction, synced (WAL, synchronous FULL)."""

    def __init__(self, path: Path) -> None:
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_SCHEMA)
            if not any(column[1] == "version" for column in self._db.execute("PRAGMA table_info(outbox)")):
                # Before there was a second version of signals nobody said which; no other can be there.
                self._db.execute("ALTER TABLE outbox ADD COLUMN version INTEGER NOT NULL DEFAULT 1")
        except sqlite3.Error as error:
            raise TerminalError(f"{path}: {error}") from None

    def commit(self, outputs: Sequence[Signal], state: Iterable[StateChange], position: Mapping[str, bytes]) -> None:
        """See ``Checkpoint.commit``."""
        changed, gone = [], []
        for key, value in state:
            if value is None:
                gone.append((key,))
            else:
                changed.append((key, value))
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", changed)
            self._db.executemany("DELETE FROM state WHERE key = ?", gone)
            self._db.executemany("INSERT OR REPLACE INTO cursor VALUES (?, ?)", position.items())
            told = [(VERSIONS[Signal], encode(signal)) for signal in outputs]
            self._db.executemany("INSERT INTO outbox (version, signal) VALUES (?, ?)", told)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise TerminalError(f"the checkpoint could not be written: {error}") from None

    def cursors(self) -> dict[str, bytes]:
        """The committed cursor of every source."""
        return dict(self._db.execute("SELECT source_id, cursor FROM cursor").fetchall())

    def state(self) -> list[tuple[bytes, bytes]]:
        """All state records."""
        return self._db.execute("SELECT key, value FROM state ORDER BY key").fetchall()

    def waiting(self) -> list[tuple[int, Signal]]:
        """Signals that were committed and not yet told, oldest first, with their numbers."""
        rows = self._db.execute("SELECT number, version, signal FROM outbox ORDER BY number").fetchall()
        return [(number, decode(signal, Signal, version)) for number, version, signal in rows]

    def told(self, numbers: Iterable[int]) -> None:
        """These signals have been told."""
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("DELETE FROM outbox WHERE number = ?", [(number,) for number in numbers])
        self._db.execute("COMMIT")

    def ask_replay(self, letters: Iterable[tuple[str, str, str, str]]) -> None:
        """Ask for dead letters (id, source, locator, payload hash) to be read again by the process that runs, or the next that does."""
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("INSERT OR REPLACE INTO replay VALUES (?, ?, ?, ?)", letters)
        self._db.execute("COMMIT")

    def asked_replays(self) -> list[tuple[str, str, str, str]]:
        """Dead letters (id, source, locator, payload hash) that wait for being read again."""
        return self._db.execute("SELECT * FROM replay ORDER BY 1").fetchall()

    def replayed(self, ids: Iterable[str]) -> None:
        """These dead letters have been read again and what came of them is committed."""
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("DELETE FROM replay WHERE dead_letter_id = ?", [(one,) for one in ids])
        self._db.execute("COMMIT")

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()
