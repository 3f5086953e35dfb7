"""Kafka as this system uses it: names of topics and groups, and kafka-python's clients made from the settings.

What kafka-python raises is translated by ``errors``; its exceptions are looked at here and in ``kafka_admin`` alone.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import yaml
from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka import errors as kafka_errors
from kafka.net.sasl.oauth import AbstractTokenProvider
from kafka.structs import MemberState

from connectors.publish import opened
from pipeline.errors import ConfigurationError, TerminalError, TransientError
from pipeline.settings import KafkaSettings, duration_ms, password, read_secret

APPLICATION = "complaint-radar"
RECORD_BYTES = 1_000_000
"""Largest record that we write: a broker takes 1,048,588 bytes unless told otherwise, headers included."""
TOPIC_BYTES = 1_048_588
"""What every topic takes: the brokers' default, stated because some have a lower one."""
METADATA_MS = 10_000
"""How often a member of a group looks which partitions there are."""
_PATIENCE_SECONDS = 30.0
"""How long a reader of what is there waits for the next of it."""
_BOOTSTRAP_SECONDS = 15
"""How long any other client waits for them, or for a login that they refuse, before that is said."""


class Names:
    """Names on the brokers: all begin with the configured prefix, so that several systems may share them."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._prefix = settings.prefix

    def topic(self, name: str) -> str:
        """A topic of ``schemas/topics.yaml`` as the brokers know it."""
        return f"{self._prefix}{name}"

    def group(self, stage: str) -> str:
        """Consumer group of a stage."""
        return f"{self._prefix}{APPLICATION}-{stage}"

    def transactional_id(self, stage: str, partition: int | None = None) -> str:
        """Transactional id of a stage, for one input partition of it or, without one, for the whole."""
        return self.group(stage) if partition is None else f"{self.group(stage)}-{partition}"


class TopicSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of ``schemas/topics.yaml``."""

    name: str
    value: str
    key: str
    partitions: int
    retention: str
    cleanup: str
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    table: str | None = None
    config: Mapping[str, str] | None = None

    def properties(self, min_insync_replicas: int) -> dict[str, str]:
        """Topic configuration on the broker."""
        retention = "-1" if self.retention == "forever" else str(duration_ms(self.retention))
        return {
            "cleanup.policy": self.cleanup,
            "retention.ms": retention,
            "min.insync.replicas": str(min_insync_replicas),
            "max.message.bytes": str(TOPIC_BYTES),
            **(self.config or {}),
        }


@cache
def topic_specs() -> dict[str, TopicSpec]:
    """All topics, by name."""
    text = files("schemas").joinpath("topics.yaml").read_text(encoding="utf-8")
    return {name: msgspec.convert({"name": name, **entry}, TopicSpec) for name, entry in yaml.safe_load(text).items()}


class FileToken(AbstractTokenProvider):  # type: ignore[misc]
    """OAUTHBEARER token out of a file that something else keeps fresh."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def token(self) -> str:
        """The current token."""
        return read_secret(self._path)


def client_options(settings: KafkaSettings, client: str) -> dict[str, Any]:
    """Options that every client of kafka-python takes.

    Args:
        settings: addresses and security.
        client: name that the brokers' logs and quotas know this client by.

    Raises:
        ConfigurationError: a secret cannot be read.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers.split(","),
        "client_id": f"{APPLICATION}-{client}",
        "security_protocol": settings.security_protocol,
        "allow_auto_create_topics": False,
        "metrics_enabled": False,
        "reconnect_backoff_max_ms": 1000,
        "bootstrap_timeout_ms": _BOOTSTRAP_SECONDS * 1000,
    }
    if settings.security_protocol.endswith("SSL"):
        options |= {
            "ssl_cafile": text(settings.ca_file),
            "ssl_certfile": text(settings.certificate_file),
            "ssl_keyfile": text(settings.key_file),
        }
    if settings.security_protocol.startswith("SASL"):
        options["sasl_mechanism"] = settings.sasl_mechanism
        if settings.token_file is not None:
            options["sasl_oauth_token_provider"] = FileToken(settings.token_file)
        else:
            options |= {"sasl_plain_username": settings.username, "sasl_plain_password": password(settings)}
    return options


