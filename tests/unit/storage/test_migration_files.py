"""The shipped files of DDL, as text."""

import re

from pipeline.storage.migrations import parse, shipped
from schemas.vocabulary import ANY_OBJECTION, OBJECTION_TYPES


def test_they_are_numbered_without_a_gap_and_have_statements() -> None:
    found = shipped()
    assert [migration.number for migration in found] == list(range(1, len(found) + 1))
    assert all(migration.statements for migration in found)
    may_be_run_twice = re.compile(
        r"CREATE TABLE IF NOT EXISTS|CREATE OR REPLACE VIEW|ALTER TABLE \w+ (ADD|DROP) COLUMN IF"
    )
    assert all(may_be_run_twice.match(statement) for migration in found for statement in migration.statements)


def test_statements_end_at_a_semicolon_that_ends_a_line() -> None:
    migration = parse("0007_a.sql", "-- why; because\nCREATE a\n  COMMENT 'x; y';\n\nCREATE b;  \n")
    assert (migration.number, migration.statements) == (7, ("CREATE a\n  COMMENT 'x; y'", "CREATE b"))


def test_the_checksum_sees_comments() -> None:
    assert parse("0001_a.sql", "CREATE a;").checksum != parse("0001_a.sql", "-- x\nCREATE a;").checksum


def test_daily_rates_list_every_objection_type_of_the_vocabulary() -> None:
    (view,) = (s for migration in shipped() for s in migration.statements if "VIEW v_daily_rates" in s)
    listed = re.findall(r"'(\w+)'", view[view.index("ARRAY JOIN") : view.index("AS objection_type\n")])
    assert listed == [ANY_OBJECTION, *OBJECTION_TYPES]
