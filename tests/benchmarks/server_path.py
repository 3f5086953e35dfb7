"""The whole path, connect → score → detect → store: what it sustains, and how long a mention is on its way."""

import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kafka import TopicPartition

from pipeline.detection.entries import HARM
from pipeline.runtime import kafka
from pipeline.storage.clickhouse import ServerEngine
from schemas.codec import decode
from schemas.identity import mention_id
from schemas.signal import Signal
from tests.benchmarks.server_input import SEVERE, Sayings, lot_name, product_of, source, write_catalogue
from tests.benchmarks.server_processes import Meter, Servers, ready, resident_bytes, start
from tests.support.system import System

STAGES = ("connect", "score", "detect", "store")
SAMPLE_SECONDS = 10.0
_TICK_SECONDS = 0.05


@contextmanager
def _running(servers: Servers, folder: Path, name: str, lots: int) -> Iterator[tuple[System, ServerEngine]]:
    """All four, ready, on an empty file; as they are shipped, but for names and addresses."""
    system, engine = servers.system(folder, name, catalogue="catalogue.csv", sources=[source("bench.jsonl")])
    write_catalogue(system.folder / "catalogue.csv", lots)
    (system.folder / "bench.jsonl").touch()
    try:
        processes = [start(system, stage, *_command(stage)) for stage in STAGES]
        assert system.wait(60, until=lambda: all(map(ready, processes))), system.tail("")
        yield system, engine
    finally:
        system.stop()
        engine.close()


def _command(stage: str) -> tuple[str, ...]:
    return ("connect",) if stage == "connect" else ("worker", "--stage", stage)


def _stored(engine: ServerEngine) -> int:
    return int(json.loads(engine.query("SELECT toInt32(count()) AS n FROM mentions"))["n"])


class Feeder(threading.Thread):
    """Appends mentions to the source's file as they are said, so many a second, until told to stop."""

    def __init__(self, path: Path, sayings: Sayings, rate: float) -> None:
        super().__init__(daemon=True)
        self._path, self._sayings, self._rate = path, sayings, rate
        self.stopped = threading.Event()
        self.written = 0

    def run(self) -> None:
        begin = time.monotonic()
        with self._path.open("a", encoding="utf-8") as file:
            while not self.stopped.wait(_TICK_SECONDS):
                due = int((time.monotonic() - begin) * self._rate)
                now = time.time_ns() // 1_000_000
                file.writelines(self._sayings.line(number, now) for number in range(self.written, due))
                file.flush()
                self.written = due


@dataclass
class Sustained:
    """What was seen of a run, a sample every ``SAMPLE_SECONDS``."""

    seconds: list[float] = field(default_factory=list)
    written: list[int] = field(default_factory=list)
    stored: list[int] = field(default_factory=list)
    memory: dict[str, list[int]] = field(default_factory=dict)
    cores: dict[str, float] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """For a reader."""
        minute = max(1, round(60 / SAMPLE_SECONDS))
        rate = (self.stored[-1] - self.stored[0]) / (self.seconds[-1] - self.seconds[0])
        waiting = [written - stored for written, stored in zip(self.written, self.stored, strict=True)]
        yield (
            f"stored {rate:,.0f} mentions/s over {self.seconds[-1]:.0f} s; waiting at a sample: "
            f"{max(waiting[:minute]):,} at most in the first minute, {max(waiting[-minute:]):,} in the last"
        )
        for name, sizes in self.memory.items():
            first, last = (sum(part) / len(part) / 2**20 for part in (sizes[:minute], sizes[-minute:]))
            yield f"  {name:<10} {self.cores[name]:.2f} cores, memory {first:.0f} MB in the first minute, {last:.0f} in the last"
        yield f"  others     {self.cores['others']:.2f} cores (this benchmark's own work included)"


def sustained(servers: Servers, folder: Path, rate: float, minutes: float, lots: int) -> Sustained:
    """Mentions said at this rate for so long, after a quarter of a minute to get going."""
    with _running(servers, folder, "path", lots) as (system, engine):
        feeder = Feeder(system.folder / "bench.jsonl", Sayings(lots), rate)
        feeder.start()
        time.sleep(15)
        pids = {name: process.popen.pid for name, process in system.processes.items() if process.popen is not None}
        pids |= {"kafka": servers.kafka.pid, "clickhouse": servers.clickhouse.pid}
        found, meter, begin = Sustained(memory={name: [] for name in pids}), Meter(pids), time.monotonic()
        for number in itertools.count():
            time.sleep(max(0.0, begin + number * SAMPLE_SECONDS - time.monotonic()))
            found.seconds.append(time.monotonic() - begin)
            found.written.append(feeder.written)
            found.stored.append(_stored(engine))
            for name, pid in pids.items():
                found.memory[name].append(resident_bytes(pid))
            if found.seconds[-1] >= minutes * 60:
                break
        found.cores = meter.read()
        feeder.stopped.set()
        feeder.join()
    return found


