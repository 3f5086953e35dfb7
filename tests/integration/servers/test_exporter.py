"""The exporter on a real broker: topics that come late, brokers that go away, stages that fall behind."""

import re
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import pytest
from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from servers import Kafka, free_port

from pipeline.runtime import exporter
from pipeline.runtime.kafka import Names
from pipeline.runtime.topics import create
from pipeline.settings import AdminSettings, KafkaSettings, Settings
from schemas.codec import decode, encode
from schemas.control import Gap, Idle
from schemas.signal import Signal

EXAMPLE = decode((Path(__file__).resolve().parents[3] / "schemas/examples/signal.json").read_bytes(), Signal)


def _settings(kafka: Kafka, prefix: str) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=kafka.address, prefix=prefix, replication_factor=1, min_insync_replicas=1)


@contextmanager
def _exporter(brokers: KafkaSettings) -> Iterator[Callable[..., float]]:
    """Runs it; gives a function that waits until a series has a value, and tells how long that took, in seconds."""
    port, stop = free_port(), threading.Event()
    settings = Settings(kafka=brokers, admin=AdminSettings(port=port))
    failures: list[BaseException] = []

    def run() -> None:
        try:
            exporter.export(settings, stop)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def wait_for(series: str, value: str, seconds: float = 20) -> float:
        begin = time.monotonic()
        found: list[str] = []
        while not any(re.fullmatch(value, one) for one in found):
            assert time.monotonic() < begin + seconds, f"{series} is {found}, not {value}; {failures}"
            time.sleep(0.05)
            found = re.findall(rf"^{re.escape(series)} (.*)$", _scrape(port), re.MULTILINE)
        return time.monotonic() - begin

    try:
        yield wait_for
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()
    assert not failures


def _scrape(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text: str = answer.read().decode()
            return text
    except OSError:
        return ""


def _put(kafka: Kafka, topic: str, *values: msgspec.Struct) -> None:
    with closing(KafkaProducer(bootstrap_servers=kafka.address)) as producer:
        for value in values:
            producer.send(topic, encode(value), b"key").get(20)


def test_brokers_come_and_go(own_kafka: Callable[..., Kafka], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "OLD_SECONDS", 3.0)
    monkeypatch.setattr(exporter, "_LOOK_SECONDS", 1.0)
    kafka = own_kafka()
    brokers = _settings(kafka, "")
    first, second = (msgspec.structs.replace(EXAMPLE, signal_id=name) for name in ("first", "second"))
    with _exporter(brokers) as wait_for:
        create(brokers)
        _put(kafka, "signals.v1", first)
        wait_for('radar_signal_voices{signal_id="first"}', "9.0")
        wait_for("radar_exporter_up_to_date", "1.0")
        _put(kafka, "sources.v1", Idle("portal"), Gap("shop", 1, None, "refused"))
        wait_for('radar_source_gap{source="portal"}', "0.0")
        wait_for('radar_source_gap{source="shop"}', "1.0")
        kafka.kill()
        wait_for("radar_exporter_up_to_date", "0.0")
        wait_for('radar_signal_voices{signal_id="first"}', "9.0", 1)  # what it knows is still told
        kafka.restart()
        _put(kafka, "signals.v1", second)
        wait_for('radar_signal_voices{signal_id="second"}', "9.0")
        wait_for("radar_exporter_up_to_date", "1.0")


def test_stages(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that nobody runs, one that is behind, and one that has all: a transaction's end mark is not a record."""
    monkeypatch.setattr(exporter, "LAG_SECONDS", 0.5)
    brokers = _settings(kafka, "stages.")
    create(brokers)
    names = Names(brokers)
    raw = TopicPartition(names.topic("mentions.raw.v1"), 3)
    with closing(KafkaProducer(bootstrap_servers=kafka.address, transactional_id="stages")) as producer:
        producer.init_transactions()
        for age in (100, 50):
            producer.begin_transaction()
            written = int((time.time() - age) * 1000)
            producer.send(raw.topic, b"{}", partition=raw.partition, timestamp_ms=written).get(20)
            producer.commit_transaction()
    with _exporter(brokers) as wait_for:
        for stage in ("score", "detect", "store"):
            wait_for(f'radar_stage_running{{stage="{stage}"}}', "0.0")
        with closing(
            KafkaConsumer(bootstrap_servers=kafka.address, group_id=names.group("score"), enable_auto_commit=False)
        ) as worker:
            worker.subscribe([raw.topic])
            while raw not in worker.assignment():
                worker.poll(100)
            wait_for('radar_stage_running{stage="score"}', "1.0")
            for offset, age in ((0, r"10\d\..*"), (1, r"5\d\..*"), (2, r"5\d\..*"), (3, r"0\.0")):
                worker.commit({raw: OffsetAndMetadata(offset, "", -1)})
                wait_for('radar_lag_seconds{stage="score"}', age)
                wait_for('radar_lag_records{stage="score"}', f"{4 - offset}.0")
        wait_for('radar_stage_running{stage="score"}', "0.0")
