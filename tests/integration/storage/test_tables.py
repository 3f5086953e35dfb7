"""Each table and view on the real engine: what goes in, what an analyst sees."""

import math
import time

import pytest

from pipeline.errors import InvalidMessage, TerminalError
from pipeline.storage.dead_letters import list_dead_letters, mark_replayed, show_dead_letter
from pipeline.storage.engine import QueryError
from pipeline.storage.rows import TABLES
from pipeline.storage.writer import write_block
from schemas.control import Gap

HOUR = 3_600_000
MIDNIGHT_IN_SHANGHAI = 1_735_660_800_000  # 2025-01-01 00:00 there, 2024-12-31 16:00 UTC


def test_declared_columns_are_those_of_the_database(rows_of):
    for table in TABLES.values():
        found = rows_of(
            f"SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = '{table.name}' "
            "AND default_kind != 'MATERIALIZED' ORDER BY position"
        )
        assert [(one["name"], one["type"]) for one in found] == [(one.name, one.type) for one in table.columns]


def test_every_table_view_and_column_is_commented(rows_of):
    tables = rows_of("SELECT name, comment FROM system.tables WHERE database = currentDatabase()")
    assert len(tables) == 15
    assert [one["name"] for one in tables if not one["comment"]] == []
    columns = rows_of("SELECT table, name FROM system.columns WHERE database = currentDatabase() AND comment = ''")
    assert columns == []


def test_every_table_syncs_before_it_returns_and_remembers_tokens(rows_of):
    for one in rows_of(
        "SELECT name, create_table_query AS ddl FROM system.tables WHERE engine LIKE '%MergeTree' AND database = currentDatabase()"
    ):
        if one["name"] != "schema_migrations":
            for setting in ("fsync_after_insert = 1", "fsync_part_directory = 1", "deduplication_window = 10000"):
                assert setting in one["ddl"], one["name"]


def test_a_mention_comes_back_as_it_was(engine, rows_of, a_row):
    engine.insert("mentions", [a_row()], generation=3)
    (seen,) = rows_of("SELECT *, toUnixTimestamp64Milli(event_time) AS ms FROM v_mentions")
    for name in ("mention_id", "revision", "source_id", "channel", "product_id", "text", "severity", "flags", "author"):
        assert seen[name] == getattr(a_row(), name)
    assert (seen["ms"], seen["event_time"]) == (a_row().event_time, "2025-01-01 02:53:20.000")
    assert int(seen["near_duplicate_signature"]) == 2**64 - 1
    assert (seen["generation"], seen["rating"]) == (3, None)
    assert seen["open_objection_types"] == ["product_quality"], "praise of the delivery is no objection"


def test_praise_and_questions_have_no_open_objection(engine, rows_of, a_row):
    engine.insert("mentions", [a_row(speech_act="question")])
    assert rows_of("SELECT open_objection_types AS o FROM v_mentions") == [{"o": []}]


def test_objections_are_rows_with_their_words(engine, rows_of, a_row):
    engine.insert("mentions", [a_row(), a_row(mention_id="m2", objections=[])])
    assert rows_of("SELECT mention_id, objection_type, polarity, quote FROM v_objections ORDER BY objection_type") == [
        {"mention_id": "m1", "objection_type": "delivery", "polarity": "positive", "quote": "快递"},
        {"mention_id": "m1", "objection_type": "product_quality", "polarity": "negative", "quote": "漏水"},
    ]


def test_the_same_block_writes_once(engine, rows_of, a_row):
    for _ in range(3):
        engine.insert("mentions", [a_row()])
    assert rows_of("SELECT count() AS n FROM mentions") == [{"n": 1}]
    engine.insert("mentions", [a_row()], generation=1)
    assert rows_of("SELECT count() AS n FROM mentions") == [{"n": 2}], "another generation is another content"


def test_the_same_rows_cut_differently_show_once(engine, rows_of, a_row):
    rows = [a_row(mention_id=f"m{i}") for i in range(6)]
    for cut in (rows[:4], rows[2:], rows[:1] * 3):
        engine.insert("mentions", cut)
    assert rows_of("SELECT count() AS n, uniqExact(mention_id) AS u FROM v_mentions") == [{"n": 6, "u": 6}]


def test_a_higher_revision_replaces_in_any_order(engine, rows_of, a_row):
    for revision in (1, 2, 0):
        engine.insert("mentions", [a_row(revision=revision, text=f"v{revision}")])
    assert rows_of("SELECT revision, text FROM v_mentions") == [{"revision": 2, "text": "v2"}]


def test_revisions_of_one_block_show_the_last(engine, rows_of, a_row):
    engine.insert("mentions", [a_row(revision=1, text="new"), a_row(text="old")])
    assert rows_of("SELECT text FROM v_mentions") == [{"text": "new"}]


