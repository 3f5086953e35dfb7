"""The whole path in one process: sources → scoring → detection → the embedded ClickHouse, in a data folder.

One block at a time. Its rows go to the engine first and are synced; then one SQLite transaction makes the cursors, the
state and the signals to be told durable. What a Kafka topic would carry between the stages is what is passed along here.
"""

import hashlib
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from connectors.base import Source
from pipeline import metrics
from pipeline.detection.detector import Detector, Outputs
from pipeline.errors import ConfigurationError, HeldError, TransientError
from pipeline.runtime.checkpoint import SqliteCheckpoint
from pipeline.runtime.intake import Block, Intake
from pipeline.scoring.scorer import Scorer
from pipeline.storage.dead_letters import mark_replayed
from pipeline.storage.embedded import EmbeddedEngine
from pipeline.storage.migrations import migrate
from pipeline.storage.writer import write_block
from schemas.catalogue import CatalogueEntry
from schemas.control import CatalogueUpdate, ControlRecord, PolicyUpdate, Watermark
from schemas.dead_letter import DeadLetter
from schemas.mention import Mention
from schemas.policy import DetectionPolicy
from schemas.scored import ScoredBlock, ScoredRow
from schemas.signal import Signal

BLOCK_SIZE = 15_000
"""Mentions a commit while there is more to read: its syncs and parts must cost little beside its own work."""
SCORED_TOGETHER = 2000
"""Mentions scored and detected at once: above this nothing gets faster, and their rows take memory."""

CHECKPOINT_FILE = "checkpoint.sqlite"

_log = logging.getLogger(__name__)


def pseudonym_key(data_dir: Path) -> bytes:
    """The key of the authors' pseudonyms in this folder, made once; readable by its owner only."""
    path = data_dir / "pseudonym.key"
    if not path.exists() or not path.stat().st_size:
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(32), encoding="ascii")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"data_dir: {path} cannot be read: {error.strerror}") from None


def open_engine(data_dir: Path, patience: float = 10.0) -> EmbeddedEngine:
    """The database of a data folder, held by this process alone; waits a little for a question that is being answered.

    Raises:
        HeldError: another process holds it for longer than ``patience`` seconds.
    """
    give_up = time.monotonic() + patience
    while True:
        try:
            return EmbeddedEngine(data_dir)
        except HeldError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.1)


