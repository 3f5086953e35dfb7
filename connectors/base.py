"""What every source is to the runtimes: ``check()`` it, then ``read(cursor)`` what it has."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from msgspec import Struct

from schemas.control import Gap, Idle, Watermark
from schemas.dead_letter import DeadLetter
from schemas.mention import Mention


class Checkpoint(Struct, frozen=True):
    """All that was yielded before this point is what ``cursor`` stands for; both are committed together."""

    cursor: bytes


class Reading(Struct, frozen=True):
    """Still at work, and nothing to hand over yet: whoever reads may look at the clock, or stop."""


class SourceCheck(Struct, frozen=True):
    """What a look at a source found, without reading it through."""

    summary: str
    """In plain words: what is there."""
    date_only: bool
    """Times at the source name a day but no hour: base steps of an hour would mean nothing."""


SourceItem = Mention | DeadLetter | Watermark | Gap | Idle | Checkpoint | Reading


class Source(Protocol):
    """One configured source. Everything it yields is masked."""

    source_id: str

    def check(self) -> SourceCheck:
        """Look at the source.

        Raises:
            ConfigurationError: in plain words, what is wrong and what would be right.
        """
        ...

    def read(self, cursor: bytes | None) -> Iterator[SourceItem]:
        """Yield what the source has after ``cursor`` (None: from its beginning), then end.

        The runtime calls again later with the last cursor it has committed. What is yielded after the last
        ``Checkpoint`` comes again after a crash, equal in identity.

        Raises:
            SourceChangedError: what was read before is no longer what the source holds.
            TransientError: the source cannot be reached now.
        """
        ...

    def reread(self, refused: Sequence[tuple[str, str]]) -> Iterator[Mention | DeadLetter]:
        """Read records that were refused (their locators and payload hashes) once more, as the source is configured now.

        What is no longer there, or was superseded by a later record of the same id, is left out.
        """
        ...
