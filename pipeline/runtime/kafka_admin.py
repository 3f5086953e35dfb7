"""What the brokers hold and may be told, by an admin client: topics, groups, rights, and how far a group has come."""

import socket
import ssl
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient, TopicPartition
from kafka import errors as kafka_errors
from kafka.admin import ConfigResource, OffsetSpec

from connectors.publish import opened
from pipeline.errors import ConfigurationError, TransientError
from pipeline.runtime.kafka import RIGHTS_HINT, Names, client_options, consumer, errors, progress, text, topic_specs
from pipeline.settings import KafkaSettings

_ADMIN_SECONDS = 10
"""How long an admin client waits for the brokers: a person is waiting for it."""


@contextmanager
def admin(settings: KafkaSettings) -> Iterator[Any]:
    """An admin client, closed at the end. Errors as ``errors``."""
    with errors(f"brokers {settings.bootstrap_servers}"):
        client = _admin_client(settings)
        try:
            yield client
        finally:
            client.close()


def _admin_client(settings: KafkaSettings) -> Any:
    options = client_options(settings, "admin") | {"bootstrap_timeout_ms": _ADMIN_SECONDS * 1000}
    for unknown in ("allow_auto_create_topics", "metrics_enabled"):
        options.pop(unknown)
    try:
        return opened(KafkaAdminClient, **options)
    except kafka_errors.KafkaTimeoutError as error:
        raise TransientError(
            f"kafka: brokers {settings.bootstrap_servers}: no answer within {_ADMIN_SECONDS} s; if they are up, they speak "
            f"another kafka.security_protocol than {settings.security_protocol}, or refuse the login"
        ) from error


def check_rights(settings: KafkaSettings, stage: str) -> None:
    """Ask the brokers whether a stage may do what it is about to: its clients would wait in silence for what they may not.

    Args:
        settings: the brokers, and as whom.
        stage: name of a producer or consumer in ``schemas/topics.yaml`` that reads in a group.

    Raises:
        ConfigurationError: rights or topics are missing; names all of them. Others as ``errors``.
    """
    names = Names(settings)
    wanted = {
        names.topic(name): [*["READ"] * (stage in spec.consumers), *["WRITE"] * (stage in spec.producers)]
        for name, spec in topic_specs().items()
        if stage in (*spec.consumers, *spec.producers)
    }
    with admin(settings) as client, errors(f"looking at the rights of {stage}"):
        lacking = [
            f"{operation.capitalize()} on topic {one['name']}"
            for one in client.describe_topics(list(wanted))
            for operation in _lacking(one, wanted[one["name"]])
        ]
        if not _may_use(client, names.group(stage)):
            lacking.append(f"Read on group {names.group(stage)}")
    if lacking:
        raise ConfigurationError(f"kafka: this user lacks {', '.join(lacking)}; {RIGHTS_HINT}")


def _lacking(topic: Mapping[str, Any], wanted: Iterable[str]) -> list[str]:
    """Which of the operations the brokers do not let us do; none if they do not say."""
    error = kafka_errors.for_code(topic["error_code"])
    if error is kafka_errors.TopicAuthorizationFailedError:
        return list(wanted)
    if error is kafka_errors.UnknownTopicOrPartitionError:
        raise ConfigurationError(f"kafka: there is no topic {topic['name']}: make it by `complaint-radar topics`")
    told = topic["authorized_operations"]
    return [one for one in wanted if told and one not in told]


def _may_use(client: Any, group: str) -> bool:
    try:
        client.list_group_offsets([group])
    except kafka_errors.GroupAuthorizationFailedError:
        return False
    except kafka_errors.CoordinatorNotAvailableError:
        pass  # the first question after groups ever; rights are looked at before that
    return True


@dataclass(frozen=True)
class Cluster:
    """The brokers that answered."""

    brokers: int
    """Registered ones; one that is down for the moment counts, for it may hold replicas."""
    version: str
    """Newest Kafka version whose protocol they speak."""


@dataclass(frozen=True)
class TopicState:
    """A topic as the brokers have it."""

    partitions: int
    replicas: int
    """Of the partition that has fewest."""
    leaderless: int = 0
    """Partitions that nobody can read or write now."""
    lagging: int = 0
    """Partitions with a replica that is not in sync."""
    config: Mapping[str, str | None] | None = None
    """The values asked for, as far as the brokers know them; None: they do not tell."""


@dataclass(frozen=True)
class GroupState:
    """A consumer group that has committed offsets."""

    members: bool
    """Somebody is at work in it, or is about to be."""
    behind: int
    """Offsets between what is committed and the end; ends of transactions count as one each."""
    lost: int
    """Offsets that the brokers deleted before the group had passed them."""


def reach(settings: KafkaSettings, patience: float = 5.0) -> None:
    """Connect to the brokers without speaking Kafka: tells at once, and in words, what a client only retries.

    Args:
        settings: addresses and security.
        patience: seconds for each address.

    Raises:
        TransientError: none of the addresses can be reached; says why, for each.
        ConfigurationError: an address without a port; a certificate cannot be read.
    """
    reasons = []
    for address in settings.bootstrap_servers.split(","):
        reason = _unreachable(settings, address, patience)
        if not reason:
            return
        reasons.append(f"{address}: {reason}")
    raise TransientError(f"kafka: no broker can be reached: {'; '.join(reasons)}")


