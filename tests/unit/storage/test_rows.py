"""The encoder: what goes in as structs comes back from the native bytes, value for value."""

import dataclasses
import struct
from typing import Any, get_args

import pytest
from clickhouse_driver.bufferedreader import BufferedSocketReader
from clickhouse_driver.context import Context
from clickhouse_driver.streams.native import BlockInputStream
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InvalidMessage
from pipeline.storage import native
from pipeline.storage.rows import GAPS, MENTIONS, SIGNALS, STEP_COUNTS, TABLES, Table, columns_of
from schemas.control import Gap
from schemas.scored import Objection, ScoredRow
from schemas.signal import Concentration, DriverShare, Evidence, Signal
from schemas.step_count import StepCount
from schemas.vocabulary import Channel, Emotion, Flag, ObjectionType, Polarity, SpeechAct

# Any text a JSON message can carry: NUL, astral planes, full width; no lone surrogates.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
UINT32 = st.integers(0, 2**32 - 1)
UINT64 = st.integers(0, 2**64 - 1)
TIME = st.integers(-(2**63), 2**63 - 1)
FLOAT32 = st.floats(width=32, allow_nan=False)
FLOAT64 = st.floats(allow_nan=False)


def word(kind: Any) -> st.SearchStrategy[str]:
    return st.sampled_from(get_args(kind))


OBJECTIONS = st.lists(
    st.builds(
        Objection, type=word(ObjectionType), subtype=TEXT, span=st.tuples(UINT32, UINT32), polarity=word(Polarity)
    ),
    max_size=4,
)
ROWS = st.builds(
    ScoredRow,
    mention_id=TEXT,
    revision=UINT32,
    deleted=st.booleans(),
    subject_kind=st.just("product"),
    subject_id=TEXT,
    primary=st.just(True),
    product_id=TEXT,
    product_batch_id=TEXT,
    attribution_confidence=FLOAT32,
    version=TEXT,
    carrier=TEXT,
    region=TEXT,
    channel=word(Channel),
    source_id=TEXT,
    event_time=TIME,
    ingest_time=TIME,
    sentiment=FLOAT32,
    sentiment_probability=FLOAT32,
    objections=OBJECTIONS,
    speech_act=word(SpeechAct),
    emotion=word(Emotion),
    intensity=FLOAT32,
    severity=st.integers(0, 4),
    author=TEXT,
    near_duplicate_signature=UINT64,
    flags=st.lists(word(Flag), max_size=3),
    versions=TEXT,
    text=TEXT,
    native_id=TEXT,
    rating=st.none() | FLOAT64,
    url=TEXT,
)
SIGNAL = st.builds(
    Signal,
    signal_id=TEXT,
    revision=UINT32,
    severity=st.integers(0, 4),
    subject_id=TEXT,
    product_batch_id=TEXT,
    objection_type=TEXT,
    opened_step=TIME,
    step_start=TIME,
    observed=UINT64,
    expected=FLOAT64,
    interval=st.tuples(FLOAT64, FLOAT64),
    exposure=FLOAT64,
    rate_ratio=FLOAT64,
    window=UINT32,
    p_value=st.none() | FLOAT64,
    voices=UINT64,
    concentration=st.builds(
        Concentration,
        value=TEXT,
        drivers=st.lists(
            st.builds(DriverShare, value=TEXT, share_of_excess=FLOAT64, share_of_exposure=FLOAT64), max_size=3
        ),
    ),
    evidence=st.lists(st.builds(Evidence, mention_id=TEXT, event_time=TIME, quote=TEXT), max_size=5),
    opening_state=TEXT,
    versions=TEXT,
)


class _Bytes:
    """What the driver's reader needs of a socket."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def recv_into(self, buffer: bytearray) -> int:
        size = min(len(buffer), len(self.data))
        buffer[:size], self.data = self.data[:size], self.data[size:]
        return size


def round_trip(table: Table, structs: list[Any], generation: int = 0) -> list[dict[str, Any]]:
    """Encode, then read with the driver's own reader; times as integers, whose bytes are the same."""
    table = dataclasses.replace(
        table,
        columns=tuple(
            dataclasses.replace(column, type=column.type.replace("DateTime64(3, 'UTC')", "Int64"))
            for column in table.columns
        ),
    )
    columns = columns_of(table, structs, generation)
    if table.name == "mentions":
        assert columns[2] == [0] * len(structs), "the generation is filled in for the real table only"
    data = native.encode(table, columns)
    context = Context()
    context.server_info = type("Server", (), {"used_revision": 0})()
    context.settings = {}
    context.client_settings = {"use_numpy": False, "strings_as_bytes": False, "strings_encoding": "utf-8"}
    block = BlockInputStream(BufferedSocketReader(_Bytes(data), 1 << 16), context).read(use_numpy=False)
    assert block.columns_with_types == [(column.name, column.type) for column in table.columns]
    names = [column.name for column in table.columns]
    return [dict(zip(names, values, strict=True)) for values in zip(*block.get_columns(), strict=True)]


