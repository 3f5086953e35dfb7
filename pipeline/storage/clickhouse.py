"""A ClickHouse server over its native protocol: the only home of ``clickhouse_driver.Client``. Verified with 0.2.11 of it.

What the library does, and what is done about it:

- Its list of hosts begins with the same host again after one that takes connections and then fails, and does not go on after
  one that hangs up in the greeting. So a client is made for one host, and the list is kept here.
- It connects again by itself, with the password it was given once. It is told not to.
- After any error, the server's own included, it hangs up. So an error costs a new connection, and no state survives one.
- It marks no setting as important, so a server passes over those it does not know, and the library itself leaves out, with a
  warning each time, what a very old server does not take as text. So an old server is asked first which it has.
"""

import logging
import os
import re
import ssl
import threading
from collections import deque
from collections.abc import Callable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
import numpy as np
from clickhouse_driver import Client
from clickhouse_driver.errors import Error as DriverError
from clickhouse_driver.errors import (
    ErrorCodes,
    NetworkError,
    PartiallyConsumedQueryError,
    ServerException,
    SocketTimeoutError,
    UnexpectedPacketFromServerError,
    UnknownPacketFromServerError,
)
from msgspec import Struct

from pipeline.errors import ConfigurationError, RadarError, TerminalError, TransientError
from pipeline.settings import ClickHouseSettings, password
from pipeline.storage import native
from pipeline.storage.engine import QueryError, insert_error, insert_settings, query_error
from pipeline.storage.rows import TABLES, columns_of

# It warns of each host that does not answer, with a traceback; our errors say it in a line.
logging.getLogger("clickhouse_driver").setLevel(logging.ERROR)

MINIMUM_VERSION = (23, 8)
"""Of the server: what ``schemas/clickhouse`` needs."""

_PORT, _SECURE_PORT = 9000, 9440
_WHOLE = 2**31
"""Rows of one piece of an insert: more than any block has, for pieces would be parts of their own."""

_NETWORK = (
    NetworkError,
    SocketTimeoutError,
    PartiallyConsumedQueryError,
    UnexpectedPacketFromServerError,
    UnknownPacketFromServerError,
    OSError,
    EOFError,
)
_REFUSED = frozenset({
    ErrorCodes.UNKNOWN_USER,
    ErrorCodes.WRONG_PASSWORD,
    ErrorCodes.REQUIRED_PASSWORD,
    ErrorCodes.IP_ADDRESS_NOT_ALLOWED,
    ErrorCodes.UNKNOWN_DATABASE,
    ErrorCodes.DATABASE_ACCESS_DENIED,
    516,  # AUTHENTICATION_FAILED
})  # fmt: skip
_NOT_TRUSTED = "CERTIFICATE_VERIFY_FAILED"


