"""Records of a detector's state: one of msgpack a unit, subject, open signal and block of open-step entries, and a header.

====  ==============================================  =======================================================
key   then                                            value
====  ==============================================  =======================================================
h                                                     header: format, position in time, policy, catalogue version
c     chunk number                                    lots of the catalogue
u     unit key                                        baseline of a unit
s     subject key                                     history and usual activity of a subject
m     unit key                                        grave entries of final steps
t     step, chunk number                              a closed step's counts and published revisions
e     step, sequence number                           entries of a step that is not final, appended as they came
q     step, sequence number                           mentions with calm rows in such a step, by what they count by
v     tag, chunk number                               voids that may be forgotten with step ``tag``
g     signal id                                       an open signal
====  ==============================================  =======================================================

All records are of the header's format, which is raised with any change of what they hold: the structs of ``schemas`` within
them (open signals, the policy) included. An older format is brought up to date when it is read, and written back.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from pipeline.detection.counts import CELLS, StepTable
from pipeline.detection.entries import TYPES, Entry, Traits, UnitKey, of_nothing
from pipeline.detection.season import season_of
from pipeline.detection.steps import Steps
from pipeline.detection.units import NEVER, SubjectKey, Units
from pipeline.errors import TerminalError
from schemas.policy import DAY_MS, DetectionPolicy

FORMAT = 5
"""Version of the state that is written. A newer one is refused, an older one brought up to date by `UPCASTERS`."""
CHUNK = 1000
"""Rows, entries, voids or lots a record at most …"""
CHUNK_BYTES = 500_000
"""… and bytes: whoever keeps the state takes no record of a megabyte, and an entry carries quotes."""

Change = tuple[bytes, bytes | None]

_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode

T = TypeVar("T")


def decode(data: bytes, kind: type[T]) -> T:
    """A value of that type.

    Raises:
        TerminalError: the record is damaged.
    """
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise TerminalError(f"a detection state record cannot be read: {error}") from error


def pieces(rows: list[T]) -> list[bytes]:
    """The rows as records of at most `CHUNK` rows and, if a row is not larger itself, `CHUNK_BYTES` bytes."""
    made: list[bytes] = []
    for at in range(0, len(rows), CHUNK):
        _cut(rows[at : at + CHUNK], made)
    return made


def _cut(rows: list[T], made: list[bytes]) -> None:
    data = encode(rows)
    if len(data) <= CHUNK_BYTES or len(rows) == 1:
        made.append(data)
        return
    middle = len(rows) // 2
    _cut(rows[:middle], made)
    _cut(rows[middle:], made)


def portions(calm: Mapping[Traits, list[str]]) -> list[tuple[Traits, list[str]]]:
    """The mentions of calm rows in lists of at most `CHUNK`."""
    return [(traits, ids[at : at + CHUNK]) for traits, ids in calm.items() for at in range(0, len(ids), CHUNK)]


def number(value: int) -> bytes:
    """Eight bytes that sort like the number."""
    return (value + (1 << 63)).to_bytes(8, "big")


def unit_key(prefix: bytes, key: tuple[str, ...]) -> bytes:
    """Key of a record about a unit or subject."""
    return prefix + encode(key)


class Header(msgspec.Struct, array_like=True):
    """Where the detector stands. Steps by number; ``None`` before the first watermark."""

    format: int
    policy: DetectionPolicy
    policy_version: str
    catalogue_version: str
    catalogue_applied: bool
    next_step: int | None
    final_before: int
    heard: int
    sequence: int
    latest: int
    gaps: list[tuple[str, int, int | None]]
    row_versions: str
    absorbed_before: int


HEADER_KEY = b"h"

Records = dict[bytes, bytes]


def _name_row_versions(records: Records) -> Records:
    """1 to 2: the header says what made the rows. Nobody noted it before; the next block of rows will say."""
    _, *fields = decode(records[HEADER_KEY], list[Any])
    return {**records, HEADER_KEY: encode([2, *fields, ""])}


def _part_calm_rows(records: Records) -> Records:
    """2 to 3: rows that object to nothing are no entries any more."""
    changed: Records = {}
    for key, value in records.items():
        if key[:1] == b"e":
            entries = decode(value, list[Entry])
            calm: dict[Traits, list[str]] = {}
            for entry in entries:
                if not entry.speaks and not of_nothing(entry.unit):
                    calm.setdefault(entry.traits, []).append(entry.mention_id)
            changed[key] = encode([entry for entry in entries if entry.speaks])
            changed[b"q" + key[1:]] = encode(list(calm.items()))
    _, *fields = decode(records[HEADER_KEY], list[Any])
    return {**records, **changed, HEADER_KEY: encode([3, *fields])}


def _begin_season(records: Records) -> Records:
    """3 to 4: baselines know a season and count events, not voices; dispersion is learnt anew; no table kept is history yet.

    The rates stay; what had been learnt of them weighs as if all voices had been counted at the usual dispersion.
    """
    _, *fields = decode(records[HEADER_KEY], list[Any])
    kept = {**records, HEADER_KEY: encode([4, *fields, NEVER])}
    terms = len(season_of(Steps(fields[0]["step"], fields[0]["time_zone"]).length / DAY_MS).prior)
    nothing = np.zeros((2, TYPES, terms), "<f8").tobytes()
    for key in records:
        if key[:1] == b"u":
            slot, subject, by_units, last_seen, as_of, sums, reset = decode(records[key], list[Any])
            old = np.frombuffer(sums, "<f8").reshape(4, TYPES)
            new = np.concatenate((old[:2] / _VOICES_AN_EVENT, np.zeros((2, TYPES)))).astype("<f8").tobytes()
            kept[key] = encode([slot, subject, by_units, last_seen, as_of, as_of, new, nothing, reset])
    return kept


def _begin_marks(records: Records) -> Records:
    """4 to 5: rates are marked; what they were is not known, so no slow ramp can be told for two marks."""
    _, *fields = decode(records[HEADER_KEY], list[Any])
    nothing = [np.zeros((TYPES, 4), "<f8").tobytes(), np.zeros(2, "<i8").tobytes()]
    units = {key: encode([*decode(value, list[Any]), *nothing]) for key, value in records.items() if key[:1] == b"u"}
    return {**records, **units, HEADER_KEY: encode([5, *fields])}


_VOICES_AN_EVENT = 1.75
"""Of format 3, when format 4 came."""

UPCASTERS: dict[int, Callable[[Records], Records]] = {
    1: _name_row_versions,
    2: _part_calm_rows,
    3: _begin_season,
    4: _begin_marks,
}
"""Format n → what makes all records of format n + 1 of those of format n; what it is given stays as it is."""


def upcast(records: Records) -> Records:
    """The same state in the current format: the very same object if it already is.

    Raises:
        TerminalError: there is no header or it is damaged, or a format that this version cannot read.
    """
    found = _format_of(records)
    if found > FORMAT:
        raise TerminalError(
            f"the detection state was written by a newer version: it needs one that reads format {found}, and this one "
            f"reads none above {FORMAT}"
        )
    for number in range(found, FORMAT):
        if number not in UPCASTERS:
            raise TerminalError(f"detection state of format {number} can no longer be read")
        records = UPCASTERS[number](records)
    return records


def _format_of(records: Records) -> int:
    if HEADER_KEY not in records:
        raise TerminalError("the detection state has no header")
    header = decode(records[HEADER_KEY], list[Any])
    if not header or type(header[0]) is not int:
        raise TerminalError("the header of the detection state cannot be read: it names no format")
    return header[0]


class UnitRecord(msgspec.Struct, array_like=True):
    """A unit's slot and baseline; arrays as little-endian bytes."""

    slot: int
    subject: SubjectKey
    by_units: bool
    last_seen: int
    as_of: int
    first: int
    sums: bytes
    season: bytes
    reset: bytes
    marks: bytes
    marked: bytes


