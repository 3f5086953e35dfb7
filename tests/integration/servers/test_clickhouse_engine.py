"""The server's engine on a real server, an old one: the contract of all engines, dying servers, and who may come in."""

import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from clickhouse_driver import Client
from clickhouse_driver.streams import native as native_stream
from engine_contract import EngineContract, ids, read
from old_server import make_tables, old_ddl
from servers import HOST, ClickHouse, free_port
from stored import ONE_OF_EACH, a_row

from pipeline.errors import ConfigurationError, TerminalError, TransientError
from pipeline.settings import ClickHouseSettings
from pipeline.storage.clickhouse import ServerEngine
from pipeline.storage.embedded import EmbeddedEngine
from pipeline.storage.engine import Engine
from pipeline.storage.migrations import applied, migrate, parse, pending
from pipeline.storage.rows import TABLES, Column
from pipeline.storage.writer import write_block
from schemas.control import Gap

SECRET = "open-sesame"  # noqa: S105 - of the test


def engine_on(*servers: ClickHouse | str, **changes: Any) -> ServerEngine:
    """An engine over these servers or addresses; short of patience."""
    options = {name: changes.pop(name) for name in ("connect_seconds", "answer_seconds") if name in changes}
    hosts = ",".join(server if isinstance(server, str) else server.address for server in servers)
    settings = ClickHouseSettings(**{"hosts": hosts, "allow_older": True, **changes})
    return ServerEngine(settings, **{"connect_seconds": 1.0, "answer_seconds": 10.0, **options})


@pytest.fixture
def database(clickhouse: ClickHouse) -> Iterator[str]:
    name = f"d{time.monotonic_ns()}"
    with Client(HOST, clickhouse.port) as client:
        client.execute(f"CREATE DATABASE {name}")
        yield name
        client.execute(f"DROP DATABASE {name}")


@pytest.fixture
def engine(clickhouse: ClickHouse, database: str) -> Iterator[ServerEngine]:
    """With the tables made, in a database of its own."""
    with closing(engine_on(clickhouse, database=database)) as engine:
        make_tables(engine)
        yield engine


class TestServerEngine(EngineContract):
    def test_a_column_of_another_type_is_no_rows_fault(self, engine):
        engine.execute("DROP TABLE gaps")
        engine.execute(
            "CREATE TABLE gaps (source_id String, start Int64, end Nullable(Int64), reason Int32) ENGINE = MergeTree ORDER BY start"
        )
        with pytest.raises(TerminalError):
            engine.insert("gaps", [Gap("shop", 1, None, "outage")])

    def test_what_an_old_server_does_not_know_is_not_sent(self, engine, caplog):
        caplog.set_level(logging.WARNING, "clickhouse_driver")
        engine.insert("mentions", [a_row()])
        assert {"insert_deduplication_token", "optimize_on_insert", "async_insert"} == engine._unknown
        assert caplog.records == []


@pytest.mark.parametrize("compression", ["lz4", "zstd", "none"])
def test_compression(engine, clickhouse, database, compression):
    with closing(engine_on(clickhouse, database=database, compression=compression)) as compressed:
        compressed.insert("mentions", [a_row(mention_id=str(i)) for i in range(1000)])
        assert len(ids(compressed)) == 1000


def test_equal_rows_come_back_from_both_engines(engine, tmp_path):
    with closing(EmbeddedEngine(tmp_path)) as embedded:
        migrate(embedded)
        for table, struct in ONE_OF_EACH.items():
            for one in (engine, embedded):
                one.insert(table, [struct], generation=3)
            (here,), (there,) = (read(one, f"SELECT {listed} FROM {table}") for one, listed in (
                (engine, ", ".join(column.name for column in TABLES[table].columns)),
                (embedded, ", ".join(_as_integers(column) for column in TABLES[table].columns)),
            ))  # fmt: skip
            assert here == there, table
            assert len(here) == len(TABLES[table].columns)


def _as_integers(column: Column) -> str:
    if column.type.startswith("Array(DateTime64"):
        return f"arrayMap(one -> toUnixTimestamp64Milli(one), {column.name}) AS {column.name}"
    return f"toUnixTimestamp64Milli({column.name}) AS {column.name}" if "DateTime64" in column.type else column.name


