"""The Faust worker of a stage: takes blocks of records, has the stage process them, commits, acknowledges.

Faust gives what it is good at: membership in a consumer group, rebalancing, flow control, a supervised loop. What must not
go wrong is done here: a block is acknowledged only when it is committed, and any error ends the process, because Faust
would acknowledge the failing block and go on behind it.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import faust
from faust.types import TP

from pipeline import metrics
from pipeline.errors import TransientError
from pipeline.runtime import faust_transport
from pipeline.runtime.health import STALLED_AFTER, Health
from pipeline.runtime.kafka import METADATA_MS, Names
from pipeline.runtime.kafka_checkpoint import Claims, KafkaCheckpoint, translated
from pipeline.runtime.stage import PartitionStage, Record, Stage, record_version
from pipeline.settings import KafkaSettings, duration_ms

SLICE_BYTES = 8 << 20
"""Bytes of one partition that are processed and committed together: a transaction must be done within its ten seconds."""
BLOCK_FETCHES = 12
"""Fetches taken together at most, each of one partition and at most ``consumer_max_fetch_size``; as many wait behind them."""
BLOCK_SECONDS = 0.05
"""How long a block waits for further records."""
DRAIN_SECONDS = 15.0
"""How long a stopping worker may take for the blocks in hand …"""
LEAVE_SECONDS = 8.0
"""… and for its farewell to the group."""
UNSETTLED_SECONDS = 75.0
"""How long a worker waits to learn which partitions are its own: longer than a rebalance may take (60 s) …"""
RESTORE_SECONDS = 600.0
"""… and to read their states."""

_log = logging.getLogger(__name__)


@dataclass
class Claim:
    """An input partition that this worker holds."""

    checkpoint: KafkaCheckpoint
    work: PartitionStage
    position: int
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class FaustWorker:
    """Runs one stage until ``stop`` is set or something goes wrong.

    Args:
        settings: the brokers.
        stage: what to run.
        stop: set by a signal: blocks in hand are finished and committed.
        health: told when state is restored, and that the loop turns.
    """

    def __init__(self, settings: KafkaSettings, stage: Stage, stop: threading.Event, health: Health) -> None:
        faust_transport.assert_checked_versions()
        self._settings = settings
        self._stage = stage
        self._stop = stop
        self._health = health
        self._names = Names(settings)
        self._claims = Claims(settings, stage)
        self._held: dict[int, Claim] = {}
        self._changing = asyncio.Lock()
        self._settled = asyncio.Event()
        """Set while the assignment is known and begun on: Faust hands out records before that."""
        self._failure: BaseException | None = None
        self._ended = asyncio.Event()
        self._unsettled_since = time.monotonic()
        self._busy_since: float | None = None
        """Since when a block is in hand."""
        self._app = self._make_app()

    def _make_app(self) -> Any:
        session = duration_ms(self._settings.session_timeout) / 1000
        app = faust.App(
            self._names.group(self._stage.name),
            broker=[f"kafka://{host}" for host in self._settings.bootstrap_servers.split(",")],
            broker_credentials=_credentials(self._settings),
            broker_session_timeout=session,
            broker_heartbeat_interval=session / 4,
            broker_request_timeout=max(40.0, session + 5),
            broker_max_poll_interval=300.0,
            consumer_auto_offset_reset="earliest",
            # Who shares out the partitions just as the brokers come back may not see any yet, and looks again only so often.
            consumer_metadata_max_age_ms=METADATA_MS,
            consumer_max_fetch_size=2 << 20,
            topic_allow_declare=False,
            topic_disable_leader=True,
            web_enabled=False,
            stream_wait_empty=False,
            broker_max_poll_records=self._stage.block_records,
            stream_buffer_maxsize=BLOCK_FETCHES,
            datadir="/nonexistent",
            loghandlers=[],
        )
        app.conf.web_tables_enabled = False
        app.transport = faust_transport.CommittedTransport(app.conf.broker, app, loop=app.loop)
        topic = app.topic(
            self._names.topic(self._stage.topic), key_serializer="raw", value_serializer="raw", acks=False
        )
        app.agent(topic, concurrency=1, name=self._stage.name)(self._work)
        app.on_partitions_assigned.connect(self._assigned, weak=False)  # type: ignore[arg-type]
        app.on_partitions_revoked.connect(self._revoked, weak=False)  # type: ignore[arg-type]
        return app

    async def run(self) -> None:
        """Run to the end.

        Raises:
            TransientError, TerminalError: what ended it; the process must end too.
        """
        self._app.finalize()
        waiter = asyncio.create_task(self._watch())
        starter = asyncio.create_task(self._app.start())
        try:
            await asyncio.wait({waiter, starter}, return_when=asyncio.FIRST_COMPLETED)
            if starter.done() and not waiter.done():
                starter.result()
                await waiter
        finally:
            self._health.ready = False
            await self._leave(waiter)
        if self._failure is not None:
            raise self._failure

    async def _watch(self) -> None:
        """Until told to stop, or an error."""
        while not self._stop.is_set() and not self._ended.is_set() and not self._app.should_stop:
            if (refused := faust_transport.group_error(self._app)) is not None:
                self._fail(translated(refused, f"joining {self._names.group(self._stage.name)}"))
                break
            self._check_settled()
            if self._busy_since is None or time.monotonic() - self._busy_since < STALLED_AFTER:
                self._health.turned()
            await asyncio.sleep(0.1)
        if self._app.should_stop and not self._stop.is_set() and self._failure is None:
            crash = self._app.crash_reason or TransientError("the worker's loop has ended by itself")
            self._failure = translated(crash, f"reading {self._names.topic(self._stage.topic)}")

    def _check_settled(self) -> None:
        """Faust's start or rebalance may wait for something that does not come, after a broker was away; a new process does not."""
        if self._settled.is_set():
            return
        waited = time.monotonic() - self._unsettled_since
        if waited > (RESTORE_SECONDS if self._changing.locked() else UNSETTLED_SECONDS):
            where = "; ".join(_standing(task) for task in asyncio.all_tasks())
            _log.error("no partitions are settled after %.0f s; tasks stand at: %s", waited, where[:3000])
            self._fail(
                TransientError(f"the group {self._names.group(self._stage.name)} has settled nothing in {waited:.0f} s")
            )

    async def _leave(self, waiter: "asyncio.Task[None]") -> None:
        waiter.cancel()
        # Not by a timeout around it: Faust swallows cancellations.
        drained = asyncio.create_task(self._drop(list(self._held)))  # waits for blocks in hand
        await asyncio.wait({drained}, timeout=DRAIN_SECONDS)
        if not drained.done():
            _log.warning("blocks in hand were not finished within %.0f s; they will be read again", DRAIN_SECONDS)
        await asyncio.wait({asyncio.create_task(self._app.stop())}, timeout=LEAVE_SECONDS)

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
        self._health.ready = False
        self._ended.set()

    # -- partitions ------------------------------------------------------------------------------------------------

    async def _assigned(self, _app: Any, assigned: Iterable[Any], **_: Any) -> None:
        """Partitions that stay are kept as they are: were they someone else's meanwhile, we were fenced, and will notice."""
        wanted = {tp.partition for tp in assigned if tp.topic == self._names.topic(self._stage.topic)}
        try:
            async with self._changing:
                if self._stop.is_set() or self._ended.is_set():
                    return
                self._unsettled_since = time.monotonic()
                await self._drop([one for one in self._held if one not in wanted])
                await self._take(sorted(wanted - self._held.keys()))
            self._settled.set()
            self._health.ready = True
            metrics.PARTITIONS.labels(self._stage.name).set(len(self._held))
        except Exception as error:
            self._fail(error)

    async def _revoked(self, _app: Any, _revoked: Iterable[Any], **_: Any) -> None:
        """A block in hand is finished before its partition may go; what is really gone is told by the next assignment."""
        self._settled.clear()
        self._unsettled_since = time.monotonic()
        for claim in list(self._held.values()):
            async with claim.lock:
                pass

    async def _drop(self, partitions: Sequence[int]) -> None:
        for partition in partitions:
            claim = self._held.pop(partition, None)
            if claim is not None:
                async with claim.lock:
                    await claim.checkpoint.close()
                metrics.forget_partition(partition)

    async def _take(self, partitions: Sequence[int]) -> None:
        """Fence, then read positions and states, then begin."""
        if not partitions:
            return
        self._health.ready = False
        begin = time.monotonic()
        checkpoints = await asyncio.gather(*(self._claims.claim(one) for one in partitions))
        positions = await self._claims.positions(partitions)
        states = await self._claims.states(partitions)
        for partition, checkpoint in zip(partitions, checkpoints, strict=True):
            offset, note = positions.get(partition, (0, ""))
            work = self._stage.claim(partition, states[partition], note)
            self._held[partition] = Claim(checkpoint, work, offset)
            metrics.STATE_RECORDS.labels(self._stage.name, str(partition)).set(len(states[partition]))
            await asyncio.sleep(0)
        metrics.RESTORE_SECONDS.labels(self._stage.name).set(time.monotonic() - begin)
        _log.info("partitions %s: ready after %.1f s", ",".join(map(str, partitions)), time.monotonic() - begin)

    # -- blocks ----------------------------------------------------------------------------------------------------

    async def _work(self, stream: Any) -> None:
        async for events in stream.noack_take(BLOCK_FETCHES, within=BLOCK_SECONDS):
            if self._ended.is_set():
                return
            try:
                self._busy_since = time.monotonic()
                await self._process(events)
                self._busy_since = None
            except Exception as error:
                self._fail(error)
                await asyncio.sleep(3600)  # nothing may follow; the process ends

    async def _process(self, events: Sequence[Any]) -> None:
        blocks: dict[int, list[Record]] = {}
        await self._settled.wait()
        for event in events:
            if event.message.generation_id != self._app.consumer_generation_id:
                continue  # since then Faust has gone back to what is committed, and brings it again
            blocks.setdefault(event.message.partition, []).extend(map(_record, event.message.records))
        await asyncio.gather(*(self._process_block(partition, block) for partition, block in blocks.items()))

    async def _process_block(self, partition: int, records: list[Record]) -> None:
        claim = self._held.get(partition)
        if claim is None:
            return  # gone while its records waited; whoever has it now reads them
        async with claim.lock:
            if self._held.get(partition) is not claim:
                return
            for piece in _slices(records, claim.position):
                await self._process_slice(claim, piece)

    async def _process_slice(self, claim: Claim, records: Sequence[Record]) -> None:
        self._busy_since = time.monotonic()
        result = claim.work.process(records)
        await asyncio.sleep(0)
        state = list(result.state)
        processed = time.monotonic()
        await claim.checkpoint.commit(result.outputs, state, records[-1].offset + 1, result.note)
        claim.position = records[-1].offset + 1
        metrics.STATE_BYTES.labels(self._stage.name).inc(sum(len(key) + len(value or b"") for key, value in state))
        self._note(records, processed)

    def _note(self, records: Sequence[Record], processed: float) -> None:
        last = records[-1]
        with contextlib.suppress(AssertionError):  # it has just gone to another worker
            end = self._app.consumer.highwater(TP(last.topic, last.partition)) or 0
            left = max(0, end - last.offset - 1)
            metrics.LAG.labels(self._stage.name, self._stage.topic, str(last.partition)).set(left)
        now = time.monotonic()
        metrics.RECORDS.labels(self._stage.name).inc(len(records))
        metrics.CHECKPOINT_SECONDS.labels(self._stage.name).observe(now - processed)
        metrics.COMMITTED.labels(self._stage.name).set(time.time())
        metrics.RECORD_AGE.labels(self._stage.name).observe(max(0.0, time.time() - records[0].timestamp / 1000))


