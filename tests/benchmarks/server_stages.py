"""Single stages on a topic that was loaded beforehand: how fast they are, beside what, and how fast they are back."""

import sys
import time
from pathlib import Path

from pipeline.runtime import kafka
from pipeline.runtime.kafka import TopicState
from schemas.codec import decode
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


def loaded(servers: Servers, folder: Path, name: str, mentions: int, lots: int, hours: float) -> tuple[System, Rate]:
    """A system whose raw topic holds so many mentions over so many hours, and how fast the connector put them there."""
    system, engine = servers.system(folder, name, catalogue="catalogue.csv", sources=[source("bench.jsonl")])
    engine.close()
    write_catalogue(system.folder / "catalogue.csv", lots)
    with (system.folder / "bench.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(Sayings(lots).lines(mentions, START_MS, hours))
    connect = system.start("connect", "connect")
    rate = timed(lambda: _counted([connect], "radar_mentions_total"), mentions, _pids(servers, connect))
    system.stop()
    system.processes.clear()
    return system, rate


def records_in(system: System, topic: str) -> int:
    """Records that a stage will count."""
    settings = system.settings.kafka
    assert settings is not None
    return sum(1 for _ in kafka.read_to_end(settings, "count", system.names.topic(topic)))


def rows_in(system: System) -> int:
    """Rows on the scored topic, and how many records they are packed into."""
    settings = system.settings.kafka
    assert settings is not None
    rows = 0
    for record in kafka.read_to_end(settings, "count", system.names.topic(SCORED)):
        message = decode(record.value, kafka_kind())
        rows += len(message.rows) if isinstance(message, ScoredBlock) else 0
    return rows


def kafka_kind() -> object:
    from schemas.codec import ScoredRecord

    return ScoredRecord


def workers(system: System, servers: Servers, stage: str, number: int, target: float) -> Rate:
    """That many workers of a stage, from nothing to the end of what is there; the time in which all of them had begun."""
    begin_anew(system, stage)
    running = [start(system, f"{stage}-{one}", "worker", "--stage", stage) for one in range(number)]

    def begun() -> bool:
        texts = [metrics_of(one) for one in running]
        return all(
            value_of(text, "radar_records_total") and value_of(text, "radar_partitions") == PARTITIONS / number
            for text in texts
        )

    try:
        return timed(lambda: _counted(running, "radar_records_total"), target, _pids(servers, *running), started=begun)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{system.tail(stage)}") from None
    finally:
        system.stop()
        system.processes.clear()


def agent(system: System, servers: Servers, kind: str, target: float, patience: float = 300.0) -> Rate:
    """A Faust agent of the benchmark on the same topic, from nothing to the target."""
    settings = system.settings.kafka
    assert settings is not None
    group, out = f"bench-{kind}-{time.monotonic_ns()}", system.names.topic("bench.passed")
    with kafka.admin(settings) as client:
        kafka.make_topics(client, {out: TopicState(PARTITIONS, 1)})
    command = [sys.executable, "-m", "tests.benchmarks.faust_agents"]
    command += [kind, settings.bootstrap_servers, group, system.names.topic(RAW), out]
    log = Path.cwd() / f"{kind}.log"
    process = Process(kind, command, Path.cwd())
    log = system.folder / f"{kind}.log"
    process.folder = system.folder
    log.unlink(missing_ok=True)
    process.start()

    def told() -> float:
        lines = log.read_text(errors="replace").split()
        numbers = [line for line in lines[:-1] if line.isdigit()]
        return float(numbers[-1]) if numbers else 0.0

    try:
        return timed(told, target, _pids(servers, process), patience)
    finally:
        process.stop(10)


def restarts(system: System) -> dict[str, float]:
    """Seconds from the start of a detect worker to its readiness: after TERM, and after KILL with and without the old session."""
    worker = start(system, "detect", "worker", "--stage", "detect")
    _until_ready(worker)
    found = {}
    worker.stop()
    found["after TERM"] = _restarted(system)
    system.processes["detect"].kill()
    found["after KILL, at once"] = _restarted(system)
    system.processes["detect"].kill()
    time.sleep(11)  # the session of the killed one is over after ten
    found["after KILL, its session over"] = _restarted(system)
    system.stop()
    system.processes.clear()
    return found


def _restarted(system: System) -> float:
    begin = time.monotonic()
    _until_ready(start(system, "detect", "worker", "--stage", "detect"))
    return time.monotonic() - begin


def _until_ready(process: Process) -> None:
    until = time.monotonic() + 120
    while not ready(process):
        assert time.monotonic() < until, "not ready"
        time.sleep(0.02)


def _counted(processes: list[Process], name: str) -> float:
    return sum(value_of(metrics_of(one), name) for one in processes)


def _pids(servers: Servers, *processes: Process) -> dict[str, int]:
    found = {"broker": servers.kafka.pid}
    for one in processes:
        assert one.popen is not None
        found[one.name] = one.popen.pid
    return found
