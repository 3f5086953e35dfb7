"""What the server benchmarks share: real servers, systems on them, and who used how much of the cores meanwhile."""

import contextlib
import os
import re
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.servers.servers import ClickHouse, Kafka
from pipeline.runtime import kafka_admin
from pipeline.runtime.topics import create
from pipeline.storage.clickhouse import ServerEngine
from tests.support.old_server import make_tables
from tests.support.system import Process, System

STATE = "state.detect.v1"
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_POLL_SECONDS = 0.1


def missing() -> str:
    """What of the servers is not installed, in plain words; empty if nothing."""
    return Kafka.missing() or ClickHouse.missing()


@dataclass(frozen=True)
class Servers:
    """A broker and a database, running."""

    kafka: Kafka
    clickhouse: ClickHouse

    def system(self, folder: Path, name: str, **configuration: object) -> tuple[System, ServerEngine]:
        """Topics and tables under this name, and no process yet."""
        assert self.kafka.process is not None
        system = System(
            folder / name,
            {
                "kafka": {
                    "bootstrap_servers": self.kafka.address,
                    "prefix": f"{name}.",
                    "replication_factor": 1,
                    "min_insync_replicas": 1,
                },
                "clickhouse": {"hosts": self.clickhouse.address, "database": name, "allow_older": True},
                **configuration,
            },
        )
        settings = system.settings.clickhouse
        assert settings is not None
        maker = ServerEngine(settings.model_copy(update={"database": "default"}))
        maker.execute(f"CREATE DATABASE {name}")
        maker.close()
        engine = ServerEngine(settings)
        make_tables(engine)
        system.make_topics()
        return system, engine


@contextlib.contextmanager
def servers(folder: Path) -> Iterator[Servers]:
    """Both, in a folder, until the end."""
    with Kafka(folder / "kafka") as broker, ClickHouse(folder / "clickhouse") as database:
        yield Servers(broker, database)


def begin_anew(system: System, stage: str) -> None:
    """Have a stage forget what it has read and what it knows; none of its workers may run."""
    settings = system.settings.kafka
    assert settings is not None
    with kafka_admin.admin(settings) as client:
        group = system.names.group(stage)
        if any(one["group_id"] == group for one in client.list_groups()):
            client.delete_groups([group])
        if stage == "detect":
            client.delete_topics([system.names.topic(STATE)])
            time.sleep(1)  # a broker takes a topic's name back a moment after it is gone
    create(settings)


def start(system: System, name: str, *arguments: str) -> Process:
    """Start ``complaint-radar ARGUMENTS`` with a log of its own: what an older one told of its port must not be believed."""
    (system.folder / f"{name}.log").unlink(missing_ok=True)
    return system.start(name, *arguments)


def address_of(process: Process) -> str:
    """Where the process told in its log that its metrics are; empty as long as it has not."""
    log = process.folder / f"{process.name}.log"
    said = re.search(r"(http://\S+)/metrics", log.read_text(errors="replace")) if log.exists() else None
    return said[1] if said else ""


def metrics_of(process: Process) -> str:
    """Its metrics as they stand now; empty as long as it gives none."""
    address = address_of(process)
    if not address:
        return ""
    try:
        with urllib.request.urlopen(f"{address}/metrics", timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return ""


def value_of(text: str, name: str) -> float:
    """Sum of a metric over its series."""
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))


def ready(process: Process) -> bool:
    """Whether /readyz says so."""
    address = address_of(process)
    if not address:
        return False
    try:
        with urllib.request.urlopen(f"{address}/readyz", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


# -- the cores ---------------------------------------------------------------------------------------------------------


def cpu_seconds(pid: int) -> float:
    """What a process has used of the cores so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def resident_bytes(pid: int) -> int:
    """Its memory."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE


def _busy_seconds() -> float:
    """What everything together has used of the cores so far, another virtual machine's share included."""
    line = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
    user, nice, system, _idle, _wait, interrupt, soft, steal = map(int, line.split()[1:9])
    return (user + nice + system + interrupt + soft + steal) / _TICK


class Meter:
    """Cores that processes used since it was made. ``others``: what is none of them, this process included."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._begin = self._now()

    def _now(self) -> dict[str, float]:
        used = {name: cpu_seconds(pid) for name, pid in self._pids.items()}
        return {"": time.monotonic(), "all": _busy_seconds(), **used}

    def read(self) -> dict[str, float]:
        """Cores, by name: CPU seconds over wall seconds."""
        spent = {name: value - self._begin[name] for name, value in self._now().items()}
        wall, busy = spent.pop(""), spent.pop("all")
        return {name: used / wall for name, used in {**spent, "others": busy - sum(spent.values())}.items()}


@dataclass(frozen=True)
class Rate:
    """Something was done so many times in so many seconds, by these cores."""

    count: float
    seconds: float
    cores: Mapping[str, float]

    @property
    def a_second(self) -> float:
        """Count over seconds."""
        return self.count / self.seconds

    def __str__(self) -> str:
        used = ", ".join(f"{name} {share:.2f}" for name, share in self.cores.items())
        return f"{self.a_second:,.0f}/s ({self.count:,.0f} in {self.seconds:.1f} s; cores: {used})"


def timed(
    count: Callable[[], float],
    target: float,
    pids: Mapping[str, int],
    patience: float = 300.0,
    started: Callable[[], bool] = lambda: True,
) -> Rate:
    """From the first counted ones on (and when ``started``) until the target, or no longer than the patience."""
    until = time.monotonic() + patience
    while (first := count()) <= 0 or not started():
        assert time.monotonic() < until, "nothing was done"
        time.sleep(_POLL_SECONDS)
    meter, begin = Meter(pids), time.monotonic()
    while (done := count()) < target and time.monotonic() < until:
        time.sleep(_POLL_SECONDS)
    return Rate(done - first, time.monotonic() - begin, meter.read())