class ServerEngine:
    """A database on a server, over one connection that is made at the first call and made again after an error.

    An error of the network is a ``TransientError``, and the next call goes on with the next host. A block whose insert ended
    so may be stored or not: sending it again is right in both cases.
    """

    def __init__(
        self, settings: ClickHouseSettings, *, connect_seconds: float = 5.0, answer_seconds: float = 60.0
    ) -> None:
        """Nothing is sent yet.

        Args:
            settings: where to, and as whom; the password is read at each connection.
            connect_seconds: how long a host may take to take the connection, to greet, and to show that it still lives.
            answer_seconds: how long it may be silent during a statement.

        Raises:
            ConfigurationError: the addresses are none.
        """
        self._settings = settings
        self._connect_seconds = connect_seconds
        self._answer_seconds = answer_seconds
        self._hosts = deque(_addresses(settings))
        self._mutex = threading.Lock()
        self._client: Any = None
        self._unknown: frozenset[str] = frozenset()
        self._closed = False

    def insert(self, table: str, structs: Sequence[Struct], generation: int = 0) -> None:
        """Write one block; see ``Engine.insert``.

        Raises:
            ConfigurationError: as ``query``.
        """
        if not structs:
            return
        spec = TABLES[table]
        columns = columns_of(spec, structs, generation)
        settings = insert_settings(table, columns)
        names = ", ".join(column.name for column in spec.columns)
        with self._mutex:
            client = self._connected()
            known = {name: value for name, value in settings.items() if name not in self._unknown}
            try:
                client.execute(f"INSERT INTO {table} ({names}) VALUES", columns, columnar=True, settings=known)
            except Exception as error:
                failure = self._failed(error, insert_error)
                if type(failure) is TerminalError and not isinstance(error, ServerException):
                    # The library has many words for a value that does not fit. The encoder, which needs no server, says
                    # whether that was it: a row is never blamed for anything else.
                    native.encode(spec, columns_of(spec, structs, generation))
                raise failure from error

    def query(self, sql: str, format: str = "JSONEachRow") -> bytes:  # noqa: A002 - the SQL word for it
        """Run one statement; see ``Engine.query``. The protocol has no output formats: JSON lines are made here.

        Raises:
            ConfigurationError: the server refuses the user, is not trusted, or is too old.
        """
        if format != "JSONEachRow":
            raise QueryError(f"a server's answers come as JSONEachRow only, not as {format}")
        with self._mutex:
            client = self._connected()
            try:
                values, columns = client.execute(sql, with_column_types=True, columnar=True)
                return json_lines(columns, values)
            except Exception as error:
                raise self._failed(error, query_error) from error

    def execute(self, sql: str) -> None:
        """Run one statement for its effect; see ``Engine.execute``."""
        self.query(sql)

    def close(self) -> None:
        """Hang up. Calling it twice is fine."""
        with self._mutex:
            self._closed = True
            self._drop()

    def _connected(self) -> Any:
        if self._closed:
            raise TerminalError("the connection to ClickHouse is closed")
        if self._client is not None and not _lives(self._client):
            # It was idle and is gone: nothing was asked yet, so nothing is in doubt.
            self._drop()
            self._hosts.rotate(-1)
        if self._client is None:
            self._client = self._connect()
        return self._client

    def _connect(self) -> Any:
        """A client that was greeted, by the first host that does."""
        secret = password(self._settings) or ""
        reasons = []
        for _ in range(len(self._hosts)):
            host, port = self._hosts[0]
            client = self._client_of(host, port, secret)
            try:
                self._greet(client, f"{host}:{port}")
            except TransientError as error:
                client.disconnect()
                reasons.append(str(error))
                self._hosts.rotate(-1)
            except BaseException:
                client.disconnect()
                raise
            else:
                return client
        raise TransientError("; ".join(reasons))

    def _client_of(self, host: str, port: int, secret: str) -> Any:
        chosen = self._settings
        return Client(
            host,
            port=port,
            database=chosen.database,
            user=chosen.user,
            password=secret,
            client_name="complaint-radar",
            connect_timeout=self._connect_seconds,
            # The greeting's; see _greet.
            send_receive_timeout=self._connect_seconds,
            sync_request_timeout=self._connect_seconds,
            compression=False if chosen.compression == "none" else chosen.compression,
            secure=chosen.secure,
            ca_certs=_authority(chosen),
            disable_reconnect=True,
            settings={"insert_block_size": _WHOLE},
        )

    def _greet(self, client: Any, address: str) -> None:
        try:
            client.connection.connect()
            self._unknown = self._judged(client, address)
            # Only now: a host that takes connections and says nothing must not hold up the next one for as long.
            client.connection.send_receive_timeout = self._answer_seconds
            client.connection.socket.settimeout(self._answer_seconds)
        except RadarError:
            raise
        except Exception as error:
            reason = _in_words(error)
            if _NOT_TRUSTED in reason:
                raise ConfigurationError(f"clickhouse.ca_file: {address} is not trusted: {reason}") from error
            if isinstance(error, ServerException) and error.code in _REFUSED:
                raise ConfigurationError(
                    "clickhouse.user, clickhouse.password, clickhouse.database: the server at "
                    f"{address} refuses them: {query_error(reason)}"
                ) from error
            raise _mapped(error, query_error, address) from error

    def _judged(self, client: Any, address: str) -> frozenset[str]:
        """Which of our settings the server does not know."""
        version: tuple[int, ...] = client.connection.server_info.version_tuple()
        if version >= MINIMUM_VERSION:
            return frozenset()
        if not self._settings.allow_older:
            raise ConfigurationError(
                f"clickhouse.hosts: the server at {address} is ClickHouse {'.'.join(map(str, version))}; "
                f"{'.'.join(map(str, MINIMUM_VERSION))} or newer is needed (clickhouse.allow_older goes on without)"
            )
        ours = frozenset(insert_settings("", ()))
        listed = ", ".join(f"'{name}'" for name in sorted(ours))
        found = client.execute(f"SELECT name FROM system.settings WHERE name IN ({listed})")
        return ours - {name for (name,) in found}

    def _failed(self, error: Exception, server_error: Callable[[str], RadarError]) -> RadarError:
        """What the error means; the connection is dropped, and after one of the network the next host is next."""
        host, port = self._hosts[0]
        self._drop()
        failure = _mapped(error, server_error, f"{host}:{port}")
        if isinstance(error, _NETWORK):
            self._hosts.rotate(-1)
        return failure

    def _drop(self) -> None:
        if self._client is not None:
            self._client.disconnect()
            self._client = None


