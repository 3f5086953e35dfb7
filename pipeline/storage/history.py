"""What is stored, read back as the structs that it was: signals and step counts in their revisions, mentions, gaps.

Questions are about one subject and a span of time, so that answers stay small: a server and a data folder that another
process holds give the same.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from pipeline.storage.engine import Query, literal
from pipeline.storage.rows import GAPS, MENTIONS, SIGNALS, STEP_COUNTS, Table
from schemas.control import Gap
from schemas.scored import ScoredRow
from schemas.signal import Signal
from schemas.step_count import StepCount
from schemas.vocabulary import SubjectKind

QUARTER_MS = 900_000
"""Offsets of time zones are multiples of a quarter of an hour, so quarters add up to steps in all of them."""

_PART_MS = 30 * 86_400_000
_SUBJECTS: dict[str, str] = {"product": "product_id", "carrier": "carrier", "region": "region", "channel": "channel"}
_NO_VOICE = "hasAny(t.flags, ['repost', 'incentivised', 'default_review'])"
_NO_EXPOSURE = "hasAny(t.flags, ['repost', 'incentivised'])"


class Subject(NamedTuple):
    """A product, carrier, region or channel."""

    kind: SubjectKind
    subject_id: str

    @property
    def of_counts(self) -> str:
        """The condition on rows of counts and signals."""
        return f"t.subject_kind = {_literal(self.kind)} AND t.subject_id = {_literal(self.subject_id)}"

    @property
    def of_mentions(self) -> str:
        """The condition on mentions."""
        return f"t.{_SUBJECTS[self.kind]} = {_literal(self.subject_id)}"


class Talk(NamedTuple):
    """How much was said of a lot in a quarter of an hour (start: ms UTC), as the mentions stand now."""

    product_batch_id: str
    start: int
    mentions: int
    organic: int
    """Of the customers' own accord: no reposts, no rewarded ones."""
    quiet: int
    """Organic ones that name nothing negative and are no default review."""


def milliseconds(query: Query, table: str, column: str) -> str:
    """The expression that gives a time column in ms UTC: where the tables are a team's own, it may be a plain number."""
    return f"toUnixTimestamp64Milli({column})" if column in _times(query, table) else column


def signals(query: Query, signal_id: str) -> list[Signal]:
    """All revisions, ascending, of the signals whose id begins so, one signal after the other."""
    return _signals(query, f"startsWith(t.signal_id, {_literal(signal_id)})")


def spikes(query: Query, subject: Subject) -> list[Signal]:
    """All revisions, ascending, of a subject's spikes and ramps, one after the other."""
    return _signals(query, f"t.kind IN ('spike', 'ramp') AND {subject.of_counts}")


def step_counts(
    query: Query,
    since: int,
    until: int | None = None,
    *,
    subject: Subject | None = None,
    kind: SubjectKind | None = None,
    latest: bool = True,
) -> list[StepCount]:
    """Step counts of the steps that start in [since, until), ms UTC, ascending by step and revision.

    Args:
        query: of the database.
        since: included.
        until: excluded; None: no end.
        subject: only of this one.
        kind: only of subjects of this kind.
        latest: only the latest revision of each cell.
    """
    columns, times = _columns(query, STEP_COUNTS)
    start = times["step_start"]
    where = f"{start} >= {since}" + ("" if until is None else f" AND {start} < {until}")
    where += "" if subject is None else f" AND {subject.of_counts}"
    where += "" if kind is None else f" AND t.subject_kind = {_literal(kind)}"
    once = "LIMIT 1 BY subject_kind, subject_id, product_batch_id, objection_type, step, step_start" if latest else ""
    order = "step_start, revision DESC" if latest else "step_start, revision"
    lines = query(f"SELECT {columns} FROM step_counts AS t WHERE {where} ORDER BY {order} {once}")
    return [msgspec.json.decode(line, type=StepCount, strict=False) for line in lines.splitlines()]


def step_counts_in_parts(
    query: Query, since: int, until: int, *, subject: Subject | None = None, kind: SubjectKind | None = None
) -> Iterator[StepCount]:
    """The latest revision of each cell, as `step_counts`, asked for a month at a time: an answer has its bounds."""
    first, last = counted_span(query) or (0, -1)
    stop = min(until, last + 1)
    for start in range(max(first, since), stop, _PART_MS):
        yield from step_counts(query, start, min(start + _PART_MS, stop), subject=subject, kind=kind)


def counted_span(query: Query) -> tuple[int, int] | None:
    """Starts of the first and the last step that have counts, ms UTC; None without any."""
    start = _columns(query, STEP_COUNTS)[1]["step_start"]
    lines = query(f"SELECT min({start}) AS first, max({start}) AS last, count() AS rows FROM step_counts AS t")
    (row,) = (msgspec.json.decode(line) for line in lines.splitlines())
    return (int(row["first"]), int(row["last"])) if int(row["rows"]) else None


