"""Many sources as one stream: blocks of mentions with the positions they stand for and one combined watermark."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from connectors.base import Checkpoint, Reading, Source, SourceItem
from pipeline.errors import TransientError
from schemas.control import Gap, Idle, Watermark
from schemas.dead_letter import DeadLetter
from schemas.mention import Mention

BLOCK_BYTES = 32 << 20
"""Characters of text after which a block ends, however few mentions they are."""
DEAD_LETTER_BYTES = 16 << 10
"""What a dead letter counts for; its payload is cut at this."""
_NEVER = -(1 << 62)


@dataclass
class Block:
    """What was read between two commits."""

    mentions: list[Mention] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    position: dict[str, bytes] = field(default_factory=dict)
    watermark: int | None = None
    size: int = 0

    def __bool__(self) -> bool:
        return bool(self.mentions or self.dead_letters or self.gaps or self.position) or self.watermark is not None


class Intake:
    """Reads the source that is furthest behind in event time first, so that none holds the others' steps open.

    The combined watermark is the minimum over the sources that are not idle. A source that has given all it has is
    idle; what it gives later than the watermark is marked as back-fill by itself or counted as late by detection.
    """

    def __init__(self, sources: Sequence[Source], cursors: Mapping[str, bytes], open_gaps: Iterable[Gap] = ()) -> None:
        self.failed: dict[str, TransientError] = {}
        """Sources that could not be read in the last pass, and why."""
        self._gaps = {gap.source_id: gap for gap in open_gaps}
        self._sources = {source.source_id: source for source in sources}
        self._cursors = dict(cursors)
        self._promised = {source.source_id: _NEVER for source in sources}
        self._streams: dict[str, Iterator[SourceItem]] = {}
        self._combined = _NEVER

    def blocks(self, size: int, stopped: Callable[[], bool]) -> Iterator[Block]:
        """One pass over all sources, until each has given what it has now, cut at checkpoints.

        Args:
            size: mentions after which a block ends at the next checkpoint.
            stopped: asked at every checkpoint; true ends the pass there.
        """
        self.failed.clear()
        self._streams = {name: source.read(self._cursors.get(name)) for name, source in self._sources.items()}
        block = Block()
        for name in (
            self._gaps.keys() - self._sources.keys()
        ):  # taken out of the configuration: nobody else would end it
            gap = self._gaps.pop(name)
            block.gaps.append(Gap(name, gap.start, gap.start, gap.reason))
        while self._streams and not stopped():
            name = min(self._streams, key=lambda one: (self._promised[one], one))
            self._take(name, block)
            if len(block.mentions) >= size or block.size >= BLOCK_BYTES:
                yield block
                block = Block()
        if block:
            yield block

    def _take(self, name: str, block: Block) -> None:
        """Read one source up to its next checkpoint or its end. One that fails is left alone until the next pass."""
        try:
            self._take_items(name, block)
        except TransientError as error:
            self.failed[name] = error
            if name in self._gaps or self._promised[name] > _NEVER:  # of what was never heard nothing is missing
                gap = self._gaps.setdefault(name, Gap(name, self._promised[name], None, str(error)[:200]))
                block.gaps.append(gap)
            self._end(name, block)

    def _end(self, name: str, block: Block) -> None:
        del self._streams[name]
        self._combine(block)

    def _take_items(self, name: str, block: Block) -> None:
        for item in self._streams[name]:
            if isinstance(item, Mention):
                block.mentions.append(item)
                block.size += len(item.text)
            elif isinstance(item, Watermark):
                self._promise(name, item.time, block)
            elif isinstance(item, Checkpoint):
                block.position[name] = self._cursors[name] = item.cursor
                return
            elif isinstance(item, Reading):
                return
            elif isinstance(item, DeadLetter):
                block.dead_letters.append(item)
                block.size += DEAD_LETTER_BYTES
            elif isinstance(item, Gap):
                block.gaps.append(item)
            elif isinstance(item, Idle):
                break
        if (gap := self._gaps.pop(name, None)) is not None:
            block.gaps.append(Gap(name, gap.start, max(self._promised[name], gap.start), gap.reason))
        self._end(name, block)

    def _promise(self, name: str, time: int, block: Block) -> None:
        self._promised[name] = max(self._promised[name], time)
        self._combine(block)

    def _combine(self, block: Block) -> None:
        combined = min((self._promised[name] for name in self._streams), default=_NEVER)
        if combined > self._combined:
            self._combined = block.watermark = combined
