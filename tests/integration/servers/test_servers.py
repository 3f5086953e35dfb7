"""The servers themselves: each starts, answers a real client, comes back with its data, and leaves no process."""

import asyncio
import base64
import http.client
import json
import os
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.abc import AbstractTokenProvider as AsyncTokenProvider
from aiokafka.errors import KafkaConnectionError
from clickhouse_driver import Client
from clickhouse_driver.errors import Error, NetworkError
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.net.sasl.oauth import AbstractTokenProvider
from servers import Alertmanager, ClickHouse, Kafka, Prometheus, ServerError

USERS = {"radar": "secret-1"}


def _jwt() -> str:
    """An unsigned token, such as the broker's test module takes."""
    now = int(time.time())
    claims = {"sub": "radar", "iat": now - 60, "exp": now + 600}
    parts = (json.dumps(part).encode() for part in ({"alg": "none"}, claims))
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "."


class Token(AbstractTokenProvider):
    def token(self) -> str:
        return _jwt()


class AsyncToken(AsyncTokenProvider):
    async def token(self) -> str:
        return _jwt()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _make_topic(kafka: Kafka, topic: str) -> None:
    with closing(KafkaAdminClient(bootstrap_servers=kafka.address)) as admin:
        admin.create_topics({topic: {"num_partitions": 1, "replication_factor": 1}}, wait_for_metadata=True)


def _committed(address: str, topic: str, **options: Any) -> list[bytes]:
    """All of the topic up to its end, as a reader of committed records sees it."""
    with closing(
        KafkaConsumer(
            bootstrap_servers=address, isolation_level="read_committed", auto_offset_reset="earliest", **options
        )
    ) as consumer:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        (end,) = consumer.end_offsets([partition]).values()
        found = []
        while consumer.position(partition) < end:
            found += [record.value for records in consumer.poll(1000).values() for record in records]
        return found


def test_kafka_transaction(kafka: Kafka) -> None:
    _make_topic(kafka, "transactions")
    with closing(KafkaProducer(bootstrap_servers=kafka.address, transactional_id="t1")) as producer:
        producer.init_transactions()
        for value, end in ((b"kept", producer.commit_transaction), (b"dropped", producer.abort_transaction)):
            producer.begin_transaction()
            producer.send("transactions", value)
            producer.flush()
            end()
    assert _committed(kafka.address, "transactions") == [b"kept"]


def test_kafka_survives_kill(own_kafka: Callable[..., Kafka]) -> None:
    kafka = own_kafka()
    _make_topic(kafka, "lasting")
    with closing(KafkaProducer(bootstrap_servers=kafka.address)) as producer:
        producer.send("lasting", b"kept").get(10)
    pid = kafka.pid
    kafka.kill()
    assert not _exists(pid)
    kafka.restart()
    assert _committed(kafka.address, "lasting") == [b"kept"]
    pid = kafka.pid
    kafka.stop()
    assert not _exists(pid)


def test_kafka_secured(own_kafka: Callable[..., Kafka]) -> None:
    """Both clients, all mechanisms, over TLS that they check; no wrong password."""
    kafka = own_kafka(security="SASL_SSL", users=USERS)
    _make_topic(kafka, "secured")
    trust = ssl.create_default_context(cafile=str(kafka.certificates.authority))
    base = {"security_protocol": "SASL_SSL", "ssl_context": trust}
    login = {"sasl_plain_username": "radar", "sasl_plain_password": USERS["radar"]}
    names = ["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"]
    logins = [{**base, **login, "sasl_mechanism": name} for name in names]
    token = {**base, "sasl_mechanism": "OAUTHBEARER"}

    async def send(options: dict[str, Any]) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=kafka.secure_address, **options)
        try:
            await producer.start()
            await producer.send_and_wait("secured", options["sasl_mechanism"].encode())
        finally:
            await producer.stop()

    for options in (*logins, {**token, "sasl_oauth_token_provider": AsyncToken()}):
        asyncio.run(send(options))
    with pytest.raises(KafkaConnectionError):
        asyncio.run(send({**logins[0], "sasl_plain_password": "?"}))
    for options in (*logins, {**token, "sasl_oauth_token_provider": Token()}):
        read = _committed(kafka.secure_address, "secured", **options)
        assert read == [name.encode() for name in (*names, "OAUTHBEARER")]


