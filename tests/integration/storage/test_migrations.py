"""Numbered files of DDL on the real engine."""

import dataclasses

import pytest

from pipeline.errors import TerminalError
from pipeline.storage.embedded import EmbeddedEngine
from pipeline.storage.migrations import applied, migrate, parse, pending, shipped

FIRST = parse("0001_first.sql", "CREATE TABLE one (a Int32) ENGINE = MergeTree ORDER BY a;\n")
SECOND = parse(
    "0002_second.sql",
    "CREATE TABLE IF NOT EXISTS two (a Int32) ENGINE = MergeTree ORDER BY a;\nCREATE TABLE broken (;\n",
)


def test_shipped_files_apply_once_in_order(empty_engine):
    names = [migration.name for migration in shipped()]
    assert [one.name for one in pending(empty_engine)] == names
    assert applied(empty_engine) == []
    assert migrate(empty_engine) == names
    assert migrate(empty_engine) == []
    assert pending(empty_engine) == []
    assert [one.name for one in applied(empty_engine)] == names


def test_only_what_is_new_is_applied_and_survives_a_restart(tmp_path):
    engine = EmbeddedEngine(tmp_path)
    assert migrate(engine, [FIRST]) == ["0001_first.sql"]
    engine.close()
    engine = EmbeddedEngine(tmp_path)
    second = dataclasses.replace(SECOND, statements=SECOND.statements[:1])
    assert migrate(engine, [FIRST, second]) == ["0002_second.sql"]
    engine.close()


def test_a_changed_file_is_refused(empty_engine):
    migrate(empty_engine, [FIRST])
    with pytest.raises(TerminalError, match=r"0001_first\.sql was changed after it had been applied"):
        migrate(empty_engine, [dataclasses.replace(FIRST, checksum="other")])


def test_a_newer_database_is_refused(empty_engine):
    migrate(empty_engine, [FIRST, dataclasses.replace(SECOND, statements=())])
    with pytest.raises(TerminalError, match=r"0002_second\.sql, which this version does not know"):
        pending(empty_engine, [FIRST])


def test_a_file_that_failed_halfway_is_named_and_run_again_from_its_top(empty_engine):
    with pytest.raises(TerminalError, match=r"0002_second\.sql: CREATE TABLE broken \(: Syntax error"):
        migrate(empty_engine, [FIRST, SECOND])
    assert [one.number for one in applied(empty_engine)] == [1]
    mended = dataclasses.replace(SECOND, statements=SECOND.statements[:1])
    assert migrate(empty_engine, [FIRST, mended]) == ["0002_second.sql"]


def test_killed_between_any_two_statements_the_shipped_files_go_through(empty_engine):
    for migration in shipped():
        for number in range(len(migration.statements)):
            for statement in migration.statements[: number + 1]:
                empty_engine.execute(statement)
    assert migrate(empty_engine) == [migration.name for migration in shipped()]