class EmbeddedRuntime:
    """Drives blocks through the stages and commits them.

    Args:
        engine: the database, held; whoever opened it closes it.
        sources: what is read.
        catalogue: products and lots.
        policy: rules of detection.
        scorer: makes rows of mentions.
        tell: is given every signal revision once it is committed; after a crash perhaps a second time.
    """

    def __init__(
        self,
        engine: EmbeddedEngine,
        sources: Sequence[Source],
        catalogue: Sequence[CatalogueEntry],
        policy: DetectionPolicy,
        scorer: Scorer,
        tell: Callable[[Signal], None],
    ) -> None:
        self._engine = engine
        migrate(engine)
        self._checkpoint = SqliteCheckpoint(engine.path / CHECKPOINT_FILE)
        self._scorer = scorer
        self._sources = {source.source_id: source for source in sources}
        self._detector = Detector.restore(policy, self._checkpoint.state())
        self._intake = Intake(sources, self._checkpoint.cursors(), self._detector.open_gaps())
        self._detector.absorb(PolicyUpdate(_version(policy), policy))
        self._detector.absorb(CatalogueUpdate(_version(list(catalogue)), list(catalogue)))
        self._too_late = 0
        self._tell = tell
        self.mentions = 0

    def run_pass(
        self, stopped: Callable[[], bool] = lambda: False, block_size: int = BLOCK_SIZE
    ) -> Iterator[dict[str, bytes]]:
        """Read every source to what it has now; each block's cursors are yielded when it is committed."""
        self.replay_dead_letters()
        for block in self._intake.blocks(block_size, stopped):
            self._process(block)
            position = block.position
            del block  # or it would be there until the next one is read
            yield position

    def close_history(self) -> None:
        """The history is complete: decide the steps that are still open."""
        self._commit(Block(), self._detector.close_all())

    def _process(self, block: Block) -> None:
        outputs, primary = Outputs(), list[ScoredRow]()
        self._count(block.mentions)
        while mentions := block.mentions[:SCORED_TOGETHER]:
            del block.mentions[:SCORED_TOGETHER]  # what is scored need not be kept
            with metrics.STAGE_SECONDS.labels("score").time():
                scored = self._scorer.scored(mentions)
            self._detect(scored, outputs)
            primary += (row for row in scored.rows if row.primary)
        for gap in block.gaps:
            self._detect(gap, outputs)
        if block.watermark is not None:
            self._detect(Watermark("", block.watermark), outputs)
            metrics.WATERMARK.labels("run").set(block.watermark / 1000)
        self._commit(block, outputs, primary)

    def _detect(self, record: ScoredBlock | ControlRecord, outputs: Outputs) -> None:
        with metrics.STAGE_SECONDS.labels("detect").time():
            found = self._detector.absorb(record)
        outputs.step_counts += found.step_counts
        outputs.signals += found.signals
        metrics.TOO_LATE.inc(self._detector.too_late - self._too_late)
        self._too_late = self._detector.too_late

    def _commit(self, block: Block, outputs: Outputs, primary: Sequence[ScoredRow] = ()) -> None:
        with metrics.STAGE_SECONDS.labels("store").time():
            refused = block.dead_letters
            for table, structs in (
                ("mentions", primary),
                ("step_counts", outputs.step_counts),
                ("signals", outputs.signals),
                ("gaps", block.gaps),
            ):
                refused += write_block(self._engine, table, structs)
            for lost in write_block(self._engine, "dead_letters", refused):
                _log.error("a dead letter could not be stored: %s %s", lost.locator, lost.detail)
            self._checkpoint.commit(outputs.signals, self._detector.changes(), block.position)
        self._note(refused, outputs)
        self.tell_waiting()

    def tell_waiting(self) -> None:
        """Tell the signals that are committed and not yet told."""
        waiting = self._checkpoint.waiting()
        for _, signal in waiting:
            self._tell(signal)
        if waiting:
            self._checkpoint.told(number for number, _ in waiting)

    def _count(self, mentions: Sequence[Mention]) -> None:
        self.mentions += len(mentions)
        for source_id, number in Counter(mention.source_id for mention in mentions).items():
            metrics.MENTIONS.labels(source_id).inc(number)
        for source_id, number in Counter(mention.source_id for mention in mentions if mention.backfill).items():
            metrics.BACKFILL.labels(source_id).inc(number)

    def _note(self, refused: Sequence[DeadLetter], outputs: Outputs) -> None:
        for letter in refused:
            metrics.DEAD_LETTERS.labels(letter.source_id, letter.reason).inc()
        for signal in outputs.signals:
            metrics.SIGNALS.labels(signal.kind, signal.event, str(signal.historic).lower()).inc()
        metrics.STEP_COUNTS.inc(len(outputs.step_counts))
        metrics.COMMITTED.labels("run").set(time.time())

    @property
    def failed(self) -> dict[str, TransientError]:
        """Sources that could not be read in the last pass, and why."""
        return self._intake.failed

    def replay_dead_letters(self) -> int:
        """Read again the dead letters that were asked for; how many records of them were taken in."""
        asked = self._checkpoint.asked_replays()
        known = [one for one in asked if one[1] in self._sources]
        for missing in {source_id for _, source_id, *_ in asked}.difference(self._sources):
            _log.warning("dead letters wait: their source %s is not in the configuration", missing)
        if not known:
            return 0
        block = Block()
        for source_id in {source_id for _, source_id, *_ in known}:
            refused = [(locator, payload_hash) for _, owner, locator, payload_hash in known if owner == source_id]
            for item in self._sources[source_id].reread(refused):
                if isinstance(item, Mention):
                    block.mentions.append(item)
                else:
                    block.dead_letters.append(item)
        again = {letter.dead_letter_id for letter in block.dead_letters}
        self._process(block)
        taken = [identity for identity, *_ in known if identity not in again]
        if taken:
            mark_replayed(self._engine, taken, time.time_ns() // 1_000_000)
        self._checkpoint.replayed(identity for identity, *_ in known)
        return len(taken)

    def close(self) -> None:
        """Let go of the checkpoint."""
        self._checkpoint.close()


def _version(value: object) -> str:
    return hashlib.blake2b(msgspec.json.encode(value), digest_size=8).hexdigest()
