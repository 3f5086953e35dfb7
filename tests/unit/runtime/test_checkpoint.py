from pathlib import Path

from pipeline.runtime.checkpoint import SqliteCheckpoint


def test_position_and_state_are_there_after_opening_again(tmp_path: Path) -> None:
    one = SqliteCheckpoint(tmp_path / "c.sqlite")
    one.commit([], [(b"a", b"1"), (b"b", b"2")], {"s": b"x"})
    one.commit([], [(b"a", None), (b"b", b"3")], {"s": b"y"})
    one.close()
    again = SqliteCheckpoint(tmp_path / "c.sqlite")
    assert again.state() == [(b"b", b"3")]
    assert again.cursors() == {"s": b"y"}
    again.close()


def test_replays_are_asked_for_once_and_taken_away(tmp_path: Path) -> None:
    one = SqliteCheckpoint(tmp_path / "c.sqlite")
    one.ask_replay([("id", "s", "f@1+2", "hash"), ("id", "s", "f@1+2", "hash")])
    assert one.asked_replays() == [("id", "s", "f@1+2", "hash")]
    one.replayed(["id"])
    assert one.asked_replays() == []
    one.close()