@settings(deadline=None, max_examples=30)
@given(st.lists(ROWS, min_size=1, max_size=5))
def test_mentions_come_back_equal(rows: list[ScoredRow]) -> None:
    for row, seen in zip(rows, round_trip(MENTIONS, rows), strict=True):
        for name in ScoredRow.__struct_fields__:
            if name not in {"subject_kind", "subject_id", "primary", "objections"}:
                assert seen[name] == getattr(row, name), name
        assert [
            Objection(*values[:2], (values[2], values[3]), values[4])
            for values in zip(
                seen["objection_type"],
                seen["objection_subtype"],
                seen["objection_span_start"],
                seen["objection_span_end"],
                seen["objection_polarity"],
                strict=True,
            )
        ] == row.objections


@settings(deadline=None, max_examples=20)
@given(st.lists(SIGNAL, min_size=1, max_size=3))
def test_signals_come_back_equal(signals: list[Signal]) -> None:
    for signal, seen in zip(signals, round_trip(SIGNALS, signals), strict=True):
        for name in Signal.__struct_fields__:
            if name not in {"interval", "concentration", "evidence"}:
                assert seen[name] == getattr(signal, name), name
        assert (seen["interval_low"], seen["interval_high"]) == signal.interval
        assert seen["concentration_dimension"] == signal.concentration.dimension
        assert seen["concentration_value"] == signal.concentration.value
        assert list(
            map(
                DriverShare,
                seen["driver_dimension"],
                seen["driver_value"],
                seen["driver_share_of_excess"],
                seen["driver_share_of_exposure"],
            )
        ) == signal.concentration.drivers  # fmt: skip
        assert (
            list(map(Evidence, seen["evidence_mention_id"], seen["evidence_event_time"], seen["evidence_quote"]))
            == signal.evidence
        )


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.builds(
            StepCount,
            subject_id=TEXT,
            product_batch_id=TEXT,
            step_start=TIME,
            revision=UINT32,
            count=UINT64,
            mentions=UINT64,
            exposure=st.floats(0, allow_nan=False),
            known_share=st.floats(0, 1, width=32),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_step_counts_come_back_equal(counts: list[StepCount]) -> None:
    for count, seen in zip(counts, round_trip(STEP_COUNTS, counts), strict=True):
        assert StepCount(**seen) == count


@settings(deadline=None, max_examples=30)
@given(st.lists(st.builds(Gap, source_id=TEXT, start=TIME, end=st.none() | TIME, reason=TEXT), min_size=1, max_size=4))
def test_gaps_come_back_equal(gaps: list[Gap]) -> None:
    assert [Gap(**seen) for seen in round_trip(GAPS, gaps)] == gaps


def test_every_table_takes_an_empty_block() -> None:
    for table in TABLES.values():
        assert native.encode(table, columns_of(table, [])) != b""


def test_a_generation_fills_its_column(example_row: ScoredRow) -> None:
    columns = dict(
        zip(
            (column.name for column in MENTIONS.columns),
            columns_of(MENTIONS, [example_row] * 2, generation=7),
            strict=True,
        )
    )
    assert columns["generation"] == [7, 7]
    assert struct.pack("<II", 7, 7) in native.encode(MENTIONS, columns_of(MENTIONS, [example_row] * 2, generation=7))


def test_another_struct_is_refused() -> None:
    with pytest.raises(InvalidMessage, match="takes ScoredRow, not Gap"):
        columns_of(MENTIONS, [Gap("s", 0, None, "r")])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("primary", False),
        ("revision", -1),
        ("revision", 2**32),
        ("revision", "1"),
        ("near_duplicate_signature", 2**64),
        ("severity", 256),
        ("event_time", 2**63),
        ("event_time", 1.5),
        ("sentiment", 1e300),
        ("text", None),
        ("text", "half a pair: \ud83d"),
        ("channel", None),
        ("flags", None),
        ("objections", [None]),
        ("objections", [Objection("price", "x", (-1, 2), "negative")]),
        ("objections", [Objection("price", "x", (1,), "negative")]),  # type: ignore[arg-type]
        ("rating", "five"),
    ],
)
def test_a_value_that_does_not_fit_is_an_invalid_message(example_row: ScoredRow, field: str, value: object) -> None:
    row = ScoredRow(**{name: getattr(example_row, name) for name in ScoredRow.__struct_fields__} | {field: value})
    with pytest.raises(InvalidMessage) as caught:
        native.encode(MENTIONS, columns_of(MENTIONS, [example_row, row]))
    assert caught.value.reason == "poison_row"
    assert caught.value.detail.startswith(("table mentions", "mention "))
