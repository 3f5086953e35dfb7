"""Kills and pauses of everything, in an order that a seed decides, while a stream is on its way through the system."""

import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from results import differences, everything
from servers import ClickHouse, Kafka
from streams import NEW_LOT, source, write_catalogue, write_demo, write_hard, write_poison
from system import Process, System

from pipeline.storage.clickhouse import ServerEngine
from pipeline.storage.embedded import EmbeddedEngine

SESSION_SECONDS = 6
"""Session time-out of the workers here; a pause must be longer to make a zombie."""

COMPONENTS = ("connect", "score", "detect", "store", "kafka", "clickhouse")
ACTIONS = (
    *(f"kill {one}" for one in COMPONENTS),
    *("stall kafka", "stall clickhouse"),
    *("zombie score", "zombie detect", "leave score", "leave detect"),
)

SOURCES = [
    source("demo", "demo.jsonl"),
    source("hard", "hard.jsonl", max_lateness="1d"),
    source("poison", "poison.jsonl"),
]
COMMON: dict[str, object] = {"catalogue": "catalogue.csv", "detection": {"step": "1d"}, "sources": SOURCES}


def server_section(kafka: Kafka, clickhouse: ClickHouse, name: str) -> dict[str, object]:
    """Topics of this prefix, tables of this database."""
    return {
        "kafka": {
            "bootstrap_servers": kafka.address,
            "prefix": f"{name}.",
            "replication_factor": 1,
            "min_insync_replicas": 1,
            "session_timeout": f"{SESSION_SECONDS}s",
        },
        "clickhouse": {"hosts": clickhouse.address, "database": name, "allow_older": True},
    }


def write_part(folder: Path, part: int) -> None:
    """Part 0: all files; further parts are appended to the hard one, under a new catalogue."""
    if part:
        write_catalogue(folder / "catalogue.csv", NEW_LOT)
        write_hard(folder / "hard.jsonl", part)
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_catalogue(folder / "catalogue.csv")
    write_demo(folder / "demo.jsonl")
    write_hard(folder / "hard.jsonl", 0)
    write_poison(folder / "poison.jsonl")
    (folder / "radar-data").mkdir()
    (folder / "radar-data/pseudonym.key").write_text("the same in both", encoding="ascii")


def a_plan(dice: random.Random, actions: int) -> list[str]:
    """So many actions, three quarters of them kills."""
    return dice.choices(ACTIONS, [3 if action.startswith("kill") else 1 for action in ACTIONS], k=actions)


class Chaos:
    """Does things to a system and its servers. ``said`` tells what, for the message of a test that fails."""

    def __init__(self, system: System, kafka: Kafka, clickhouse: ClickHouse, seed: int) -> None:
        self._system = system
        self._servers = {"kafka": kafka, "clickhouse": clickhouse}
        self._dice = random.Random(seed)
        self.said: list[str] = []

    def pause(self) -> float:
        """Seconds until the next action."""
        return self._dice.uniform(0.3, 2.5)

    def act(self, action: str) -> None:
        """One of ``ACTIONS``."""
        verb, target = action.split()
        begin = time.monotonic()
        if target in self._servers:
            {"kill": self._kill_server, "stall": self._stall_server}[verb](target)
        else:
            process = self._one_of(target)
            doing: dict[str, Callable[[Process], None]] = {
                "kill": Process.kill,
                "zombie": self._pause_process,
                "leave": self._leave,
            }
            doing[verb](process)
        self.said.append(f"{action} ({time.monotonic() - begin:.1f} s)")

    def _one_of(self, stage: str) -> Process:
        named = [one for name, one in self._system.processes.items() if name.startswith(stage)]
        return self._dice.choice(named)

    def _kill_server(self, name: str) -> None:
        server = self._servers[name]
        server.kill()
        self._system.wait(self._dice.uniform(0.0, 2.0))
        server.start()

    def _stall_server(self, name: str) -> None:
        """It keeps its connections and answers nothing, for a while."""
        self._servers[name].pause()
        self._system.wait(self._dice.uniform(4, 8))
        self._servers[name].resume()

    def _pause_process(self, process: Process) -> None:
        """Longer than its session: others take its partitions, and it wakes up as a zombie."""
        process.send(signal.SIGSTOP)
        self._system.wait(SESSION_SECONDS + 3)
        process.send(signal.SIGCONT)

    def _leave(self, process: Process) -> None:
        """A graceful end; the supervisor starts it again, so one leaves and one joins under load."""
        process.send(signal.SIGTERM)
        self._system.wait(20, until=lambda: process.popen is None or process.popen.poll() is not None)


def run_parts(system: System, chaos: Chaos, plans: Sequence[Sequence[str]], patience: float = 150.0) -> None:
    """A part of the stream for each plan, its actions done while it is on its way."""
    for part, plan in enumerate(plans):
        write_part(system.folder, part)
        closing = ("--close",) if part == len(plans) - 1 else ()
        connect = system.start("connect", "connect", "--until-end", *closing, once=True)
        for action in plan:
            system.wait(chaos.pause())
            chaos.act(action)
        assert system.wait(patience, until=lambda one=connect: not one.wanted), system.tail("connect")
        system.settle(patience=patience)


def differences_from_embedded(folder: Path, parts: int, engine: ServerEngine, *, close: bool = True) -> list[str]:
    """The same parts, in peace, through the embedded runtime; what of it the server path got otherwise.

    Args:
        folder: for the embedded run.
        parts: how many.
        engine: where the server path wrote.
        close: whether the last part was the end of the history.
    """
    embedded = System(folder, COMMON)
    for part in range(parts):
        write_part(folder, part)
        embedded.run("run", "--until-end", *(("--close",) if close and part == parts - 1 else ()), patience=300)
    ours = EmbeddedEngine(folder / "radar-data")
    try:
        expected, found = everything(ours, old=False), everything(engine, old=True)
        assert all(expected.values())
        letters = [_letters(ours), _letters(engine)]
    finally:
        ours.close()
    said = differences(expected, found)
    if letters[0] != letters[1]:
        said.append(f"dead letters: {len(letters[0])} against {len(letters[1])}")
    return said


def _letters(engine: ServerEngine | EmbeddedEngine) -> list[bytes]:
    return sorted(set(engine.query("SELECT dead_letter_id, source_id, reason FROM dead_letters").splitlines()))
