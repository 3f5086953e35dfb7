"""The Kafka twin of a checkpoint: one transaction of outputs, state and the next position of one input partition.

The order that makes it safe: the producer of a partition is started first, which fences whoever had the partition before
and ends its open transaction; only then are position and state read; what lies below the position is skipped. A producer
that was fenced meanwhile fails at its next commit, and the process stops. (Verified with aiokafka 0.14 on Kafka 4.1 by
kills and pauses: tests/integration/servers.)
"""

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.abc import AbstractTokenProvider
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    IllegalStateError,
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerFenced,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)
from aiokafka.helpers import create_ssl_context
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from pipeline.errors import ConfigurationError, TerminalError, TransientError
from pipeline.runtime.kafka import APPLICATION, RECORD_BYTES, REFUSAL_HINT, RIGHTS_HINT, SIZE_HINT, Names
from pipeline.runtime.stage import Output, Stage, StateChange, StateRecord, version_headers
from pipeline.settings import KafkaSettings, password, read_secret

CLAIM_SECONDS = 30.0
"""How long the brokers may take to give a partition to us, or to tell positions: then it is begun anew."""
TRANSACTION_MS = 10_000
"""After so long an open transaction is given up: until then readers wait for it."""


_UNAUTHORIZED = (TopicAuthorizationFailedError, GroupAuthorizationFailedError, TransactionalIdAuthorizationFailed)


def translated(error: BaseException, what: str) -> BaseException:
    """The error in our terms, if it is one of aiokafka's; see ``errors``."""
    if isinstance(error, ProducerFenced | IllegalStateError):
        return TerminalError(
            f"{what}: another worker has taken over, or the transaction took longer than {TRANSACTION_MS // 1000} s "
            f"({type(error).__name__})"
        )
    if isinstance(error, _UNAUTHORIZED):
        return ConfigurationError(f"kafka: {what}: {error}; {RIGHTS_HINT}")
    if isinstance(error, MessageSizeTooLargeError):
        return ConfigurationError(f"kafka: {what}: {SIZE_HINT}")
    if isinstance(error, SaslAuthenticationFailed):
        return ConfigurationError(f"kafka: {what}: the login is refused: {error}")
    if isinstance(error, KafkaConnectionError):
        # Of a refused login it speaks in its log only.
        return TransientError(f"kafka: {what}: {error}; {REFUSAL_HINT}")
    if isinstance(error, KafkaError):
        return TransientError(f"kafka: {what}: {type(error).__name__}: {error}")
    return error


@contextmanager
def errors(what: str) -> Iterator[None]:
    """Turn errors of aiokafka into ours.

    Args:
        what: was being done.

    Raises:
        ConfigurationError: credentials or a right are refused.
        TerminalError: another worker has taken this one's place.
        TransientError: anything else.
    """
    try:
        yield
    except KafkaError as error:
        raise translated(error, what) from error
    except TimeoutError as error:
        raise TransientError(f"kafka: {what}: no answer within {CLAIM_SECONDS:.0f} s") from error


def _retrieved(future: "asyncio.Future[Any]") -> None:
    """What went wrong with one record is told by the commit; asyncio need not tell it again."""
    if not future.cancelled():
        future.exception()


class _FileToken(AbstractTokenProvider):  # type: ignore[misc]
    def __init__(self, settings: KafkaSettings) -> None:
        super().__init__()
        self._settings = settings

    async def token(self) -> str:
        assert self._settings.token_file is not None  # noqa: S101 - the settings demand it with OAUTHBEARER
        return read_secret(self._settings.token_file)


def client_options(settings: KafkaSettings) -> dict[str, Any]:
    """Options that every client of aiokafka takes; see ``pipeline.runtime.kafka.client_options``."""
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers.split(","),
        "security_protocol": settings.security_protocol,
    }
    if settings.security_protocol.endswith("SSL"):
        options["ssl_context"] = create_ssl_context(
            cafile=settings.ca_file, certfile=settings.certificate_file, keyfile=settings.key_file
        )
    if settings.security_protocol.startswith("SASL"):
        options["sasl_mechanism"] = settings.sasl_mechanism
        if settings.token_file is not None:
            options["sasl_oauth_token_provider"] = _FileToken(settings)
        else:
            options |= {"sasl_plain_username": settings.username, "sasl_plain_password": password(settings)}
    return options


