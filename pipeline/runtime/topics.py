"""The topics of ``schemas/topics.yaml`` on the brokers: where they differ from what is stated, and making them so.

``topics`` does by itself only what loses nothing and moves nothing. The rest it names, and says what a person can do:

- Partitions are added to ``mentions.raw.v1`` alone. Everywhere else a key, or a subject's state, would from then on be found
  in another partition than before: order and compaction hold within one partition only.
- Replicas are moved by whoever runs the brokers.
- Nothing is ever deleted.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.errors import ConfigurationError
from pipeline.runtime import kafka, kafka_admin
from pipeline.runtime.kafka import Names, TopicSpec
from pipeline.runtime.kafka_admin import Cluster, TopicState
from pipeline.settings import KafkaSettings

RAW = "mentions.raw.v1"
SCORED = "mentions.scored.v1"
STATE = "state.detect.v1"

Doer = Literal["topics", "person", "nobody"]

_PARTITIONS_DECIDE = {
    SCORED: "it decides in which partition a subject's state lies; with more, subjects would begin anew without their history. "
    "To have more, take another kafka.prefix and read the sources again",
    STATE: f"each partition of it keeps the state of the partition of {SCORED} with the same number, and one that is not "
    "there cannot be kept. Stop the workers and add them by hand (kafka-topics --alter --partitions)",
}
_KEYED = "a key's older and newer records would lie in different partitions, out of order. It works as it is, with less room to grow"
_UNITS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s"))


@dataclass(frozen=True)
class Difference:
    """One thing of one topic that is not as it is stated."""

    topic: str
    """Its name on the brokers."""
    what: str
    """``topic``, ``partitions``, ``replicas``, ``configuration``, or the name of a configuration value."""
    found: str
    wanted: str
    doer: Doer
    """Who puts it right: the command ``topics``, or a person; nobody: this is fine, and worth knowing."""
    remedy: str
    """What will be done, or what a person must do, and why."""

    def __str__(self) -> str:
        expected = "" if self.doer == "nobody" else f", should be {self.wanted}"
        return f"{self.topic}: {self.what} {self.found}{expected}: {self.remedy}"


@dataclass(frozen=True)
class Outcome:
    """What ``create`` did, a line each, and what it must leave."""

    done: tuple[str, ...]
    left: tuple[Difference, ...]


@dataclass(frozen=True)
class Brokers:
    """What was seen of the brokers."""

    cluster: Cluster
    topics: Mapping[str, TopicState]
    """Ours, as far as they exist, by their names on the brokers."""


@contextmanager
def connected(settings: KafkaSettings) -> Iterator[Any]:
    """An admin client; that no broker can be reached is told within seconds. Errors as ``kafka.errors``."""
    kafka_admin.reach(settings)
    with kafka_admin.admin(settings) as client:
        yield client


def look(client: Any, settings: KafkaSettings) -> Brokers:
    """The brokers and our topics on them, told by an admin client. Errors as ``kafka.errors``."""
    names = Names(settings)
    wanted = {
        names.topic(name): spec.properties(settings.min_insync_replicas) for name, spec in kafka.topic_specs().items()
    }
    return Brokers(kafka_admin.cluster(client), kafka_admin.topic_states(client, wanted))


def differences(settings: KafkaSettings) -> list[Difference]:
    """How the topics on the brokers differ from what is stated, in the order of ``topics.yaml``; nothing is changed.

    Raises:
        ConfigurationError: the brokers refuse us.
        TransientError: they cannot be reached, or fail.
    """
    with connected(settings) as client:
        return compare(look(client, settings), settings)


def create(settings: KafkaSettings) -> Outcome:
    """Make what is missing, set what is configured otherwise, add partitions where that is harmless.

    Again it does nothing; two at once do it once.

    Raises:
        ConfigurationError: the brokers refuse it; or they are fewer than ``kafka.replication_factor``, and nothing was changed.
        TransientError: they cannot be reached, or fail; call again.
    """
    with connected(settings) as client:
        seen = look(client, settings)
        found = compare(seen, settings)
        _enough_brokers(found, seen, settings)
        done = [*_make(client, seen, settings, found), *_grow(client, settings, found)]
        done += _configure(client, settings, found)
    return Outcome(tuple(done), tuple(one for one in found if one.doer != "topics"))


def compare(seen: Brokers, settings: KafkaSettings) -> list[Difference]:
    """The differences between what was seen and what is stated, in the order of ``topics.yaml``."""
    names = Names(settings)
    found: list[Difference] = []
    for name, spec in kafka.topic_specs().items():
        topic = names.topic(name)
        state = seen.topics.get(topic)
        wanted = _partitions(spec, seen, names)
        if state is None:
            found.append(_missing(topic, wanted, seen.cluster, settings))
            continue
        found += _other_partitions(topic, spec, state.partitions, wanted)
        found += _fewer_replicas(topic, state, seen.cluster, settings)
        found += _other_config(topic, state, spec.properties(settings.min_insync_replicas))
    return found


def _partitions(spec: TopicSpec, seen: Brokers, names: Names) -> int:
    """How many a topic should have; the state of detection follows what it is the state of."""
    scored = seen.topics.get(names.topic(SCORED))
    return scored.partitions if spec.name == STATE and scored is not None else spec.partitions


def _missing(topic: str, partitions: int, cluster: Cluster, settings: KafkaSettings) -> Difference:
    copies = settings.replication_factor
    wanted = f"{_counted(partitions, 'partition')} of {_counted(copies, 'replica')}"
    if cluster.brokers < copies:
        return Difference(topic, "topic", "is missing", wanted, "person", _too_few(cluster, settings))
    return Difference(topic, "topic", "is missing", wanted, "topics", "`topics` makes it")


def _other_partitions(topic: str, spec: TopicSpec, found: int, wanted: int) -> Iterator[Difference]:
    if found > wanted:
        remedy = "more than stated, which is fine"
        if spec.name == STATE:
            remedy = f"more than {SCORED} has; the last {found - wanted} stay empty, which is fine"
        yield Difference(topic, "partitions", str(found), str(wanted), "nobody", remedy)
    elif found < wanted and spec.name == RAW:
        remedy = (
            "`topics` adds them. `connect` and the workers take the number when they start: start them again; detection "
            "waits until the new partitions, too, have told how far the sources are"
        )
        yield Difference(topic, "partitions", str(found), str(wanted), "topics", remedy)
    elif found < wanted:
        remedy = f"`topics` leaves the number as it is: {_PARTITIONS_DECIDE.get(spec.name, _KEYED)}"
        yield Difference(topic, "partitions", str(found), str(wanted), "person", remedy)


def _fewer_replicas(topic: str, state: TopicState, cluster: Cluster, settings: KafkaSettings) -> Iterator[Difference]:
    wanted = settings.replication_factor
    if state.replicas >= wanted:
        return
    remedy = "`topics` moves no replicas: add them with kafka-reassign-partitions, or lower kafka.replication_factor"
    if cluster.brokers < wanted:
        remedy = _too_few(cluster, settings)
    yield Difference(topic, "replicas", str(state.replicas), str(wanted), "person", remedy)


def _other_config(topic: str, state: TopicState, stated: Mapping[str, str]) -> Iterator[Difference]:
    if state.config is None:
        remedy = "this user lacks the right DescribeConfigs on it: grant it, or see to the configuration yourself"
        wanted = ", ".join(f"{key}={value}" for key, value in stated.items())
        yield Difference(topic, "configuration", "is not told", wanted, "person", remedy)
        return
    for key, wanted in stated.items():
        found = state.config.get(key)
        if found is not None and _same(found, wanted):
            continue
        doer, remedy = _config_remedy(key, found, wanted, state)
        yield Difference(topic, key, _shown(key, found), _shown(key, wanted), doer, remedy)


def _config_remedy(key: str, found: str | None, wanted: str, state: TopicState) -> tuple[Doer, str]:
    if found is None:
        return "person", "these brokers do not know it; a newer Kafka does"
    if key == "min.insync.replicas" and int(wanted) > state.replicas:
        # Set all the same, nothing could be written to it any more.
        return "person", f"`topics` leaves it: the topic has {_counted(state.replicas, 'replica')}; give it more first"
    if key == "retention.ms" and _shorter(wanted, found):
        return "topics", "`topics` sets it; the brokers then delete what is older"
    return "topics", "`topics` sets it"


def _enough_brokers(found: list[Difference], seen: Brokers, settings: KafkaSettings) -> None:
    missing = [one.topic for one in found if one.what == "topic"]
    if missing and seen.cluster.brokers < settings.replication_factor:
        raise ConfigurationError(f"{_too_few(seen.cluster, settings)}. Not made: {', '.join(missing)}")


def _too_few(cluster: Cluster, settings: KafkaSettings) -> str:
    return (
        f"kafka.replication_factor: {settings.replication_factor} does not do: the cluster has "
        f"{_counted(cluster.brokers, 'broker')}; start more, or set kafka.replication_factor to {cluster.brokers} or less "
        "(and kafka.min_insync_replicas not above it)"
    )


def _make(client: Any, seen: Brokers, settings: KafkaSettings, found: list[Difference]) -> Iterator[str]:
    names = Names(settings)
    missing = {one.topic for one in found if one.what == "topic" and one.doer == "topics"}
    wanted = {
        topic: TopicState(
            _partitions(spec, seen, names),
            settings.replication_factor,
            config=spec.properties(settings.min_insync_replicas),
        )
        for name, spec in kafka.topic_specs().items()
        if (topic := names.topic(name)) in missing
    }
    made = kafka_admin.make_topics(client, wanted) if wanted else set()
    for topic, state in wanted.items():
        size = f"{_counted(state.partitions, 'partition')} of {_counted(state.replicas, 'replica')}"
        yield f"{topic}: made, {size}" if topic in made else f"{topic}: made by another process meanwhile"


def _grow(client: Any, settings: KafkaSettings, found: list[Difference]) -> Iterator[str]:
    for one in found:
        if one.what == "partitions" and one.doer == "topics":
            added = kafka_admin.add_partitions(client, one.topic, int(one.wanted))
            yield f"{one.topic}: partitions {one.found} → {one.wanted}{'' if added else ', by another process'}"


def _configure(client: Any, settings: KafkaSettings, found: list[Difference]) -> Iterator[str]:
    names = Names(settings)
    for name, spec in kafka.topic_specs().items():
        topic = names.topic(name)
        stated = spec.properties(settings.min_insync_replicas)
        differing = [one for one in found if one.topic == topic and one.doer == "topics" and one.what in stated]
        if differing:
            kafka_admin.set_topic_config(client, topic, {one.what: stated[one.what] for one in differing})
        for one in differing:
            yield f"{topic}: {one.what} {one.found} → {one.wanted}"


def _same(found: str, wanted: str) -> bool:
    """Whether two values of a configuration mean the same: numbers by value, lists (``compact,delete``) in any order."""
    try:
        return float(found) == float(wanted)
    except ValueError:
        return {part.strip() for part in found.split(",")} == {part.strip() for part in wanted.split(",")}


def _shorter(wanted: str, found: str) -> bool:
    return wanted != "-1" and (found == "-1" or int(found) > int(wanted))


def _shown(key: str, value: str | None) -> str:
    """A value as people read it: milliseconds also in the largest unit that fits."""
    if value is None:
        return "unknown"
    if not key.endswith(".ms"):
        return value
    if value == "-1":
        return "-1 (for ever)"
    milliseconds = int(value)
    unit, name = next(((unit, name) for unit, name in _UNITS if milliseconds >= unit), (1, "ms"))
    return f"{value} ({milliseconds / unit:g} {name})"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
