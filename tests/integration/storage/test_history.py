"""What was written is read back as what it was."""

import msgspec
from stored import COUNT, EVENT_TIME, GAP, ROW, SIGNAL, a_count, a_row, a_signal

from pipeline.storage import history
from pipeline.storage.embedded import EmbeddedEngine
from pipeline.storage.history import Subject, Talk
from schemas.scored import ScoredRow

KETTLE = Subject("product", "kettle")


def test_signals_by_the_beginning_of_their_id(engine: EmbeddedEngine) -> None:
    told = [SIGNAL, a_signal(revision=1, event="updated", p_value=2.5e-7, historic=True), a_signal(signal_id="t")]
    engine.insert("signals", told[::-1])
    assert history.signals(engine.query, "s") == told[:2]
    assert history.signals(engine.query, "u;'") == []
    assert history.spikes(engine.query, KETTLE) == told
    assert history.spikes(engine.query, Subject("carrier", "kettle")) == []


def test_the_smallest_p_values_are_read_as_they_were(engine: EmbeddedEngine) -> None:
    values = [1.25e-100, 3.7e-105, 1.1e-207, 0.0, 0.25, None]
    engine.insert("signals", [a_signal(signal_id=f"s{number}", p_value=value) for number, value in enumerate(values)])
    assert [one.p_value for one in history.signals(engine.query, "s")] == values


def test_without_counts_there_is_no_span(engine: EmbeddedEngine) -> None:
    assert history.counted_span(engine.query) is None


def test_step_counts_in_all_their_revisions_or_the_latest(engine: EmbeddedEngine) -> None:
    other = a_count(subject_id="a;b", step_start=EVENT_TIME + 1)
    corrected = a_count(revision=1, count=4, status="final")
    engine.insert("step_counts", [corrected, COUNT, other])
    assert history.step_counts(engine.query, EVENT_TIME) == [corrected, other]
    assert history.step_counts(engine.query, 0, EVENT_TIME + 1, latest=False) == [COUNT, corrected]
    assert history.step_counts(engine.query, 0, subject=Subject("product", "a;b")) == [other]
    assert history.step_counts(engine.query, EVENT_TIME + 2) == []
    assert history.step_counts(engine.query, 0, kind="carrier") == []
    assert history.counted_span(engine.query) == (EVENT_TIME, EVENT_TIME + 1)
    assert list(history.step_counts_in_parts(engine.query, 0, EVENT_TIME + 9)) == [corrected, other]
    assert list(history.step_counts_in_parts(engine.query, 0, EVENT_TIME + 1)) == [corrected]
    assert list(history.step_counts_in_parts(engine.query, EVENT_TIME + 2, EVENT_TIME + 9)) == []


def test_mentions_as_they_stand_and_as_each_subject_sees_them(engine: EmbeddedEngine) -> None:
    edited = a_row(revision=1, text="漏水")
    engine.insert("mentions", [ROW, a_row(mention_id="m0"), a_row(mention_id="gone", deleted=True)])
    engine.insert("mentions", [edited])
    until = EVENT_TIME + 1
    assert [plain(one) for one in history.mentions(engine.query, KETTLE, 0, until)] == [
        plain(a_row(mention_id="m0")),
        plain(edited),
    ]
    assert history.mentions(engine.query, KETTLE, 0, EVENT_TIME) == []
    (first, _) = history.mentions(engine.query, Subject("channel", "review"), 0, until)
    assert (first.subject_kind, first.subject_id, first.primary, first.text) == ("channel", "review", False, "")
    assert first.objections == ROW.objections


def plain(row: ScoredRow) -> object:
    return msgspec.to_builtins(row)


def test_how_much_was_said(engine: EmbeddedEngine) -> None:
    quiet = {"objections": [], "flags": []}
    rows = [
        ROW,  # a repost
        a_row(mention_id="q", **quiet),
        a_row(mention_id="d", objections=[], flags=["default_review"]),
        a_row(mention_id="c", flags=["observed"]),
        a_row(mention_id="x", product_batch_id="L2", **quiet),
    ]
    engine.insert("mentions", rows)
    start = EVENT_TIME // history.QUARTER_MS * history.QUARTER_MS
    found = sorted(history.talk(engine.query, KETTLE, 0, EVENT_TIME + 1))
    assert found == [Talk("L1", start, 4, 3, 1), Talk("L2", start, 1, 1, 1)]
    assert history.talk(engine.query, Subject("channel", "review"), 0, EVENT_TIME + 1) == [Talk("", start, 5, 4, 2)]


def test_of_the_unknown_product_only_what_is_grave(engine: EmbeddedEngine) -> None:
    engine.insert("mentions", [a_row(product_id="", severity=2), a_row(mention_id="g", product_id="", severity=4)])
    assert [one.mention_id for one in history.mentions(engine.query, Subject("product", ""), 0, EVENT_TIME + 1)] == [
        "g"
    ]


def test_gaps(engine: EmbeddedEngine) -> None:
    engine.insert("gaps", [GAP])
    assert history.gaps(engine.query) == [GAP]