class KafkaCheckpoint:
    """Commits for one input partition. Make it by ``claim``."""

    def __init__(self, producer: Any, stage: Stage, partition: int, names: Names) -> None:
        self._producer = producer
        self._names = names
        self._group = names.group(stage.name)
        self._input = TopicPartition(names.topic(stage.topic), partition)
        self._state = names.topic(stage.state_topic) if stage.state_topic else None

    async def commit(
        self, outputs: Sequence[Output], state: Iterable[StateChange], position: int, note: str = ""
    ) -> None:
        """Make outputs, state and the next offset to be read durable and visible together, or none of them.

        Raises:
            ConfigurationError: a right is missing, or a topic takes smaller records than it should.
            TerminalError: fenced; the process must stop.
            TransientError: not known whether it happened; the process must begin again from what is committed.
        """
        producer = self._producer
        state = list(state)
        self._check_sizes(outputs, state)
        with errors(f"committing {self._input.topic}-{self._input.partition}"):
            await producer.begin_transaction()
            sent = [await self._send(output) for output in outputs]
            sent += [await producer.send(self._state, value, key, self._input.partition) for key, value in state]
            for one in sent:
                one.add_done_callback(_retrieved)
            await producer.send_offsets_to_transaction({self._input: OffsetAndMetadata(position, note)}, self._group)
            await asyncio.gather(*sent)
            await producer.commit_transaction()

    def _check_sizes(self, outputs: Sequence[Output], state: Sequence[StateChange]) -> None:
        """Larger ones than we may write come of a defect of ours, and the brokers' words about them would mislead."""
        named = [(one.topic, one.key, one.value) for one in outputs]
        named += [(self._state or "", key, value or b"") for key, value in state]
        for topic, key, value in named:
            if len(value) > RECORD_BYTES:
                shown = (key or b"")[:80]
                raise TerminalError(
                    f"{topic}: a record of {len(value)} bytes, key {shown!r}, is larger than any may be"
                )

    async def _send(self, output: Output) -> Any:
        return await self._producer.send(
            self._names.topic(output.topic),
            output.value,
            output.key,
            output.partition,
            headers=version_headers(output.topic),
        )

    async def close(self) -> None:
        """Let go of the partition; a transaction that is open is aborted by whoever claims it next."""
        await self._producer.stop()


class Claims:
    """Begins on input partitions: fences, then reads their positions and states."""

    def __init__(self, settings: KafkaSettings, stage: Stage) -> None:
        self._settings = settings
        self._stage = stage
        self._names = Names(settings)

    async def claim(self, partition: int) -> KafkaCheckpoint:
        """The checkpoint of a partition; whoever had it before is fenced from here on.

        Raises:
            ConfigurationError: the brokers refuse us.
            TransientError: they are not there.
        """
        producer = AIOKafkaProducer(
            **client_options(self._settings),
            client_id=f"{APPLICATION}-{self._stage.name}-{partition}",
            transactional_id=self._names.transactional_id(self._stage.name, partition),
            transaction_timeout_ms=TRANSACTION_MS,
            acks="all",
            linger_ms=2,
            max_batch_size=256 * 1024,
            max_request_size=RECORD_BYTES + 1000,
        )
        try:
            with errors(f"claiming partition {partition}"):
                async with asyncio.timeout(CLAIM_SECONDS):
                    await producer.start()
        except BaseException:
            await producer.stop()
            raise
        return KafkaCheckpoint(producer, self._stage, partition, self._names)

    async def positions(self, partitions: Collection[int]) -> dict[int, tuple[int, str]]:
        """Committed next offset and note of each partition that has one. Errors as ``claim``."""
        client = AIOKafkaAdminClient(**client_options(self._settings), client_id=f"{APPLICATION}-{self._stage.name}")
        group = self._names.group(self._stage.name)
        try:
            wanted = [TopicPartition(self._names.topic(self._stage.topic), one) for one in partitions]
            with errors(f"reading the positions of {group}"):
                async with asyncio.timeout(CLAIM_SECONDS):
                    await client.start()
                    found = await client.list_consumer_group_offsets(group, partitions=wanted)
        finally:
            await client.close()
        # For each partition asked the coordinator answers, with -1 if need be. An error of the whole group is no answer at
        # all, and aiokafka takes it for one: a worker would begin at 0.
        if found.keys() != set(wanted):
            raise TransientError(f"kafka: reading the positions of {group}: the coordinator did not answer")
        return {tp.partition: (one.offset, one.metadata or "") for tp, one in found.items() if one.offset >= 0}

    async def states(self, partitions: Collection[int]) -> Mapping[int, list[StateRecord]]:
        """State records of each partition, by reading the state topic to its end. Errors as ``claim``."""
        found: dict[int, dict[bytes, bytes]] = {one: {} for one in partitions}
        if self._stage.state_topic is None or not found:
            return {one: [] for one in found}
        consumer = AIOKafkaConsumer(
            **client_options(self._settings),
            client_id=f"{APPLICATION}-{self._stage.name}-state",
            isolation_level="read_committed",
            enable_auto_commit=False,
            max_partition_fetch_bytes=8 << 20,
        )
        try:
            with errors("reading the state"):
                await consumer.start()
                await _read_to_end(consumer, self._names.topic(self._stage.state_topic), found)
        finally:
            await consumer.stop()
        return {partition: list(records.items()) for partition, records in found.items()}


async def _read_to_end(consumer: Any, topic: str, found: Mapping[int, dict[bytes, bytes]]) -> None:
    """The latest value of each key of these partitions into ``found``."""
    partitions = [TopicPartition(topic, one) for one in found]
    consumer.assign(partitions)
    await consumer.seek_to_beginning(*partitions)
    ends = await consumer.end_offsets(partitions)
    waiting = set(partitions)
    while waiting := {one for one in waiting if await consumer.position(one) < ends[one]}:
        for tp, records in (await consumer.getmany(timeout_ms=200)).items():
            kept = found[tp.partition]
            for record in records:
                if record.value is None:
                    kept.pop(record.key, None)
                else:
                    kept[record.key] = record.value