class SubjectRecord(msgspec.Struct, array_like=True):
    """A subject's slot and usual activity."""

    slot: int
    born: int
    absorbed: int
    quiet: float
    weight: float


def encode_unit(units: Units, slot: int) -> bytes:
    """Record of a unit."""
    key = units.slots.keys[slot] or ("", "", "")
    sums = np.concatenate((units.events[slot], units.exposure[slot], units.squares[slot], units.judged[slot]))
    season = np.stack((units.season[slot], units.season_variance[slot]))
    record = UnitRecord(
        slot,
        (key[0], key[1]),
        bool(units.by_units[slot]),
        int(units.last_seen[slot]),
        int(units.as_of[slot]),
        int(units.first[slot]),
        sums.astype("<f8").tobytes(),
        season.astype("<f8").tobytes(),
        units.reset[slot].astype("<i8").tobytes(),
        units.marks[slot].astype("<f8").tobytes(),
        units.marked[slot].astype("<i8").tobytes(),
    )
    return encode(record)


def encode_subject(units: Units, slot: int) -> bytes:
    """Record of a subject."""
    record = SubjectRecord(
        slot, int(units.born[slot]), int(units.absorbed[slot]), float(units.quiet[slot]), float(units.weight[slot])
    )
    return encode(record)


def restore_units(units: Units, unit_records: dict[UnitKey, bytes], subject_records: dict[SubjectKey, bytes]) -> None:
    """Put units and subjects back into the very slots they had (sums over slots are then the same to the last bit)."""
    subjects = {key: decode(data, SubjectRecord) for key, data in subject_records.items()}
    records = {key: decode(data, UnitRecord) for key, data in unit_records.items()}
    units.subject_slots.restore({record.slot: key for key, record in subjects.items()})
    units.slots.restore({record.slot: key for key, record in records.items()})
    units.reserve()
    for subject_key, subject in subjects.items():
        units.subjects[subject_key] = at = subject.slot
        units.members[at] = []
        units.born[at], units.absorbed[at] = subject.born, subject.absorbed
        units.quiet[at], units.weight[at] = subject.quiet, subject.weight
    for key in sorted(records):
        record = records[key]
        slot = units.index[key] = record.slot
        units.subject[slot] = units.subjects[record.subject]
        units.members[units.subjects[record.subject]].append(key)
        units.taken[slot], units.by_units[slot] = True, record.by_units
        units.last_seen[slot], units.as_of[slot], units.first[slot] = record.last_seen, record.as_of, record.first
        sums = np.frombuffer(record.sums, "<f8").reshape(4, TYPES)
        units.events[slot], units.exposure[slot], units.squares[slot], units.judged[slot] = sums
        season = np.frombuffer(record.season, "<f8").reshape(2, *units.season[slot].shape)
        units.season[slot], units.season_variance[slot] = season
        units.reset[slot] = np.frombuffer(record.reset, "<i8")
        units.marks[slot] = np.frombuffer(record.marks, "<f8").reshape(TYPES, 4)
        units.marked[slot] = np.frombuffer(record.marked, "<i8")


