"""Topics on a real broker, and what ``check`` says of set-ups that are whole and of such that are not."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from servers import ClickHouse, Kafka, free_port

from pipeline.errors import ConfigurationError, TransientError
from pipeline.runtime import kafka as brokers
from pipeline.runtime import kafka_admin, preflight, topics
from pipeline.runtime.kafka import topic_specs
from pipeline.runtime.kafka_admin import TopicState
from pipeline.settings import ClickHouseSettings, KafkaSettings, Settings, load

RAW, SCORED, STATE = "mentions.raw.v1", "mentions.scored.v1", "state.detect.v1"
_numbers = iter(range(1000))


@pytest.fixture
def settings(kafka: Kafka) -> KafkaSettings:
    """A cluster that is new, as far as names go."""
    return KafkaSettings(
        bootstrap_servers=kafka.address, prefix=f"tp{next(_numbers)}.", replication_factor=1, min_insync_replicas=1
    )


@pytest.fixture
def client(settings: KafkaSettings) -> Iterator[Any]:
    with kafka_admin.admin(settings) as admin:
        yield admin


def made_with(client: Any, settings: KafkaSettings, name: str, partitions: int, **config: str) -> None:
    kafka_admin.make_topics(client, {settings.prefix + name: TopicState(partitions, 1, config=config)})


def partitions(client: Any, settings: KafkaSettings, name: str) -> int:
    topic = settings.prefix + name
    return kafka_admin.topic_states(client, {topic: ()})[topic].partitions


def lines(found: list[topics.Difference]) -> str:
    return "\n".join(map(str, found))


# -- topics ------------------------------------------------------------------------------------------------------------


def test_a_new_cluster_gets_every_topic_as_stated(settings: KafkaSettings, client: Any) -> None:
    assert {one.what for one in topics.differences(settings)} == {"topic"}
    outcome = topics.create(settings)
    assert (len(outcome.done), outcome.left) == (len(topic_specs()), ())
    for name, spec in topic_specs().items():
        topic = settings.prefix + name
        stated = spec.properties(1)
        state = kafka_admin.topic_states(client, {topic: stated})[topic]
        assert (state.partitions, state.replicas, state.leaderless) == (spec.partitions, 1, 0)
        assert {key: topics._same(str(state.config[key]), value) for key, value in stated.items()} == dict.fromkeys(
            stated, True
        )
    assert topics.differences(settings) == []


def test_again_there_is_nothing_to_do(settings: KafkaSettings) -> None:
    topics.create(settings)
    assert topics.create(settings) == topics.Outcome((), ())


def test_a_changed_configuration_is_explained_and_put_right(settings: KafkaSettings, client: Any) -> None:
    topics.create(settings)
    topic = settings.prefix + RAW
    kafka_admin.set_topic_config(client, topic, {"retention.ms": "1000", "segment.ms": "123456789"})
    assert lines(topics.differences(settings)) == (
        f"{topic}: retention.ms 1000 (1 s), should be 1209600000 (14 d): `topics` sets it"
    )
    assert topics.create(settings).done == (f"{topic}: retention.ms 1000 (1 s) → 1209600000 (14 d)",)
    assert topics.differences(settings) == []
    # What we do not state is left to whoever runs the brokers.
    config = kafka_admin.topic_states(client, {topic: ["segment.ms"]})[topic].config
    assert config == {"segment.ms": "123456789"}


def test_partitions_of_the_scored_topic_are_explained_and_left(settings: KafkaSettings, client: Any) -> None:
    made_with(client, settings, SCORED, 4, **{"cleanup.policy": "delete"})
    outcome = topics.create(settings)
    (left,) = outcome.left
    assert "partitions 4, should be 12: `topics` leaves the number as it is" in str(left)
    assert partitions(client, settings, SCORED) == 4
    assert partitions(client, settings, STATE) == 4
    assert [(one.topic, one.doer) for one in topics.differences(settings)] == [(settings.prefix + SCORED, "person")]


def test_partitions_of_the_raw_topic_are_added(settings: KafkaSettings, client: Any) -> None:
    made_with(client, settings, RAW, 3)
    assert f"{settings.prefix}{RAW}: partitions 3 → 12" in topics.create(settings).done
    assert partitions(client, settings, RAW) == 12
    assert topics.differences(settings) == []


def test_two_at_once_do_it_once(settings: KafkaSettings, client: Any) -> None:
    made_with(client, settings, RAW, 3)
    with ThreadPoolExecutor(2) as both:
        outcomes = list(both.map(topics.create, [settings, settings]))
    assert [one.left for one in outcomes] == [(), ()]
    said = [line for one in outcomes for line in one.done]
    assert len([line for line in said if "made, " in line]) == len(topic_specs()) - 1
    assert partitions(client, settings, RAW) == 12
    assert topics.differences(settings) == []


def test_what_another_process_did_meanwhile_is_fine(settings: KafkaSettings, client: Any) -> None:
    topics.create(settings)
    topic = settings.prefix + RAW
    assert kafka_admin.make_topics(client, {topic: TopicState(12, 1)}) == set()
    assert kafka_admin.add_partitions(client, topic, 14)
    assert not kafka_admin.add_partitions(client, topic, 14)
    with pytest.raises(ConfigurationError, match=r"retention\.ms"):
        kafka_admin.set_topic_config(client, topic, {"retention.ms": "-5"})


def test_too_few_brokers_are_named_and_nothing_is_made(settings: KafkaSettings, client: Any) -> None:
    three = settings.model_copy(update={"replication_factor": 3, "min_insync_replicas": 2})
    with pytest.raises(ConfigurationError) as refused:
        topics.create(three)
    assert "kafka.replication_factor: 3 does not do: the cluster has 1 broker;" in str(refused.value)
    assert topics.look(client, three).topics == {}
    assert {one.doer for one in topics.differences(three)} == {"person"}
    # Topics that a person made with fewer replicas are left, and stay writable.
    topics.create(settings)
    outcome = topics.create(three)
    assert outcome.done == ()
    assert {one.what for one in outcome.left} == {"replicas", "min.insync.replicas"}


def test_no_broker_is_told_at_once() -> None:
    port = free_port()
    with pytest.raises(TransientError, match=f"127.0.0.1:{port}: Connection refused"):
        topics.differences(KafkaSettings(bootstrap_servers=f"127.0.0.1:{port}"))
    with pytest.raises(ConfigurationError, match="user and password have keys of their own") as refused:
        topics.differences(KafkaSettings(bootstrap_servers="radar:hunter2@broker:9092"))
    assert "hunter2" not in str(refused.value)


# -- check -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def configured(tmp_path: Path, settings: KafkaSettings) -> Callable[..., Settings]:
    """A configuration with all its files, over Kafka; ``more`` is added, ``without`` is deleted."""

    def make(more: str = "detection: {step: 1d}", without: str = "") -> Settings:
        (tmp_path / "a.csv").write_text("id,desc,date\n1,坏了,2026-01-01\n", encoding="utf-8")
        (tmp_path / "catalogue.csv").write_text(
            "product_id,product_batch_id,units,from,until\nw7,L1,10,2025-01-01,2025-02-01\nw7,L2,,,\n", encoding="utf-8"
        )
        if without:
            (tmp_path / without).unlink()
        (tmp_path / "radar.yaml").write_text(
            "sources:\n  - {name: a, type: files, channel: review, path: a.csv, fields: {text: desc, event_time: date}}\n"
            "catalogue: catalogue.csv\n"
            f"kafka: {{bootstrap_servers: '{settings.bootstrap_servers}', prefix: {settings.prefix}, "
            f"replication_factor: 1, min_insync_replicas: 1}}\n{more}\n",
            encoding="utf-8",
        )
        return load(tmp_path / "radar.yaml")

    return make


def found_by(settings: Settings) -> dict[str, tuple[str, str]]:
    return {one.what: (one.state, one.words) for one in preflight.check(settings)}


def test_a_whole_set_up_is_found_whole(configured, settings: KafkaSettings, tmp_path: Path) -> None:
    topics.create(settings)
    before = sorted(tmp_path.rglob("*"))
    found = found_by(configured())
    assert {what: state for what, (state, _) in found.items() if state != "ok"} == {"catalogue": "warn"}
    assert found["catalogue"][1] == "catalogue.csv: 1 product, 2 lots, 1 without units: their rates are per mention"
    assert found["source a"][1] == "a.csv: csv, 3 fields"
    assert found["kafka"][1].startswith("1 broker, version 4.")
    assert found["topics"][1] == "all 10 are as stated"
    assert found[f"group {settings.prefix}complaint-radar-score"][1] == "has not committed anything yet"
    assert "kafka-python" in found["versions"][1]
    assert set(tmp_path.rglob("*")) - set(before) == {
        tmp_path / name for name in ("a.csv", "catalogue.csv", "radar.yaml")
    }


def test_each_thing_that_is_wrong_is_found_and_hides_no_other(configured, settings: KafkaSettings) -> None:
    topics.create(settings)
    assert found_by(configured(without="a.csv"))["source a"] == (
        "fail",
        f"sources[a].path: {configured().sources[0].path} does not exist",
    )
    found = found_by(configured(more="detection: {step: 1h}", without="catalogue.csv"))
    assert found["catalogue"][0] == "fail"
    assert "does not exist" in found["catalogue"][1]
    assert found["source a"][0] == "fail"
    assert "write `detection: {step: 1d}`" in found["source a"][1]
    assert found["topics"][0] == "ok"


def test_a_data_folder_that_is_none_is_found(configured) -> None:
    assert found_by(configured(more="data_dir: a.csv"))["data folder"][0] == "fail"
    assert found_by(configured(more="data_dir: a.csv/deep"))["data folder"][0] == "fail"
    assert found_by(configured(more="data_dir: new/deep"))["data folder"][0] == "ok"


def test_topics_that_are_missing_or_otherwise_are_found(configured, settings: KafkaSettings, client: Any) -> None:
    topics.create(settings)
    client.delete_topics([settings.prefix + RAW])
    kafka_admin.set_topic_config(client, settings.prefix + SCORED, {"retention.ms": "1000"})
    found = found_by(configured())
    assert found[f"topic {settings.prefix}{RAW}"][0] == "fail"
    assert found[f"topic {settings.prefix}{SCORED}"] == (
        "warn",
        "retention.ms 1000 (1 s), should be 604800000 (7 d): `topics` sets it",
    )
    assert "topics" not in found


def test_a_broker_that_is_not_there_is_found(configured) -> None:
    one = configured()
    gone = one.model_copy(
        update={"kafka": one.kafka.model_copy(update={"bootstrap_servers": f"127.0.0.1:{free_port()}"})}
    )
    found = found_by(gone)
    assert found["kafka"][0] == "fail"
    assert "Connection refused" in found["kafka"][1]
    assert found["source a"][0] == "ok"


def test_groups_tell_how_far_behind_they_are(configured, settings: KafkaSettings, client: Any) -> None:
    topics.create(settings)
    topic, group = settings.prefix + RAW, f"{settings.prefix}complaint-radar-score"
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap_servers)
    for number in range(10):
        producer.send(topic, b"x", partition=number % 2)
    producer.close()
    reader = KafkaConsumer(bootstrap_servers=settings.bootstrap_servers, group_id=group, enable_auto_commit=False)
    reader.assign([TopicPartition(topic, 0)])
    reader.commit({TopicPartition(topic, 0): OffsetAndMetadata(3, "", -1)})
    assert found_by(configured())[f"group {group}"] == ("warn", "nobody is at work in it, 7 offsets behind")
    client.delete_records({TopicPartition(topic, 0): 5})
    state, words = found_by(configured())[f"group {group}"]
    assert (state, "2 offsets were deleted by the brokers before they were read" in words) == ("warn", True)
    reader.commit(
        {TopicPartition(topic, 0): OffsetAndMetadata(5, "", -1), TopicPartition(topic, 1): OffsetAndMetadata(5, "", -1)}
    )
    reader.close()
    assert found_by(configured())[f"group {group}"] == ("ok", "nobody is at work in it, 0 offsets behind")


def test_what_stands_behind_an_open_transaction_is_unread(settings: KafkaSettings, client: Any) -> None:
    made_with(client, settings, RAW, 1)
    topic, group = settings.prefix + RAW, settings.prefix + "readers"

    def unread() -> int:
        return kafka_admin.unread(settings, group, [topic])

    producers = [
        KafkaProducer(bootstrap_servers=settings.bootstrap_servers, transactional_id=group + name) for name in "ab"
    ]
    for one in producers:
        one.init_transactions()
        one.begin_transaction()
        one.send(topic, b"a record", partition=0).get(10)
    producers[1].commit_transaction()
    assert unread() == 3  # the record left open; one behind it, unseen as yet, and the end of its transaction
    producers[0].abort_transaction()
    assert unread() == 4
    for one in producers:
        one.close()
    reader = brokers.consumer(settings, "look", group_id=group)
    try:
        reader.assign([TopicPartition(topic, 0)])
        reader.commit({TopicPartition(topic, 0): OffsetAndMetadata(2, "", -1)})
    finally:
        reader.close()
    assert unread() == 0  # two markers: there is no record in them


def test_clickhouse_is_looked_at(configured, clickhouse: ClickHouse) -> None:
    server = ClickHouseSettings(hosts=clickhouse.address, allow_older=True)

    def found(**changes: object) -> dict[str, tuple[str, str]]:
        return found_by(configured().model_copy(update={"clickhouse": server.model_copy(update=changes)}))

    good = found()
    assert "allow_older" in good["clickhouse"][1]
    assert good["clock"][0] == "ok"
    assert good["migrations"][0] == "warn"
    assert "0001_tables.sql" in good["migrations"][1]
    assert found(allow_older=False)["clickhouse"][0] == "fail"
    assert found(hosts=f"127.0.0.1:{free_port()}")["clickhouse"][0] == "fail"


LOOK = """
import sys
from pathlib import Path
from pipeline.runtime import kafka_admin
from pipeline.runtime.preflight import check
from pipeline.settings import load
kafka_admin._ADMIN_SECONDS = 3
for one in check(load(Path(sys.argv[1]))):
    print(one.state, one.what, one.words)