def _unreachable(settings: KafkaSettings, address: str, patience: float) -> str:
    """Why an address cannot be reached; empty if it can."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "@" in address:
        # What stands before an @ would be a password, and is not repeated.
        shown = "" if "@" in address else f"{address!r} does not do; "
        raise ConfigurationError(
            f"kafka.bootstrap_servers: {shown}an address is host:port; user and password have keys of their own"
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), patience) as plain:
            if not settings.security_protocol.endswith("SSL"):
                return ""
            with _tls(settings).wrap_socket(plain, server_hostname=host.strip("[]")):
                return ""
    except ssl.SSLError as error:
        return f"no TLS connection ({error.reason or error}{_verification(error)})"
    except TimeoutError:
        return f"no answer within {patience:g} s"
    except (OSError, OverflowError) as error:
        return str(getattr(error, "strerror", None) or error)


def _tls(settings: KafkaSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=text(settings.ca_file))
        if settings.certificate_file is not None:
            context.load_cert_chain(settings.certificate_file, settings.key_file)
    except OSError as error:  # of which ssl.SSLError is one
        raise ConfigurationError(
            f"kafka: ca_file, certificate_file or key_file cannot be used: {error.strerror or error}"
        ) from None
    return context


def _verification(error: ssl.SSLError) -> str:
    return f": {error.verify_message}" if isinstance(error, ssl.SSLCertVerificationError) else ""


def cluster(client: Any) -> Cluster:
    """The brokers, told by an admin client. Errors as ``errors``."""
    with errors("looking at the brokers"):
        brokers = [one["broker_id"] for one in client.describe_cluster()["brokers"]]
        version = client.get_broker_version_data(min(brokers)).broker_version
    return Cluster(len(brokers), ".".join(map(str, version)))


def topic_states(client: Any, topics: Mapping[str, Collection[str]]) -> dict[str, TopicState]:
    """Those of the topics that exist. Errors as ``errors``.

    Args:
        client: an admin client.
        topics: names on the brokers, each with the configuration values that are wanted of it.
    """
    with errors("looking at the topics"):
        found = {}
        for one in client.describe_topics(list(topics)):
            error = kafka_errors.for_code(one["error_code"])
            if error is not kafka_errors.UnknownTopicOrPartitionError:
                _raise(error, one["name"])
                found[one["name"]] = one["partitions"]
        wanted = [ConfigResource("TOPIC", name, list(topics[name])) for name in found]
        told = client.describe_configs(wanted, config_filter="all")["topic"] if wanted else {}
    return {name: _topic_state(partitions, told.get(name, {})) for name, partitions in found.items()}


def _topic_state(partitions: list[dict[str, Any]], told: Mapping[str, Any]) -> TopicState:
    return TopicState(
        partitions=len(partitions),
        replicas=min(len(one["replica_nodes"]) for one in partitions),
        leaderless=sum(one["leader_id"] < 0 for one in partitions),
        lagging=sum(len(one["isr_nodes"]) < len(one["replica_nodes"]) for one in partitions),
        # Without the right to see it the answer is an error, which the library passes over.
        config={name: value["value"] for name, value in told.items()} or None,
    )


def _raise(error: Any, words: str) -> None:
    if error is not kafka_errors.NoError:
        raise error(words)


def make_topics(client: Any, topics: Mapping[str, TopicState]) -> set[str]:
    """Make topics and wait until they can be used; gives the names of those that this call made.

    One that somebody else has made meanwhile is left as it is. Errors as ``errors``.
    """
    wanted = {
        name: {"num_partitions": one.partitions, "replication_factor": one.replicas, "configs": dict(one.config or {})}
        for name, one in topics.items()
    }
    with errors("making topics"):
        made = set()
        for answer in client.create_topics(wanted, raise_errors=False)["topics"]:
            error = kafka_errors.for_code(answer["error_code"])
            if error is not kafka_errors.TopicAlreadyExistsError:
                _raise(error, f"{answer['name']}: {answer.get('error_message') or ''}")
                made.add(answer["name"])
        client.wait_for_topics(list(topics))
    return made


def set_topic_config(client: Any, name: str, values: Mapping[str, str]) -> None:
    """Set some values of a topic's configuration and leave the others; waits until the brokers tell the new ones.

    Raises:
        ConfigurationError: the brokers refuse it. Others as ``errors``.
    """
    with errors(f"configuring {name}"):
        wanted = ConfigResource("TOPIC", name, dict(values))
        # Unknown names would be a ValueError of the library; the brokers refuse them in their own words.
        answer = client.alter_configs([wanted], raise_on_unknown=False, incremental=True)["topic"][name]
    if answer != "OK":
        raise ConfigurationError(f"kafka: configuring {name}: {answer}")

    def told() -> bool:
        config = topic_states(client, {name: values})[name].config or {}
        return all(config.get(key) == value for key, value in values.items())

    _wait(told)


def _wait(seen: Callable[[], bool]) -> bool:
    """Until what was just done is seen by whoever looks: a broker knows some milliseconds later than the controller.

    Ends after two seconds all the same, and gives False: a value may be told in another form than it was given in.
    """
    end = time.monotonic() + 2
    while not (there := seen()) and time.monotonic() < end:
        time.sleep(0.05)
    return there


def add_partitions(client: Any, name: str, count: int) -> bool:
    """Bring a topic to ``count`` partitions, and wait for them; False: somebody else has, meanwhile. Errors as ``errors``."""

    def there() -> bool:
        return topic_states(client, {name: ()})[name].partitions >= count

    with errors(f"adding partitions to {name}"):
        (answer,) = client.create_partitions({name: count}, raise_errors=False).results
        error = kafka_errors.for_code(answer.error_code)
        if error is kafka_errors.InvalidPartitionsError and _wait(there):
            return False
        _raise(error, answer.error_message or "")
    _wait(there)
    return True


def group_states(client: Any, groups: Mapping[str, Collection[str]]) -> dict[str, GroupState]:
    """Those of the groups that exist. Errors as ``errors``.

    Args:
        client: an admin client.
        groups: names on the brokers, each with the topics that the group may have read.
    """
    with errors("looking at the consumer groups"):
        # Only groups that are there are asked for offsets: the first such question makes the brokers' own offsets topic.
        listed = {one["group_id"]: one.get("group_state") or "" for one in client.list_groups()}
        there = [name for name in groups if name in listed]
        offsets = client.list_group_offsets(there) if there else {}
        return {
            name: _group_state(client, listed[name], groups[name], {tp: at.offset for tp, at in offsets[name].items()})
            for name in there
        }


def _group_state(client: Any, state: str, topics: Collection[str], committed: Mapping[Any, int]) -> GroupState:
    # A topic without any committed offset is one that the stage reads without its group.
    read = {tp.topic for tp in committed} & set(topics)
    partitions = [
        TopicPartition(one["name"], part["partition_index"])
        for one in (client.describe_topics(sorted(read)) if read else ())
        for part in one["partitions"]
    ]
    first = _offsets(client, partitions, OffsetSpec.EARLIEST)
    # Of open transactions too: one that its producer left open holds everything after it back, and must not look like rest.
    last = _offsets(client, partitions, OffsetSpec.LATEST)
    return GroupState(
        members=state not in ("Empty", "Dead", ""),
        behind=sum(max(last[one] - max(committed.get(one, 0), first[one]), 0) for one in partitions),
        lost=sum(max(first[one] - committed.get(one, 0), 0) for one in partitions),
    )


def _offsets(
    client: Any, partitions: Collection[Any], which: Any, isolation: str = "read_uncommitted"
) -> dict[Any, int]:
    if not partitions:
        return {}
    found = client.list_partition_offsets(dict.fromkeys(partitions, which), isolation_level=isolation)
    return {one: at.offset for one, at in found.items()}


def unread(settings: KafkaSettings, group: str, topics: Collection[str]) -> int:
    """Records of these topics that the group has not passed, within an offset a partition. Errors as ``errors``.

    Offsets alone do not say it: ends of transactions take one each, and what was aborted is never passed by itself. So
    where more than one offset is left, it is looked whether any record is to be had there. Behind a transaction that is
    open nobody can look yet: all of that counts.
    """
    with admin(settings) as client, errors(f"looking at {group}"):
        partitions = [
            TopicPartition(one["name"], part["partition_index"])
            for one in client.describe_topics(sorted(topics))
            for part in one["partitions"]
        ]
        stable = _offsets(client, partitions, OffsetSpec.LATEST, "read_committed")
        ends = _offsets(client, partitions, OffsetSpec.LATEST)
        offsets = client.list_group_offsets([group])[group] if _exists(client, group) else {}
        committed = {tp: at.offset for tp, at in offsets.items()}
    left = {tp: committed.get(tp, 0) for tp in partitions if ends[tp] - committed.get(tp, 0) > 1}
    open_ = {tp for tp in left if stable[tp] < ends[tp]}
    found = open_ | _with_records(settings, {tp: left[tp] for tp in left if tp not in open_}, ends)
    return sum(ends[tp] - left[tp] for tp in found)


def _exists(client: Any, group: str) -> bool:
    return any(one["group_id"] == group for one in client.list_groups())


def _with_records(settings: KafkaSettings, starts: Mapping[Any, int], ends: Mapping[Any, int]) -> set[Any]:
    if not starts:
        return set()
    reader = consumer(settings, "look")
    found: set[Any] = set()
    try:
        reader.assign(list(starts))
        for tp, offset in starts.items():
            reader.seek(tp, offset)
        waiting = set(starts)
        moved = time.monotonic()
        while waiting:
            found |= reader.poll(timeout_ms=200).keys()
            before, waiting = waiting, {tp for tp in waiting - found if reader.position(tp) < ends[tp]}
            moved = progress("what is unread", moved, waiting != before)
            reader.pause(*found)
    finally:
        reader.close()
    return found
