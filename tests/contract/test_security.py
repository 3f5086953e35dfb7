"""The rights that are listed: those on the brokers agree with the topics, the documents with both, and the SQL is SQL."""

import re
from pathlib import Path

import pytest
import yaml

from pipeline.runtime.kafka import topic_specs
from pipeline.storage.embedded import EmbeddedEngine
from pipeline.storage.migrations import shipped

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = {name: (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("security.md", "security.zh.md")}
RIGHTS: dict[str, dict[str, dict[str, list[str]]]] = yaml.safe_load(
    (ROOT / "deploy/kafka/acls.yaml").read_text(encoding="utf-8")
)


def test_whoever_writes_and_reads_a_topic_may() -> None:
    for name, spec in topic_specs().items():
        for part in spec.producers:
            assert "Write" in RIGHTS[part]["topics"][name], (part, name)
        for part in spec.consumers:
            # Nothing relays signals yet.
            assert part == "relay" or "Read" in RIGHTS[part]["topics"][name], (part, name)


def test_nobody_else_writes() -> None:
    for part in ("connect", "score", "detect", "store", "exporter", "rescore"):
        for name, operations in RIGHTS[part]["topics"].items():
            assert ("Write" in operations) == (part in topic_specs()[name].producers), (part, name)


def row(part: str) -> str:
    """A part's row in the documents' table."""
    cells = [
        "<br>".join(f"`{name}` {', '.join(operations)}" for name, operations in RIGHTS[part].get(kind, {}).items())
        for kind in ("topics", "groups", "transactional_ids")
    ]
    return f"| `{part}` | {' | '.join(cells)} |"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_table_of_rights_is_that_of_the_file(document: str) -> None:
    listed = re.findall(r"^\| `\w+` \| `\w+\.v1`.*$|^\| `\w+` \| `mentions.*$", DOCUMENTS[document], re.MULTILINE)
    assert listed == [row(part) for part in RIGHTS]


def statements(document: str) -> list[str]:
    return [
        one.strip()
        for block in re.findall(r"```sql\n(.*?)```", DOCUMENTS[document], re.DOTALL)
        for one in block.split(";\n")
        if one.strip()
    ]


def test_both_documents_grant_the_same() -> None:
    first, second = map(statements, DOCUMENTS)
    assert first == second
    assert any(one.startswith("GRANT SELECT") for one in first)


def test_clickhouse_understands_every_grant(tmp_path: Path) -> None:
    engine = EmbeddedEngine(tmp_path)
    try:
        for one in statements("security.md"):
            engine.query(f"EXPLAIN AST {one}")
    finally:
        engine.close()


def test_grants_name_tables_that_there_are() -> None:
    made = {
        name
        for migration in shipped()
        for statement in migration.statements
        for name in re.findall(r"^CREATE (?:TABLE IF NOT EXISTS|OR REPLACE VIEW) (\w+)", statement)
    }
    named = set(re.findall(r"ON radar\.(\w+)", "\n".join(statements("security.md"))))
    assert named == made | {"schema_migrations"}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_settings_are_those_that_there_are(document: str) -> None:
    from pipeline.settings import Settings

    sections = {"kafka": "KafkaSettings", "clickhouse": "ClickHouseSettings", "admin": "AdminSettings"}
    from pipeline import settings

    for section, key in re.findall(r"`(kafka|clickhouse|admin)\.(\w+)`", DOCUMENTS[document]):
        assert section in Settings.model_fields
        assert key in getattr(settings, sections[section]).model_fields, f"{section}.{key}"
