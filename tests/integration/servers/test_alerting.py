"""From a record on ``signals.v1`` to a webhook, on real servers: once each, whatever happens to the exporter between."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from alert_chain import TOKEN, alertmanager_config, await_alertmanager, prometheus_config
from exporting import Exporter
from kafka import KafkaProducer
from servers import Alertmanager, Kafka, Prometheus
from webhook import Webhook

from pipeline.runtime.kafka import Names
from pipeline.runtime.stage import version_headers
from pipeline.runtime.topics import create
from pipeline.settings import KafkaSettings
from schemas.codec import decode, encode
from schemas.signal import Signal

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = decode((ROOT / "schemas/examples/signal.json").read_bytes(), Signal)


class Topic:
    """``signals.v1`` with a plain producer."""

    def __init__(self, brokers: KafkaSettings) -> None:
        self._topic = Names(brokers).topic("signals.v1")
        self._producer = KafkaProducer(bootstrap_servers=brokers.bootstrap_servers, linger_ms=0)

    def put(self, signal_id: str, event: str, *, minutes_ago: float = 0, **more: Any) -> float:
        """Write a revision; gives when it was acknowledged."""
        signal = msgspec.structs.replace(
            EXAMPLE, **{"signal_id": signal_id, "event": event, "subject_id": f"product-{signal_id}", **more}
        )
        self.put_bytes(signal_id, encode(signal), minutes_ago)
        return time.time()

    def put_bytes(self, key: str, value: bytes, minutes_ago: float = 0) -> None:
        written = int(1000 * (time.time() - 60 * minutes_ago))
        headers = version_headers("signals.v1")
        self._producer.send(self._topic, value, key.encode(), headers, timestamp_ms=written).get(10)

    def close(self) -> None:
        self._producer.close()


@pytest.fixture
def brokers(kafka: Kafka) -> KafkaSettings:
    settings = KafkaSettings(
        bootstrap_servers=kafka.address, prefix="alerting.", replication_factor=1, min_insync_replicas=1
    )
    create(settings)
    return settings


@pytest.fixture
def topic(brokers: KafkaSettings) -> Iterator[Topic]:
    with closing(Topic(brokers)) as opened:
        yield opened


@contextmanager
def _seconds(what: str, begin: float, webhook: Webhook, **labels: str) -> Iterator[None]:
    yield
    print(f"{what}: {webhook.notices(**labels)[-1].received - begin:.2f} s")


PAGE: dict[str, Any] = {"kind": "severe", "tier": "page", "severity": 4}


def _put_before(topic: Topic) -> None:
    """What the exporter finds when it starts."""
    topic.put("history", "opened", historic=True, **PAGE)
    topic.put("past", "opened", minutes_ago=90, **PAGE)
    topic.put("past", "closed", minutes_ago=60, revision=1, **PAGE)
    for name in ("ticket", "turning", "brief"):
        topic.put(name, "opened")
    topic.put_bytes("broken", b'{"signal_id": 7}')


def _check_first(exporter: Exporter, webhook: Webhook) -> None:
    told = exporter.wait_for("radar_exporter_up_to_date", "1.0", 30)
    assert 'signal_id="ticket"' in told
    assert 'signal_id="history"' not in told
    assert 'signal_id="past"' not in told
    assert 'radar_exporter_unreadable_records_total{topic="signals.v1"} 1.0' in told
    for name in ("ticket", "turning", "brief"):
        (notice,) = webhook.wait(["firing"], 20, signal_id=name)
        assert notice.labels["severity"] == "ticket"
        assert notice.path == "/signals"
        assert notice.authorization == f"Bearer {TOKEN}"


def _open_and_update(exporter: Exporter, topic: Topic, webhook: Webhook) -> None:
    with _seconds("opened", topic.put("scald", "opened", **PAGE), webhook, signal_id="scald"):
        (notice,) = webhook.wait(["firing"], 10, signal_id="scald")
    assert notice.group == {"signal_id": "scald"}
    assert not {"instance", "pod"} & notice.labels.keys()
    topic.put("scald", "updated", revision=1, voices=23, **PAGE)
    exporter.wait_for('radar_signal_voices{signal_id="scald"}', "23.0")


def _change_and_close(topic: Topic, webhook: Webhook) -> None:
    with _seconds(
        "changed its tier", topic.put("turning", "updated", revision=1, **PAGE), webhook, signal_id="turning"
    ):
        webhook.wait(["firing", "resolved"], 10, signal_id="turning", tier="ticket")
        webhook.wait(["firing"], 10, signal_id="turning", tier="page")
    with _seconds("closed", topic.put("scald", "closed", revision=2, **PAGE), webhook, signal_id="scald"):
        webhook.wait(["firing", "resolved"], 10, signal_id="scald")


def test_once_each(
    brokers: KafkaSettings,
    topic: Topic,
    prometheus: Callable[..., Prometheus],
    alertmanager: Callable[..., Alertmanager],
    tmp_path: Path,
) -> None:
    _put_before(topic)
    exporter = Exporter(tmp_path, brokers)
    with Webhook() as webhook:
        manager = alertmanager(config=alertmanager_config(webhook, tmp_path))
        await_alertmanager(prometheus(config=prometheus_config(exporter, manager, tmp_path)))
        with exporter:
            _check_first(exporter, webhook)
            _open_and_update(exporter, topic, webhook)
            exporter.kill()
            topic.put("brief", "closed", revision=1)
            time.sleep(2)
            exporter.start()
            webhook.wait(["firing", "resolved"], 20, signal_id="brief")
            _change_and_close(topic, webhook)
            time.sleep(3)  # for what must not come
        webhook.wait(["firing"], 0, signal_id="ticket")
        webhook.wait(["firing"], 0, signal_id="turning", tier="page")
        webhook.wait(["firing", "resolved"], 0, signal_id="scald")
        told = {one.labels["signal_id"] for one in webhook.notices("/signals")}
        assert told == {"ticket", "turning", "brief", "scald"}
        assert {one.labels["alertname"] for one in webhook.notices("/operators")} <= {"RadarWatchdog"}