def text(path: Path | None) -> str | None:
    """A path as clients take it."""
    return str(path) if path is not None else None


@contextmanager
def errors(what: str) -> Iterator[None]:
    """Turn errors of kafka-python into ours.

    Args:
        what: was being done, in words that end well in ``: broker says …``.

    Raises:
        ConfigurationError: refused for good: credentials, rights, a topic that is not there.
        TerminalError: another process has taken this one's place.
        TransientError: anything else; the brokers may be back soon.
    """
    try:
        yield
    except _FENCED as error:
        raise TerminalError(f"{what}: another process has taken over ({type(error).__name__})") from error
    except _UNAUTHORIZED as error:
        raise ConfigurationError(f"kafka: {what}: {_in_words(error)}; {RIGHTS_HINT}") from error
    except (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError) as error:
        raise ConfigurationError(f"kafka: {what}: {SIZE_HINT}") from error
    except _REFUSED as error:
        raise ConfigurationError(f"kafka: {what}: {_in_words(error)}") from error
    except kafka_errors.KafkaTimeoutError as error:
        raise TransientError(f"kafka: {what}: {_silence(error)}") from error
    except kafka_errors.KafkaError as error:
        raise TransientError(f"kafka: {what}: {_in_words(error)}") from error


REFUSAL_HINT = "if the brokers are up, they speak another kafka.security_protocol, or refuse the login"
SIZE_HINT = (
    f"a topic refuses a record that it should take: its max.message.bytes is below {TOPIC_BYTES}, which `complaint-radar "
    "topics --check` shows and `topics` puts right"
)
RIGHTS_HINT = "deploy/kafka/acls.yaml lists the rights that each part needs"


def _in_words(error: Exception) -> str:
    """Name and text of an error, each once: some texts begin with the name, behind a number."""
    name, text = type(error).__name__, str(error)
    return text if name in text else f"{name}: {text}"


def _silence(error: Exception) -> str:
    if "Unable to bootstrap" not in str(error):
        return _in_words(error)
    # kafka-python tells a login that is refused, and TLS where there is none, no otherwise than silence.
    return f"no answer within {_BOOTSTRAP_SECONDS} s; {REFUSAL_HINT}"


_FENCED = (
    kafka_errors.ProducerFencedError,
    kafka_errors.InvalidProducerEpochError,
    kafka_errors.FencedInstanceIdError,
)
_UNAUTHORIZED = (
    kafka_errors.TopicAuthorizationFailedError,
    kafka_errors.GroupAuthorizationFailedError,
    kafka_errors.ClusterAuthorizationFailedError,
    kafka_errors.TransactionalIdAuthorizationFailedError,
)
_REFUSED = (
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnknownTopicOrPartitionError,
    kafka_errors.InvalidConfigurationError,
    kafka_errors.InvalidPartitionsError,
    kafka_errors.InvalidReplicationFactorError,
    kafka_errors.PolicyViolationError,
)


def commit(reader: Any, positions: Mapping[Any, int]) -> bool:
    """Commit the next offsets of partitions that the reader still holds.

    Returns:
        False if the group is shared out anew meanwhile: whoever gets a partition reads from the older offset. The reader goes
        on where it stands in those that it keeps, and must commit them later.
    """
    held = reader.assignment()
    offsets = {tp: OffsetAndMetadata(offset, "", -1) for tp, offset in positions.items() if tp in held}
    try:
        reader.commit(offsets)
    except _REBALANCED:
        return False
    return True


_REBALANCED = (
    kafka_errors.CommitFailedError,
    kafka_errors.RebalanceInProgressError,
    kafka_errors.IllegalGenerationError,
    kafka_errors.UnknownMemberIdError,
)


def consumer(settings: KafkaSettings, client: str, **options: Any) -> Any:
    """A consumer that sees committed records only and commits nothing by itself. Errors as ``errors``."""
    with errors(f"brokers {settings.bootstrap_servers}"):
        return opened(
            KafkaConsumer,
            **client_options(settings, client),
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            **options,
        )


