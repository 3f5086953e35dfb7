"""What every engine must do, on plain tables only: the embedded one and an old server, which knows no view of ours, alike.

``FINAL`` stands for what a merge leaves over; whether the same block is not even written twice is the engine's own matter.
"""

import threading
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stored import ONE_OF_EACH, a_row

from pipeline.errors import InvalidMessage, TerminalError
from pipeline.storage.engine import Engine, QueryError
from pipeline.storage.writer import write_block
from schemas.control import Gap
from schemas.scored import Objection

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
MENTIONS = st.lists(
    st.tuples(
        TEXT, TEXT, st.lists(TEXT, max_size=3), st.none() | st.integers(-4000, 4000).map(lambda quarters: quarters / 4)
    ),
    min_size=1,
    max_size=20,
)


def read(engine: Engine, sql: str) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in engine.query(sql).splitlines()]


def ids(engine: Engine) -> list[str]:
    return [one["mention_id"] for one in read(engine, "SELECT mention_id FROM mentions FINAL ORDER BY mention_id")]


class EngineContract:
    """Subclasses run where a fixture ``engine`` gives an engine with empty tables, and closes it."""

    def test_every_table_takes_a_row_again_and_keeps_one(self, engine):
        for table, struct in ONE_OF_EACH.items():
            for _ in range(2):
                engine.insert(table, [struct])
            assert read(engine, f"SELECT toInt32(count()) AS n FROM {table} FINAL") == [{"n": 1}], table

    def test_no_rows_are_no_block(self, engine):
        engine.insert("mentions", [])
        assert ids(engine) == []

    def test_the_same_rows_cut_differently_are_there_once(self, engine):
        rows = [a_row(mention_id=f"m{i}") for i in range(6)]
        for cut in (rows[:4], rows[2:], rows[:1] * 3, rows):
            engine.insert("mentions", cut)
        assert ids(engine) == [f"m{i}" for i in range(6)]

    def test_the_highest_revision_and_generation_stay_in_any_order(self, engine):
        for revision, generation in ((1, 0), (2, 0), (2, 3), (0, 9), (2, 1)):
            engine.insert("mentions", [a_row(revision=revision, text=f"{revision}.{generation}")], generation)
        assert read(engine, "SELECT text FROM mentions FINAL") == [{"text": "2.3"}]

    @pytest.mark.parametrize(
        "changes",
        [
            {"revision": -1},
            {"severity": 256},
            {"near_duplicate_signature": 2**64},
            {"event_time": 1.5},
            {"text": "half a pair: \ud83d"},
            {"text": None},
            {"flags": None},
            {"objections": [Objection("price", "x", (-1, 2), "negative")]},
            {"rating": "five"},
            {"sentiment": 1e300},
            {"primary": False},
        ],
        ids=str,
    )
    def test_a_row_that_does_not_fit_is_the_rows_fault_and_nothing_is_written(self, engine, changes):
        with pytest.raises(InvalidMessage) as caught:
            engine.insert("mentions", [a_row(), a_row(mention_id="m2", **changes)])
        assert caught.value.reason == "poison_row"
        assert ids(engine) == []
        engine.insert("mentions", [a_row()])
        assert ids(engine) == ["m1"]

    def test_a_block_is_halved_to_its_bad_rows(self, engine):
        rows = [a_row(mention_id=f"m{i:03}") for i in range(200)]
        rows[18] = a_row(mention_id="m018", revision=-1)
        rows[199] = a_row(mention_id="m199", text="\ud83d")
        for _ in range(2):
            dead = write_block(engine, "mentions", rows)
            assert [letter.locator for letter in dead] == ["mentions:shop,m018,-1", "mentions:shop,m199,0"]
            assert ids(engine) == [f"m{i:03}" for i in range(199) if i != 18]

    def test_a_table_that_is_not_as_ours_is_no_rows_fault(self, engine):
        engine.execute("DROP TABLE gaps")
        with pytest.raises(TerminalError):
            engine.insert("gaps", [Gap("shop", 1, None, "outage")])
        engine.execute(
            "CREATE TABLE gaps (source_id String, start Int64, reason String) ENGINE = MergeTree ORDER BY start"
        )
        with pytest.raises(TerminalError):
            engine.insert("gaps", [Gap("shop", 1, None, "outage")])

    @pytest.mark.parametrize("sql", ["SELECT nonsense", "SELECT FROM WHERE", "SELECT * FROM nothing", "nonsense"])
    def test_a_refused_statement_is_told_in_one_line_and_the_next_one_works(self, engine, sql):
        with pytest.raises(QueryError) as caught:
            engine.query(sql)
        assert "\n" not in str(caught.value)
        assert "Stack trace" not in str(caught.value)
        assert read(engine, "SELECT 1 AS one") == [{"one": 1}]

    def test_an_unknown_format_is_refused(self, engine):
        with pytest.raises(QueryError):
            engine.query("SELECT 1", "Nonsense")

    def test_answers_are_json_lines(self, engine):
        sql = (
            "SELECT 'a\"\\n\\\\漏' AS text, toUInt64(18446744073709551615) AS big, [1, 2] AS list, toNullable(-5) AS some, "
            "toFloat32(0.1) AS single, 0.1 AS double, toDate('2026-01-02') AS day, toFixedString('ab', 2) AS fixed, "
            "1 / 0 AS infinite UNION ALL SELECT '', 0, [], NULL, toFloat32(-2.5), 1e211, toDate('1971-01-01'), toFixedString('cd', 2), 0.5"
        )
        names = ("text", "big", "list", "some", "single", "double", "day", "fixed", "infinite")
        assert sorted((tuple(one.values()) for one in read(engine, sql)), key=lambda one: one[1]) == [
            ("", 0, [], None, -2.5, 1e211, "1971-01-01", "cd", 0.5),
            ('a"\n\\漏', 2**64 - 1, [1, 2], -5, 0.1, 0.1, "2026-01-02", "ab", None),
        ]
        assert all(tuple(one) == names for one in read(engine, sql))
        assert engine.query("SELECT 1 AS one WHERE 0") == b""

    def test_threads_take_turns(self, engine):
        failures: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for i in range(10):
                    engine.insert("mentions", [a_row(mention_id=f"{number}-{i}")])
                    assert read(engine, f"SELECT {number} AS n") == [{"n": number}]
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(ids(engine)) == 40

    def test_a_closed_engine_says_so(self, engine):
        engine.query("SELECT 1")
        engine.close()
        engine.close()
        for call in (lambda: engine.query("SELECT 1"), lambda: engine.insert("mentions", [a_row()])):
            with pytest.raises(TerminalError, match="is closed"):
                call()

    @settings(
        deadline=None,
        max_examples=15,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    @given(MENTIONS)
    def test_any_text_survives(self, engine, drawn):
        engine.execute("TRUNCATE TABLE mentions")
        rows = [
            a_row(
                mention_id=str(i),
                text=text,
                carrier=carrier,
                rating=rating,
                objections=[Objection("price", subtype, (0, 2**32 - 1), "neutral") for subtype in subtypes],
            )
            for i, (text, carrier, subtypes, rating) in enumerate(drawn)
        ]
        engine.insert("mentions", rows)
        seen = read(
            engine,
            "SELECT text, carrier, objection_subtype AS s, objection_span_end AS e, rating FROM mentions FINAL "
            "ORDER BY toUInt32(mention_id)",
        )
        assert [(one["text"], one["carrier"], one["s"], one["rating"]) for one in seen] == [
            (text, carrier, subtypes, rating) for text, carrier, subtypes, rating in drawn
        ]
        assert all(end == 2**32 - 1 for one in seen for end in one["e"])

    def test_more_words_than_a_byte_can_number(self, engine):
        engine.insert("mentions", [a_row(mention_id=str(i), product_batch_id=f"L{i}") for i in range(70_000)])
        assert read(
            engine,
            "SELECT uniqExact(product_batch_id) AS n, countIf(product_batch_id != concat('L', mention_id)) AS bad FROM mentions",
        ) == [{"n": 70_000, "bad": 0}]
