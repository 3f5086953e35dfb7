"""Single stages on a topic that was loaded beforehand: how fast they are, beside what, and how soon they are back."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.runtime import kafka, kafka_admin
from pipeline.runtime.kafka_admin import TopicState
from pipeline.settings import KafkaSettings
from schemas.codec import TOPICS, decode
from schemas.scored import ScoredBlock
from tests.benchmarks.server_input import Sayings, source, write_catalogue
from tests.benchmarks.server_processes import (
    Rate,
    Servers,
    begin_anew,
    metrics_of,
    ready,
    start,
    timed,
    value_of,
)
from tests.support.system import Process, System

START_MS = 1_772_323_200_000
"""2026-03-01."""
RAW, SCORED = "mentions.raw.v1", "mentions.scored.v1"
PARTITIONS = 12
SESSION_SECONDS = 10
_READY_SECONDS = 120.0


def loaded(servers: Servers, folder: Path, name: str, mentions: int, lots: int, hours: float) -> tuple[System, Rate]:
    """A system whose raw topic holds so many mentions over so many hours, and how fast the connector put them there."""
    system, engine = servers.system(folder, name, catalogue="catalogue.csv", sources=[source("bench.jsonl")])
    engine.close()
    write_catalogue(system.folder / "catalogue.csv", lots)
    with (system.folder / "bench.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(Sayings(lots).lines(mentions, START_MS, hours))
    connect = start(system, "connect", "connect")
    rate = timed(lambda: counted([connect], "radar_mentions_total"), mentions, pids(servers, [connect]))
    _stop(system)
    return system, rate


def brokers_of(system: System) -> KafkaSettings:
    """The section ``kafka``."""
    settings = system.settings.kafka
    assert settings is not None
    return settings


def records_in(system: System, topic: str) -> int:
    """Records that whoever reads the topic will count."""
    return sum(1 for _ in kafka.read_to_end(brokers_of(system), "count", system.names.topic(topic)))


@dataclass
class Packed:
    """What is on the scored topic."""

    records: int = 0
    rows: int = 0


def packed(system: System) -> Packed:
    """Rows, and how many records hold them."""
    found = Packed()
    for record in kafka.read_to_end(brokers_of(system), "count", system.names.topic(SCORED)):
        message = decode(record.value, TOPICS[SCORED])
        found.records += 1
        found.rows += len(message.rows) if isinstance(message, ScoredBlock) else 0
    return found


def workers(system: System, servers: Servers, stage: str, number: int, target: float) -> Rate:
    """So many workers of a stage that read all there is; from when all of them are at work, each with its share."""
    begin_anew(system, stage)
    running = [start(system, f"{stage}-{one}", "worker", "--stage", stage) for one in range(number)]

    def begun() -> bool:
        texts = [metrics_of(one) for one in running]
        shares = [value_of(text, "radar_partitions") for text in texts]
        return all(value_of(text, "radar_records_total") for text in texts) and shares == [PARTITIONS / number] * number

    try:
        return timed(lambda: counted(running, "radar_records_total"), target, pids(servers, running), started=begun)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{system.tail(stage)}") from None
    finally:
        _stop(system)


def agent(system: System, servers: Servers, kind: str, target: float) -> Rate:
    """An agent of ``faust_agents`` on the same topic, from its beginning until it has passed on so many."""
    settings, out = brokers_of(system), system.names.topic("bench.passed")
    with kafka_admin.admin(settings) as client:
        kafka_admin.make_topics(client, {out: TopicState(PARTITIONS, 1)})
    group = f"{kind}-{time.monotonic_ns()}"
    command = [sys.executable, str(Path(__file__).with_name("faust_agents.py"))]
    process = Process(
        kind, [*command, kind, settings.bootstrap_servers, group, system.names.topic(RAW), out], system.folder
    )
    log = system.folder / f"{kind}.log"
    log.unlink(missing_ok=True)
    process.start()

    def told() -> float:
        numbers = [word for word in log.read_text(errors="replace").split()[:-1] if word.isdigit()]
        return float(numbers[-1]) if numbers else 0.0

    try:
        return timed(told, target, pids(servers, [process]))
    except AssertionError as error:
        raise AssertionError(f"{error}\n{log.read_text(errors='replace')[-3000:]}") from None
    finally:
        process.kill()


@dataclass
class Restarts:
    """Seconds from the start of a worker to its readiness."""

    after_term: float
    after_kill: float
    """At once: the group waits for the session of the dead one to end."""
    after_session: float
    """After a kill too, when that session has ended."""


def restarts(system: System) -> Restarts:
    """Of a detect worker, on the state that is there."""
    _time_to_ready(system)
    system.processes["detect"].stop()
    after_term = _time_to_ready(system)
    system.processes["detect"].kill()
    after_kill = _time_to_ready(system)
    system.processes["detect"].kill()
    time.sleep(SESSION_SECONDS + 1)
    found = Restarts(after_term, after_kill, _time_to_ready(system))
    _stop(system)
    return found


def _time_to_ready(system: System) -> float:
    begin = time.monotonic()
    process = start(system, "detect", "worker", "--stage", "detect")
    while not ready(process):
        assert time.monotonic() < begin + _READY_SECONDS, system.tail("detect")
        time.sleep(0.02)
    return time.monotonic() - begin


def counted(processes: Sequence[Process], name: str) -> float:
    """Sum of a counter over processes."""
    return sum(value_of(metrics_of(one), name) for one in processes)


def pids(servers: Servers, processes: Sequence[Process]) -> dict[str, int]:
    """By name, the broker's too."""
    found = {one.name: one.popen.pid for one in processes if one.popen is not None}
    return {**found, "broker": servers.kafka.pid}


def _stop(system: System) -> None:
    system.stop()
    system.processes.clear()
