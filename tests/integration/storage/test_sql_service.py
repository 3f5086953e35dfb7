"""SQL from outside: through the socket, without it, and what people try."""

import json
import os
import socket
import stat
import struct
import threading
import time

import pytest

from pipeline.errors import TerminalError, TransientError
from pipeline.storage import sql_service
from pipeline.storage.embedded import EmbeddedEngine
from pipeline.storage.engine import QueryError
from pipeline.storage.migrations import migrate
from pipeline.storage.sql_service import SOCKET_FILE, SqlService, ask


@pytest.fixture
def service(engine, tmp_path, a_row):
    engine.insert("mentions", [a_row(), a_row(mention_id="m2")])
    service = SqlService(engine, tmp_path)
    service.start()
    yield service
    service.stop()


def test_answers_in_each_format(service, tmp_path):
    sql = "SELECT mention_id, text FROM v_mentions ORDER BY mention_id LIMIT 1"
    assert ask(tmp_path, sql, "csv").decode() == '"mention_id","text"\n"m1","漏水，快递很快"\n'
    assert json.loads(ask(tmp_path, sql, "json"))["data"] == [{"mention_id": "m1", "text": "漏水，快递很快"}]
    assert json.loads(ask(tmp_path, sql, "jsonl")) == {"mention_id": "m1", "text": "漏水，快递很快"}
    table = ask(tmp_path, sql + ";").decode()
    assert "┌─mention_id─┬─text───" in table
    assert "\x1b" not in table, "no colours in a pipe"
    with pytest.raises(QueryError, match="take one of table, json"):
        ask(tmp_path, sql, "parquet")


def test_only_the_user_may_connect(service, tmp_path):
    assert stat.S_IMODE((tmp_path / SOCKET_FILE).stat().st_mode) == 0o600


def test_errors_are_readable(service, tmp_path):
    with pytest.raises(QueryError, match="Unknown expression identifier `nonsense`"):
        ask(tmp_path, "SELECT nonsense FROM v_mentions")
    with pytest.raises(QueryError, match="Syntax error"):
        ask(tmp_path, "SELECT FROM WHERE")


@pytest.mark.parametrize(
    "attack",
    [
        "INSERT INTO mentions (mention_id) VALUES ('x')",
        "DROP TABLE mentions",
        "TRUNCATE TABLE mentions",
        "ALTER TABLE mentions DELETE WHERE 1",
        "OPTIMIZE TABLE mentions FINAL",
        "CREATE TABLE x (a Int32) ENGINE = Memory",
        "CREATE TEMPORARY TABLE x (a Int32)",
        "SET readonly = 0",
        "SELECT 1 SETTINGS readonly = 0",
        "SELECT 1 SETTINGS max_execution_time = 0",
        "SELECT 1 SETTINGS max_result_bytes = 0",
        "SELECT * FROM file('/etc/passwd', 'LineAsString')",
        "SELECT * FROM url('http://localhost:1/', 'LineAsString')",
        "SELECT * FROM s3('http://localhost:1/bucket/key', 'CSV', 'a String')",
        "SELECT * FROM s3('http://localhost:1/bucket/key', 'CSV')",
        "SELECT * FROM remote('localhost', 'system', 'one')",
        "SELECT * FROM Python(os)",
        "SELECT * FROM executable('id', 'TSV', 'a String')",
        "SELECT * FROM filesystem('/etc')",
        "EXPLAIN SELECT * FROM file('/etc/passwd', 'LineAsString')",
        "DESCRIBE file('/etc/passwd')",
        "SELECT 1 INTO OUTFILE '{tmp}/stolen'",
        "SELECT 1; DROP TABLE mentions",
        "WITH 1 AS x INSERT INTO mentions (mention_id) SELECT 'x'",
        "SYSTEM STOP MERGES",
        "KILL QUERY WHERE 1",
        "USE system",
    ],
)
@pytest.mark.timeout(20)
def test_nothing_but_reading(service, tmp_path, rows_of, attack):
    with pytest.raises(QueryError):
        ask(tmp_path, attack.format(tmp=tmp_path))
    assert not (tmp_path / "stolen").exists()
    assert rows_of("SELECT count() AS n FROM mentions") == [{"n": 2}]


