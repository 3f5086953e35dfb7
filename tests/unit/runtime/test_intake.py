from collections.abc import Iterator

from connectors.base import Checkpoint, SourceCheck, SourceItem
from pipeline.errors import TransientError
from pipeline.runtime.intake import Block, Intake
from schemas import identity
from schemas.control import Gap, Idle, Watermark
from schemas.dead_letter import DeadLetter
from schemas.mention import Mention


class Scripted:
    """A source that gives one mention a checkpoint at the given times."""

    def __init__(self, source_id: str, times: list[int]) -> None:
        self.source_id = source_id
        self._times = times

    def check(self) -> SourceCheck:
        return SourceCheck("scripted", date_only=False)

    def reread(self, refused: list[tuple[str, str]]) -> Iterator[Mention | DeadLetter]:
        yield from ()

    def read(self, cursor: bytes | None) -> Iterator[SourceItem]:
        for number in range(int(cursor or b"0"), len(self._times)):
            time = self._times[number]
            name = identity.mention_id(self.source_id, str(number))
            yield Mention(name, self.source_id, str(number), "review", "a", time, time)
            yield Watermark(self.source_id, time)
            yield Checkpoint(str(number + 1).encode())
        yield Idle(self.source_id)


def read(intake: Intake, size: int = 1) -> list[Block]:
    return list(intake.blocks(size, lambda: False))


def test_the_source_that_is_furthest_behind_is_read_first() -> None:
    intake = Intake([Scripted("a", [1, 5, 9]), Scripted("b", [2, 3, 20])], {})
    assert [m.event_time for block in read(intake) for m in block.mentions] == [
        1,
        2,
        5,
        3,
        20,
        9,
    ]  # a checkpoint ahead at most


def test_the_watermark_is_the_minimum_over_sources_that_still_speak() -> None:
    intake = Intake([Scripted("a", [1, 5]), Scripted("b", [2, 30])], {})
    seen = [block.watermark for block in read(intake) if block.watermark is not None]
    assert seen == sorted(seen)
    assert seen == [1, 2, 5, 30]  # never above what the slower one has promised, until it is idle


def test_positions_go_with_what_they_stand_for() -> None:
    blocks = read(Intake([Scripted("a", [1, 2, 3])], {}), size=2)
    assert [(len(block.mentions), block.position) for block in blocks] == [(2, {"a": b"2"}), (1, {"a": b"3"})]


def test_a_second_pass_goes_on_behind_the_first() -> None:
    source = Scripted("a", [1])
    intake = Intake([source], {})
    assert len(read(intake)) == 1
    assert read(intake) == []
    source._times.append(2)
    assert [m.event_time for block in read(intake) for m in block.mentions] == [2]


def test_committed_cursors_are_where_it_begins() -> None:
    assert [
        m.event_time for block in read(Intake([Scripted("a", [1, 2, 3])], {"a": b"2"})) for m in block.mentions
    ] == [3]


def test_stopping_ends_at_a_checkpoint() -> None:
    turns = iter([False, False, True])
    blocks = list(Intake([Scripted("a", [1, 2, 3])], {}).blocks(10, lambda: next(turns)))
    assert [block.position for block in blocks] == [{"a": b"2"}]


class Failing(Scripted):
    """Gives what it has, and fails at the second mention as often as told."""

    def __init__(self, source_id: str, times: list[int], failures: int) -> None:
        super().__init__(source_id, times)
        self.failures = failures

    def read(self, cursor: bytes | None) -> Iterator[SourceItem]:
        for item in super().read(cursor):
            if isinstance(item, Mention) and item.native_id == "1" and self.failures:
                self.failures -= 1
                raise TransientError("down")
            yield item


def test_a_source_that_fails_stops_no_other_and_goes_on_where_it_was() -> None:
    intake = Intake([Failing("a", [1, 5], failures=2), Scripted("b", [2, 3])], {})
    first = read(intake)
    assert {(m.source_id, m.event_time) for block in first for m in block.mentions} == {("a", 1), ("b", 2), ("b", 3)}
    assert list(intake.failed) == ["a"]
    assert [gap for block in first for gap in block.gaps] == [Gap("a", 1, None, "down")]
    read(intake)
    last = read(intake)
    assert [m.event_time for block in last for m in block.mentions] == [5]
    assert intake.failed == {}
    assert [gap for block in last for gap in block.gaps] == [Gap("a", 1, 5, "down")]


def test_a_failing_source_does_not_hold_the_watermark() -> None:
    intake = Intake([Failing("a", [1, 5], failures=1), Scripted("b", [2, 30])], {})
    assert max(block.watermark or 0 for block in read(intake)) == 30


def test_a_gap_that_was_open_before_a_restart_is_ended_when_the_source_speaks() -> None:
    intake = Intake([Scripted("a", [1, 5])], {"a": b"1"}, [Gap("a", 1, None, "down")])
    assert [gap for block in read(intake) for gap in block.gaps] == [Gap("a", 1, 5, "down")]


def test_a_gap_of_a_source_that_is_no_longer_configured_is_ended() -> None:
    intake = Intake([Scripted("a", [1])], {}, [Gap("gone", 7, None, "down")])
    assert Gap("gone", 7, 7, "down") in [gap for block in read(intake) for gap in block.gaps]


def test_a_source_that_was_never_heard_has_no_gap() -> None:
    class Broken(Scripted):
        def read(self, cursor: bytes | None) -> Iterator[SourceItem]:
            raise TransientError("down")
            yield

    intake = Intake([Broken("a", []), Scripted("b", [1])], {})
    assert [gap for block in read(intake) for gap in block.gaps] == []
    assert list(intake.failed) == ["a"]
