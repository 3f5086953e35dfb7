"""Logins, TLS and least rights on a broker that denies by default: they are enough, what is missing is said, nothing leaks."""

import asyncio
import base64
import dataclasses
import gc
import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from clickhouse_driver import Client
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
)
from old_server import make_tables
from servers import ClickHouse, Kafka
from streams import source, write_catalogue, write_hard
from system import Process, System

from connectors.catalogue import read_catalogue
from connectors.publish import Published, Publisher
from pipeline.errors import ConfigurationError, TransientError
from pipeline.runtime import kafka, kafka_admin
from pipeline.runtime.bootstrap import READS, bootstrap
from pipeline.runtime.catalogues import Catalogues
from pipeline.runtime.detect_stage import DetectStage
from pipeline.runtime.exporter import Follower, StageWatch, View, _oldest
from pipeline.runtime.kafka import Names, topic_specs
from pipeline.runtime.kafka_checkpoint import Claims, client_options
from pipeline.runtime.process import brokers_of, server_engine
from pipeline.runtime.rebuild import rebuild_state
from pipeline.runtime.replay import republish
from pipeline.runtime.rescore import rescore
from pipeline.runtime.score_stage import ScoreStage
from pipeline.runtime.topics import create
from pipeline.settings import KafkaSettings, ScoringSettings
from pipeline.storage.clickhouse import ServerEngine

pytestmark = pytest.mark.timeout(200)

ROOT = Path(__file__).resolve().parents[3]
Rights = dict[str, dict[str, list[str]]]
RIGHTS: dict[str, Rights] = yaml.safe_load((ROOT / "deploy/kafka/acls.yaml").read_text(encoding="utf-8"))
KINDS = {
    "topics": ResourceType.TOPIC,
    "groups": ResourceType.GROUP,
    "transactional_ids": ResourceType.TRANSACTIONAL_ID,
}
AUTHORIZER = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    # The listener without a login is the tests' own way in.
    "super.users": "User:ANONYMOUS",
    # Who came with a token is sent away after so long, and must come again with a newer one.
    "listener.name.secure.oauthbearer.connections.max.reauth.ms": "4000",
}
TOUCHES_CLICKHOUSE = ("store", "bootstrap", "rescore", "rebuild")
PREFIX, LACKING = "whole.", "lacking."


