"""Real servers: two shared by the session, and as many of its own as a test wants to kill. What is missing is skipped."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from servers import Alertmanager, ClickHouse, Kafka, Prometheus, Server

AnyServer = TypeVar("AnyServer", bound=Server)


@contextlib.contextmanager
def _starter(server: type[AnyServer], folder: Path) -> Iterator[Callable[..., AnyServer]]:
    """Gives a function that starts such servers, each in a folder of its own; at the end all are stopped."""
    if missing := server.missing():
        pytest.skip(missing)
    numbers = itertools.count(1)
    with contextlib.ExitStack() as running:
        yield lambda **options: running.enter_context(
            server(folder / f"{server.__name__.lower()}-{next(numbers)}", **options)
        )


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """Shared: take topics, groups and transactional ids of your own, and let it live."""
    with _starter(Kafka, tmp_path_factory.mktemp("shared")) as start:
        yield start()


@pytest.fixture(scope="session")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    """Shared: take a database of your own, and let it live."""
    with _starter(ClickHouse, tmp_path_factory.mktemp("shared")) as start:
        yield start()


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[Callable[..., Kafka]]:
    """Starts a broker for this test alone; takes what ``Kafka`` takes."""
    with _starter(Kafka, tmp_path) as start:
        yield start


@pytest.fixture
def own_clickhouse(tmp_path: Path) -> Iterator[Callable[..., ClickHouse]]:
    """Starts a ClickHouse for this test alone; takes what ``ClickHouse`` takes."""
    with _starter(ClickHouse, tmp_path) as start:
        yield start


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Callable[..., Prometheus]]:
    """Starts a Prometheus on ``config=``, the text of its configuration."""
    with _starter(Prometheus, tmp_path) as start:
        yield start


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[Callable[..., Alertmanager]]:
    """Starts an Alertmanager on ``config=``, the text of its configuration."""
    with _starter(Alertmanager, tmp_path) as start:
        yield start
