"""Many raw partitions as one stream again: what came after a watermark takes effect after that watermark.

A scored partition is fed from all raw partitions, some further on than others. A watermark counts when every raw partition
has passed it. What a partition that is ahead sends meanwhile falls in two:

- rows of steps that its watermark leaves open are taken in at once: no watermark that counts yet can have closed them;
- everything whose effect depends on which steps are closed (late rows, edits, retractions, gaps, catalogue and policy) is
  held back until the watermark it came after counts.

So the detector sees what it would have seen of one partition, whatever the race between them (barrier alignment: Carbone
et al., Lightweight Asynchronous Snapshots for Distributed Dataflows, 2015).
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from pipeline.errors import TerminalError
from pipeline.runtime.stage import StateChange, StateRecord
from schemas.codec import VERSIONS, NewerVersion, ScoredRecord, decode, encode
from schemas.control import Watermark
from schemas.scored import ScoredBlock, ScoredRow

PREFIX = b"\x00"
"""First byte of this module's keys among a partition's state records; detection's begin with letters."""
_PROMISE, _HELD = PREFIX + b"p", PREFIX + b"h"

MAXIMUM_HELD = 200_000
"""Held rows above which further ones are taken in at once: memory is bounded, and then only the revision in which a late
row shows may depend on the race."""


class _HeldState(msgspec.Struct, array_like=True):
    """A held record among the state; the record in the form and version of its topic."""

    after: int
    version: int
    record: bytes


class Held(NamedTuple):
    """A record that waits for a watermark to count."""

    after: int
    """Watermark it came after, ms UTC."""
    record: ScoredRecord

    def state(self) -> bytes:
        """As it stands among the state."""
        return msgspec.msgpack.encode(_HeldState(self.after, VERSIONS[ScoredRecord], encode(self.record)))

    @classmethod
    def restored(cls, data: bytes) -> "Held":
        """Out of the state, whichever version wrote it.

        Raises:
            TerminalError: a newer one, or the record is damaged.
        """
        try:
            kept = msgspec.msgpack.decode(data, type=_HeldState)
            return cls(kept.after, decode(kept.record, ScoredRecord, kept.version))
        except (msgspec.DecodeError, NewerVersion) as error:
            raise TerminalError(f"a record that waits for its watermark cannot be read: {error}") from error


class Alignment:
    """The raw partitions behind one scored partition.

    Args:
        origins: numbers of the raw partitions that must have passed a watermark before it counts.
        state: records that ``changes`` gave; others are passed over.
    """

    def __init__(self, origins: Iterable[int], state: Iterable[StateRecord] = ()) -> None:
        self._promises: dict[int, int | None] = dict.fromkeys(origins)
        self._held: dict[int, Held] = {}
        self._rows = 0
        self._number = 0
        self._changed: dict[bytes, bytes | None] = {}
        self.overflowed = 0
        """Rows that were not held back although they should have been, since this alignment began."""
        for key, value in state:
            if key.startswith(_PROMISE):
                self._promises[int(key[len(_PROMISE) :])] = int(value)
            elif key.startswith(_HELD):
                self._keep(int(key[len(_HELD) :]), Held.restored(value))
        self._combined = self._minimum()

    @property
    def combined(self) -> int | None:
        """The watermark that counts, ms UTC; None before the first."""
        return self._combined

    @property
    def held_rows(self) -> int:
        """Rows that wait."""
        return self._rows

    def take(self, origin: int, record: ScoredRecord) -> Iterator[ScoredRecord]:
        """What may take effect now that this record came of a raw partition, in order."""
        promise = self._promises.get(origin)
        if isinstance(record, Watermark):
            if promise is None or record.time > promise:
                self._promises[origin] = record.time
                self._changed[_PROMISE + str(origin).encode()] = str(record.time).encode()
                yield from self._advance()
        elif promise is None or promise == self._combined:
            yield record
        elif isinstance(record, ScoredBlock):
            yield from self._part(record, promise)
        else:
            self._hold(Held(promise, record))

    def changes(self) -> list[StateChange]:
        """State records that changed since the last call."""
        changed = list(self._changed.items())
        self._changed.clear()
        return changed

    def _part(self, block: ScoredBlock, promise: int) -> Iterator[ScoredBlock]:
        late = [row for row in block.rows if _depends(row, promise)]
        if self._rows + len(late) > MAXIMUM_HELD:
            self.overflowed += len(late)
            yield block
            return
        if late or block.retractions:
            self._hold(Held(promise, ScoredBlock(late, block.retractions)))
        if len(late) < len(block.rows):
            yield ScoredBlock([row for row in block.rows if not _depends(row, promise)])

    def _hold(self, held: Held) -> None:
        self._keep(self._number + 1, held)
        self._changed[_HELD + str(self._number).encode()] = held.state()

    def _keep(self, number: int, held: Held) -> None:
        self._held[number] = held
        self._number = max(self._number, number)
        self._rows += _rows(held.record)

    def _advance(self) -> Iterator[ScoredRecord]:
        combined = self._minimum()
        if combined is None or combined == self._combined:
            return
        due = sorted((held.after, number) for number, held in self._held.items() if held.after <= combined)
        for after, number in due:
            yield from self._reach(after)
            held = self._held.pop(number)
            self._rows -= _rows(held.record)
            self._changed[_HELD + str(number).encode()] = None
            yield held.record
        yield from self._reach(combined)

    def _reach(self, time: int) -> Iterator[Watermark]:
        if self._combined is None or time > self._combined:
            self._combined = time
            yield Watermark("", time)

    def _minimum(self) -> int | None:
        known = [promise for promise in self._promises.values() if promise is not None]
        return min(known) if known and len(known) == len(self._promises) else None


def _depends(row: ScoredRow, promise: int) -> bool:
    """Whether the row's effect depends on which steps are closed."""
    return row.event_time < promise or row.revision > 0


def _rows(record: ScoredRecord) -> int:
    return len(record.rows) + len(record.retractions) if isinstance(record, ScoredBlock) else 1
