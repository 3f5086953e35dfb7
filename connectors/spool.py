"""A bounded source's records on disk: numbered where they repeat, read back in event-time order.

One temporary SQLite database does it all: its sorter spills to disk by itself, its memory is bounded, and the file is
gone with the process. It holds masked records only.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence

_SCHEMA = """
PRAGMA journal_mode = MEMORY;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -16384;
CREATE TABLE seen (key BLOB PRIMARY KEY, content BLOB NOT NULL, number INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE record (event_time INTEGER NOT NULL, position INTEGER NOT NULL, payload BLOB NOT NULL);
"""
_NEW = "INSERT INTO seen VALUES (?, ?, 0)"
_AGAIN = """
INSERT INTO seen VALUES (?, ?, 0) ON CONFLICT (key) DO UPDATE SET number = number + 1, content = excluded.content
WHERE content = x'' OR content <> excluded.content RETURNING number
"""
COUNTED = b""
"""In place of a record's content: every further one with its key is another record."""


class Spool:
    """The records of one source between reading and publishing."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.executescript(_SCHEMA)
        self._db.execute("BEGIN")

    def numbers(self, records: Sequence[tuple[bytes, bytes]]) -> list[int | None]:
        """Number records of (key, content): 0 for a key's first, one more for each other content; None if nothing new.

        With the content ``COUNTED`` every record of a key has its own number.
        """
        self._db.execute("SAVEPOINT many")
        try:
            self._db.executemany(_NEW, records)  # nearly always all are new, and this is five times as fast
        except sqlite3.IntegrityError:
            self._db.execute("ROLLBACK TO many")
            found = [self._db.execute(_AGAIN, record).fetchone() for record in records]
        else:
            found = [(0,)] * len(records)
        self._db.execute("RELEASE many")
        return [None if row is None else int(row[0]) for row in found]

    def number(self, key: bytes) -> int | None:
        """The last number given for a key; None if it was never seen."""
        row = self._db.execute("SELECT number FROM seen WHERE key = ?", (key,)).fetchone()
        return None if row is None else int(row[0])

    def trial(self, record: tuple[bytes, bytes]) -> int | None:
        """The number that a record would have, without remembering it."""
        self._db.execute("SAVEPOINT trial")
        (number,) = self.numbers([record])
        self._db.execute("ROLLBACK TO trial")
        self._db.execute("RELEASE trial")
        return number

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

    def __del__(self) -> None:
        self._db.close()  # whoever drops a source need not know that it had a spool