def json_lines(columns: Sequence[tuple[str, str]], values: Sequence[Sequence[Any]]) -> bytes:
    """A result as ClickHouse prints it in the format JSONEachRow, with the defaults of 26.5.

    Text that is no UTF-8 is mended, a DateTime64 is good to the microsecond, and a named tuple may come as an array.

    Args:
        columns: name and type of each.
        values: per column one value a row, as clickhouse-driver reads them; empty if there are no rows.
    """
    names = [name for name, _ in columns]
    printed = [_printable(type_, column) for (_, type_), column in zip(columns, values, strict=False)]
    return _JSON.encode_lines([dict(zip(names, row, strict=True)) for row in zip(*printed, strict=True)])


_JSON = msgspec.json.Encoder(decimal_format="number")
_DIGITS = re.compile(r"DateTime64\((\d)")


def _printable(type_: str, column: Sequence[Any]) -> list[Any]:
    found = _DIGITS.search(type_)
    digits = int(found[1]) if found else 0
    single = "Float32" in type_ and "Float64" not in type_
    return [_plain(value, digits, single) for value in column]


def _plain(value: Any, digits: int, single: bool) -> Any:
    """The value in terms of JSON.

    Args:
        value: as clickhouse-driver reads it.
        digits: of the second, in times.
        single: whether numbers are Float32: 0.1, not 0.10000000149.
    """
    if isinstance(value, list | tuple):
        return [_plain(one, digits, single) for one in value]
    if isinstance(value, dict):
        return {str(_plain(key, digits, single)): _plain(one, digits, single) for key, one in value.items()}
    if isinstance(value, float):
        return float(str(np.float32(value))) if single else value
    if value is None or isinstance(value, str | int | UUID):
        return value
    return _text(value, digits)


def _text(value: Any, digits: int) -> Any:
    if isinstance(value, datetime):
        second, _, fraction = value.replace(tzinfo=None).isoformat(" ", "microseconds").partition(".")
        return f"{second}.{fraction[:digits].ljust(digits, '0')}" if digits else second
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, Decimal):
        return msgspec.Raw(f"{value:f}".encode())
    return str(value)


def _addresses(settings: ClickHouseSettings) -> list[tuple[str, int]]:
    found = []
    for part in settings.hosts.split(","):
        url = urlsplit(f"//{part}")
        try:
            host, port = url.hostname, url.port
        except ValueError:
            host, port = None, None
        # What stands before an @ would be a password, and is not repeated.
        if not host or url.netloc != part or "@" in part:
            raise ConfigurationError(
                "clickhouse.hosts: an address is a host, or host:port; user and password have keys of their own"
            )
        found.append((host, port or (_SECURE_PORT if settings.secure else _PORT)))
    return found


def _authority(settings: ClickHouseSettings) -> str | None:
    """The file of trusted certificates; the library would take another package's before the system's."""
    if not settings.secure:
        return None
    if settings.ca_file is None:
        return ssl.get_default_verify_paths().cafile
    if not os.access(settings.ca_file, os.R_OK):
        raise ConfigurationError(f"clickhouse.ca_file: {settings.ca_file} cannot be read")
    return str(settings.ca_file)


def _lives(client: Any) -> bool:
    try:
        return bool(client.connection.ping())
    except DriverError:
        # It said something else than that it lives, perhaps good-bye.
        return False


def _mapped(error: Exception, server_error: Callable[[str], RadarError], address: str) -> RadarError:
    if isinstance(error, ServerException):
        return server_error(_in_words(error))
    if isinstance(error, _NETWORK):
        return TransientError(f"ClickHouse at {address}: {_in_words(error)}")
    return TerminalError(f"ClickHouse at {address}: {type(error).__name__}: {_in_words(error)}")


def _in_words(error: Exception) -> str:
    if isinstance(error, ServerException):
        # Before the stack trace, which an old server sends along.
        return f"Code: {error.code}. {error.message.partition('. Stack trace:')[0]}"
    # Errors of connecting say no more than an address where it was a time-out, and after the reason else.
    said = error.message if isinstance(error, DriverError) and error.message else str(error)
    said = re.sub(r" ?\([^() ]*:\d+\)$", "", said)
    return said or ("timed out" if isinstance(error, SocketTimeoutError) else type(error).__name__)
