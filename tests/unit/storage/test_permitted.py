"""Which statements reach the engine at all."""

import pytest

from pipeline.storage.engine import QueryError
from pipeline.storage.sql_service import MAX_SQL_BYTES, permitted


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "  select 1 ;\n",
        "-- how many\n-- of them\nSELECT count() FROM v_mentions",
        "WITH 1 AS x SELECT x",
        "(SELECT 1) UNION ALL (SELECT 2)",
        "SHOW TABLES",
        "SHOW CREATE TABLE v_mentions",
        "DESCRIBE v_mentions",
        "DESC TABLE default.v_mentions",
        "EXISTS TABLE mentions",
        "EXPLAIN SELECT 1",
        "EXPLAIN QUERY TREE SELECT 1",
        "EXPLAIN PLAN indexes = 1, actions = 1 SELECT 1",
    ],
)
def test_reading_is_permitted(sql: str) -> None:
    assert permitted(sql) == sql.strip().rstrip(";").rstrip()


@pytest.mark.parametrize(
    "sql",
    [
        "",
        " ; ",
        "-- nothing",
        "INSERT INTO mentions VALUES (1)",
        "DROP TABLE mentions",
        "SELECT 1; DROP TABLE mentions",
        "SELECT 1 INTO OUTFILE '/tmp/x'",
        "SELECT 1 into/**/outfile '/tmp/x'",
        "KILL QUERY WHERE 1",
        "SYSTEM STOP MERGES",
        "SET max_threads = 1",
        "USE system",
        "/* */ KILL QUERY WHERE 1",
        "DESCRIBE file('/etc/passwd')",
        "DESCRIBE TABLE s3('http://localhost/a/b')",
        "DESC (SELECT * FROM file('/etc/passwd'))",
        "EXPLAIN KILL QUERY WHERE 1",
        "EXPLAIN TABLE OVERRIDE mysql('a')",
        "exit",
        "SELECT '" + "长" * MAX_SQL_BYTES + "'",
    ],
)
def test_everything_else_is_refused(sql: str) -> None:
    with pytest.raises(QueryError):
        permitted(sql)