def subscribe(reader: Any, topics: Iterable[str]) -> None:
    """Make a consumer with a ``group_id`` a member of its group, with these topics."""
    reader.subscribe(list(topics), listener=_JoinsToTheEnd(reader))


def settled(reader: Any) -> bool:
    """Whether a member has its place in the group, with partitions or without: it beats, and may commit."""
    return bool(reader.group_metadata().state == MemberState.STABLE)


class _JoinsToTheEnd(ConsumerRebalanceListener):  # type: ignore[misc]
    """Has a member that joins anew wait until it has joined.

    When partitions are added, or become known only after the first join, the leader joins anew because two copies of the
    metadata differ. kafka-python (seen in 3.0.12) makes them equal when it has shared the partitions out, and then waits for
    the answer only while the ``poll`` of that moment lasts. If it comes later nobody takes it, ever: the member keeps the
    partitions of before (at its start: none), sends no heartbeat, commits nothing, and every ``poll`` turns without pause.
    A request to join anew, on the other hand, stands until it has been done.
    """

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def on_partitions_revoked(self, revoked: Any) -> None:
        """Called before each join, without partitions too."""
        self._reader._coordinator.request_rejoin()

    def on_partitions_assigned(self, assigned: Any) -> None:
        """Called after each: nothing is left to do."""


def read_to_end(settings: KafkaSettings, client: str, topic: str) -> Iterator[Any]:
    """The committed records of a whole topic as it stands now. Errors as ``errors``.

    A transaction that is open now is not waited for: what it writes is not part of now. Whoever must see it fences its
    producer first.
    """
    with errors(f"reading {topic}"):
        reader = consumer(settings, client)
        try:
            partitions = [TopicPartition(topic, number) for number in sorted(partitions_of(reader, topic))]
            reader.assign(partitions)
            reader.seek_to_beginning(*partitions)
            ends = reader.end_offsets(partitions)
            waiting = {one for one in partitions if reader.position(one) < ends[one]}
            moved = time.monotonic()
            while waiting:
                found = reader.poll(timeout_ms=200)
                for records in found.values():
                    yield from records
                before, waiting = waiting, {one for one in waiting if reader.position(one) < ends[one]}
                moved = progress(topic, moved, found or waiting != before)
        finally:
            reader.close()


def progress(what: str, since: float, moves: object) -> float:
    """When reading last came on, by the monotonic clock.

    Raises:
        TransientError: nothing has come for too long.
    """
    now = time.monotonic()
    if moves:
        return now
    if now - since > _PATIENCE_SECONDS:
        raise TransientError(f"kafka: reading {what}: nothing has come for {_PATIENCE_SECONDS:.0f} s")
    return since


def partitions_of(client: Any, topic: str) -> set[int]:
    """Numbers of a topic's partitions.

    Raises:
        ConfigurationError: there is no such topic, or this user may not see it: the library does not tell them apart.
    """
    found: Iterable[int] | None = client.partitions_for_topic(topic)
    if not found:
        raise ConfigurationError(
            f"kafka: there is no topic {topic}, or this user has no right on it: make it by `complaint-radar topics`, or grant "
            f"the right; {RIGHTS_HINT}"
        )
    return set(found)


def partition_count(settings: KafkaSettings, topic: str) -> int:
    """Number of partitions of a topic. Errors as ``errors`` and ``partitions_of``."""
    with errors(f"looking at {topic}"):
        reader = consumer(settings, "look")
        try:
            return len(partitions_of(reader, topic))
        finally:
            reader.close()


def offset_at(settings: KafkaSettings, topic: str, partition: int, time_ms: int) -> int:
    """Offset of the first record of a partition written at that time or later; its end if there is none. Errors as ``errors``."""
    with errors(f"looking at {topic}"):
        reader = consumer(settings, "look")
        try:
            tp = TopicPartition(topic, partition)
            found = reader.offsets_for_times({tp: time_ms}).get(tp)
            end: int = reader.end_offsets([tp])[tp]
            return end if found is None else found.offset
        finally:
            reader.close()