def backlog(servers: Servers, folder: Path, mentions: int, lots: int) -> tuple[float, dict[str, float]]:
    """Mentions a second from a file of so many to the database, and who used the cores."""
    with _running(servers, folder, "backlog", lots) as (system, engine):
        lines = list(Sayings(lots).lines(mentions, time.time_ns() // 1_000_000 - 86_400_000, 24))
        pids = {name: process.popen.pid for name, process in system.processes.items() if process.popen is not None}
        pids |= {"kafka": servers.kafka.pid, "clickhouse": servers.clickhouse.pid}
        meter, begin = Meter(pids), time.monotonic()
        with (system.folder / "bench.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(lines)
        while (stored := _stored(engine)) < mentions and time.monotonic() < begin + 600:
            time.sleep(0.5)
        return stored / (time.monotonic() - begin), meter.read()


# -- a light load ------------------------------------------------------------------------------------------------------


@dataclass
class Delays:
    """Seconds from what was said to where it was seen."""

    row: list[float] = field(default_factory=list)
    signal: list[float] = field(default_factory=list)
    said: int = 0
    severe: int = 0


def light(servers: Servers, folder: Path, rate: float, mentions: int) -> Delays:
    """So many mentions at this rate, every third a harm to a lot of its own; all of them are waited for."""
    lots = mentions
    with _running(servers, folder, "light", lots) as (system, engine):
        found = Delays(said=mentions)
        rows: dict[str, float] = {}
        signals: dict[str, float] = {}
        stop = threading.Event()
        readers = [
            threading.Thread(target=_watch_rows, args=(engine, rows, stop)),
            threading.Thread(target=_watch_signals, args=(system, signals, stop)),
        ]
        for reader in readers:
            reader.start()
        said = _say(system.folder / "bench.jsonl", Sayings(lots), rate, mentions)
        severe = [number for number in said if number % 3 == 0]
        found.severe = len(severe)
        until = time.monotonic() + 30
        while time.monotonic() < until and (len(rows) < len(said) or len(signals) < len(severe)):
            time.sleep(0.2)
        stop.set()
        for reader in readers:
            reader.join()
        found.row = sorted(rows[str(number)] - at for number, at in said.items() if str(number) in rows)
        names = {number: mention_id("bench", str(number)) for number in severe}
        found.signal = sorted(signals[names[number]] - said[number] for number in severe if names[number] in signals)
    return found


def _say(path: Path, sayings: Sayings, rate: float, mentions: int) -> dict[int, float]:
    """When each was said, seconds since the epoch."""
    said: dict[int, float] = {}
    begin = time.monotonic()
    with path.open("a", encoding="utf-8") as file:
        for number in range(mentions):
            time.sleep(max(0.0, begin + number / rate - time.monotonic()))
            text = f"{product_of(number)}{SEVERE}，批号{lot_name(number)}" if number % 3 == 0 else None
            now = time.time()
            file.write(sayings.line(number, int(now * 1000), lot=number, text=text))
            file.flush()
            said[number] = now
    return said


def _watch_rows(engine: ServerEngine, rows: dict[str, float], stop: threading.Event) -> None:
    while not stop.wait(_TICK_SECONDS):
        answer = engine.query("SELECT native_id FROM mentions")
        now = time.time()
        for line in answer.splitlines():
            rows.setdefault(json.loads(line)["native_id"], now)


def _watch_signals(system: System, signals: dict[str, float], stop: threading.Event) -> None:
    settings = system.settings.kafka
    assert settings is not None
    reader = kafka.consumer(settings, "bench")
    try:
        topic = system.names.topic("signals.v1")
        partitions = [TopicPartition(topic, number) for number in kafka.partitions_of(reader, topic)]
        reader.assign(partitions)
        reader.seek_to_beginning(*partitions)
        while not stop.is_set():
            for records in reader.poll(timeout_ms=50).values():
                now = time.time()
                for record in records:
                    signal = decode(record.value, Signal)
                    if signal.severity == HARM:
                        for one in signal.evidence:
                            signals.setdefault(one.mention_id, now)
    finally:
        reader.close()
