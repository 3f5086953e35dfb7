"""The SQLite checkpoint under the contract of all checkpoints, and what only it has."""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from checkpoint_contract import Changes, CheckpointContract
from stored import a_signal

from pipeline.runtime.checkpoint import SqliteCheckpoint
from schemas import codec
from schemas.signal import Signal


@dataclass
class Left:
    outputs: list[str]
    state: dict[bytes, bytes]
    position: int | None


class Opened:
    """Outputs are signals; the position is that of one source."""

    def __init__(self, path: Path) -> None:
        self.checkpoint = SqliteCheckpoint(path)

    def commit(self, outputs: Sequence[str], changes: Changes, position: int) -> None:
        self.checkpoint.commit([a_signal(signal_id=one) for one in outputs], changes, {"s": str(position).encode()})

    def begin(self, outputs: Sequence[str], changes: Changes, position: int) -> None:
        database = self.checkpoint._db
        database.execute("BEGIN IMMEDIATE")
        database.executemany("INSERT INTO outbox (version, signal) VALUES (1, ?)", [(b"{}",) for _ in outputs])
        database.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", changes)
        database.execute("INSERT OR REPLACE INTO cursor VALUES ('s', ?)", (str(position).encode(),))

    def die(self) -> None:
        self.checkpoint.close()


class TestSqliteCheckpoint(CheckpointContract):
    @pytest.fixture
    def open_checkpoint(self, tmp_path: Path) -> Callable[[], Opened]:
        return lambda: Opened(tmp_path / "c.sqlite")

    @pytest.fixture
    def look(self, tmp_path: Path) -> Callable[[], Left]:
        def read() -> Left:
            one = SqliteCheckpoint(tmp_path / "c.sqlite")
            cursor = one.cursors().get("s")
            outputs = [signal.signal_id for _, signal in one.waiting()]
            left = Left(outputs, dict(one.state()), int(cursor) if cursor else None)
            one.close()
            return left

        return read


def test_replays_are_asked_for_once_and_taken_away(tmp_path: Path) -> None:
    one = SqliteCheckpoint(tmp_path / "c.sqlite")
    one.ask_replay([("id", "s", "f@1+2", "hash"), ("id", "s", "f@1+2", "hash")])
    assert one.asked_replays() == [("id", "s", "f@1+2", "hash")]
    one.replayed(["id"])
    assert one.asked_replays() == []
    one.close()


def test_a_signal_that_an_older_version_left_untold_is_brought_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = SqliteCheckpoint(tmp_path / "c.sqlite")
    one.commit([a_signal(signal_id="old")], [], {})
    one._db.execute("UPDATE outbox SET signal = replace(signal, '\"signal_id\"', '\"id\"')")
    monkeypatch.setitem(codec.VERSIONS, Signal, codec.VERSIONS[Signal] + 1)
    monkeypatch.setitem(
        codec.UPCASTERS,
        (Signal, codec.VERSIONS[Signal] - 1),
        lambda fields: {("signal_id" if key == "id" else key): value for key, value in fields.items()},
    )
    assert [signal.signal_id for _, signal in one.waiting()] == ["old"]
    one.close()


def test_a_file_from_before_signals_carried_a_version_is_gone_on_with(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "c.sqlite")
    old.execute("CREATE TABLE outbox (number INTEGER PRIMARY KEY AUTOINCREMENT, signal BLOB NOT NULL)")
    old.execute("INSERT INTO outbox (signal) VALUES (?)", (codec.encode(a_signal(signal_id="old")),))
    old.commit()
    old.close()
    for _ in range(2):
        one = SqliteCheckpoint(tmp_path / "c.sqlite")
        one.commit([a_signal(signal_id="new")], [], {})
        one.close()
    one = SqliteCheckpoint(tmp_path / "c.sqlite")
    assert [signal.signal_id for _, signal in one.waiting()] == ["old", "new", "new"]
    one.close()
