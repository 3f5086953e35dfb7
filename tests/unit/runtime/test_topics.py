"""What is stated of topics against what brokers have: the comparison alone."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from pipeline.runtime import topics
from pipeline.runtime.kafka import topic_specs
from pipeline.runtime.kafka_admin import Cluster, TopicState
from pipeline.settings import KafkaSettings

SETTINGS = KafkaSettings(bootstrap_servers="broker:9092", prefix="p.", replication_factor=3, min_insync_replicas=2)
RAW, SCORED, STATE = "p.mentions.raw.v1", "p.mentions.scored.v1", "p.state.detect.v1"


def as_stated(settings: KafkaSettings = SETTINGS) -> dict[str, TopicState]:
    return {
        settings.prefix + name: TopicState(
            spec.partitions, settings.replication_factor, config=spec.properties(settings.min_insync_replicas)
        )
        for name, spec in topic_specs().items()
    }


def compared(
    topic: str | None = None, config: Mapping[str, str | None] | None = None, brokers: int = 3, **changes: object
) -> list[topics.Difference]:
    """The differences when one topic is not as stated."""
    states = as_stated()
    if topic is not None:
        state = states[topic]
        if config is not None:
            changes["config"] = {**(state.config or {}), **config}
        states[topic] = replace(state, **changes)
    return topics.compare(topics.Brokers(Cluster(brokers, "4.1"), states), SETTINGS)


def test_nothing_differs_where_all_is_as_stated() -> None:
    assert compared() == []


def test_every_topic_is_missing_in_a_new_cluster_in_the_order_of_the_file() -> None:
    found = topics.compare(topics.Brokers(Cluster(3, "4.1"), {}), SETTINGS)
    assert [one.topic for one in found] == [f"p.{name}" for name in topic_specs()]
    assert {(one.what, one.doer) for one in found} == {("topic", "topics")}
    assert str(found[0]) == f"{RAW}: topic is missing, should be 12 partitions of 3 replicas: `topics` makes it"


def test_a_topic_cannot_be_made_on_too_few_brokers() -> None:
    (one, *_) = topics.compare(topics.Brokers(Cluster(1, "4.1"), {}), SETTINGS)
    assert one.doer == "person"
    assert "kafka.replication_factor: 3 does not do: the cluster has 1 broker;" in str(one)


@pytest.mark.parametrize("name", [name for name, spec in topic_specs().items() if spec.partitions > 1])
def test_partitions_are_added_to_the_raw_topic_alone(name: str) -> None:
    spec = topic_specs()[name]
    (one,) = (one for one in compared(f"p.{name}", partitions=1) if one.topic == f"p.{name}")
    assert (one.what, one.found, one.wanted) == ("partitions", "1", str(spec.partitions))
    assert one.doer == ("topics" if name == "mentions.raw.v1" else "person")
    assert "`topics` adds them" in one.remedy or "`topics` leaves the number as it is" in one.remedy


def test_why_partitions_stay_is_said_for_each_topic() -> None:
    assert "a subject's state lies" in str(compared(SCORED, partitions=6)[0])
    assert "out of order" in str(*compared("p.signals.v1", partitions=1))


def test_the_state_needs_as_many_partitions_as_the_scored_topic_has() -> None:
    (scored, state) = compared(SCORED, partitions=24)
    assert (scored.topic, scored.what, scored.doer) == (SCORED, "partitions", "nobody")
    assert (state.topic, state.found, state.wanted, state.doer) == (STATE, "12", "24", "person")
    assert "with the same number" in state.remedy
    (scored, state) = compared(SCORED, partitions=6)
    assert scored.doer == "person"
    assert (state.doer, state.remedy) == (
        "nobody",
        "more than mentions.scored.v1 has; the last 6 stay empty, which is fine",
    )


def test_a_new_state_topic_gets_as_many_partitions_as_the_scored_topic_has() -> None:
    states = as_stated()
    del states[STATE]
    states[SCORED] = replace(states[SCORED], partitions=24)
    found = topics.compare(topics.Brokers(Cluster(3, "4.1"), states), SETTINGS)
    assert next(one.wanted for one in found if one.topic == STATE) == "24 partitions of 3 replicas"


def test_more_partitions_are_fine() -> None:
    (one,) = compared(RAW, partitions=48)
    assert (one.doer, str(one)) == ("nobody", f"{RAW}: partitions 48: more than stated, which is fine")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("1000", f"{RAW}: retention.ms 1000 (1 s), should be 1209600000 (14 d): `topics` sets it"),
        (
            "-1",
            f"{RAW}: retention.ms -1 (for ever), should be 1209600000 (14 d): `topics` sets it; the brokers then delete what is older",
        ),
    ],
)
def test_another_retention_is_set_and_its_effect_is_said(value: str, words: str) -> None:
    (one,) = compared(RAW, {"retention.ms": value})
    assert (one.doer, str(one)) == ("topics", words)


def test_values_that_mean_the_same_are_no_difference() -> None:
    assert compared(STATE, {"min.cleanable.dirty.ratio": "0.10"}) == []
    assert topics._same("compact,delete", "delete, compact")
    assert not topics._same("compact", "delete")


def test_a_topic_is_never_made_unwritable() -> None:
    found = compared(RAW, {"min.insync.replicas": "1"}, replicas=1)
    assert [(one.what, one.doer) for one in found] == [("replicas", "person"), ("min.insync.replicas", "person")]
    (one,) = compared(RAW, {"min.insync.replicas": "1"})
    assert one.doer == "topics"


def test_replicas_are_a_persons_matter_and_more_of_them_are_fine() -> None:
    (one,) = compared(RAW, replicas=2)
    assert (one.what, one.found, one.wanted, one.doer) == ("replicas", "2", "3", "person")
    assert "kafka-reassign-partitions" in one.remedy
    assert compared(RAW, replicas=5) == []


def test_what_the_brokers_do_not_tell_is_named() -> None:
    states = as_stated()
    states[RAW] = replace(states[RAW], config=None)
    (one,) = topics.compare(topics.Brokers(Cluster(3, "4.1"), states), SETTINGS)
    assert (one.what, one.doer) == ("configuration", "person")
    assert "DescribeConfigs" in one.remedy
    (one,) = compared(STATE, {"max.compaction.lag.ms": None})
    assert (one.found, one.doer) == ("unknown", "person")
