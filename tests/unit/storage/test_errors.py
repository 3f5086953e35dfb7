"""Which message of the engine is whose problem."""

import pytest

from pipeline.errors import InvalidMessage, TerminalError, TransientError
from pipeline.storage.engine import QueryError, insert_error, literal, query_error


@pytest.mark.parametrize(
    ("message", "insert", "query"),
    [
        ("Code: 469. DB::Exception: Constraint `c` is violated. (VIOLATED_CONSTRAINT)", InvalidMessage, QueryError),
        ("Code: 241. DB::Exception: Memory limit. (MEMORY_LIMIT_EXCEEDED)", TransientError, TransientError),
        ("Code: 252. DB::Exception: Too many parts. (TOO_MANY_PARTS)", TransientError, TransientError),
        ("Code: 60. DB::Exception: Table x does not exist. (UNKNOWN_TABLE)", TerminalError, QueryError),
        ("", TerminalError, QueryError),
    ],
)
def test_kinds(message: str, insert: type, query: type) -> None:
    assert type(insert_error(message)) is insert
    assert type(query_error(message)) is query


def test_the_message_is_one_readable_line() -> None:
    error = query_error("Code: 62. DB::Exception: Syntax error:\n  failed (version 26.5.1.1). (SYNTAX_ERROR)")
    assert str(error) == "Syntax error: failed . (SYNTAX_ERROR)"
    assert str(query_error("")) == "the engine failed and did not say why"


def test_literals_cannot_be_left() -> None:
    assert literal("a'b\\c\0") == "'a\\'b\\\\c\\0'"
