"""Our tables on ClickHouse 18.16, the newest server that Debian has: the DDL without what it does not know.

The wire, the blocks and replacing by key are then tested on a real server. Types and functions that came later, the views
above all, are tested on the embedded engine.
"""

import re

from pipeline.storage.engine import Engine
from pipeline.storage.migrations import shipped

_QUOTED = r"'(?:[^'\\]|\\.)*'"
_CHANGES = (
    (rf"\s+COMMENT {_QUOTED}", ""),
    (r"\s+CODEC\((?:[^()]|\([^()]*\))*\)", ""),
    (r",?\n\s+CONSTRAINT [^\n]*", ""),
    (r",(?=\n\))", ""),
    (r"\n(?:TTL|SETTINGS) [^\n]*", ""),
    (r"LowCardinality\((\w+)\)", r"\1"),
    # Milliseconds as they are sent, so that the same integers come back.
    (r"DateTime64\(3, 'UTC'\)", "Int64"),
    (r"toUnixTimestamp64Milli\((\w+)\)", r"\1"),
    (r"fromUnixTimestamp64Milli\((.*), 'UTC'\)", r"\1"),
    # It cannot take deleted rows out when it merges.
    (r"ReplacingMergeTree\((\w+), \w+\)", r"ReplacingMergeTree(\1)"),
)


def old_ddl(statement: str) -> str | None:
    """The statement for the old server; none if it makes a view: views need functions from after its time."""
    if statement.startswith("CREATE OR REPLACE VIEW"):
        return None
    for pattern, replacement in _CHANGES:
        statement = re.sub(pattern, replacement, statement)
    return statement


def make_tables(engine: Engine) -> None:
    """All tables of the shipped files; no views."""
    for migration in shipped():
        for statement in migration.statements:
            if old := old_ddl(statement):
                engine.execute(old)
