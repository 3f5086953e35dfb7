"""The server's engine without a server: which error is whose, addresses, and how answers are printed."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from clickhouse_driver import errors

from pipeline.errors import ConfigurationError, InvalidMessage, RadarError, TerminalError, TransientError
from pipeline.settings import ClickHouseSettings
from pipeline.storage import clickhouse
from pipeline.storage.clickhouse import ServerEngine, json_lines
from pipeline.storage.engine import QueryError, insert_settings
from schemas.control import Gap
from schemas.scored import ScoredRow


class DeadClient:
    """Greets as a server of 23.8 and fails every statement with the error."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.connection = self
        self.server_info = self
        self.socket = self
        self.hung_up = 0

    def version_tuple(self) -> tuple[int, int, int]:
        return 23, 8, 1

    def connect(self) -> None:
        pass

    def settimeout(self, seconds: float) -> None:
        pass

    def ping(self) -> bool:
        return True

    def execute(self, *_: Any, **__: Any) -> Any:
        raise self.error

    def disconnect(self) -> None:
        self.hung_up += 1


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], tuple[ServerEngine, list[tuple[str, int]]]]:
    """Makes an engine of two hosts, and the list of those it connects to."""

    def make(error: Exception) -> tuple[ServerEngine, list[tuple[str, int]]]:
        asked: list[tuple[str, int]] = []

        def client(host: str, *, port: int, **_: Any) -> DeadClient:
            asked.append((host, port))
            return DeadClient(error)

        monkeypatch.setattr(clickhouse, "Client", client)
        return ServerEngine(ClickHouseSettings(hosts="a:1,b:2")), asked

    return make


SERVER = "DB::Exception: nope. Stack trace:\n\n0. clickhouse-server"


