"""The store worker as a member of its group."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import pytest
from kafka import KafkaProducer
from servers import Kafka

from pipeline.errors import TransientError
from pipeline.runtime import kafka as brokers
from pipeline.runtime import kafka_admin, store
from pipeline.runtime.health import Health
from pipeline.runtime.kafka import Names
from pipeline.runtime.kafka_admin import TopicState
from pipeline.runtime.store import TOPICS, Store
from pipeline.settings import KafkaSettings
from pipeline.storage.engine import Engine

pytestmark = pytest.mark.timeout(60)
_numbers = iter(range(1000))
NO_ENGINE = cast(Engine, None)
"""Nothing is written in these tests."""


@pytest.fixture
def settings(kafka: Kafka) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=kafka.address,
        prefix=f"st{next(_numbers)}.",
        replication_factor=1,
        min_insync_replicas=1,
        session_timeout="2s",
    )


@pytest.fixture
def client(settings: KafkaSettings) -> Iterator[Any]:
    """With one partition of every topic that the worker reads."""
    with kafka_admin.admin(settings) as admin:
        kafka_admin.make_topics(admin, {Names(settings).topic(name): TopicState(1, 1) for name in TOPICS})
        yield admin


class Turns(Health):
    turns = 0

    def turned(self) -> None:
        super().turned()
        self.turns += 1


@contextmanager
def running(worker: Store) -> Iterator[Turns]:
    stop, health = threading.Event(), Turns()
    thread = threading.Thread(target=worker.run, args=(stop, health))
    thread.start()
    try:
        yield health
    finally:
        stop.set()
        thread.join()
        worker.close()


def comes(seen: Callable[[], bool]) -> bool:
    end = time.monotonic() + 20
    while not (there := seen()) and time.monotonic() < end:
        time.sleep(0.05)
    return there


def test_a_join_that_outlasts_a_poll_is_brought_to_its_end(
    settings: KafkaSettings, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_POLL_MS", 1)  # no broker answers within it
    monkeypatch.setattr(brokers, "METADATA_MS", 200)
    worker = Store(settings, NO_ENGINE)
    with running(worker):
        # The brokers often let it in before it knows of any partition, so that it must join anew at once.
        assert comes(lambda: len(worker._consumer.assignment()) == len(TOPICS))
        kafka_admin.add_partitions(client, Names(settings).topic(TOPICS[0]), 3)
        assert comes(lambda: len(worker._consumer.assignment()) == len(TOPICS) + 2)
        assert comes(lambda: brokers.settled(worker._consumer))


@pytest.mark.usefixtures("client")
def test_what_could_not_be_committed_during_a_rebalance_is_committed_later(
    settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []
    commit = brokers.commit

    def refused_once(reader: Any, positions: Mapping[Any, int]) -> bool:
        tried.append(len(positions))
        return len(tried) > 1 and commit(reader, positions)

    monkeypatch.setattr(store, "write_block", lambda *arguments, **options: [])
    monkeypatch.setattr(brokers, "commit", refused_once)
    names = Names(settings)
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap_servers)
    for _ in range(3):
        producer.send(names.topic("signals.v1"), b"no signal")
    producer.close()
    with running(Store(settings, NO_ENGINE)):
        assert comes(lambda: kafka_admin.unread(settings, names.group("store"), [names.topic("signals.v1")]) == 0)
    assert tried[:2] == [1, 1]


@pytest.mark.usefixtures("client")
def test_a_worker_that_gets_no_place_in_its_group_is_made_anew(
    settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "UNSETTLED_SECONDS", 0.5)
    monkeypatch.setattr(brokers, "settled", lambda reader: False)
    worker = Store(settings, NO_ENGINE)
    with pytest.raises(TransientError, match="no place"):
        worker.run(threading.Event(), Health())
    worker.close()


def test_a_worker_to_whom_no_partition_falls_stays(
    settings: KafkaSettings, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = [Store(settings, NO_ENGINE) for _ in range(2)]

    def shared_out() -> bool:
        shares = sorted(len(one._consumer.assignment()) for one in workers)
        return shares == [0, len(TOPICS)] and all(brokers.settled(one._consumer) for one in workers)

    with running(workers[0]) as first, running(workers[1]) as second:
        assert comes(shared_out)
        monkeypatch.setattr(store, "UNSETTLED_SECONDS", 0.0)
        turns = [first.turns, second.turns]
        assert comes(lambda: first.turns > turns[0] + 5 and second.turns > turns[1] + 5)
        assert first.ready
        assert second.ready
        monkeypatch.undo()
