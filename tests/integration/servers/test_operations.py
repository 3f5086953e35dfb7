"""What an operator does with the server path: load a history, score it anew, bring lost state back, replay dead letters."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chaos import server_section
from clickhouse_driver import Client
from old_server import make_tables
from servers import ClickHouse, Kafka
from streams import source, write_catalogue, write_hard
from system import System

from pipeline.runtime import kafka as brokers
from pipeline.runtime import kafka_admin
from pipeline.runtime.replay import republish
from pipeline.storage.clickhouse import ServerEngine
from pipeline.storage.dead_letters import Asked
from schemas.codec import decode
from schemas.dead_letter import DeadLetter
from schemas.signal import Signal

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def system(tmp_path: Path, kafka: Kafka, clickhouse: ClickHouse, request: pytest.FixtureRequest) -> Iterator[System]:
    """Topics, tables and a hard history of twenty days in a file; no process yet."""
    name = request.node.name.replace("test_", "op_")[:30]
    with Client("127.0.0.1", port=clickhouse.port) as client:
        client.execute(f"CREATE DATABASE {name}")
    made = System(
        tmp_path,
        {
            "catalogue": "catalogue.csv",
            "detection": {"step": "1d"},
            "sources": [source("hard", "hard.jsonl", max_lateness="1d")],
            **server_section(kafka, clickhouse, name),
        },
    )
    write_catalogue(tmp_path / "catalogue.csv")
    write_hard(tmp_path / "hard.jsonl", 0)
    made.make_topics()
    yield made
    made.stop()


@pytest.fixture
def engine(system: System) -> Iterator[ServerEngine]:
    """With our tables."""
    assert system.settings.clickhouse is not None
    made = ServerEngine(system.settings.clickhouse)
    make_tables(made)
    yield made
    made.close()


def rows(engine: ServerEngine, query: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in engine.query(query).splitlines()]


def records(system: System, topic: str) -> list[Any]:
    assert system.settings.kafka is not None
    return list(brokers.read_to_end(system.settings.kafka, "test", system.names.topic(topic)))


def signals(system: System) -> dict[str, list[Signal]]:
    """All revisions on the topic, by id."""
    found: dict[str, list[Signal]] = {}
    for record in records(system, "signals.v1"):
        signal = decode(record.value, Signal)
        found.setdefault(signal.signal_id, []).append(signal)
    return found


def test_a_history_is_loaded_scored_anew_and_survives_the_loss_of_its_state(
    system: System, engine: ServerEngine
) -> None:
    for stage in ("score", "detect", "store"):
        system.start_stage(stage)
    said = system.run("bootstrap")
    assert said.count("a spike is possible from 2026-01-1") == 4  # seven steps after the first of each product
    before = signals(system)
    assert before
    assert all(one.historic for revisions in before.values() for one in revisions)  # it pages nobody

    scored = len(records(system, "mentions.scored.v1"))
    count = "SELECT count() AS n, uniqExact(mention_id) AS ids FROM mentions WHERE generation = {}"
    (old,) = rows(engine, count.format(0))
    assert "rows get generation 1" in system.run("rescore")
    (new,) = rows(engine, count.format(1))
    assert new["ids"] == old["ids"] > 500
    system.settle()
    assert (len(records(system, "mentions.scored.v1")), signals(system)) == (scored, before)

    assert system.processes.pop("detect").stop() == 0
    assert system.settings.kafka is not None
    state = system.names.topic("state.detect.v1")
    with kafka_admin.admin(system.settings.kafka) as client:
        client.delete_topics([state])
    system.wait(20, until=lambda: "made" in system.run("topics"))
    assert "12 partitions rebuilt" in system.run("rebuild")
    system.start_stage("detect")
    write_hard(system.folder / "hard.jsonl", 1)
    system.run("connect", "--until-end", "--close")
    system.settle()
    after = signals(system)
    for signal_id in before:
        told: dict[int, Signal] = {}
        for one in after[signal_id]:  # of a step that was not closed it may be told again, and is the same
            assert told.setdefault(one.revision, one) == one, f"{one.kind} {signal_id} began anew"
    steps = "SELECT toInt64(step_start) AS at, sum(mentions) AS n FROM step_counts WHERE revision = 0 AND {} GROUP BY at ORDER BY at"
    every_day = rows(engine, steps.format("subject_kind = 'channel' AND objection_type = 'any'"))
    assert len(every_day) == 41  # forty times 24 hours that begin within a day
    assert all(row["n"] for row in every_day)


def test_rebuild_waits_for_no_worker(system: System, engine: ServerEngine) -> None:
    system.start_stage("detect")
    system.wait(20, until=lambda: "ready after" in system.tail("detect"))
    with pytest.raises(AssertionError, match="detect workers are at work: stop all of them first"):
        system.run("rebuild")


def test_dead_letters_are_read_again_at_their_source(system: System) -> None:
    (system.folder / "hard.jsonl").write_text(
        '{"id": "1", "text": "漏水", "time": "03.02.2026"}\n{"id": "2", "text": "漏水", "time": "gestern"}\n',
        encoding="utf-8",
    )
    system.run("connect", "--until-end")
    letters = [decode(record.value, DeadLetter) for record in records(system, "dead_letters.v1")]
    assert [letter.reason for letter in letters] == ["wrong_type", "wrong_type"]
    text = (system.folder / "radar.yaml").read_text(encoding="utf-8")
    (system.folder / "radar.yaml").write_text(text.replace("max_lateness:", "time_format: '%d.%m.%Y'\n  max_lateness:"))
    asked = [Asked(one.dead_letter_id, one.source_id, one.locator, one.payload_hash) for one in letters]
    assert len(republish(system.settings, asked)) == 1
    mentions = [
        message
        for record in records(system, "mentions.raw.v1")
        if isinstance(message := json.loads(record.value), dict) and message["record"] == "mention"
    ]
    assert [(one["native_id"], one["backfill"]) for one in mentions] == [("1", True)]