def _standing(task: "asyncio.Task[Any]") -> str:
    """Where a task waits."""
    frames = task.get_stack(limit=1)
    where = f"{frames[-1].f_code.co_qualname}:{frames[-1].f_lineno}" if frames else "?"
    return f"{task.get_name()} {where}"


def _slices(records: Sequence[Record], position: int) -> Iterator[list[Record]]:
    """The records from a position on, each offset once and in order, in pieces of ``SLICE_BYTES``."""
    piece: list[Record] = []
    size = 0
    for record in records:
        if record.offset < position:
            continue
        position = record.offset + 1
        piece.append(record)
        size += len(record.value)
        if size > SLICE_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def _record(message: Any) -> Record:
    return Record(
        message.topic,
        message.partition,
        message.offset,
        message.key,
        message.value or b"",
        record_version(message.headers),
        message.timestamp,
    )


def _credentials(settings: KafkaSettings) -> Any:
    from pipeline.runtime.kafka_checkpoint import client_options

    options = client_options(settings)
    context = options.get("ssl_context")
    if not settings.security_protocol.startswith("SASL"):
        return faust.SSLCredentials(context) if context is not None else None
    if settings.token_file is not None:
        return faust.OAuthCredentials(oauth_cb=options["sasl_oauth_token_provider"], ssl_context=context)
    return faust.SASLCredentials(
        username=options["sasl_plain_username"],
        password=options["sasl_plain_password"],
        ssl_context=context,
        mechanism=settings.sasl_mechanism,
    )


def run_worker(settings: KafkaSettings, stage: Callable[[], Stage], stop: threading.Event, health: Health) -> None:
    """Run a stage in this thread until ``stop`` is set; errors as ``FaustWorker.run``."""

    async def main() -> None:
        await FaustWorker(settings, stage(), stop, health).run()

    # Not asyncio.run: it would wait for every task that Faust has left behind, and some do not end.
    asyncio.new_event_loop().run_until_complete(main())
