"""The block writer against an engine made of lists."""

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InvalidMessage, TerminalError, TransientError
from pipeline.storage.writer import MAX_POISON_ROWS, write_block
from schemas.control import Gap


class ListEngine:
    """Refuses a block with a row whose reason is ``bad``; fails as often as told before it works."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.blocks: list[bytes] = []
        self.rows: list[msgspec.Struct] = []

    def insert(self, table: str, structs: Sequence[msgspec.Struct], generation: int = 0) -> None:
        if self.failures:
            self.failures -= 1
            raise TransientError("busy")
        if any(row.reason == "bad" for row in structs):  # type: ignore[attr-defined]
            raise InvalidMessage("poison_row", "bad row")
        if (content := msgspec.json.encode(structs)) not in self.blocks:
            self.blocks.append(content)
            self.rows += structs

    def query(self, sql: str, format: str = "JSONEachRow") -> bytes:  # noqa: A002
        raise NotImplementedError

    def execute(self, sql: str) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


def block(bad: Sequence[bool]) -> list[Gap]:
    return [Gap(f"s{i}", i, None, "bad" if one else "good") for i, one in enumerate(bad)]


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=40))
def test_good_rows_are_written_in_order_and_bad_ones_come_back(bad: list[bool]) -> None:
    engine, rows = ListEngine(), block(bad)
    for _ in range(2):
        dead = write_block(engine, "gaps", rows, clock=lambda: 1.5)
        assert engine.rows == [row for row in rows if row.reason == "good"], "a second call adds nothing"
        assert [letter.payload for letter in dead] == [
            msgspec.json.encode(row).decode() for row in rows if row.reason == "bad"
        ]
    assert {(letter.stage, letter.reason, letter.time) for letter in dead} <= {("store", "poison_row", 1500)}
    assert len({letter.dead_letter_id for letter in dead}) == len(dead)


def test_a_dead_letter_says_which_row_and_why() -> None:
    (letter,) = write_block(ListEngine(), "gaps", block([False, True]), clock=lambda: 2)
    assert (letter.source_id, letter.locator, letter.detail) == ("s1", "gaps:s1,1", "bad row")


def test_a_row_that_no_json_can_hold_is_a_dead_letter_all_the_same() -> None:
    (letter,) = write_block(ListEngine(), "gaps", [Gap("\ud83d", 1, None, "bad")])
    assert "\\ud83d" in letter.payload
    letter.payload.encode()
    letter.source_id.encode()


def test_a_long_payload_is_cut_and_its_hash_is_not() -> None:
    first, second = (
        write_block(ListEngine(), "gaps", [msgspec.structs.replace(block([True])[0], source_id="长" * 20_000 + end)])[0]
        for end in "ab"
    )
    assert first.payload == second.payload
    assert len(first.payload.encode()) <= 16 * 1024
    assert first.payload_hash != second.payload_hash


def test_a_transient_error_is_tried_again_with_growing_pauses() -> None:
    engine, pauses = ListEngine(failures=3), list[float]()
    write_block(engine, "gaps", block([False]), sleep=pauses.append)
    assert pauses == [0.1, 0.2, 0.4]
    assert len(engine.rows) == 1


def test_a_lasting_one_is_handed_on() -> None:
    engine, pauses = ListEngine(failures=99), list[float]()
    with pytest.raises(TransientError):
        write_block(engine, "gaps", block([False]), sleep=pauses.append)
    assert len(pauses) == 5


def test_too_many_bad_rows_are_no_bad_rows() -> None:
    with pytest.raises(TerminalError, match="rows and tables do not agree"):
        write_block(ListEngine(), "gaps", block([True] * (MAX_POISON_ROWS + 1)))
    assert len(write_block(ListEngine(), "gaps", block([True] * MAX_POISON_ROWS))) == MAX_POISON_ROWS


def test_an_empty_block_is_nothing() -> None:
    engine = ListEngine()
    assert write_block(engine, "gaps", []) == []
    assert engine.blocks == []
