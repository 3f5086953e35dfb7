"""The same recorded streams through the embedded runtime and through the servers give the same rows, in peace and in chaos."""

import json
import os
import random
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from chaos import COMMON, COMPONENTS, Chaos, a_plan, differences_from_embedded, run_parts, server_section
from clickhouse_driver import Client
from old_server import make_tables
from results import differences, stored
from servers import ClickHouse, Kafka
from stories import catalogue_of, embedded, worlds_of
from streams import write_catalogue
from system import COMMAND, System

from pipeline.runtime import kafka as brokers
from pipeline.runtime.connect import BLOCK_MENTIONS, Connector
from pipeline.runtime.health import Health
from pipeline.scenarios.judge import judge
from pipeline.scenarios.story import POLICY, Scenario, load, names
from pipeline.storage.clickhouse import ServerEngine
from pipeline.storage.embedded import EmbeddedEngine
from pipeline.storage.rows import SIGNALS, STEP_COUNTS
from schemas.codec import decode
from schemas.signal import Signal

pytestmark = pytest.mark.timeout(400)


def make_system(folder: Path, kafka: Kafka, clickhouse: ClickHouse, name: str) -> tuple[System, ServerEngine]:
    """Topics and tables of this name, and no process yet."""
    with Client("127.0.0.1", port=clickhouse.port) as client:
        client.execute(f"CREATE DATABASE {name}")
    system = System(folder / "servers", COMMON | server_section(kafka, clickhouse, name))
    assert system.settings.clickhouse is not None
    engine = ServerEngine(system.settings.clickhouse)
    make_tables(engine)
    system.make_topics()
    return system, engine


@pytest.mark.fault
def test_in_peace(tmp_path: Path, kafka: Kafka, clickhouse: ClickHouse) -> None:
    system, engine = make_system(tmp_path, kafka, clickhouse, "peace")
    try:
        for stage in ("score", "detect", "store"):
            system.start_stage(stage)
        run_parts(system, Chaos(system, kafka, clickhouse, 0), [(), ()])
        codes = system.stop()
        said = differences_from_embedded(tmp_path / "embedded", 2, engine)
        replays = _replays(engine)
        looked_back = {folder: _looked_back(tmp_path / folder, replays) for folder in ("servers", "embedded")}
        bare = _said(tmp_path / "servers", *replays[0])
    finally:
        system.stop()
        engine.close()
    assert not said, "\n".join(said)
    assert set(codes.values()) == {0}
    assert looked_back["servers"] == looked_back["embedded"]
    assert {code for code, _ in looked_back["servers"]} <= {0, 2}, "some of it cannot be told, and nothing differs"
    assert bare == looked_back["servers"][0], "the catalogue of then is on its topic"
    *replayed, (_, tried) = looked_back["servers"]
    assert sum("\nequal: all of its revisions" in words for _, words in replayed) > len(replayed) // 2
    assert "under the present policy" in tried


def _replays(engine: ServerEngine) -> list[tuple[str, str]]:
    listed = engine.query("SELECT DISTINCT signal_id FROM signals ORDER BY signal_id")
    return [("replay", json.loads(line)["signal_id"]) for line in listed.splitlines()]


def _looked_back(folder: Path, replays: list[tuple[str, str]]) -> list[tuple[int, str]]:
    """What the commands say that look at what is stored; the catalogue of then is named, and a policy is tried."""
    write_catalogue(folder / "catalogue-then.csv")
    then = COMMON | {"catalogue": "catalogue-then.csv"}
    (folder / "then.yaml").write_text(yaml.safe_dump(then), encoding="utf-8")
    (folder / "policy.yaml").write_text("{step: 1d, false_signals_per_week: 20}", encoding="utf-8")
    backtest = ("backtest", "--from-clickhouse", "--since", "2026-02-01", "--policy", "policy.yaml")
    return [_said(folder, *command, "--policy", "then.yaml") for command in replays] + [_said(folder, *backtest)]


