"""Numbered, forward-only DDL: ``schemas/clickhouse/NNNN_name.sql`` in order, each once, never changed afterwards.

A statement ends with a semicolon at the end of a line. ClickHouse has no transactions for DDL, so every statement is one
that may be run twice (``IF NOT EXISTS``, ``OR REPLACE``; a test checks the shipped files): a file counts as applied when all
of it ran, and one that was cut short, by a kill or an error, is run again from its top.
"""

import hashlib
import re
import time
from dataclasses import dataclass
from importlib.resources import files

import msgspec

from pipeline.errors import TerminalError
from pipeline.storage.engine import Engine, literal

_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")

_BOOK = """
CREATE TABLE IF NOT EXISTS schema_migrations
(
    number UInt32 COMMENT 'Number of the file',
    name String COMMENT 'Name of the file',
    checksum String COMMENT 'SHA-256 of the file as it was applied',
    applied_at DateTime64(3, 'UTC') COMMENT 'When'
)
ENGINE = ReplacingMergeTree
ORDER BY number
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Files of DDL that were applied to this database. Key: number.'
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of DDL."""

    number: int
    name: str
    checksum: str
    statements: tuple[str, ...]


class Applied(msgspec.Struct, frozen=True):
    """What the database says about one file."""

    number: int
    name: str
    checksum: str


def shipped() -> list[Migration]:
    """The files that come with this version, in order.

    Raises:
        TerminalError: two files have one number, or a number is missing.
    """
    found = [
        parse(entry.name, entry.read_text(encoding="utf-8"))
        for entry in files("schemas").joinpath("clickhouse").iterdir()
        if _NAME.fullmatch(entry.name)
    ]
    found.sort(key=lambda migration: migration.number)
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise TerminalError(f"migrations must be numbered 1, 2, …: found {[migration.name for migration in found]}")
    return found


def parse(name: str, text: str) -> Migration:
    """One file; comment lines and blank statements are left out of ``statements``, not of the checksum."""
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))
    statements = tuple(part.strip() for part in re.split(r";[ \t]*(?:\n|$)", code) if part.strip())
    return Migration(int(name[:4]), name, hashlib.sha256(text.encode()).hexdigest(), statements)


def applied(engine: Engine) -> list[Applied]:
    """What the database has seen, in order of number; empty for a new one."""
    (exists,) = msgspec.json.decode(engine.query("EXISTS TABLE schema_migrations")).values()
    if not exists:
        return []
    lines = engine.query("SELECT number, name, checksum FROM schema_migrations FINAL ORDER BY number")
    return [msgspec.json.decode(line, type=Applied) for line in lines.splitlines()]


def pending(engine: Engine, known: list[Migration] | None = None) -> list[Migration]:
    """The files still to be applied, in order; nothing is changed.

    Raises:
        TerminalError: an applied file was changed, or the database is newer than this version.
    """
    known = shipped() if known is None else known
    seen = applied(engine)
    by_number = {migration.number: migration for migration in known}
    for one in seen:
        _agree(one, by_number.get(one.number))
    done = {one.number for one in seen}
    return [migration for migration in known if migration.number not in done]


def migrate(engine: Engine, known: list[Migration] | None = None) -> list[str]:
    """Apply what is pending and give the names of the files applied, in order; again it gives none.

    Raises:
        TerminalError: as ``pending``; or a statement failed, which the message names.
    """
    todo = pending(engine, known)
    if todo:
        engine.execute(_BOOK)
    for migration in todo:
        for statement in migration.statements:
            try:
                engine.execute(statement)
            except TerminalError as error:
                raise TerminalError(f"{migration.name}: {statement.splitlines()[0]}: {error}") from error
        _record(engine, migration)
    return [migration.name for migration in todo]


def _agree(seen: Applied, known: Migration | None) -> None:
    if known is None:
        raise TerminalError(
            f"the database has {seen.name}, which this version does not know: it was made by a newer version; use that one"
        )
    if seen.checksum != known.checksum:
        raise TerminalError(
            f"{known.name} was changed after it had been applied: restore the file and put the change into a new one"
        )


def _record(engine: Engine, migration: Migration) -> None:
    engine.execute(
        "INSERT INTO schema_migrations (number, name, checksum, applied_at) SELECT "
        f"{migration.number}, {literal(migration.name)}, {literal(migration.checksum)}, "
        f"fromUnixTimestamp64Milli(toInt64({int(time.time() * 1000)}), 'UTC')"
    )