"""


def test_a_login_is_tried_and_no_secret_is_told(own_kafka: Callable[..., Kafka], tmp_path: Path) -> None:
    server = own_kafka(security="SASL_SSL", users={"radar": "correct-horse"})
    (tmp_path / "radar.yaml").write_text(
        f"kafka: {{bootstrap_servers: '{server.secure_address}', replication_factor: 1, min_insync_replicas: 1, "
        f"security_protocol: SASL_SSL, username: radar, ca_file: '{server.certificates.authority}'}}\n",
        encoding="utf-8",
    )

    def looked(password: str) -> str:
        # A client that is refused leaves its sockets to the collector: not in this process, where that is an error.
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", LOOK, str(tmp_path / "radar.yaml")],
            env={"RADAR_KAFKA__PASSWORD": password, "PYTHONPATH": str(Path(preflight.__file__).parents[2])},
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout + done.stderr

    assert "ok kafka 1 broker" in looked("correct-horse")
    refused = looked("wrong-horse")
    assert "or refuse the login" in refused
    assert "wrong-horse" not in refused


def test_a_secret_in_a_message_is_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RADAR_PSEUDONYM_KEY", "hunter2hunter2")

    def leak(*_: object) -> Iterator[preflight.Finding]:
        raise ValueError("cannot use hunter2hunter2")

    monkeypatch.setattr(preflight, "_configuration", leak)
    found = found_by(Settings())
    assert found["configuration"] == ("fail", "ValueError: cannot use <pseudonym_key>")
    assert found["data folder"][0] == "ok"