class OldServer:
    """The engine, with statements made old."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.insert, self.query, self.close = engine.insert, engine.query, engine.close

    def execute(self, sql: str) -> None:
        self._engine.execute(old_ddl(sql) or "")


def test_migrations_apply_once_over_the_wire(clickhouse, database):
    known = [
        parse("0001_one.sql", "CREATE TABLE one (a Int32) ENGINE = MergeTree ORDER BY a;\n"),
        parse("0002_two.sql", "CREATE TABLE two (a Int32 COMMENT 'it''s') ENGINE = MergeTree ORDER BY a;\n"),
    ]
    with closing(engine_on(clickhouse, database=database)) as engine:
        old = OldServer(engine)
        assert applied(old) == []
        assert migrate(old, known[:1]) == ["0001_one.sql"]
        assert [one.name for one in pending(old, known)] == ["0002_two.sql"]
        assert [one.checksum for one in applied(old)] == [known[0].checksum]
        with pytest.raises(TerminalError, match="was made by a newer version"):
            pending(old, known[1:])


def test_the_views_are_left_out_and_all_tables_are_made(engine):
    seen = {one["name"] for one in read(engine, "SELECT name FROM system.tables WHERE database = currentDatabase()")}
    assert seen == set(TABLES)


def test_a_server_below_the_minimum_is_refused_with_both_versions(clickhouse):
    with (
        closing(engine_on(clickhouse, allow_older=False)) as engine,
        pytest.raises(ConfigurationError, match=r"is ClickHouse 18\.16\.\d+; 23\.8 or newer is needed .*allow_older"),
    ):
        engine.query("SELECT 1")


def test_who_may_not_come_in_is_told_and_the_password_is_not(own_clickhouse, tmp_path, caplog):
    caplog.set_level(logging.DEBUG, "clickhouse_driver")
    server = own_clickhouse(users={"radar": SECRET})
    file = tmp_path / "password"
    file.write_text(f"{SECRET}-not\n")
    with closing(engine_on(server, user="radar", password_file=file)) as engine:
        for call in (lambda: engine.query("SELECT 1"), lambda: engine.insert("mentions", [a_row()])):
            with pytest.raises(
                ConfigurationError, match=r"clickhouse\.password.*refuses them: Wrong password"
            ) as caught:
                call()
            assert SECRET not in str(caught.value) + repr(caught.value.__cause__)
        # A secret that was changed is taken at the next connection.
        file.write_text(f"{SECRET}\n")
        assert read(engine, "SELECT currentDatabase() AS d") == [{"d": "default"}]
        file.unlink()
        assert read(engine, "SELECT 1 AS one") == [{"one": 1}], "the connection that is there needs none"
        server.kill()
        server.start()
        with pytest.raises(ConfigurationError, match="the secret cannot be read"):
            engine.query("SELECT 1")
    for changes in ({"user": "nobody"}, {"user": "radar"}, {"database": "nowhere"}):
        with closing(engine_on(server, **changes)) as engine, pytest.raises(ConfigurationError, match="refuses them"):
            engine.query("SELECT 1")
    assert "Connecting" in caplog.text, "the library's own words were listened to"
    assert SECRET not in caplog.text


def test_tls(own_clickhouse):
    server = own_clickhouse(secure=True)
    address = f"{HOST}:{server.secure_port}"
    with closing(engine_on(address, secure=True, ca_file=server.certificates.authority)) as engine:
        make_tables(engine)
        engine.insert("mentions", [a_row()])
        assert ids(engine) == ["m1"]
    with (
        closing(engine_on(address, secure=True)) as engine,
        pytest.raises(
            ConfigurationError, match=rf"clickhouse\.ca_file: {address} is not trusted: .*CERTIFICATE_VERIFY"
        ),
    ):
        engine.query("SELECT 1")
    with (
        closing(engine_on(server, secure=True, ca_file=server.certificates.authority)) as engine,
        pytest.raises(TransientError, match="SSL"),
    ):
        engine.query("SELECT 1")
    with closing(engine_on(address)) as engine, pytest.raises(TransientError):
        engine.query("SELECT 1")


def test_nobody_there_is_waited_for(own_clickhouse):
    dead = f"{HOST}:{free_port()}"
    with closing(engine_on(dead, "no-such-host.invalid:9000")) as engine:
        with pytest.raises(TransientError, match=rf"{dead}: Connection refused; .*no-such-host"):
            engine.query("SELECT 1")
        with pytest.raises(TransientError):
            engine.insert("mentions", [a_row()])


def test_the_next_host_is_asked_when_one_is_dead_mute_or_hangs_up(own_clickhouse):
    server = own_clickhouse()
    with socket.create_server((HOST, 0)) as mute, socket.create_server((HOST, 0)) as hanging:
        threading.Thread(target=lambda: hanging.accept()[0].close(), daemon=True).start()
        addresses = [f"{HOST}:{one.getsockname()[1]}" for one in (mute, hanging)]
        with closing(engine_on(f"{HOST}:{free_port()}", *addresses, server, connect_seconds=0.3)) as engine:
            began = time.monotonic()
            assert read(engine, "SELECT 1 AS one") == [{"one": 1}]
            assert time.monotonic() - began < 2
            # It stays with the one that answered.
            engine._drop()
            began = time.monotonic()
            assert read(engine, "SELECT 1 AS one") == [{"one": 1}]
            assert time.monotonic() - began < 0.2


def test_a_host_that_dies_between_two_inserts_is_left_for_the_other(own_clickhouse):
    first, second = own_clickhouse(), own_clickhouse()
    for server in (first, second):
        with closing(engine_on(server)) as engine:
            make_tables(engine)
    with closing(engine_on(first, second)) as engine:
        assert write_block(engine, "mentions", [a_row()]) == []
        first.kill()
        assert write_block(engine, "mentions", [a_row(mention_id="m2")]) == []
        assert ids(engine) == ["m2"]
        first.start()
        second.kill()
        assert write_block(engine, "mentions", [a_row(mention_id="m3")]) == []
        assert ids(engine) == ["m1", "m3"]


def test_a_connection_that_was_closed_while_idle_is_made_again_and_nobody_notices(own_clickhouse):
    server = own_clickhouse()
    with closing(engine_on(server)) as engine:
        make_tables(engine)
        for number in range(3):
            engine.insert("mentions", [a_row(mention_id=str(number))])
            server.kill()
            server.start()
        assert ids(engine) == ["0", "1", "2"]


def test_a_server_that_stands_still_is_a_transient_error_and_goes_on(own_clickhouse):
    server = own_clickhouse()
    with closing(engine_on(server, connect_seconds=0.3, answer_seconds=1.0)) as engine:
        make_tables(engine)
        engine.insert("mentions", [a_row()])
        server.pause()
        for _ in range(2):
            began = time.monotonic()
            # Its greeting may be what is waited for in vain: the driver then says that the connection was closed.
            with pytest.raises(TransientError, match=r"timed out$|Connection was closed"):
                engine.insert("mentions", [a_row(mention_id="m2")])
            assert time.monotonic() - began < 1.5
        server.resume()
        engine.insert("mentions", [a_row(mention_id="m2")])
        assert ids(engine) == ["m1", "m2"]
        # In the midst of a statement the other time-out counts.
        began = time.monotonic()
        with pytest.raises(TransientError, match="timed out"):
            engine.query("SELECT sleep(3)")
        assert 0.9 < time.monotonic() - began < 2
        assert ids(engine) == ["m1", "m2"]


@pytest.mark.parametrize("fate", ["stands still", "is killed"])
@pytest.mark.parametrize("moment", ["as the block goes out", "as its answer is awaited"])
def test_a_block_in_doubt_is_sent_again_and_is_there_once(own_clickhouse, fate, moment):
    server = own_clickhouse()
    rows = [a_row(mention_id=f"{i:05}") for i in range(20_000)]
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            server.resume() if fate == "stands still" else server.start()
        time.sleep(seconds)

    with closing(engine_on(server, connect_seconds=0.3, answer_seconds=1.0)) as engine:
        make_tables(engine)
        client = engine._client
        owner, name = (client.connection, "send_data") if "goes" in moment else (client, "receive_end_of_insert_query")
        step = getattr(owner, name)

        def strike(*arguments: Any, **options: Any) -> Any:
            # The first data that goes out are none: they end a list of tables.
            if not arguments or arguments[0].num_rows:
                server.pause() if fate == "stands still" else server.kill()
            return step(*arguments, **options)

        setattr(owner, name, strike)
        assert write_block(engine, "mentions", rows, sleep=sleep) == []
        assert len(pauses) >= 2
        assert ids(engine) == [row.mention_id for row in rows]


def test_half_a_block_is_never_written(engine, monkeypatch):
    rows = [a_row(mention_id=f"{i:05}") for i in range(5000)]
    write = native_stream.write_column

    def cut(context: Any, name: str, type_: str, items: Any, buffer: Any, **options: Any) -> None:
        write(context, name, type_, items, buffer, **options)
        if name == "text":
            buffer.flush()
            raise ConnectionResetError("cut")

    with monkeypatch.context() as patch:
        patch.setattr(native_stream, "write_column", cut)
        with pytest.raises(TransientError, match="cut"):
            engine.insert("mentions", rows)
    assert ids(engine) == []
    engine.insert("mentions", rows)
    assert len(ids(engine)) == 5000


@pytest.mark.fault
def test_kill_9_during_writing_loses_no_row_and_doubles_none(own_clickhouse):
    server = own_clickhouse()
    written: list[str] = []
    failures: list[BaseException] = []
    stop = threading.Event()

    def write() -> None:
        try:
            with closing(engine_on(server)) as engine:
                make_tables(engine)
                number = 0
                while not stop.is_set():
                    rows = [a_row(mention_id=f"{number:05}-{i}") for i in range(200)]
                    assert write_block(engine, "mentions", rows) == []
                    written.extend(row.mention_id for row in rows)
                    number += 1
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    for round_ in range(4):
        time.sleep(0.4 + 0.13 * round_)
        server.kill()
        server.start()
    time.sleep(0.5)
    stop.set()
    thread.join()
    assert failures == []
    assert len(written) > 2000
    with closing(engine_on(server)) as engine:
        assert ids(engine) == sorted(written)
        engine.execute("OPTIMIZE TABLE mentions FINAL")
        assert read(engine, "SELECT toInt32(count()) AS n FROM mentions") == [{"n": len(written)}]
