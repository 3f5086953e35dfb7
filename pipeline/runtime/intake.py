"""Many sources as one stream: blocks of mentions with the positions they stand for and one combined watermark."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from connectors.base import Checkpoint, Source, SourceItem
from schemas.control import Gap, Idle, Watermark
from schemas.dead_letter import DeadLetter
from schemas.mention import Mention

_NEVER = -(1 << 62)


@dataclass
class Block:
    """What was read between two commits."""

    mentions: list[Mention] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    position: dict[str, bytes] = field(default_factory=dict)
    watermark: int | None = None

    def __bool__(self) -> bool:
        return bool(self.mentions or self.dead_letters or self.gaps or self.position) or self.watermark is not None


class Intake:
    """Reads the source that is furthest behind in event time first, so that none holds the others' steps open.

    The combined watermark is the minimum over the sources that are not idle. A source that has given all it has is
    idle; what it gives later than the watermark is marked as back-fill by itself or counted as late by detection.
    """

    def __init__(self, sources: Sequence[Source], cursors: Mapping[str, bytes]) -> None:
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
        self._streams = {name: source.read(self._cursors.get(name)) for name, source in self._sources.items()}
        block = Block()
        while self._streams and not stopped():
            name = min(self._streams, key=lambda one: (self._promised[one], one))
            self._take(name, block)
            if len(block.mentions) >= size:
                yield block
                block = Block()
        if block:
            yield block

    def _take(self, name: str, block: Block) -> None:
        """Read one source up to its next checkpoint or its end."""
        for item in self._streams[name]:
            if isinstance(item, Mention):
                block.mentions.append(item)
            elif isinstance(item, Watermark):
                self._promise(name, item.time, block)
            elif isinstance(item, Checkpoint):
                block.position[name] = self._cursors[name] = item.cursor
                return
            elif isinstance(item, DeadLetter):
                block.dead_letters.append(item)
            elif isinstance(item, Gap):
                block.gaps.append(item)
            elif isinstance(item, Idle):
                break
        del self._streams[name]
        self._combine(block)

    def _promise(self, name: str, time: int, block: Block) -> None:
        self._promised[name] = max(self._promised[name], time)
        self._combine(block)

    def _combine(self, block: Block) -> None:
        combined = min((self._promised[name] for name in self._streams), default=_NEVER)
        if combined > self._combined:
            self._combined = block.watermark = combined