def _said(folder: Path, *command: str) -> tuple[int, str]:
    done = subprocess.run([COMMAND, *command], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def publish(system: System, scenarios: list[Scenario]) -> None:
    """All of them as one history, complete."""
    assert system.settings.kafka is not None
    connector = Connector(system.settings.kafka, worlds_of(scenarios))
    connector.begin(catalogue_of(scenarios), POLICY)
    for _ in connector.run_pass(threading.Event(), Health()):
        pass
    connector.close_history(POLICY)
    connector.close()


def signals_on(system: System) -> list[Signal]:
    """What is on the topic, in the order of its writing."""
    assert system.settings.kafka is not None
    topic = system.names.topic("signals.v1")
    records = brokers.read_to_end(system.settings.kafka, "test", topic)
    return [decode(record.value, Signal) for record in records if record.value]


def test_all_scenarios_as_products_of_one_stream(tmp_path: Path, kafka: Kafka, clickhouse: ClickHouse) -> None:
    """They give the same counts and signals as embedded, and the signals that each gives alone.

    Channels and regions are common to all stories: there their incidents add up, and what stands out in one may not in all.
    """
    scenarios = [load(name) for name in names()]
    system, engine = make_system(tmp_path, kafka, clickhouse, "scenarios")
    try:
        for stage in ("score", "detect", "store"):
            system.start_stage(stage)
        publish(system, scenarios)
        embedded(tmp_path / "embedded", scenarios, BLOCK_MENTIONS)
        system.settle()
        ours = EmbeddedEngine(tmp_path / "embedded")
        tables = (STEP_COUNTS, SIGNALS)
        said = differences(
            {table.name: stored(ours, table, old=False) for table in tables},
            {table.name: stored(engine, table, old=True) for table in tables},
        )
        ours.close()
        told = signals_on(system)
    finally:
        system.stop()
        engine.close()
    assert not said, "\n".join(said)
    for one in scenarios:
        found = judge(one, [signal for signal in told if one.speaks_of(signal.subject_kind, signal.subject_id)])
        assert bool(found.missing) == bool(one.shortfall.missing), (one.name, found)
        assert bool(found.extra) == bool(one.shortfall.extra), (one.name, found)


def in_chaos(folder: Path, kafka: Kafka, clickhouse: ClickHouse, seed: int, plans: list[list[str]]) -> None:
    """Two workers of each Faust stage; see ``Chaos``."""
    system, engine = make_system(folder, kafka, clickhouse, "chaos")
    chaos = Chaos(system, kafka, clickhouse, seed)
    try:
        for name in ("score-1", "score-2", "detect-1", "detect-2", "store-1"):
            system.start_stage(name.split("-")[0], name)
        run_parts(system, chaos, plans)
        codes = system.stop()
        said = differences_from_embedded(folder / "embedded", len(plans), engine)
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {'; '.join(chaos.said)}\n{error}") from error
    finally:
        system.stop()
        engine.close()
    assert not said, "\n".join((f"seed {seed}: {'; '.join(chaos.said)}", *said))
    # 1: a zombie that found itself fenced in the very moment in which all were told to stop; TERM: one that had, and was
    # only just being started again.
    assert set(codes.values()) <= {0, 1, -signal.SIGTERM}, codes


def test_each_component_killed_once(
    tmp_path: Path, own_kafka: Callable[..., Kafka], own_clickhouse: Callable[..., ClickHouse]
) -> None:
    kills = [f"kill {component}" for component in COMPONENTS]
    random.Random(1).shuffle(kills)
    in_chaos(tmp_path, own_kafka(), own_clickhouse(), 1, [kills, ["zombie detect"]])


SEEDS = [int(seed) for seed in os.environ.get("CHAOS_SEEDS", "11 12 13").split()]


@pytest.mark.fault
@pytest.mark.parametrize("seed", SEEDS)
def test_anything_at_any_time(
    tmp_path: Path, own_kafka: Callable[..., Kafka], own_clickhouse: Callable[..., ClickHouse], seed: int
) -> None:
    dice = random.Random(seed)
    plans = [a_plan(dice, 8), a_plan(dice, 2)]
    in_chaos(tmp_path, own_kafka(), own_clickhouse(), seed, plans)