def test_a_newer_scoring_wins_over_an_older_one_and_a_revision_over_both(engine, rows_of, a_row):
    engine.insert("mentions", [a_row(sentiment=0.5)], generation=9)
    engine.insert("mentions", [a_row(sentiment=0.25)], generation=2)
    assert rows_of("SELECT sentiment FROM v_mentions") == [{"sentiment": 0.5}]
    engine.insert("mentions", [a_row(sentiment=0.125, revision=1)], generation=0)
    assert rows_of("SELECT sentiment FROM v_mentions") == [{"sentiment": 0.125}]


def test_a_deleted_mention_vanishes_and_stays_gone(engine, rows_of, a_row):
    engine.insert("mentions", [a_row(), a_row(mention_id="m2")])
    engine.insert("mentions", [a_row(revision=1, deleted=True, text="", objections=[])])
    engine.insert("mentions", [a_row()])
    for _ in range(2):
        assert rows_of("SELECT mention_id FROM v_mentions") == [{"mention_id": "m2"}]
        engine.execute("OPTIMIZE TABLE mentions FINAL")
    assert rows_of("SELECT countIf(text = '') AS gone, count() AS n FROM mentions") == [{"gone": 1, "n": 2}]


def test_signals_keep_history_and_show_the_latest(engine, rows_of, a_signal):
    engine.insert("signals", [a_signal(revision=i, observed=9 + i) for i in (0, 2, 1)])
    engine.insert("signals", [a_signal(revision=2, observed=11), a_signal(signal_id="s2")])
    assert rows_of("SELECT signal_id, revision FROM v_signal_history ORDER BY ALL") == [
        {"signal_id": "s1", "revision": 0},
        {"signal_id": "s1", "revision": 1},
        {"signal_id": "s1", "revision": 2},
        {"signal_id": "s2", "revision": 0},
    ]
    first, _ = rows_of("SELECT * FROM v_signals ORDER BY signal_id")
    assert (first["revision"], first["observed"], first["p_value"]) == (2, 11, None)
    assert (first["interval_low"], first["interval_high"], first["concentration_value"]) == (0, 4, "L1")
    assert (first["driver_share_of_excess"], first["evidence_mention_id"]) == ([0.9], ["m1"])
    assert first["evidence_event_time"] == ["2025-01-01 02:53:20.000"]


def test_step_counts_show_the_latest_revision_of_a_cell(engine, rows_of, a_count):
    engine.insert("step_counts", [a_count(), a_count(revision=1, count=4, status="final")])
    engine.insert("step_counts", [a_count(), a_count(subject_id="pan")])
    assert rows_of("SELECT subject_id, revision, count, status FROM v_step_counts ORDER BY ALL") == [
        {"subject_id": "kettle", "revision": 1, "count": 4, "status": "final"},
        {"subject_id": "pan", "revision": 0, "count": 3, "status": "provisional"},
    ]
    assert rows_of("SELECT count() AS n FROM step_counts FINAL") == [{"n": 3}], "no revision is lost"


def test_daily_rates_by_hand(engine, rows_of, a_count):
    def cell(hour, type_, count, mentions, exposure=2000.0, **changes):
        start = MIDNIGHT_IN_SHANGHAI + hour * HOUR
        return a_count(
            step_start=start, objection_type=type_, count=count, mentions=mentions, exposure=exposure, **changes
        )

    engine.insert(
        "step_counts",
        [
            # Lot L1, units in the field 2,000 and then 4,000: 3,000 on average. 6 voices: 20 per 10,000 units.
            cell(0, "any", 1, 10),
            cell(0, "price", 1, 10),
            cell(0, "any", 2, 12, revision=1, status="final"),
            cell(0, "price", 2, 12, revision=1, status="final"),
            cell(23, "any", 4, 20, exposure=4000.0, known_share=0.5, status="final"),
            cell(23, "delivery", 3, 20, exposure=4000.0, status="final"),
            # The hour after belongs to the next day.
            cell(24, "any", 1, 5),
            # A lot without units: 3 voices of 12 mentions: 25 per 100.
            cell(1, "any", 3, 12, exposure=12.0, product_batch_id="", exposure_kind="mentions", status="final"),
            # What is no product is no product's rate.
            cell(1, "any", 9, 9, subject_kind="carrier", subject_id="SF", product_batch_id=""),
        ],
    )  # fmt: skip
    seen = {
        (one["day"], one["product_batch_id"], one["objection_type"]): one
        for one in rows_of("SELECT * FROM v_daily_rates")
    }
    assert len(seen) == 3 * 8
    any_l1 = seen["2025-01-01", "L1", "any"]
    assert (any_l1["objecting_voices"], any_l1["mentions"], any_l1["exposure"]) == (6, 32, 3000)
    assert (any_l1["rate"], any_l1["rate_unit"], any_l1["known_share"]) == (20, "per 10,000 units", 0.75)
    assert any_l1["status"] == "final"
    assert math.isclose(seen["2025-01-01", "L1", "price"]["rate"], 2 * 10_000 / 3000)
    assert (seen["2025-01-01", "L1", "after_sales"]["rate"], seen["2025-01-01", "L1", "after_sales"]["mentions"]) == (
        0,
        32,
    )
    unknown = seen["2025-01-01", "", "any"]
    assert (unknown["rate"], unknown["rate_unit"]) == (25, "per 100 mentions")
    assert seen["2025-01-02", "L1", "any"]["status"] == "provisional"


