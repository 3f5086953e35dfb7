"""The whole server path as processes in a folder, kept up as a supervisor would, and killed as tests want."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from pipeline.errors import TransientError
from pipeline.runtime import kafka_admin
from pipeline.runtime.bootstrap import READS
from pipeline.runtime.kafka import Names
from pipeline.runtime.topics import create
from pipeline.settings import Settings, load

COMMAND = Path(sys.executable).parent / "complaint-radar"


@dataclass
class Process:
    """One process of the system; started again when it ends by itself, as long as it is wanted."""

    name: str
    command: Sequence[str]
    folder: Path
    once: bool = False
    """It is done when it has ended well."""
    wanted: bool = True
    popen: "subprocess.Popen[bytes] | None" = None
    starts: int = 0
    exits: list[int] = field(default_factory=list)

    def start(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RADAR_")}
        environment["PYTHONFAULTHANDLER"] = "1"
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.popen = subprocess.Popen(self.command, cwd=self.folder, env=environment, stdout=log, stderr=log)
        self.starts += 1

    def keep(self) -> None:
        """Start it again if it has ended."""
        if self.popen is not None and self.popen.poll() is not None:
            self.exits.append(self.popen.returncode)
            self.wanted = self.wanted and not (self.once and self.popen.returncode == 0)
            self.popen = None
        if self.wanted and self.popen is None:
            self.start()

    def send(self, number: int) -> None:
        if self.popen is not None and self.popen.poll() is None:
            self.popen.send_signal(number)

    def kill(self) -> None:
        """End it as a power cut does."""
        self.send(signal.SIGKILL)
        if self.popen is not None:
            self.popen.wait()

    def ask_to_stop(self) -> None:
        """TERM, once: a second one would end it in the midst of its work."""
        if self.wanted:
            self.wanted = False
            if self.popen is not None and self.popen.poll() is not None:
                self.exits.append(self.popen.returncode)  # it had ended before
                self.popen = None
            self.send(signal.SIGCONT)
            self.send(signal.SIGTERM)

    def stop(self, patience: float = 30.0) -> int:
        """End it as an operator does; its exit code."""
        self.ask_to_stop()
        if self.popen is None:
            return 0
        try:
            code = self.popen.wait(patience)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGABRT)  # its log then says where every thread stands
            code = self.popen.wait()
        self.popen = None
        return code


class System:
    """Configuration, topics and processes of one run.

    Args:
        folder: of ``radar.yaml``, logs and sources.
        configuration: what stands in ``radar.yaml`` besides the admin port.
    """

    def __init__(self, folder: Path, configuration: dict[str, object]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump({"admin": {"port": 0}, **configuration}, allow_unicode=True)
        (folder / "radar.yaml").write_text(text, encoding="utf-8")
        self.processes: dict[str, Process] = {}

    @property
    def settings(self) -> Settings:
        return load(self.folder / "radar.yaml")

    @property
    def names(self) -> Names:
        assert self.settings.kafka is not None
        return Names(self.settings.kafka)

    def make_topics(self) -> None:
        assert self.settings.kafka is not None
        create(self.settings.kafka)

    def run(self, *arguments: str, patience: float = 120.0) -> str:
        """A command of its own to its end; what it printed. Fails with its exit code."""
        done = subprocess.run(
            [COMMAND, *arguments], cwd=self.folder, capture_output=True, text=True, timeout=patience, check=False
        )
        assert done.returncode == 0, f"{arguments}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def start(self, name: str, *arguments: str, once: bool = False) -> Process:
        """Start ``complaint-radar ARGUMENTS`` and keep it up. ``name``: of its log. ``once``: until it ends well."""
        process = Process(name, [str(COMMAND), *arguments], self.folder, once)
        process.start()
        self.processes[name] = process
        return process

    def start_stage(self, stage: str, name: str = "") -> Process:
        return self.start(name or stage, "worker", "--stage", stage)

    def keep(self) -> None:
        for process in self.processes.values():
            process.keep()

    def wait(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Keep all processes up for so long, or until something holds; whether it does."""
        end = time.monotonic() + seconds
        while not (holds := until()) and time.monotonic() < end:
            self.keep()
            time.sleep(0.1)
        return holds

    def settle(self, stages: Sequence[str] = ("score", "detect", "store"), patience: float = 90.0) -> None:
        """Wait, keeping all processes up, until these stages have read all that there is, and all before them too."""
        until = time.monotonic() + patience
        for stage in stages:
            while (left := self.unread(stage)) != 0:
                assert time.monotonic() < until, f"{stage}: {left} records to go\n{self.tail(stage)}"
                self.keep()
                time.sleep(0.3)

    def unread(self, stage: str) -> int | None:
        """Records that a stage has before it; None: the brokers do not answer."""
        assert self.settings.kafka is not None
        topics = [self.names.topic(topic) for topic in READS[stage]]
        try:
            return kafka_admin.unread(self.settings.kafka, self.names.group(stage), topics)
        except TransientError:
            return None

    def tail(self, name: str) -> str:
        logs = sorted(self.folder.glob(f"{name}*.log"))
        return "\n".join(f"--- {log.name}\n" + log.read_text(errors="replace")[-3000:] for log in logs)

    def stop(self) -> dict[str, int]:
        """Stop everything; exit codes by name."""
        for process in self.processes.values():
            process.ask_to_stop()
        return {name: process.stop() for name, process in self.processes.items()}
