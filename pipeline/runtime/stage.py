"""What a stage between two topics is: records of one input partition in, records and state out, and no Kafka in it."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from schemas.codec import SCHEMA_VERSION_HEADER, version_of_topic

StateRecord = tuple[bytes, bytes]
StateChange = tuple[bytes, bytes | None]
"""A state record and its new value; None: it is gone."""


class Record(NamedTuple):
    """One record as it stands on its topic."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    version: int
    """Schema version of the value."""
    timestamp: int
    """When it was written, ms UTC."""


def record_version(headers: Iterable[tuple[str, bytes]] | None) -> int:
    """Schema version of a record's value; 1 where no header says, 0 (there is none such) where it is no number."""
    told = dict(headers or ()).get(SCHEMA_VERSION_HEADER, b"1")
    return int(told) if told.isdigit() else 0


def version_headers(topic: str) -> list[tuple[str, bytes]]:
    """Headers of a record that this version writes to a topic of ``schemas/topics.yaml``."""
    return [(SCHEMA_VERSION_HEADER, version_of_topic(topic))]


class Output(NamedTuple):
    """One record to be written. ``topic`` is its name in ``schemas/topics.yaml``; the partition is that of the key if None."""

    topic: str
    key: bytes | None
    value: bytes
    partition: int | None = None


class Result(NamedTuple):
    """What a block of records gave rise to; it is committed with the position after them."""

    outputs: Sequence[Output]
    state: Iterable[StateChange] = ()
    note: str = ""
    """Kept with the position (a few hundred characters), given back to ``Stage.claim``."""


class PartitionStage(Protocol):
    """A stage at work on one input partition."""

    def process(self, records: Sequence[Record]) -> Result:
        """Take the next records in, in order. Called again only when the result is committed.

        Raises:
            TerminalError: going on would do harm; the process stops.
        """
        ...


class Stage(Protocol):
    """A stage: where it reads, and how it begins on a partition."""

    name: str
    topic: str
    """Input, by its name in ``schemas/topics.yaml``."""

    block_records: int
    """Records taken together at most: a record may have a megabyte, and twice as many wait in memory."""

    @property
    def state_topic(self) -> str | None:
        """Compacted topic of its state, with as many partitions as the input; None: it keeps no state."""
        ...

    def claim(self, partition: int, state: Iterable[StateRecord], note: str) -> PartitionStage:
        """Begin on a partition where whoever had it before has stopped.

        Args:
            partition: number of the input partition.
            state: its state records.
            note: what was kept with the last position; empty at first.
        """
        ...
