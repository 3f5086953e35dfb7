"""The Kafka checkpoint under the contract of all checkpoints, on a real broker."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from aiokafka.structs import OffsetAndMetadata
from checkpoint_contract import Changes, CheckpointContract
from servers import Kafka

from pipeline.errors import ConfigurationError, TerminalError
from pipeline.runtime import kafka as brokers
from pipeline.runtime import kafka_admin
from pipeline.runtime.kafka import Names
from pipeline.runtime.kafka_checkpoint import Claims, KafkaCheckpoint
from pipeline.runtime.stage import Output
from pipeline.runtime.topics import create
from pipeline.settings import KafkaSettings

PARTITION = 2


class _Stage:
    """As far as a checkpoint looks at one."""

    name = "detect"
    topic = "mentions.scored.v1"
    state_topic = "state.detect.v1"


@dataclass
class Left:
    outputs: list[str]
    state: dict[bytes, bytes]
    position: int | None


class Opened:
    """A claimed partition, with a loop of its own."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.loop = asyncio.new_event_loop()
        # A producer that is left behind has futures that nobody asks; the tests know what went wrong.
        self.loop.set_exception_handler(lambda *_: None)
        claims = Claims(settings, _Stage())  # type: ignore[arg-type]
        self.checkpoint: KafkaCheckpoint = self.loop.run_until_complete(claims.claim(PARTITION))

    def commit(self, outputs: Sequence[str], changes: Changes, position: int) -> None:
        made = [Output("signals.v1", one.encode(), one.encode()) for one in outputs]
        self.loop.run_until_complete(self.checkpoint.commit(made, changes, position, "a note"))

    def begin(self, outputs: Sequence[str], changes: Changes, position: int) -> None:
        self.loop.run_until_complete(self._begin(outputs, changes, position))

    async def _begin(self, outputs: Sequence[str], changes: Changes, position: int) -> None:
        producer: Any = self.checkpoint._producer
        await producer.begin_transaction()
        for one in outputs:
            await producer.send_and_wait(self.checkpoint._names.topic("signals.v1"), one.encode(), one.encode())
        for key, value in changes:
            await producer.send_and_wait(self.checkpoint._state, value, key, PARTITION)
        offsets = {self.checkpoint._input: OffsetAndMetadata(position, "")}
        await producer.send_offsets_to_transaction(offsets, self.checkpoint._group)

    def die(self) -> None:
        """A producer that only stops talking leaves its transaction open, as a killed one does."""
        producer: Any = self.checkpoint._producer
        self.loop.run_until_complete(producer._sender.close())
        self.loop.run_until_complete(producer.client.close())
        producer._closed = True

    def close(self) -> None:
        self.loop.run_until_complete(self.checkpoint.close())
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


class TestKafkaCheckpoint(CheckpointContract):
    @pytest.fixture
    def settings(self, kafka: Kafka, request: pytest.FixtureRequest) -> KafkaSettings:
        prefix = f"{request.node.name[:40]}."
        made = KafkaSettings(
            bootstrap_servers=kafka.address, prefix=prefix, replication_factor=1, min_insync_replicas=1
        )
        create(made)
        return made

    @pytest.fixture
    def open_checkpoint(self, settings: KafkaSettings) -> Iterator[Callable[[], Opened]]:
        opened: list[Opened] = []

        def open_one() -> Opened:
            opened.append(Opened(settings))
            return opened[-1]

        yield open_one
        for one in opened:
            one.close()

    @pytest.fixture
    def look(self, settings: KafkaSettings) -> Callable[[], Left]:
        async def read() -> Left:
            claims = Claims(settings, _Stage())  # type: ignore[arg-type]
            topic = Names(settings).topic("signals.v1")
            outputs = [record.value.decode() for record in brokers.read_to_end(settings, "test", topic)]
            state = dict((await claims.states([PARTITION]))[PARTITION])
            position = (await claims.positions([PARTITION])).get(PARTITION)
            return Left(outputs, state, position[0] if position else None)

        return lambda: asyncio.run(read())

    def test_who_was_replaced_commits_nothing_more(self, open_checkpoint: Any, look: Any) -> None:
        old = open_checkpoint()
        old.commit(["one"], [(b"a", b"1")], 5)
        new = open_checkpoint()
        new.commit(["two"], [(b"a", b"2")], 6)
        with pytest.raises(TerminalError):
            old.commit(["twice"], [(b"a", b"twice")], 6)
        left = look()
        assert (sorted(left.outputs), left.state, left.position) == (["one", "two"], {b"a": b"2"}, 6)

    def test_the_note_stands_beside_the_position(self, settings: KafkaSettings, open_checkpoint: Any) -> None:
        open_checkpoint().commit([], [], 3)
        claims = Claims(settings, _Stage())  # type: ignore[arg-type]
        assert asyncio.run(claims.positions([PARTITION, 5])) == {PARTITION: (3, "a note")}

    def test_a_record_that_the_brokers_refuse_is_an_error_and_leaves_nothing(
        self, settings: KafkaSettings, open_checkpoint: Any, look: Any
    ) -> None:
        checkpoint = open_checkpoint()
        checkpoint.commit(["one"], [], 5)
        with pytest.raises(TerminalError, match=r"a record of 1100000 bytes, .* is larger than any may be"):
            checkpoint.commit(["x" * 1_100_000], [(b"a", b"1")], 6)
        with kafka_admin.admin(settings) as client:
            kafka_admin.set_topic_config(client, Names(settings).topic("signals.v1"), {"max.message.bytes": "20000"})
        with pytest.raises(ConfigurationError, match=r"max.message.bytes is below 1048588, which .* shows"):
            checkpoint.commit(["x" * 50_000], [(b"a", b"1")], 6)
        again = open_checkpoint()
        again.commit(["two"], [], 6)
        assert (sorted(look().outputs), look().state, look().position) == (["one", "two"], {}, 6)