@pytest.mark.parametrize(
    ("error", "insert", "query"),
    [
        (errors.NetworkError("gone"), TransientError, TransientError),
        (errors.SocketTimeoutError("slow"), TransientError, TransientError),
        (errors.PartiallyConsumedQueryError(), TransientError, TransientError),
        (errors.UnexpectedPacketFromServerError("what"), TransientError, TransientError),
        (EOFError("Unexpected EOF"), TransientError, TransientError),
        (TimeoutError("timed out"), TransientError, TransientError),
        (ConnectionResetError(104, "reset"), TransientError, TransientError),
        (errors.ServerException(SERVER, 241), TransientError, TransientError),
        (errors.ServerException(SERVER, 469), InvalidMessage, QueryError),
        (errors.ServerException(SERVER, 60), TerminalError, QueryError),
        (errors.ServerException(SERVER, 497), TerminalError, QueryError),
        # The encoder finds nothing wrong with the row, so whatever this was, it was not the row.
        (errors.TypeMismatchError("column"), TerminalError, TerminalError),
        (ValueError("year 40000 is out of range"), TerminalError, TerminalError),
        (RuntimeError("strange"), TerminalError, TerminalError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_errors(failing: Any, error: Exception, insert: type[RadarError], query: type[RadarError]) -> None:
    engine, _ = failing(error)
    with pytest.raises(RadarError) as caught:
        engine.insert("gaps", [Gap("shop", 1, None, "outage")])
    assert type(caught.value) is insert
    with pytest.raises(RadarError) as caught:
        engine.query("SELECT 1")
    assert type(caught.value) is query
    assert "Stack" not in str(caught.value)


def test_after_an_error_of_the_network_the_next_host_is_asked_and_after_others_the_same(failing: Any) -> None:
    for error, second in ((EOFError("gone"), ("b", 2)), (errors.ServerException(SERVER, 60), ("a", 1))):
        engine, asked = failing(error)
        for _ in range(2):
            with pytest.raises(RadarError):
                engine.query("SELECT 1")
        assert asked == [("a", 1), second]


def test_a_value_that_does_not_fit_is_the_rows_fault_whatever_the_library_calls_it(
    failing: Any, example_row: ScoredRow
) -> None:
    engine, _ = failing(AttributeError("'str' object has no attribute 'tzinfo'"))
    row = ScoredRow(**{name: getattr(example_row, name) for name in ScoredRow.__struct_fields__} | {"event_time": "x"})
    with pytest.raises(InvalidMessage, match="table mentions"):
        engine.insert("mentions", [row])


def test_an_error_without_words_has_a_name(failing: Any) -> None:
    engine, _ = failing(EOFError())
    with pytest.raises(TransientError, match="ClickHouse at a:1: EOFError"):
        engine.query("SELECT 1")


@pytest.mark.parametrize(
    "hosts", ["a:port", "a:99999", ":9000", "http://a", "a/b", "radar:sesame@a:9000", "a:1,b:x"], ids=str
)
def test_what_is_no_address_is_refused_and_not_repeated(hosts: str) -> None:
    with pytest.raises(ConfigurationError, match=r"clickhouse\.hosts") as caught:
        ServerEngine(ClickHouseSettings(hosts=hosts))
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    ("hosts", "secure", "expected"),
    [
        ("a", False, [("a", 9000)]),
        ("a", True, [("a", 9440)]),
        ("a:1,b,[::1]:3", False, [("a", 1), ("b", 9000), ("::1", 3)]),
    ],
)
def test_addresses(hosts: str, secure: bool, expected: list[tuple[str, int]]) -> None:
    assert clickhouse._addresses(ClickHouseSettings(hosts=hosts, secure=secure)) == expected


def test_certificates_that_cannot_be_read_are_named() -> None:
    engine = ServerEngine(ClickHouseSettings(hosts="a", secure=True, ca_file=Path("/no/such.pem")))
    with pytest.raises(ConfigurationError, match=r"clickhouse\.ca_file: /no/such\.pem cannot be read"):
        engine.query("SELECT 1")


def test_other_formats_are_refused_before_anything_is_asked() -> None:
    with pytest.raises(QueryError, match="JSONEachRow only, not as TSV"):
        ServerEngine(ClickHouseSettings(hosts="a")).query("SELECT 1", "TSV")


@pytest.mark.parametrize(
    ("type_", "value", "printed"),
    [
        ("DateTime64(3, 'UTC')", datetime(2026, 1, 2, 3, 4, 5, 6000, tzinfo=UTC), '"2026-01-02 03:04:05.006"'),
        ("Nullable(DateTime64(9))", datetime(2026, 1, 2, 3, 4, 5, 123456, UTC), '"2026-01-02 03:04:05.123456000"'),
        ("DateTime", datetime(2026, 1, 2, 3, 4, 5, 0, UTC), '"2026-01-02 03:04:05"'),
        ("Date", date(2026, 1, 2), '"2026-01-02"'),
        ("String", b"\xffA", '"\ufffdA"'),
        ("Decimal(9, 2)", Decimal("1.50"), "1.50"),
        ("Decimal(76, 0)", Decimal("1E+30"), "1" + "0" * 30),
        ("UUID", UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        ("Float32", 0.10000000149011612, "0.1"),
        ("Float64", float("nan"), "null"),
        ("UInt256", 2**200, str(2**200)),
        ("Array(Tuple(DateTime64(1), String))", [(datetime(2026, 1, 2, tzinfo=UTC), "x")], '[["2026-01-02 00:00:00.0","x"]]'),
        ("Map(Date, Float32)", {date(2026, 1, 2): 0.5}, '{"2026-01-02":0.5}'),
    ],
)  # fmt: skip
def test_json_lines(type_: str, value: Any, printed: str) -> None:
    assert json_lines([("x", type_)], [[value]]).decode() == f'{{"x":{printed}}}\n'


def test_rows_are_lines_and_no_rows_are_nothing() -> None:
    columns = [("a", "UInt8"), ("b", "String")]
    assert [json.loads(line) for line in json_lines(columns, [[1, 2], ["x", "y\n"]]).splitlines()] == [
        {"a": 1, "b": "x"},
        {"a": 2, "b": "y\n"},
    ]
    assert json_lines(columns, []) == json_lines([], []) == b""


def test_the_token_is_that_of_the_content() -> None:
    def token(columns: list[list[Any]]) -> object:
        return insert_settings("gaps", columns)["insert_deduplication_token"]

    assert token([["a", "b"], [1, 2]]) == token([["a", "b"], [1, 2]])
    different = [
        [["a", "b"], [1, 2]],
        [["b", "a"], [1, 2]],
        [["ab", ""], [1, 2]],
        [["a", "b"], [1, None]],
        [["a"], [1]],
    ]
    assert len({token(columns) for columns in different}) == len(different)
    with pytest.raises(InvalidMessage, match="table gaps"):
        token([["\ud83d"]])