@dataclasses.dataclass(frozen=True)
class Case:
    """A part that has all its rights but one."""

    part: str
    kind: str
    name: str
    operation: str

    @property
    def user(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", f"{self.part}-without-{self.operation}-{self.name}".lower()).strip("-")

    @property
    def rights(self) -> Rights:
        def left(kind: str, name: str, operations: list[str]) -> list[str]:
            return [one for one in operations if (kind, name, one) != (self.kind, self.name, self.operation)]

        found = RIGHTS[self.part].items()
        return {kind: {name: left(kind, name, ops) for name, ops in names.items()} for kind, names in found}


def cases(*parts: str) -> list[Case]:
    return [
        Case(part, kind, name, operation)
        for part in parts
        for kind, names in RIGHTS[part].items()
        for name, operations in names.items()
        for operation in operations
    ]


ALL_CASES = cases(*RIGHTS)


def password_of(user: str) -> str:
    return f"hush-{user}-31415"


def acls(user: str, rights: Rights, prefix: str) -> Iterator[ACL]:
    """What the file says, as the admin client takes it."""
    for kind, names in rights.items():
        for name, operations in names.items():
            form = ACLResourcePatternType.PREFIXED if name.endswith("*") else ACLResourcePatternType.LITERAL
            resource = ResourcePattern(KINDS[kind], prefix + name.rstrip("*"), form)
            for one in operations:
                operation = ACLOperation[re.sub(r"(?<!^)(?=[A-Z])", "_", one).upper()]
                yield ACL(f"User:{user}", "*", operation, ACLPermissionType.ALLOW, resource)


def token(subject: str, seconds: float = 600) -> str:
    """An unsigned one, such as the broker's test module takes."""
    claims = {"sub": subject, "iat": time.time() - 60, "exp": time.time() + seconds}
    parts = (json.dumps(part).encode() for part in ({"alg": "none"}, claims))
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "."


class Secured:
    """A broker and a database that want to know who comes, and the configuration of each part."""

    def __init__(self, folder: Path, broker: Kafka, database: ClickHouse) -> None:
        self.folder = folder
        self.broker = broker
        self.database = database
        with closing(KafkaAdminClient(bootstrap_servers=broker.address)) as admin:
            given = [one for part, rights in RIGHTS.items() for one in acls(part, rights, PREFIX)]
            given += [one for case in ALL_CASES for one in acls(case.user, case.rights, LACKING)]
            assert not admin.create_acls(given)["failed"]
            # One of the topics is left for a case to make.
            sizes = {f"{LACKING}{name}": {"num_partitions": 1, "replication_factor": 1} for name in topic_specs()}
            sizes.pop(f"{LACKING}actions.v1")
            admin.create_topics(sizes)
            admin.wait_for_topics(list(sizes))

    def kafka_section(self, user: str, prefix: str = PREFIX, **changed: Any) -> dict[str, Any]:
        password = self.folder / f"{user}.password"
        password.write_text(password_of(user) + "\n", encoding="utf-8")
        return {
            "bootstrap_servers": self.broker.secure_address,
            "prefix": prefix,
            "security_protocol": "SASL_SSL",
            "username": user,
            "password_file": str(password),
            "ca_file": str(self.broker.certificates.authority),
            "replication_factor": 1,
            "min_insync_replicas": 1,
            "session_timeout": "6s",
            **changed,
        }

    def settings(self, user: str, prefix: str = PREFIX, **changed: Any) -> KafkaSettings:
        return KafkaSettings.model_validate(self.kafka_section(user, prefix, **changed))

    def plain(self) -> KafkaSettings:
        return KafkaSettings(bootstrap_servers=self.broker.address, prefix=PREFIX)

    def system(self, part: str, user: str = "", prefix: str = PREFIX, **changed: Any) -> System:
        """A folder with the configuration of one part, secrets in files."""
        folder = self.folder / (user or part)
        configuration: dict[str, object] = {"kafka": self.kafka_section(user or part, prefix, **changed)}
        if part in TOUCHES_CLICKHOUSE:
            configuration["clickhouse"] = {
                "hosts": f"127.0.0.1:{self.database.secure_port}",
                "database": "secured",
                "user": part,
                "password_file": str(self.folder / f"{part}.password"),
                "secure": True,
                "ca_file": str(self.database.certificates.authority),
                "allow_older": True,
            }
        configuration |= {"catalogue": "catalogue.csv", "detection": {"step": "1d"}}
        if part in ("connect", "bootstrap", "replay"):
            configuration["sources"] = [source("hard", "hard.jsonl", max_lateness="1d")]
        made = System(folder, configuration)
        write_catalogue(folder / "catalogue.csv")
        write_hard(folder / "hard.jsonl", 0, rows=150)
        return made

    def settle(self, systems: Mapping[str, System], stages: tuple[str, ...] = ("score", "detect", "store")) -> None:
        names, until = Names(self.plain()), time.monotonic() + 60
        for stage in stages:
            topics = [names.topic(topic) for topic in READS[stage]]
            while kafka_admin.unread(self.plain(), names.group(stage), topics):
                assert time.monotonic() < until, systems[stage].tail(stage)
                time.sleep(0.2)

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        with Client("127.0.0.1", port=self.database.port, database="secured") as client:
            return client.execute(f"SELECT * FROM {table}")


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    if missing := Kafka.missing() or ClickHouse.missing():
        pytest.skip(missing)
    folder = tmp_path_factory.mktemp("secured")
    names = [*RIGHTS, *(case.user for case in ALL_CASES)]
    with (
        Kafka(
            folder / "kafka",
            security="SASL_SSL",
            users={name: password_of(name) for name in names},
            properties=AUTHORIZER,
        ) as broker,
        ClickHouse(
            folder / "clickhouse", secure=True, users={name: password_of(name) for name in TOUCHES_CLICKHOUSE}
        ) as database,
    ):
        with Client("127.0.0.1", port=database.port) as client:
            client.execute("CREATE DATABASE secured")
        yield Secured(folder, broker, database)


# -- the whole path ----------------------------------------------------------------------------------------------------


def test_least_rights_are_enough_and_no_secret_leaks(secured: Secured) -> None:
    systems = {part: secured.system(part) for part in RIGHTS}
    clickhouse = systems["store"].settings.clickhouse
    assert clickhouse is not None
    engine = ServerEngine(clickhouse)
    make_tables(engine)
    engine.close()
    seen = [systems["topics"].run("topics")]
    running = [systems[stage].start_stage(stage) for stage in ("score", "detect", "store")]
    try:
        seen.append(systems["connect"].run("connect", "--until-end", "--close"))
        secured.settle(systems)
        seen += [command_line(one) for one in running]
        seen += [metrics_of(systems[one.name], one.name) for one in running]
        watch_stages(secured.settings("exporter"))
        bootstrap(systems["bootstrap"].settings, threading.Event(), seen.append)
        assert "a spike is possible from" in seen[-1]
    finally:
        codes = {one.name: one.stop() for one in running}
    assert set(codes.values()) == {0}, codes
    seen += by_hand(systems)
    assert secured.rows("mentions")
    assert secured.rows("step_counts")
    assert secured.rows("dead_letters")
    assert_no_secret(secured, systems, seen)


def watch_stages(settings: KafkaSettings) -> None:
    """What the exporter looks at."""
    Follower(settings, View()).close()
    with kafka_admin.admin(settings) as client, closing(kafka.consumer(settings, "look")) as reader:
        found = StageWatch(settings, View()).look(client, reader)
        _oldest(reader, {TopicPartition(Names(settings).topic("mentions.raw.v1"), 0): 0})
    assert all(one.running for one in found.values()), found


def by_hand(systems: Mapping[str, System]) -> list[str]:
    """What people call while no worker runs: each as its own user, and what it said."""
    said: list[str] = []
    republish(systems["replay"].settings, [])
    for part in ("rebuild", "rescore"):
        settings = systems[part].settings
        engine = server_engine(settings)
        try:
            if part == "rebuild":
                catalogue = read_catalogue(systems[part].folder / "catalogue.csv", settings.time_zone)
                rebuild_state(settings, brokers_of(settings), engine, catalogue, said.append)
            else:
                assert rescore(brokers_of(settings), settings.scoring, engine, said.append)
        finally:
            engine.close()
    return said


def assert_no_secret(secured: Secured, systems: Mapping[str, System], seen: list[str]) -> None:
    """In what was printed, in logs, arguments, metrics, tables and on topics."""
    places = dict(enumerate(seen)) | {path: path.read_text("utf-8") for path in secured.folder.glob("*/*.log")}
    for table in ("mentions", "dead_letters", "step_counts", "signals", "gaps"):
        places[table] = repr(secured.rows(table))
    plain, names = secured.plain(), Names(secured.plain())
    for topic in topic_specs():
        records = list(kafka.read_to_end(plain, "look", names.topic(topic)))
        places[topic] = repr([(one.key, one.value, one.headers) for one in records])
    secrets = [password_of(part) for part in RIGHTS] + ["hush-"]
    secrets.append((systems["connect"].folder / "radar-data/pseudonym.key").read_text("utf-8").strip())
    for place, text in places.items():
        for one in secrets:
            assert one not in text, place
    assert any(places[topic] != "[]" for topic in topic_specs())


def command_line(process: Process) -> str:
    """As `ps` shows it to everybody."""
    assert process.popen is not None
    found = Path(f"/proc/{process.popen.pid}/cmdline").read_text("utf-8")
    assert "complaint-radar" in found
    return found


def metrics_of(system: System, name: str) -> str:
    (address,) = re.findall(r"http://([\d.:]+)/metrics", (system.folder / f"{name}.log").read_text("utf-8"))
    assert address.startswith("127.0.0.1:")
    with closing(http.client.HTTPConnection(address, timeout=5)) as connection:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()


# -- one right less ----------------------------------------------------------------------------------------------------


def claim(settings: KafkaSettings, part: str) -> None:
    catalogues = Catalogues(settings)
    stage = ScoreStage(1, catalogues, ScoringSettings(), 1000) if part == "score" else DetectStage(1, catalogues)

    async def main() -> None:
        await (await Claims(settings, stage).claim(0)).close()

    asyncio.run(main())


def publish(settings: KafkaSettings, part: str) -> None:
    """A record to each topic that the part writes to, and the cursors read as it does."""
    names = Names(settings)
    with_rights = RIGHTS[part]["topics"].items()
    written = [names.topic(name) for name, operations in with_rights if "Write" in operations]
    options = kafka.client_options(settings, part)
    with closing(Publisher(options, names.transactional_id(part), kafka.errors)) as publisher:
        publisher.commit(Published(topic, b"key", b"value", 0, []) for topic in written)
    if part == "connect":
        list(kafka.read_to_end(settings, part, names.topic("cursors.v1")))


def work(settings: KafkaSettings, part: str) -> None:
    """What a worker does before it takes its first block."""
    kafka_admin.check_rights(settings, part)
    if part == "detect":
        kafka.partition_count(settings, Names(settings).topic("mentions.raw.v1"))
    if part != "store":
        claim(settings, part)


def follow(settings: KafkaSettings, _part: str) -> None:
    Follower(settings, View()).close()


def read_again(settings: KafkaSettings, _part: str) -> None:
    for topic in RIGHTS["rescore"]["topics"]:
        list(kafka.read_to_end(settings, "rescore", Names(settings).topic(topic)))


def make_topics(settings: KafkaSettings, _part: str) -> None:
    if left := [str(one) for one in create(settings).left if "DescribeConfigs" in str(one)]:
        raise ConfigurationError(left[0])


ACTS: dict[str, Callable[[KafkaSettings, str], None]] = {
    "connect": publish,
    "replay": publish,
    "score": work,
    "detect": work,
    "store": work,
    "exporter": follow,
    "rescore": read_again,
    "topics": make_topics,
}


def is_noticed(case: Case) -> bool:
    """Not all of it: what the exporter may not see of the stages it logs and goes on; one topic stands for all others."""
    if case.part == "exporter":
        return case.name in ("signals.v1", "sources.v1")
    if case.part == "topics":
        return case.name == ("actions.v1" if case.operation == "Create" else "mentions.raw.v1")
    return True


@pytest.mark.parametrize("part", list(ACTS))
def test_a_right_that_is_missing_is_named(secured: Secured, part: str) -> None:
    # The topic that is not there yet first: the others may make it.
    for case in sorted(filter(is_noticed, cases(part)), key=lambda one: one.operation != "Create"):
        with pytest.raises(ConfigurationError) as caught:
            ACTS[part](secured.settings(case.user, LACKING), part)
        said = str(caught.value)
        assert LACKING + case.name.rstrip("*") in said, case
        assert password_of(case.user) not in said


@pytest.mark.parametrize(
    ("part", "name"), [("score", "mentions.raw.v1"), ("detect", "complaint-radar-detect"), ("store", "signals.v1")]
)
def test_a_worker_says_what_it_lacks(secured: Secured, part: str, name: str) -> None:
    (case,) = (one for one in cases(part) if one.name == name)
    system = secured.system(part, case.user, LACKING)
    process = system.start_stage(part)
    try:
        wanted = re.compile(f"lacks Read on (topic|group) {re.escape(LACKING + name)}")
        assert system.wait(20, until=lambda: bool(wanted.search(system.tail(part)))), system.tail(part)
    finally:
        process.stop()


# -- logins ------------------------------------------------------------------------------------------------------------


def test_a_refused_login_is_said(secured: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "_BOOTSTRAP_SECONDS", 1)
    monkeypatch.setattr(kafka_admin, "_ADMIN_SECONDS", 1)
    settings = secured.settings("connect")
    wrong = secured.folder / "wrong.password"
    wrong.write_text("hush-wrong", encoding="utf-8")
    settings = settings.model_copy(update={"password_file": wrong})
    tries: list[Callable[[], object]] = [
        lambda: publish(settings, "connect"),
        lambda: kafka.consumer(settings, "store"),
        lambda: kafka_admin.check_rights(settings, "score"),
    ]
    for one in tries:
        with pytest.raises(TransientError, match="or refuse the login") as caught:
            one()
        assert "hush-" not in str(caught.value)
    with pytest.raises(TransientError, match="or refuse the login") as caught:
        claim(settings, "score")
    assert "hush-" not in str(caught.value)


def test_nothing_is_left_of_a_client_without_brokers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library would leave a thread and four open files, each time."""
    monkeypatch.setattr(kafka, "_BOOTSTRAP_SECONDS", 1)
    monkeypatch.setattr(kafka_admin, "_ADMIN_SECONDS", 1)
    listening = socket.create_server(("127.0.0.1", 0))  # and never says a word
    nobody = KafkaSettings(bootstrap_servers=f"127.0.0.1:{listening.getsockname()[1]}")

    def left() -> tuple[int, int]:
        gc.collect()
        return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))

    before = left()
    with pytest.raises(TransientError):
        kafka.consumer(nobody, "store")
    with pytest.raises(TransientError), kafka_admin.admin(nobody):
        pass
    with pytest.raises(TransientError):
        Publisher(kafka.client_options(nobody, "connect"), "test", kafka.errors)
    assert left() == before
    listening.close()


def test_tokens(secured: Secured) -> None:
    """The score worker, Faust and all, comes with a token; the broker sends it away, and it comes back with a newer one."""
    kept = secured.folder / "token"
    kept.write_text(token("score", 6), encoding="ascii")
    options = {"sasl_mechanism": "OAUTHBEARER", "token_file": str(kept)}
    system = secured.system("score", "score", LACKING, **options)
    with closing(KafkaAdminClient(bootstrap_servers=secured.broker.address)) as admin:
        admin.create_acls(list(acls("score", RIGHTS["score"], LACKING)))
    process = system.start_stage("score", "token")
    try:
        assert system.wait(20, until=lambda: "ready after" in system.tail("token")), system.tail("token")
        kept.write_text(token("score"), encoding="ascii")
        read_by(secured, system)
        time.sleep(4)  # the first token is over, and so is every connection that was made with it
        read_by(secured, system)
        text = (system.folder / "token.log").read_text("utf-8")
        assert kept.read_text("ascii") not in text
        assert process.popen is not None
        assert process.popen.poll() is None, text
        take_away(secured, "score", ResourcePattern(ResourceType.GROUP, f"{LACKING}complaint-radar-score"))
        assert process.popen.wait(20) == 2
        assert f"GroupAuthorizationFailedError: {LACKING}complaint-radar-score" in system.tail("token")
    finally:
        process.stop()


def take_away(secured: Secured, user: str, resource: ResourcePattern) -> None:
    """All rights of a user on something, while it is at work."""
    form = resource.pattern_type
    wanted = ResourcePatternFilter(resource.resource_type, resource.resource_name, form)
    with closing(KafkaAdminClient(bootstrap_servers=secured.broker.address)) as admin:
        every = (ACLOperation.ANY, ACLPermissionType.ANY)
        admin.delete_acls([ACLFilter(f"User:{user}", "*", *every, wanted)])


def read_by(secured: Secured, system: System) -> None:
    """Something to read, and that it is read."""
    plain = secured.plain().model_copy(update={"prefix": LACKING})
    names = Names(plain)
    with closing(Publisher(kafka.client_options(plain, "test"), "test", kafka.errors)) as publisher:
        publisher.commit([Published(names.topic("mentions.raw.v1"), None, b"no json", 0, []) for _ in range(3)])

    def done() -> bool:
        return kafka_admin.unread(plain, names.group("score"), [names.topic("mentions.raw.v1")]) == 0

    assert system.wait(20, until=done), system.tail("token")


def test_a_token_is_read_for_each_connection(tmp_path: Path, secured: Secured) -> None:
    kept = tmp_path / "token"
    kept.write_text("first", encoding="ascii")
    settings = secured.settings("score", sasl_mechanism="OAUTHBEARER", token_file=str(kept))
    ours = kafka.client_options(settings, "test")["sasl_oauth_token_provider"]
    theirs = client_options(settings)["sasl_oauth_token_provider"]
    assert (ours.token(), asyncio.run(theirs.token())) == ("first", "first")
    kept.write_text("second\n", encoding="ascii")
    assert (ours.token(), asyncio.run(theirs.token())) == ("second", "second")


def test_mutual_tls(tmp_path: Path, own_kafka: Callable[..., Kafka], monkeypatch: pytest.MonkeyPatch) -> None:
    """Certificates instead of passwords; without one the broker does not speak to us."""
    broker = own_kafka(
        security="SSL",
        properties={
            "listener.name.secure.ssl.client.auth": "required",
            "authorizer.class.name": AUTHORIZER["authorizer.class.name"],
            "super.users": "User:ANONYMOUS;User:CN=localhost",
        },
    )
    files = broker.certificates
    section = {
        "bootstrap_servers": broker.secure_address,
        "security_protocol": "SSL",
        "ca_file": str(files.authority),
        "replication_factor": 1,
        "min_insync_replicas": 1,
    }
    ours = {"certificate_file": str(files.certificate), "key_file": str(files.key)}
    system = System(tmp_path / "ours", {"kafka": section | ours})
    system.make_topics()
    assert "all 10 are as stated" in system.run("check")
    process = system.start_stage("score")
    try:
        assert system.wait(20, until=lambda: "ready after" in system.tail("score")), system.tail("score")
    finally:
        assert process.stop() == 0
    monkeypatch.setattr(kafka_admin, "_ADMIN_SECONDS", 2)
    stranger = KafkaSettings.model_validate(section)
    with pytest.raises(TransientError), kafka_admin.admin(stranger):
        pass
