"""A fresh database per test (opening one costs 60 ms, the library's import 0.5 s once), and ordinary structs."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import stored

from pipeline.storage.embedded import EmbeddedEngine
from pipeline.storage.migrations import migrate


@pytest.fixture
def a_row() -> Any:
    """Makes rows: the ordinary one with these fields changed."""
    return stored.a_row


@pytest.fixture
def a_signal() -> Any:
    return stored.a_signal


@pytest.fixture
def a_count() -> Any:
    return stored.a_count


@pytest.fixture
def a_letter() -> Any:
    return stored.a_letter


@pytest.fixture
def empty_engine(tmp_path: Path) -> Iterator[EmbeddedEngine]:
    engine = EmbeddedEngine(tmp_path)
    yield engine
    engine.close()


@pytest.fixture
def engine(empty_engine: EmbeddedEngine) -> EmbeddedEngine:
    """With the tables made."""
    migrate(empty_engine)
    return empty_engine


@pytest.fixture
def rows_of(engine: EmbeddedEngine) -> Callable[[str], list[dict[str, Any]]]:
    """Runs a SELECT."""
    return lambda sql: [msgspec.json.decode(line) for line in engine.query(sql).splitlines()]
