"""From a record on ``signals.v1`` to a webhook, on real servers: once each, whatever happens to the exporter between."""

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from kafka import KafkaProducer
from servers import Alertmanager, Kafka, Prometheus, free_port
from webhook import Webhook

from pipeline.cli import app
from pipeline.runtime.kafka import Names
from pipeline.runtime.stage import version_headers
from pipeline.runtime.topics import create
from pipeline.settings import KafkaSettings
from schemas.codec import decode, encode
from schemas.signal import Signal

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
COMMAND = (str(Path(sys.executable).parent / "complaint-radar"), "exporter", "--config", "radar.yaml")
if not any(one.callback is not None and one.callback.__name__ == "exporter" for one in app.registered_commands):
    COMMAND = (
        sys.executable,
        "-c",
        "import logging, pathlib, pipeline.cli as cli, pipeline.settings as settings\n"
        "from pipeline.runtime.exporter import export\n"
        "cli._log_to_stderr()\n"
        "with cli._stop_on_signals() as stop: export(settings.load(pathlib.Path('radar.yaml')), stop)",
    )
TOKEN = "of this test"  # noqa: S105 - no secret
EXAMPLE = decode((ROOT / "schemas/examples/signal.json").read_bytes(), Signal)


class Exporter:
    """The process, on a port that it keeps over a kill."""

    def __init__(self, folder: Path, brokers: KafkaSettings) -> None:
        self.port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        section = {"bootstrap_servers": brokers.bootstrap_servers, "prefix": brokers.prefix}
        config = {"kafka": section, "admin": {"port": self.port}}
        (folder / "radar.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")

    def start(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RADAR_")}
        with (self._folder / "exporter.log").open("ab") as log:
            self._process = subprocess.Popen(COMMAND, cwd=self._folder, env=environment, stdout=log, stderr=log)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(20)

    def scrape(self) -> tuple[int, str]:
        """Status and text of /metrics; status 0: nobody listens."""
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)) as connection:
                connection.request("GET", "/metrics")
                answer = connection.getresponse()
                return answer.status, answer.read().decode()
        except OSError:
            return 0, ""

    def wait_for(self, text: str, seconds: float = 20) -> str:
        """The first scrape that holds the text."""
        until = time.monotonic() + seconds
        while text not in (scraped := self.scrape()[1]):
            assert time.monotonic() < until, f"{text} is not among the metrics\n{self._log()}"
            time.sleep(0.05)
        return scraped

    def _log(self) -> str:
        return (self._folder / "exporter.log").read_text(encoding="utf-8", errors="replace")[-3000:]


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


@pytest.fixture
def exporter(tmp_path: Path, brokers: KafkaSettings) -> Iterator[Exporter]:
    process = Exporter(tmp_path, brokers)
    yield process
    assert process.stop() == 0


def _alertmanager_config(webhook: Webhook, folder: Path) -> str:
    """Ours, with the test's receiver and without its waiting."""
    config = yaml.safe_load((DEPLOY / "alertmanager/alertmanager.yaml").read_text(encoding="utf-8"))
    (folder / "token").write_text(TOKEN, encoding="ascii")
    for receiver in config["receivers"]:
        (hook,) = receiver["webhook_configs"]
        hook["url"] = f"{webhook.url}/{receiver['name']}"
        hook["http_config"]["authorization"]["credentials_file"] = str(folder / "token")
    for route in config["route"]["routes"]:
        route |= {"group_wait": "0s", "group_interval": "1s"}
    return yaml.safe_dump(config)


def _prometheus_config(exporter: Exporter, alertmanager: Alertmanager, folder: Path) -> str:
    """Ours, once a second instead of every five."""
    config = yaml.safe_load((DEPLOY / "prometheus/scrape.yaml").read_text(encoding="utf-8"))
    (job,) = (one for one in config["scrape_configs"] if one["job_name"] == "complaint-radar-exporter")
    job |= {"scrape_interval": "1s", "scrape_timeout": "1s"}
    job["static_configs"] = [{"targets": [f"127.0.0.1:{exporter.port}"]}]
    rules = yaml.safe_load((DEPLOY / "prometheus/rules.yaml").read_text(encoding="utf-8"))
    for group in rules["groups"]:
        group["interval"] = "1s"
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    return yaml.safe_dump(
        {
            "rule_files": [str(folder / "rules.yaml")],
            "scrape_configs": [job],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager.address]}]}]},
        }
    )