def test_a_day_without_exposure_has_no_rate(engine, rows_of, a_count):
    engine.insert("step_counts", [a_count(exposure=0.0)])
    assert rows_of("SELECT DISTINCT rate FROM v_daily_rates") == [{"rate": None}]


def test_a_closed_gap_stays_closed(engine, rows_of):
    engine.insert("gaps", [Gap("shop", 1000, None, "outage"), Gap("calls", 0, None, "outage")])
    engine.insert("gaps", [Gap("shop", 1000, 5000, "outage")])
    engine.insert("gaps", [Gap("shop", 1000, None, "outage")])
    assert rows_of("SELECT source_id, end FROM v_gaps ORDER BY source_id") == [
        {"source_id": "calls", "end": None},
        {"source_id": "shop", "end": "1970-01-01 00:00:05.000"},
    ]


def test_dead_letters_wait_are_replayed_and_wait_again(engine, a_letter):
    now = int(time.time() * 1000)
    engine.insert(
        "dead_letters",
        [a_letter(time=now), a_letter(dead_letter_id="x2", source_id="q'\\s", time=now - 5)],
    )
    assert [one.dead_letter_id for one in list_dead_letters(engine.query)] == ["d1", "x2"]
    assert [one.dead_letter_id for one in list_dead_letters(engine.query, limit=1)] == ["d1"]
    assert [one.dead_letter_id for one in list_dead_letters(engine.query, source="q'\\s")] == ["x2"]
    assert list_dead_letters(engine.query, reason="too_large") == []
    mark_replayed(engine, ["d1"], now + 10)
    mark_replayed(engine, ["d1"], now + 10)
    seen = show_dead_letter(engine.query, "d")
    assert (seen.state, seen.replayed_at, seen.time, seen.locator) == ("replayed", now + 10, now, "file.csv:3")
    assert [one.dead_letter_id for one in list_dead_letters(engine.query, state="waiting")] == ["x2"]
    engine.insert("dead_letters", [a_letter(time=now + 20)])
    assert show_dead_letter(engine.query, "d1").state == "waiting"


def test_dead_letters_that_are_not_there(engine, a_letter):
    now = int(time.time() * 1000)
    engine.insert("dead_letters", [a_letter(dead_letter_id=name, time=now) for name in ("ab1", "ab2")])
    for name in ("zz", "", "%"):
        with pytest.raises(TerminalError, match="no dead letter"):
            show_dead_letter(engine.query, name)
    with pytest.raises(TerminalError, match="more than one"):
        show_dead_letter(engine.query, "ab")
    with pytest.raises(QueryError, match="take one of unreadable"):
        list_dead_letters(engine.query, reason="nonsense")


@pytest.mark.parametrize(
    "changes", [{"severity": 9}, {"sentiment": float("nan")}, {"sentiment": -1.5}], ids=["severity", "nan", "sentiment"]
)
def test_the_engine_refuses_impossible_rows(engine, rows_of, a_row, changes):
    with pytest.raises(InvalidMessage) as caught:
        engine.insert("mentions", [a_row(), a_row(mention_id="m2", **changes)])
    assert "in_range" in caught.value.detail
    assert rows_of("SELECT count() AS n FROM mentions") == [{"n": 0}], "all or nothing"


def test_a_block_is_bisected_to_its_poison_rows(engine, rows_of, a_row):
    rows = [a_row(mention_id=f"m{i:03}") for i in range(200)]
    rows[17] = a_row(mention_id="m017", severity=9)  # refused by the engine
    rows[18] = a_row(mention_id="m018", revision=-1)  # refused by the encoder
    rows[199] = a_row(mention_id="m199", text="\ud83d")  # no Unicode
    for _ in range(2):
        dead = write_block(engine, "mentions", rows)
        assert [letter.locator for letter in dead] == [
            "mentions:shop,m017,0",
            "mentions:shop,m018,-1",
            "mentions:shop,m199,0",
        ]
        assert rows_of("SELECT count() AS n FROM mentions") == [{"n": 197}]
    assert "severity_in_range" in dead[0].detail
    write_block(engine, "dead_letters", dead)
    assert {one.reason for one in list_dead_letters(engine.query)} == {"poison_row"}
