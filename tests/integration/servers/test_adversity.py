"""What a real installation has in store: transactions left open, too few partitions, a database that is slow or full."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chaos import COMMON, Chaos, differences_from_embedded, run_parts, server_section, write_part
from clickhouse_driver import Client
from kafka import KafkaProducer
from old_server import make_tables
from servers import ClickHouse, Kafka
from stored import EVENT_TIME
from system import System

from pipeline.runtime import kafka as brokers
from pipeline.runtime import kafka_admin
from pipeline.storage.clickhouse import ServerEngine
from schemas.codec import encode
from schemas.mention import Mention

pytestmark = [pytest.mark.timeout(240), pytest.mark.fault]

Make = Callable[..., tuple[System, ServerEngine]]


@pytest.fixture
def make(tmp_path: Path, kafka: Kafka) -> Iterator[Make]:
    """A system on the shared broker and any database server; stopped at the end."""
    made: list[tuple[System, ServerEngine]] = []

    def one(name: str, clickhouse: ClickHouse) -> tuple[System, ServerEngine]:
        with Client("127.0.0.1", port=clickhouse.port) as client:
            client.execute(f"CREATE DATABASE {name}")
        system = System(tmp_path / "servers", COMMON | server_section(kafka, clickhouse, name))
        assert system.settings.clickhouse is not None
        engine = ServerEngine(system.settings.clickhouse)
        make_tables(engine)
        made.append((system, engine))
        return made[-1]

    yield one
    for system, engine in made:
        system.stop()
        engine.close()


def ghost(number: int) -> bytes:
    return encode(Mention(f"ghost{number}", "ghosts", None, "review", "从未说过", EVENT_TIME, EVENT_TIME))


def test_transactions_that_were_aborted_or_left_open_never_happened(
    tmp_path: Path, kafka: Kafka, clickhouse: ClickHouse, make: Make
) -> None:
    system, engine = make("ghosts", clickhouse)
    system.make_topics()
    raw = system.names.topic("mentions.raw.v1")
    producers = [
        KafkaProducer(bootstrap_servers=kafka.address, transactional_id=name, transaction_timeout_ms=5000)
        for name in ("aborts", "dangles")
    ]
    for number, producer in enumerate(producers):
        producer.init_transactions()
        producer.begin_transaction()
        for partition in range(12):
            producer.send(raw, ghost(number), partition=partition)
        producer.flush()
    producers[0].abort_transaction()  # the other one is left to its time-out: readers wait for it until then
    for stage in ("score", "detect", "store"):
        system.start_stage(stage)
    run_parts(system, Chaos(system, kafka, clickhouse, 0), [()])
    system.stop()
    for producer in producers:
        producer.close(timeout=0)
    assert engine.query("SELECT count() AS n FROM mentions WHERE source_id = 'ghosts'") in (
        b'{"n":0}\n',
        b'{"n":"0"}\n',
    )
    assert differences_from_embedded(tmp_path / "embedded", 1, engine) == []


def test_more_workers_than_partitions(tmp_path: Path, kafka: Kafka, clickhouse: ClickHouse, make: Make) -> None:
    system, engine = make("narrow", clickhouse)
    assert system.settings.kafka is not None
    names, specs = system.names, brokers.topic_specs()
    with kafka_admin.admin(system.settings.kafka) as client:
        narrow = {
            names.topic(name): kafka_admin.TopicState(1, 1, config=spec.properties(1)) for name, spec in specs.items()
        }
        kafka_admin.make_topics(client, narrow)
    for stage in ("score", "detect", "store"):
        for number in (1, 2):
            system.start_stage(stage, f"{stage}-{number}")
    run_parts(system, Chaos(system, kafka, clickhouse, 0), [()])
    assert set(system.stop().values()) == {0}
    assert differences_from_embedded(tmp_path / "embedded", 1, engine) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, 256 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256m", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system can be mounted here (root and the right to mount are needed)")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(file: Path) -> None:
    with file.open("wb", buffering=0) as filler:
        while True:
            filler.write(b"0" * (1 << 16))


def test_a_database_without_room_and_without_an_answer_is_waited_for(
    tmp_path: Path, kafka: Kafka, small_disk: Path, make: Make
) -> None:
    with ClickHouse(small_disk / "clickhouse") as clickhouse:
        system, engine = make("full", clickhouse)
        system.make_topics()
        for stage in ("score", "detect", "store"):
            system.start_stage(stage)
        filler = small_disk / "filler"
        with pytest.raises(OSError, match="No space left"):
            fill(filler)
        write_part(system.folder, 0)
        system.run("connect", "--until-end")
        system.settle(("score", "detect"))  # which the database does not hold up
        assert system.wait(60, until=lambda: "the block waits" in system.tail("store")), system.tail("store")
        filler.unlink()
        Chaos(system, kafka, clickhouse, 0).act("stall clickhouse")
        system.settle(patience=150)
        assert set(system.stop().values()) == {0}
        embedded = differences_from_embedded(tmp_path / "embedded", 1, engine, close=False)
        engine.close()
    assert embedded == []
