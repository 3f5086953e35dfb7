"""The rows of a step that still takes corrections, held in few bytes.

Days of rows are held, and hardly any is looked at one by one before it is dropped. So rows that say the same of one
mention are one record; what its mentions count by is shared; what one says that objects is msgpack until somebody asks.
"""

from array import array
from collections.abc import Iterator
from operator import attrgetter

import msgspec
from msgspec.structs import astuple

from pipeline.detection.entries import Entry, Kind, Row, Traits, UnitKey, of_nothing
from pipeline.detection.index import KEY_BYTES


class Said(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a mention that objects says beyond its kind; ``primary`` and ``quotes`` are of the row of its first unit."""

    event_time: int
    ingest_time: int
    types: int
    severity: int
    severe_type: int
    intensity: float
    author: str
    signature: int
    primary: bool
    quotes: tuple[str, ...]


NOTHING = b""
_pack = msgspec.msgpack.Encoder().encode
_said = msgspec.msgpack.Decoder(Said).decode
_says = attrgetter(*Said.__struct_fields__)


def pack(entry: Entry) -> bytes:
    """What the entry says: the fields of `Said`."""
    return _pack(_says(entry))


class OpenStep:
    """The rows of one step that is not final, a record a mention and kind, by number as they came.

    Args:
        number: of the step.
        turn: by which the index tells it.
        spelt: the ids that their keys do not spell.
    """

    __slots__ = ("_spelt", "dirty", "keys", "kinds", "number", "said", "saved", "severe", "turn", "units")

    def __init__(self, number: int, turn: int, spelt: dict[bytes, str]) -> None:
        self.number, self.turn = number, turn
        self._spelt = spelt
        self.keys = bytearray()
        """`KEY_BYTES` of each record."""
        self.kinds: list[Kind | None] = []
        """None of a record that is void."""
        self.said: list[bytes] = []
        """`Said` of each record, packed; `NOTHING` of one that objects to nothing."""
        self.units: dict[UnitKey, array[int]] = {}
        """Numbers of each unit's records."""
        self.severe: list[Entry] = []
        """Entries that may take the severity path."""
        self.dirty: set[UnitKey] = set()
        """Units whose rows changed since they were last tabulated."""
        self.saved = 0
        """Records that the state holds: those before this number."""

    def add(self, key: bytes, kind: Kind, said: bytes) -> int:
        """Hold a record, and count it in its units if they are known ones; its number."""
        number = len(self.kinds)
        self.keys += key
        self.kinds.append(kind)
        self.said.append(said)
        for unit in kind.units:
            if of_nothing(unit):
                continue
            numbers = self.units.get(unit)
            if numbers is None:
                numbers = self.units[unit] = array("I")
            numbers.append(number)
            self.dirty.add(unit)
        return number

    def key(self, number: int) -> bytes:
        """The key of a record's mention."""
        at = number * KEY_BYTES
        return bytes(self.keys[at : at + KEY_BYTES])

    def mention_id(self, number: int) -> str:
        """The id of a record's mention."""
        key = self.key(number)
        spelt = self._spelt.get(key)
        return key.hex() if spelt is None else spelt

    def void(self, number: int) -> None:
        """The record holds no longer."""
        kind = self.kinds[number]
        if kind is None:
            return
        if self.said[number]:
            mention_id = self.mention_id(number)
            for entry in self.severe:
                entry.dead |= entry.mention_id == mention_id and entry.revision == kind.revision
        self.kinds[number], self.said[number] = None, NOTHING
        self.dirty.update(unit for unit in kind.units if unit in self.units)

    def rows(self, unit: UnitKey) -> Iterator[Row]:
        """The unit's live rows."""
        kinds, said = self.kinds, self.said
        for number in self.units.get(unit, ()):
            kind = kinds[number]
            if kind is not None:
                yield self.entry(number, kind, unit) if said[number] else kind

    def entry(self, number: int, kind: Kind, unit: UnitKey) -> Entry:
        """One unit's row of a record that objects."""
        said, first = _said(self.said[number]), unit == kind.units[0]
        return Entry(
            self.mention_id(number),
            kind.revision,
            unit[0],
            unit[1],
            kind.product_id,
            kind.product_batch_id,
            said.event_time,
            said.ingest_time,
            said.types,
            said.severity,
            said.severe_type,
            said.intensity,
            said.author,
            said.signature,
            kind.flags,
            said.primary and first,
            kind.version,
            kind.carrier,
            kind.region,
            kind.channel,
            said.quotes if first else (),
            step=self.number,
        )

    def unsaved(self) -> tuple[list[Entry], dict[Traits, list[str]]]:
        """Rows that no state record holds yet, which from now on they do: entries, and mentions with a row of such traits."""
        entries: list[Entry] = []
        calm: dict[Traits, list[str]] = {}
        for number in range(self.saved, len(self.kinds)):
            kind = self.kinds[number]
            if kind is None:
                continue
            _, *fields, _ = astuple(kind)
            for unit in kind.units:
                entry = self.entry(number, kind, unit) if self.said[number] else None
                if entry is not None and entry.speaks:
                    entries.append(entry)
                else:
                    calm.setdefault((unit, *fields), []).append(self.mention_id(number))
        self.saved = len(self.kinds)
        return entries, calm
