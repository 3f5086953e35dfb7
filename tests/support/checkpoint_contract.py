"""What every checkpoint must do, whatever it is made of: a module of tests gives ``open_checkpoint`` as a fixture."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

State = Mapping[bytes, bytes]
Changes = Sequence[tuple[bytes, bytes | None]]


class Opened(Protocol):
    """One checkpoint of one input, as the tests see it."""

    def commit(self, outputs: Sequence[str], changes: Changes, position: int) -> None: ...

    def die(self) -> None:
        """End without a farewell, with whatever was begun."""

    def begin(self, outputs: Sequence[str], changes: Changes, position: int) -> None:
        """The beginning of a commit, and no end of it."""


class Left(Protocol):
    """What is committed."""

    outputs: list[str]
    state: State
    position: int | None


Open = Callable[[], Opened]
Look = Callable[[], Left]


class CheckpointContract:
    """Inherit, and give the fixtures ``open_checkpoint`` and ``look``."""

    def test_all_three_are_there_together(self, open_checkpoint: Open, look: Look) -> None:
        checkpoint = open_checkpoint()
        checkpoint.commit(["one"], [(b"a", b"1"), (b"b", b"2")], 5)
        checkpoint.commit(["two", "three"], [(b"a", None), (b"b", b"3")], 9)
        left = look()
        assert (sorted(left.outputs), left.state, left.position) == (["one", "three", "two"], {b"b": b"3"}, 9)

    def test_nothing_but_a_position(self, open_checkpoint: Open, look: Look) -> None:
        open_checkpoint().commit([], [], 3)
        assert (look().outputs, look().state, look().position) == ([], {}, 3)

    def test_what_was_begun_and_not_finished_never_was(self, open_checkpoint: Open, look: Look) -> None:
        checkpoint = open_checkpoint()
        checkpoint.commit(["one"], [(b"a", b"1")], 5)
        checkpoint.begin(["lost"], [(b"a", b"lost"), (b"c", b"lost")], 8)
        checkpoint.die()
        again = open_checkpoint()
        left = look()
        assert (left.outputs, left.state, left.position) == (["one"], {b"a": b"1"}, 5)
        again.commit(["two"], [(b"a", b"2")], 6)
        left = look()
        assert (sorted(left.outputs), left.state, left.position) == (["one", "two"], {b"a": b"2"}, 6)
