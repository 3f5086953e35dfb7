"""A bounded source's records on disk: numbered where they repeat, read back in event-time order.

One temporary SQLite database does it all: its sorter spills to disk by itself, its memory is bounded, and the file is
gone with the process. It holds masked records only.
"""

import sqlite3
from collections.abc import Iterable, Iterator

_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -16384;
CREATE TABLE seen (key BLOB PRIMARY KEY, content BLOB NOT NULL, number INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE record (event_time INTEGER NOT NULL, position INTEGER NOT NULL, payload BLOB NOT NULL);
"""
_NUMBER_CONTENT = """
INSERT INTO seen VALUES (?, x'', 0) ON CONFLICT (key) DO UPDATE SET number = number + 1 RETURNING number
"""
_NUMBER_EDITS = """
INSERT INTO seen VALUES (?, ?, 0) ON CONFLICT (key) DO UPDATE SET number = number + 1, content = excluded.content
WHERE content <> excluded.content RETURNING number
"""


class Spool:
    """The records of one source between reading and publishing."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.executescript(_SCHEMA)
        self._db.execute("BEGIN")

    def occurrence(self, content: bytes) -> int:
        """How many records with this content were seen before (0 for the first)."""
        (number,) = self._db.execute(_NUMBER_CONTENT, (content,)).fetchone()
        return int(number)

    def revision(self, identity: bytes, content: bytes) -> int | None:
        """The revision of a record that has an identity: 0 at first, one more for each other content; None if nothing new."""
        row = self._db.execute(_NUMBER_EDITS, (identity, content)).fetchone()
        return None if row is None else int(row[0])

    def add(self, records: Iterable[tuple[int, int, bytes]]) -> None:
        """Keep records of (event time, position at the source, payload)."""
        self._db.executemany("INSERT INTO record VALUES (?, ?, ?)", records)

    def count(self) -> int:
        """Records kept now."""
        (number,) = self._db.execute("SELECT count(*) FROM record").fetchone()
        return int(number)

    def in_order(self, skip: int) -> Iterator[bytes]:
        """Payloads by event time, then position, without the first ``skip``."""
        rows = self._db.execute("SELECT payload FROM record ORDER BY event_time, position LIMIT -1 OFFSET ?", (skip,))
        for (payload,) in rows:
            yield payload

    def empty(self) -> None:
        """Forget the records; what was seen stays known."""
        self._db.execute("DELETE FROM record")

    def close(self) -> None:
        """Give the disk space back."""
        self._db.close()
