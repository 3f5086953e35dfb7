"""``complaint-radar worker --stage store``: topics to ClickHouse. A plain consumer: Faust has nothing to give here.

A block is written and acknowledged by the server, then its offsets are committed. What is read again after a crash is the
same rows under the same keys. While the server is away the block in hand waits, and nothing else is fetched.
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from pipeline import metrics
from pipeline.errors import TransientError
from pipeline.runtime import kafka
from pipeline.runtime.dead_records import Decoder
from pipeline.runtime.health import Health
from pipeline.runtime.kafka import Names
from pipeline.runtime.stage import Output, Record, record_version
from pipeline.settings import KafkaSettings, duration_ms
from pipeline.storage.engine import Engine
from pipeline.storage.writer import write_block
from schemas.codec import decode
from schemas.control import Gap
from schemas.dead_letter import DeadLetter
from schemas.scored import ScoredBlock, ScoredRow
from schemas.signal import Signal
from schemas.step_count import StepCount

TOPICS = ("mentions.scored.v1", "step_counts.v1", "signals.v1", "sources.v1", "dead_letters.v1")
TABLES: dict[type[Struct], str] = {
    ScoredRow: "mentions",
    StepCount: "step_counts",
    Signal: "signals",
    Gap: "gaps",
    DeadLetter: "dead_letters",
}
BLOCK_ROWS = 20_000
"""Rows after which a block is written: a part a second on the server, not more."""
BLOCK_BYTES = 16 << 20
"""… or bytes of records …"""
BLOCK_SECONDS = 0.5
"""… or after so long."""
_POLL_MS = 100
UNSETTLED_SECONDS = 75.0
"""Without a place in the group for so long (a rebalance may take 60 s) the consumer is made anew. A member that has its
place may be without partitions: there are more workers than partitions."""

_log = logging.getLogger(__name__)


class Block:
    """Rows in hand, and the offsets after them."""

    def __init__(self, positions: Mapping[Any, int]) -> None:
        self.rows: dict[str, list[Struct]] = {}
        self.positions = dict(positions)
        self.records = self.bytes = 0
        self.since = time.monotonic()

    def __len__(self) -> int:
        return sum(map(len, self.rows.values()))

    @property
    def due(self) -> bool:
        """Whether it is time to write it."""
        full = len(self) >= BLOCK_ROWS or self.bytes >= BLOCK_BYTES
        return bool(self.positions) and (full or time.monotonic() - self.since > BLOCK_SECONDS)


class Store:
    """Reads committed records of five topics and writes them as rows.

    Args:
        settings: the brokers.
        engine: the database; its tables are there.
    """

    def __init__(self, settings: KafkaSettings, engine: Engine) -> None:
        names = Names(settings)
        self._engine = engine
        self._uncommitted: Mapping[Any, int] = {}
        self._topics = {names.topic(topic): topic for topic in TOPICS}
        self._decoders = {names.topic(topic): Decoder[Any](topic, "store") for topic in TOPICS}
        session = duration_ms(settings.session_timeout)
        self._consumer = kafka.consumer(
            settings,
            "store",
            group_id=names.group("store"),
            session_timeout_ms=session,
            heartbeat_interval_ms=session // 4,
            metadata_max_age_ms=kafka.METADATA_MS,
            max_poll_records=100,
            max_partition_fetch_bytes=2 << 20,
            fetch_max_bytes=16 << 20,
        )
        kafka.subscribe(self._consumer, self._decoders)

    def run(self, stop: threading.Event, health: Health) -> None:
        """Write until ``stop`` is set; the block in hand is finished.

        Raises:
            TransientError: the brokers are away, or the group gives no place; begin again with a new one.
            TerminalError: going on would do harm.
        """
        block, settled = Block({}), time.monotonic()
        with kafka.errors("reading"):
            while not stop.is_set():
                health.turned()
                for tp, records in self._consumer.poll(timeout_ms=_POLL_MS).items():
                    self._take(tp, records, block)
                if block.due:
                    if not self._write(block, stop, health):
                        return
                    block = Block(self._uncommitted)
                health.ready = kafka.settled(self._consumer)
                if health.ready:
                    settled = time.monotonic()
                elif time.monotonic() - settled > UNSETTLED_SECONDS:
                    raise TransientError(f"kafka: the group has given no place for {UNSETTLED_SECONDS:.0f} s")
            if block.positions:
                self._write(block, stop, health)

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close(autocommit=False)

    def _take(self, tp: Any, records: Sequence[Any], block: Block) -> None:
        outputs: list[Output] = []
        for record in records:
            message = self._decoders[tp.topic].decode(_record(record), outputs)
            if isinstance(message, ScoredBlock):
                rows: list[Struct] = [row for row in message.rows if row.primary]
                block.rows.setdefault("mentions", []).extend(rows)
            elif message is not None and (table := TABLES.get(type(message))) is not None:
                block.rows.setdefault(table, []).append(message)
        # A record that cannot be read stands on its topic for good: here it becomes a row like the other dead letters.
        block.rows.setdefault("dead_letters", []).extend(decode(one.value, DeadLetter) for one in outputs)
        block.positions[tp] = records[-1].offset + 1
        block.records += len(records)
        block.bytes += sum(len(record.value or b"") for record in records)

    def _write(self, block: Block, stop: threading.Event, health: Health) -> bool:
        """Write and commit; while the database is away, keep the membership and wait. False: told to stop meanwhile."""
        pause = 1.0
        while True:
            try:
                with metrics.STAGE_SECONDS.labels("store").time():
                    self._write_rows(block.rows)
                break
            except TransientError as error:
                metrics.RETRIES.labels("store").inc()
                metrics.STORE_UP.labels("store").set(0)
                _log.warning("%s; the block waits %.0f s", error, pause)
                if not self._wait(pause, stop, health):
                    return False
                pause = min(2 * pause, 30.0)
        metrics.STORE_UP.labels("store").set(1)
        self._commit(block.positions)
        self._note(block)
        return True

    def _wait(self, seconds: float, stop: threading.Event, health: Health) -> bool:
        """Wait without reading on; only polling keeps the membership."""
        consumer = self._consumer
        until = time.monotonic() + seconds
        while time.monotonic() < until and not stop.is_set():
            health.turned()
            consumer.pause(*consumer.assignment())
            for tp, records in consumer.poll(timeout_ms=_POLL_MS).items():
                consumer.seek(tp, records[0].offset)  # of a partition that came in this very poll
        consumer.resume(*consumer.assignment())
        return not stop.is_set()

    def _write_rows(self, rows: Mapping[str, list[Struct]]) -> None:
        refused = list(rows.get("dead_letters", ()))
        for table, structs in rows.items():
            if table != "dead_letters":
                refused += write_block(self._engine, table, structs, tries=1)
        for lost in write_block(self._engine, "dead_letters", refused, tries=1):
            _log.error("a dead letter could not be stored: %s %s", lost.locator, lost.detail)

    def _commit(self, positions: Mapping[Any, int]) -> None:
        self._uncommitted = {}
        if not kafka.commit(self._consumer, positions):
            _log.info("no commit while the group is shared out anew; to whom a partition goes, writes these rows again")
            # Those that stay are not read again: without a commit of their own they look unread until the next record.
            self._uncommitted = positions

    def _note(self, block: Block) -> None:
        now = time.time()
        metrics.COMMITTED.labels("store").set(now)
        metrics.RECORDS.labels("store").inc(block.records)
        for tp in block.positions.keys() & self._consumer.assignment():
            position = block.positions[tp]
            end = self._consumer.highwater(tp) or position
            metrics.LAG.labels("store", self._topics[tp.topic], str(tp.partition)).set(end - position)
        for row in block.rows.get("mentions", ()):
            if isinstance(row, ScoredRow) and not row.flags:
                metrics.EVENT_TO_ROW.observe(max(0.0, now - row.event_time / 1000))


def _record(record: Any) -> Record:
    return Record(
        record.topic,
        record.partition,
        record.offset,
        record.key,
        record.value or b"",
        record_version(record.headers),
        record.timestamp,
    )