@contextmanager
def _client(clickhouse: ClickHouse, **options: Any) -> Iterator[Client]:
    client = Client("localhost", **{"port": clickhouse.port, **options})
    try:
        yield client
    finally:
        client.disconnect()


def test_clickhouse_answers(clickhouse: ClickHouse) -> None:
    with _client(clickhouse) as client:
        assert client.execute("SELECT 1") == [(1,)]


def test_clickhouse_survives_kill(own_clickhouse: Callable[..., ClickHouse]) -> None:
    clickhouse = own_clickhouse()
    with _client(clickhouse) as client:
        client.execute("CREATE TABLE lasting (n UInt8) ENGINE = MergeTree ORDER BY n")
        client.execute("INSERT INTO lasting VALUES", [(7,)])
        pid = clickhouse.pid
        clickhouse.kill()
        assert not _exists(pid)
        with pytest.raises(NetworkError):
            client.execute("SELECT 1")
        clickhouse.restart()
        assert client.execute("SELECT n FROM lasting") == [(7,)]
    pid = clickhouse.pid
    clickhouse.stop()
    assert not _exists(pid)


def test_clickhouse_secured(own_clickhouse: Callable[..., ClickHouse]) -> None:
    clickhouse = own_clickhouse(users=USERS, secure=True)
    tls = {"port": clickhouse.secure_port, "secure": True, "ca_certs": str(clickhouse.certificates.authority)}
    with _client(clickhouse, **tls, user="radar", password=USERS["radar"]) as client:
        assert client.execute("SELECT user FROM system.processes") == [("radar",)]
    with _client(clickhouse, **tls, user="radar", password=USERS["radar"] + "?") as client, pytest.raises(Error):
        client.execute("SELECT 1")


def _json(address: str, path: str, posted: Any = None) -> Any:
    with closing(http.client.HTTPConnection(address, timeout=10)) as connection:
        body = None if posted is None else json.dumps(posted)
        connection.request("POST" if body else "GET", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read()
        assert response.status == 200, text
        return json.loads(text)


def _ticks(prometheus: Prometheus) -> list[Any]:
    """Every stored value of the rule below."""
    (series,) = _json(prometheus.address, "/api/v1/query?query=tick[1h]")["data"]["result"] or [{"values": []}]
    values: list[Any] = series["values"]
    return values


def test_prometheus_survives_kill(prometheus: Callable[..., Prometheus], tmp_path: Path) -> None:
    rules = tmp_path / "rules.yml"  # a rule is evaluated at once, the first scrape takes five seconds to begin
    rules.write_text(
        "groups: [{name: ticks, interval: 100ms, rules: [{record: tick, expr: time()}]}]", encoding="utf-8"
    )
    server = prometheus(config=f"rule_files: [{rules}]")
    deadline = time.monotonic() + 20
    while not (before := _ticks(server)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    pid = server.pid
    server.kill()
    assert not _exists(pid)
    server.restart()
    assert _ticks(server)[: len(before)] == before
    pid = server.pid
    server.stop()
    assert not _exists(pid)


def test_alertmanager_keeps_silences(alertmanager: Callable[..., Alertmanager]) -> None:
    server = alertmanager()
    matcher = {"name": "alertname", "value": "x", "isRegex": False}
    until = {"startsAt": "2026-01-01T00:00:00Z", "endsAt": "2096-01-01T00:00:00Z"}
    silence = {"matchers": [matcher], **until, "createdBy": "test", "comment": "kept"}
    made = _json(server.address, "/api/v2/silences", silence)["silenceID"]
    pid = server.pid
    server.restart()
    assert not _exists(pid)
    assert [one["id"] for one in _json(server.address, "/api/v2/silences")] == [made]


def test_paused_server_stops(own_clickhouse: Callable[..., ClickHouse]) -> None:
    """A paused one does not answer, one that goes on does; stopping wakes it first."""
    server = own_clickhouse()
    server.pause()
    with _client(server, connect_timeout=1, sync_request_timeout=1, send_receive_timeout=1) as client:
        with pytest.raises(Error):
            client.execute("SELECT 1")
        server.resume()
        assert client.execute("SELECT 1") == [(1,)]
    server.pause()
    pid = server.pid
    server.stop()
    assert not _exists(pid)


def test_failed_start_tells_why(prometheus: Callable[..., Prometheus]) -> None:
    with pytest.raises(ServerError, match=r"ended at its start(.|\n)*field nonsense not found"):
        prometheus(config="nonsense: 1")