class TableRecord(msgspec.Struct, array_like=True):
    """Up to `CHUNK` rows of a step table; arrays as little-endian bytes."""

    final: bool
    integers: bytes
    exposure: bytes
    by_units: bytes


_INTEGERS: tuple[tuple[str, int], ...] = (
    ("slots", 1),
    ("mentions", 1),
    ("organic", 1),
    ("quiet", 1),
    ("known", 1),
    ("count", CELLS),
    ("fresh", TYPES),
    ("revision", CELLS),
)
_WIDTH = sum(width for _, width in _INTEGERS)


def table_chunks(rows: int) -> int:
    """Records that a table of so many rows takes."""
    return max(1, -(-rows // CHUNK))


def encode_table(table: StepTable) -> list[Change]:
    """Records of a step table."""
    wide: list[npt.NDArray[np.int64]] = [getattr(table, name).reshape(-1, width) for name, width in _INTEGERS]
    integers = np.concatenate(wide, axis=1).astype("<i4")
    changes: list[Change] = []
    for chunk in range(table_chunks(len(integers))):
        part = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        record = TableRecord(
            table.final,
            integers[part].tobytes(),
            table.exposure[part].astype("<f8").tobytes(),
            table.by_units[part].astype("u1").tobytes(),
        )
        changes.append((table_key(table.step, chunk), encode(record)))
    return changes


def table_key(step: int, chunk: int) -> bytes:
    """Key of one chunk of a step table."""
    return b"t" + number(step) + number(chunk)


def restore_table(step: int, chunks: list[bytes]) -> StepTable:
    """The step table of these records, in the order of their chunk numbers."""
    records = [decode(data, TableRecord) for data in chunks]
    table = StepTable(step)
    table.final, table.dirty = records[0].final, False
    integers = np.concatenate([np.frombuffer(record.integers, "<i4").reshape(-1, _WIDTH) for record in records])
    at = 0
    for name, width in _INTEGERS:
        part = integers[:, at : at + width].astype(np.int64)
        setattr(table, name, part[:, 0] if width == 1 else part)
        at += width
    table.exposure = np.concatenate([np.frombuffer(record.exposure, "<f8") for record in records]).astype(np.float64)
    table.by_units = np.concatenate([np.frombuffer(record.by_units, "u1") for record in records]).astype(np.bool_)
    table.rows = {int(slot): row for row, slot in enumerate(table.slots)}
    return table