def mentions(query: Query, subject: Subject, since: int, until: int) -> list[ScoredRow]:
    """A subject's rows as detection gets them, of mentions as they stand now, said in [since, until), ms UTC.

    Ascending by event time and id. Of the unknown product only those of danger and harm, as nothing else of it is looked at.
    """
    columns, times = _columns(query, MENTIONS)
    said = times["event_time"]
    where = f"{subject.of_mentions} AND {said} >= {since} AND {said} < {until} AND t.deleted = 0"
    if not subject.subject_id:
        where += " AND t.severity >= 3"
    lines = query(f"SELECT {columns} FROM mentions AS t FINAL WHERE {where} ORDER BY event_time, mention_id")
    return [_row(msgspec.json.decode(line), subject) for line in lines.splitlines()]


def talk(query: Query, subject: Subject, since: int, until: int) -> list[Talk]:
    """How much was said of each of a subject's lots (of others than products: of all) in [since, until), ms UTC."""
    _, times = _columns(query, MENTIONS)
    said = times["event_time"]
    lot = "t.product_batch_id" if subject.kind == "product" else "''"
    lines = query(
        f"SELECT {lot} AS lot, intDiv({said}, {QUARTER_MS}) * {QUARTER_MS} AS start, count() AS mentions, "
        f"countIf(NOT {_NO_EXPOSURE}) AS organic, "
        f"countIf(NOT {_NO_VOICE} AND NOT has(t.objection_polarity, 'negative')) AS quiet FROM mentions AS t FINAL "
        f"WHERE {subject.of_mentions} AND {said} >= {since} AND {said} < {until} AND t.deleted = 0 GROUP BY lot, start"
    )
    rows = (msgspec.json.decode(line) for line in lines.splitlines())
    return [Talk(row["lot"], *(int(row[name]) for name in ("start", "mentions", "organic", "quiet"))) for row in rows]


def gaps(query: Query) -> list[Gap]:
    """All recorded gaps, each as it is now."""
    columns, _ = _columns(query, GAPS)
    lines = query(f"SELECT {columns} FROM gaps AS t FINAL")
    return [msgspec.json.decode(line, type=Gap, strict=False) for line in lines.splitlines()]


def _signals(query: Query, where: str) -> list[Signal]:
    columns, _ = _columns(query, SIGNALS)
    columns += ", reinterpretAsUInt64(reinterpretAsString(t.p_value)) AS p_value_bits"
    lines = query(f"SELECT {columns} FROM signals AS t WHERE {where} ORDER BY signal_id, revision")
    return [_signal(msgspec.json.decode(line)) for line in lines.splitlines()]


def _signal(row: dict[str, Any]) -> Signal:
    bits = row["p_value_bits"]
    nested = {
        # As bits, for the embedded engine prints 1e-100 as 1e-10 (see `pipeline.storage.embedded`).
        "p_value": None if bits is None else struct.unpack("<d", struct.pack("<Q", int(bits)))[0],
        "interval": (row["interval_low"], row["interval_high"]),
        "concentration": {
            "dimension": row["concentration_dimension"],
            "value": row["concentration_value"],
            "drivers": list(_parallel(row, "driver", ("dimension", "value", "share_of_excess", "share_of_exposure"))),
        },
        "evidence": list(_parallel(row, "evidence", ("mention_id", "event_time", "quote"))),
    }
    return msgspec.convert(row | nested, Signal, strict=False)


def _row(row: dict[str, Any], subject: Subject) -> ScoredRow:
    primary = subject.kind == "product"
    objections = [
        {**one, "span": (one["span_start"], one["span_end"])}
        for one in _parallel(row, "objection", ("type", "subtype", "span_start", "span_end", "polarity"))
    ]
    about = {"subject_kind": subject.kind, "subject_id": subject.subject_id, "primary": primary}
    text = {} if primary else {"text": ""}
    return msgspec.convert(row | about | text | {"objections": objections}, ScoredRow, strict=False)


def _parallel(row: dict[str, Any], prefix: str, names: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The items whose attributes stand in parallel arrays."""
    names = list(names)
    for values in zip(*(row[f"{prefix}_{name}"] for name in names), strict=True):
        yield dict(zip(names, values, strict=True))


def _columns(query: Query, table: Table) -> tuple[str, dict[str, str]]:
    """What is to be selected of ``table AS t``, times in ms UTC; and the expressions of its times by column."""
    typed = _times(query, table.name)
    selected, times = [], {}
    for column in table.columns:
        told = f"t.{column.name}"
        if column.name in typed:
            to_ms = "toUnixTimestamp64Milli"
            told = f"arrayMap(x -> {to_ms}(x), {told})" if column.type.startswith("Array") else f"{to_ms}({told})"
        if "DateTime64" in column.type:
            times[column.name] = told
        selected.append(f"{told} AS {column.name}")
    return ", ".join(selected), times


def _times(query: Query, table: str) -> set[str]:
    """Columns of a table that hold times as ClickHouse knows them."""
    lines = query(
        "SELECT name FROM system.columns WHERE database = currentDatabase() "
        f"AND table = {_literal(table)} AND position(type, 'DateTime64') > 0"
    )
    return {msgspec.json.decode(line)["name"] for line in lines.splitlines()}


def _literal(text: str) -> str:
    """A literal without a semicolon, which no statement of a user may hold (``sql_service``)."""
    return literal(text).replace(";", "\\x3B")