def _await_alertmanager(prometheus: Prometheus) -> None:
    """What fires before Prometheus knows its Alertmanager is sent a minute later."""
    until = time.monotonic() + 20
    while True:
        with closing(http.client.HTTPConnection(prometheus.address, timeout=5)) as connection:
            connection.request("GET", "/api/v1/alertmanagers")
            if json.loads(connection.getresponse().read())["data"]["activeAlertmanagers"]:
                return
        assert time.monotonic() < until
        time.sleep(0.1)


@contextmanager
def _seconds(what: str, begin: float, webhook: Webhook, **labels: str) -> Iterator[None]:
    yield
    print(f"{what}: {webhook.notices(**labels)[-1].received - begin:.2f} s")


def test_once_each(
    exporter: Exporter,
    topic: Topic,
    prometheus: Callable[..., Prometheus],
    alertmanager: Callable[..., Alertmanager],
    tmp_path: Path,
) -> None:
    page = {"kind": "severe", "tier": "page", "severity": 4}
    topic.put("history", "opened", historic=True, **page)
    topic.put("past", "opened", minutes_ago=90, **page)
    topic.put("past", "closed", minutes_ago=60, revision=1, **page)
    topic.put("ticket", "opened")
    topic.put("turning", "opened")
    topic.put("brief", "opened")
    topic.put_bytes("broken", b'{"signal_id": 7}')
    with Webhook() as webhook:
        manager = alertmanager(config=_alertmanager_config(webhook, tmp_path))
        _await_alertmanager(prometheus(config=_prometheus_config(exporter, manager, tmp_path)))
        exporter.start()
        told = exporter.wait_for("radar_signal{", 30)
        assert 'signal_id="ticket"' in told
        assert 'signal_id="history"' not in told
        assert 'signal_id="past"' not in told
        assert 'radar_exporter_unreadable_records_total{topic="signals.v1"} 1.0' in told
        for name in ("ticket", "turning", "brief"):
            (notice,) = webhook.wait(["firing"], 20, signal_id=name)
            assert (notice.labels["severity"], notice.path, notice.authorization) == (
                "ticket", "/signals", f"Bearer {TOKEN}",
            )  # fmt: skip

        with _seconds("opened", topic.put("scald", "opened", **page), webhook, signal_id="scald"):
            (notice,) = webhook.wait(["firing"], 10, signal_id="scald")
        assert notice.group == {"signal_id": "scald"}
        assert "instance" not in notice.labels
        topic.put("scald", "updated", revision=1, voices=23, **page)
        exporter.wait_for('radar_signal_voices{signal_id="scald"} 23.0')

        exporter.kill()
        topic.put("brief", "closed", revision=1)
        time.sleep(2)
        exporter.start()
        webhook.wait(["firing", "resolved"], 20, signal_id="brief")

        with _seconds(
            "changed its tier", topic.put("turning", "updated", revision=1, **page), webhook, signal_id="turning"
        ):
            webhook.wait(["firing", "resolved"], 10, signal_id="turning", tier="ticket")
            webhook.wait(["firing"], 10, signal_id="turning", tier="page")
        with _seconds("closed", topic.put("scald", "closed", revision=2, **page), webhook, signal_id="scald"):
            webhook.wait(["firing", "resolved"], 10, signal_id="scald")
        time.sleep(3)  # for what must not come
        webhook.wait(["firing"], 0, signal_id="ticket")
        webhook.wait(["firing"], 0, signal_id="turning", tier="page")
        webhook.wait(["firing", "resolved"], 0, signal_id="scald")
        assert {one.labels["signal_id"] for one in webhook.notices("/signals")} == {
            "ticket",
            "turning",
            "brief",
            "scald",
        }
        assert {one.labels["alertname"] for one in webhook.notices("/operators")} <= {"RadarWatchdog"}
