"""The same recorded streams through the embedded runtime and through Kafka, Faust and a ClickHouse server: the same rows."""

from pathlib import Path

import pytest
from clickhouse_driver import Client
from old_server import make_tables
from results import differences, everything
from servers import ClickHouse, Kafka
from streams import source, write_catalogue, write_demo, write_hard, write_poison
from system import System

from pipeline.storage.clickhouse import ServerEngine
from pipeline.storage.embedded import EmbeddedEngine

pytestmark = pytest.mark.timeout(240)

SOURCES = [
    source("demo", "demo.jsonl"),
    source("hard", "hard.jsonl", max_lateness="1d"),
    source("poison", "poison.jsonl"),
]
COMMON = {"catalogue": "catalogue.csv", "detection": {"step": "1d"}, "sources": SOURCES}


def server_configuration(kafka: Kafka, clickhouse: ClickHouse, name: str) -> dict[str, object]:
    """Topics and tables of this name on the shared servers."""
    with Client("127.0.0.1", port=clickhouse.port) as client:
        client.execute(f"CREATE DATABASE {name}")
    return {
        "kafka": {
            "bootstrap_servers": kafka.address,
            "prefix": f"{name}.",
            "replication_factor": 1,
            "min_insync_replicas": 1,
            "session_timeout": "6s",
        },
        "clickhouse": {"hosts": clickhouse.address, "database": name, "allow_older": True},
    }


def write_first(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_catalogue(folder / "catalogue.csv")
    write_demo(folder / "demo.jsonl")
    write_hard(folder / "hard.jsonl", 0)
    write_poison(folder / "poison.jsonl")
    (folder / "radar-data").mkdir()
    (folder / "radar-data/pseudonym.key").write_text("the same in both", encoding="ascii")


def test_both_runtimes_find_the_same(tmp_path: Path, kafka: Kafka, clickhouse: ClickHouse) -> None:
    for folder in (tmp_path / "embedded", tmp_path / "servers"):
        write_first(folder)
    embedded = System(tmp_path / "embedded", COMMON)
    servers = System(tmp_path / "servers", COMMON | server_configuration(kafka, clickhouse, "equality"))
    assert servers.settings.clickhouse is not None
    engine = ServerEngine(servers.settings.clickhouse)
    make_tables(engine)
    servers.make_topics()
    try:
        for stage in ("score", "detect", "store"):
            servers.start_stage(stage)
        for part, more in ((0, ()), (1, ("--close",))):
            if part:
                for system in (embedded, servers):
                    write_hard(system.folder / "hard.jsonl", part)
            embedded.run("run", "--until-end", *more)
            servers.run("connect", "--until-end", *more)
        servers.settle()
        codes = servers.stop()
    finally:
        servers.stop()
    ours = EmbeddedEngine(embedded.folder / "radar-data")
    try:
        expected, found = everything(ours, old=False), everything(engine, old=True)
        letters = [letters_of(one) for one in (ours, engine)]
    finally:
        ours.close()
        engine.close()
    assert {name: len(rows) for name, rows in expected.items() if not rows} == {}
    said = differences(expected, found)
    assert not said, "\n".join(said)
    assert letters[0] == letters[1]
    assert len(letters[0]) > 300
    assert codes == {"score": 0, "detect": 0, "store": 0}


def letters_of(engine: ServerEngine | EmbeddedEngine) -> list[bytes]:
    """What was refused: where, and why."""
    return sorted(set(engine.query("SELECT dead_letter_id, source_id, reason FROM dead_letters").splitlines()))