def test_a_session_that_reads_refuses_to_write_even_unchecked(engine, rows_of):
    reader = engine.reader(60, 1 << 20)
    for sql in ("SET readonly = 0", "SET readonly = 2", "DROP TABLE mentions", "SELECT * FROM file('/etc/passwd')"):
        with pytest.raises(QueryError, match="readonly"):
            reader.query(sql)
    reader.close()
    engine.execute("CREATE TABLE x (a Int32) ENGINE = Memory")


def test_a_result_that_is_too_large_is_refused_not_cut(service, tmp_path):
    for sql, why in (
        ("SELECT number, toString(cityHash64(number)) FROM numbers(2000000)", "Limit for result exceeded"),
        ("SELECT number FROM numbers(1000001)", "Limit for result exceeded"),
        ("SELECT repeat('x', 1000) FROM numbers(70000)", "the result has more than 67108864 bytes"),
    ):
        with pytest.raises(QueryError, match=why):
            ask(tmp_path, sql, "csv")


def test_a_table_for_the_eye_says_that_it_is_cut(service, tmp_path):
    assert b"Showed 1000 out of 20000 rows." in ask(tmp_path, "SELECT number FROM numbers(20000)")


def test_a_statement_that_runs_too_long_is_stopped(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(sql_service, "MAX_SECONDS", 1)
    service = SqlService(engine, tmp_path)
    service.start()
    try:
        began = time.monotonic()
        with pytest.raises(TransientError, match="Timeout exceeded"):
            ask(tmp_path, "SELECT sum(cityHash64(number)) FROM numbers(100000000000)")
        assert time.monotonic() - began < 10
    finally:
        service.stop()


def test_writing_goes_on_while_a_question_runs(engine, service, tmp_path, a_row):
    asking = threading.Thread(target=ask, args=(tmp_path, "SELECT sleep(2)"))
    asking.start()
    time.sleep(0.2)
    began = time.monotonic()
    for i in range(5):
        engine.insert("mentions", [a_row(mention_id=f"x{i}")])
    assert time.monotonic() - began < 1.5
    assert asking.is_alive()
    asking.join()


def test_rubbish_and_hang_ups_harm_nobody_else(service, tmp_path):
    for rubbish in (
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">I", 4) + b"{}{}",
        struct.pack(">I", 9) + b"{}",
        b"\xff" * 4,
    ):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(str(tmp_path / SOCKET_FILE))
            connection.sendall(rubbish)
    assert ask(tmp_path, "SELECT 1", "csv") == b'"1"\n1\n'


def test_stopping_twice_is_fine_and_takes_the_socket_away(service, tmp_path):
    service.stop()
    service.stop()
    assert not (tmp_path / SOCKET_FILE).exists()


def test_a_database_that_nobody_holds_is_opened_for_the_question(engine, tmp_path, a_row):
    engine.insert("mentions", [a_row()])
    engine.close()
    assert ask(tmp_path, "SELECT count() FROM v_mentions", "csv") == b'"count()"\n1\n'
    with pytest.raises(QueryError):
        ask(tmp_path, "DROP TABLE mentions")
    with pytest.raises(QueryError, match="readonly"):
        ask(tmp_path, "SELECT * FROM file('/etc/passwd')")
    assert ask(tmp_path, "SELECT count() FROM v_mentions", "csv") == b'"count()"\n1\n'


def test_a_socket_left_by_a_killed_process_is_in_nobodys_way(engine, tmp_path):
    left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left.bind(str(tmp_path / SOCKET_FILE))
    left.close()
    engine.close()
    assert ask(tmp_path, "SELECT 1", "csv") == b'"1"\n1\n'
    again = EmbeddedEngine(tmp_path)
    service = SqlService(again, tmp_path)
    service.start()
    assert ask(tmp_path, "SELECT 2", "csv") == b'"2"\n2\n'
    service.stop()
    again.close()


def test_a_holder_that_does_not_answer_is_named(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(sql_service, "_OPENING_SECONDS", 0.3)
    with pytest.raises(TerminalError, match=f"is held by process {os.getpid()}"):
        ask(tmp_path, "SELECT 1")


def test_no_database_is_made_by_asking(tmp_path):
    with pytest.raises(TerminalError, match="no database in"):
        ask(tmp_path, "SELECT 1")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_deeper_than_a_socket_address(tmp_path):
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    engine = EmbeddedEngine(deep)
    migrate(engine)
    service = SqlService(engine, deep)
    service.start()
    assert ask(deep, "SELECT 1", "csv") == b'"1"\n1\n'
    service.stop()
    engine.close()
