"""The server path on real servers: ``python -m tests.benchmarks.servers [FIGURE …] [--minutes N]``.

Kafka and ClickHouse run as plain processes in a temporary folder. What is compared takes turns, and each figure comes with
the cores that everything used meanwhile: with two of them a broker, four processes and whatever else runs are soon in each
other's way, and then only figures a CPU second can be compared. ``path`` takes ten minutes with ``--minutes 10``.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks import server_path, server_stages
from tests.benchmarks.server_processes import Rate, Servers, missing, servers

ROUNDS = 2


def load() -> str:
    """The machine's load, to be printed beside what it was measured under."""
    return f"load {os.getloadavg()[0]:.1f}"


def show(name: str, rate: Rate, process: str = "") -> None:
    """A line; with ``process``, the rate a CPU second of it too."""
    own = f" = {rate.a_second / rate.cores[process]:,.0f} a CPU second" if process else ""
    print(f"{name}: {rate}{own}; {load()}", flush=True)


def agents(running: Servers, folder: Path, options: argparse.Namespace) -> None:
    """Score worker against Faust agents."""
    system, rate = server_stages.loaded(running, folder, "agents", options.mentions, 1000, 24)
    show("connect, loading the topic", rate, "connect")
    total = server_stages.records_in(system, server_stages.RAW)
    walls, cpus = [], []
    for _ in range(ROUNDS):
        ours = server_stages.workers(system, running, "score", 1, total)
        show("score worker, transactions, packed rows", ours, "score-0")
        theirs = server_stages.agent(system, running, "pass", total)
        show("agent that passes records on one by one", theirs, "pass")
        walls.append(ours.a_second / theirs.a_second)
        cpus.append(ours.a_second / ours.cores["score-0"] / (theirs.a_second / theirs.cores["pass"]))
    naive = server_stages.agent(system, running, "naive", 1000)
    show("naive agent with SnowNLP", naive, "naive")
    print(f"score worker against passing on: {_list(walls)} by the clock, {_list(cpus)} by CPU seconds (goal 80 %)")
    print(f"score worker against the naive agent: {ours.a_second / naive.a_second:.0f} x (expected above 25 x)")


def _list(ratios: list[float]) -> str:
    return " and ".join(f"{ratio:.0%}" for ratio in ratios)


def two_workers(running: Servers, folder: Path, options: argparse.Namespace) -> None:
    """One score worker, then two."""
    system, _ = server_stages.loaded(running, folder, "two", 2 * options.mentions, 1000, 24)
    total = server_stages.records_in(system, server_stages.RAW)
    ratios = []
    for _ in range(ROUNDS):
        one = server_stages.workers(system, running, "score", 1, total)
        show("one score worker", one)
        two = server_stages.workers(system, running, "score", 2, total)
        show("two score workers", two)
        ratios.append(two.a_second / one.a_second)
    print(f"two workers against one: {' and '.join(f'{ratio:.2f}' for ratio in ratios)} x (goal 1.5 x)")


def detect(running: Servers, folder: Path, options: argparse.Namespace) -> None:
    """One detect worker with ten thousand live lots, and its restarts."""
    system, _ = server_stages.loaded(running, folder, "detect", options.mentions, 10_000, 24)
    total = server_stages.records_in(system, server_stages.RAW)
    server_stages.workers(system, running, "score", 1, total)
    packed = server_stages.packed(system)
    print(f"{packed.rows:,} rows over 24 hours in {packed.records:,} records")
    for _ in range(ROUNDS):
        rate = server_stages.workers(system, running, "detect", 1, packed.records)
        rows = rate.a_second * packed.rows / packed.records
        print(f"detect worker: {rows:,.0f} rows/s (goal 15,000), {rows / rate.cores['detect-0']:,.0f} a CPU second")
        show("  of records", rate)
    found = server_stages.restarts(system)
    print(
        f"ready again after TERM: {found.after_term:.1f} s (goal 10 s); after KILL, its session of "
        f"{server_stages.SESSION_SECONDS} s included: {found.after_kill:.1f} s, that session over: "
        f"{found.after_session:.1f} s; {load()}"
    )


def path(running: Servers, folder: Path, options: argparse.Namespace) -> None:
    """The whole path at a steady rate."""
    found = server_path.sustained(running, folder, options.rate, options.minutes, 1000)
    print(f"whole path, {options.rate:,.0f} mentions/s said (goal 2,000 stored, flat memory); {load()}")
    print("\n".join(found.lines()), flush=True)


def delay(running: Servers, folder: Path, options: argparse.Namespace) -> None:
    """From what was said to its row and its signal, under a light load."""
    found = server_path.light(running, folder, 5.0, options.said)
    for name, seconds, of in (("row", found.row, found.said), ("signal", found.signal, found.severe)):
        assert len(seconds) == of, f"{name}: {of - len(seconds)} of {of} never came"
        at = {percent: seconds[min(of - 1, of * percent // 100)] for percent in (50, 90, 99)}
        spread = ", ".join(f"p{percent} {value:.2f} s" for percent, value in at.items())
        print(f"event to {name}: {spread}, max {seconds[-1]:.2f} s of {of} (goal p99 3 s); {load()}", flush=True)


FIGURES: dict[str, Callable[[Servers, Path, argparse.Namespace], None]] = {
    "agents": agents,
    "two": two_workers,
    "detect": detect,
    "path": path,
    "delay": delay,
}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="*", choices=[*FIGURES, []], help="all by default")
    parser.add_argument("--mentions", type=int, default=60_000, help="on a topic loaded beforehand")
    parser.add_argument("--rate", type=float, default=2000.0, help="path: mentions said a second")
    parser.add_argument("--minutes", type=float, default=1.0, help="path: how long")
    parser.add_argument("--said", type=int, default=900, help="delay: mentions said, every third severe")
    options = parser.parse_args()
    if reason := missing():
        print(f"skipped: {reason}")
        return
    with tempfile.TemporaryDirectory(prefix="radar-bench-") as name, servers(Path(name)) as running:
        for figure in options.figures or FIGURES:
            FIGURES[figure](running, Path(name), options)


if __name__ == "__main__":
    main()
