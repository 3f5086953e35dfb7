"""Signals replayed out of an embedded database: those of the demo come out equal, and what was changed in it is told."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.errors import ConfigurationError
from pipeline.runtime.known_rules import KnownRules, known_rules
from pipeline.runtime.replay_signal import replay_signal
from pipeline.storage.embedded import EmbeddedEngine


@pytest.fixture
def changed(demo_folder: Path) -> Iterator[Callable[..., tuple[int, str]]]:
    """Replays the demo's spike (or another kind) as if a table's rows were others: exit code and words."""
    engine = EmbeddedEngine(demo_folder)

    def run(table: str, rows: str, kind: str = "spike", known: KnownRules | None = None) -> tuple[int, str]:
        def query(sql: str) -> bytes:
            final = f"FROM {table} AS t FINAL" if table == "mentions" else f"FROM {table} AS t"
            return engine.query(sql.replace(final, f"FROM ({rows}) AS t"))

        (row,) = engine.query(f"SELECT signal_id FROM v_signals WHERE kind = '{kind}'").splitlines()
        lines: list[str] = []
        code = replay_signal(query, json.loads(row)["signal_id"], known or known_rules(None, demo_folder), lines.append)
        return code, "\n".join(lines)

    yield run
    engine.close()


def test_every_signal_of_the_demo_comes_out_equal(radar, demo_folder: Path) -> None:
    one = radar()
    listed = one("sql", "SELECT DISTINCT signal_id FROM signals", "--data-dir", str(demo_folder), "--format", "csv")
    identities = [line.strip('"') for line in listed.splitlines()[1:]]
    assert len(identities) == 2
    for identity in identities:
        assert "equal: all of its revisions" in one("replay", identity[:12], "--data-dir", str(demo_folder))
    assert "no stored signal" in one("replay", "nothing", "--data-dir", str(demo_folder), fails=2)


OWN = "subject_id = 'washer-w7' AND product_batch_id = 'L2603' AND objection_type = 'product_quality'"


@pytest.mark.parametrize(
    ("table", "column", "value", "where", "named"),
    [
        (
            "step_counts",
            "count",
            "count + 3",
            f"{OWN} AND step_start > '2026-04-15'",
            "counts: voices in 1 step to",
        ),
        ("step_counts", "count", "count + 1", f"{OWN} AND status = 'final'", "the final count is"),
        ("step_counts", "count", "count * 2", f"{OWN} AND step_start < '2026-03-20'", "revision 0 (opened):"),
        ("signals", "expected", "16", "revision = 0", "expected: the signal says 16"),
        ("signals", "voices", "999", "revision = 2", "voices: the signal says 999, made again it is"),
        ("signals", "evidence_quote", "arrayMap(x -> '别的', evidence_quote)", "1", "evidence.1.quote"),
    ],
)
def test_what_was_changed_is_named(changed, table: str, column: str, value: str, where: str, named: str) -> None:
    code, words = changed(table, f"SELECT * REPLACE (if({where}, {value}, {column}) AS {column}) FROM {table}")
    assert (code, named in words) == (1, True), words


def test_a_severe_signal_that_was_changed(changed) -> None:
    rows = "SELECT * REPLACE (if(revision = 1, 2, voices) AS voices) FROM signals"
    code, words = changed("signals", rows, "severe")
    assert (code, "voices: the signal says 2, made again it is" in words) == (1, True), words


def test_what_is_gone_cannot_be_told(changed) -> None:
    code, words = changed("step_counts", "SELECT * FROM step_counts WHERE step_start < '2026-03-05'")
    assert (code, "are not stored any more" in words) == (2, True), words
    code, words = changed("mentions", "SELECT * FROM mentions FINAL WHERE severity < 4", "severe")
    assert (code, "detection does not say it again" in words) == (2, True), words


def test_rules_that_are_unknown(changed) -> None:
    with pytest.raises(ConfigurationError, match="name the configuration file of then"):
        changed("signals", "SELECT * FROM signals", known=KnownRules({}, {}))
