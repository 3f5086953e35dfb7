"""The exporter on a real broker: topics that come late, brokers that go away, stages that fall behind."""

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
from exporting import Exporter
from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from servers import Kafka

from pipeline.runtime.kafka import Names
from pipeline.runtime.topics import create
from pipeline.settings import KafkaSettings
from schemas.codec import decode, encode
from schemas.control import Gap, Idle
from schemas.signal import Signal

EXAMPLE = decode((Path(__file__).resolve().parents[3] / "schemas/examples/signal.json").read_bytes(), Signal)


def _settings(kafka: Kafka, prefix: str) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=kafka.address, prefix=prefix, replication_factor=1, min_insync_replicas=1)


def _put(kafka: Kafka, topic: str, *values: msgspec.Struct) -> None:
    with closing(KafkaProducer(bootstrap_servers=kafka.address)) as producer:
        for value in values:
            producer.send(topic, encode(value), b"key").get(20)


def test_brokers_come_and_go(own_kafka: Callable[..., Kafka], tmp_path: Path) -> None:
    kafka = own_kafka()
    brokers = _settings(kafka, "")
    first, second = (msgspec.structs.replace(EXAMPLE, signal_id=name) for name in ("first", "second"))
    with Exporter(tmp_path, brokers, OLD_SECONDS=3, _LOOK_SECONDS=1) as exporter:
        create(brokers)
        _put(kafka, "signals.v1", first)
        exporter.wait_for('radar_signal_voices{signal_id="first"}', "9.0")
        exporter.wait_for("radar_exporter_up_to_date", "1.0")
        _put(kafka, "sources.v1", Idle("portal"), Gap("shop", 1, None, "refused"))
        exporter.wait_for('radar_source_gap{source="portal"}', "0.0")
        exporter.wait_for('radar_source_gap{source="shop"}', "1.0")
        kafka.kill()
        exporter.wait_for("radar_exporter_up_to_date", "0.0")
        exporter.wait_for('radar_signal_voices{signal_id="first"}', "9.0", 1)  # what it knows is still told
        kafka.restart()
        _put(kafka, "signals.v1", second)
        exporter.wait_for('radar_signal_voices{signal_id="second"}', "9.0")
        exporter.wait_for("radar_exporter_up_to_date", "1.0")


def test_stages(kafka: Kafka, tmp_path: Path) -> None:
    """A stage that nobody runs, one that is behind, and one that has all: a transaction's end mark is not a record."""
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
    # Of the sources' heartbeats only the last are read.
    _put(kafka, names.topic("sources.v1"), Idle("long ago"), *[Idle("lately")] * 5)
    with Exporter(tmp_path, brokers, LAG_SECONDS=0.5, SOURCE_RECORDS=5) as exporter:
        assert "long ago" not in exporter.wait_for('radar_source_gap{source="lately"}', "0.0")
        for stage in ("score", "detect", "store"):
            exporter.wait_for(f'radar_stage_running{{stage="{stage}"}}', "0.0")
        with closing(
            KafkaConsumer(bootstrap_servers=kafka.address, group_id=names.group("score"), enable_auto_commit=False)
        ) as worker:
            worker.subscribe([raw.topic])
            while raw not in worker.assignment():
                worker.poll(100)
            exporter.wait_for('radar_stage_running{stage="score"}', "1.0")
            for offset, age in ((0, r"10\d\..*"), (1, r"5\d\..*"), (2, r"5\d\..*"), (3, r"0\.0")):
                worker.commit({raw: OffsetAndMetadata(offset, "", -1)})
                exporter.wait_for('radar_lag_seconds{stage="score"}', age)
                exporter.wait_for('radar_lag_records{stage="score"}', f"{4 - offset}.0")
        exporter.wait_for('radar_stage_running{stage="score"}', "0.0")
