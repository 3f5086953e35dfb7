"""What the store holds of a detector: its records read back, and what of them has changed since.

The layout of the records stands in ``pipeline.detection.state``.
"""

from collections.abc import Iterable
from itertools import groupby
from typing import Any

from pipeline.detection import state
from pipeline.detection.entries import Entry, Kind, Traits, UnitKey, entries_together
from pipeline.detection.exposure import Lot
from pipeline.detection.knowledge import Knowledge
from pipeline.detection.lifecycle import OpenSignal
from pipeline.errors import TerminalError
from schemas.policy import DetectionPolicy


class Snapshot:
    """Keeps a store in step with what one detector knows.

    Args:
        known: what is to be kept; nothing of it is in the store yet.
    """

    def __init__(self, known: Knowledge) -> None:
        self.known = known
        self._catalogue = known.catalogue
        """As it was last written: a new one is another object."""
        self._catalogue_chunks = 0
        self._table_chunks: dict[int, int] = {}
        self._row_records: dict[int, list[bytes]] = {}
        self._void_chunks: dict[int, int] = {}
        self._sequence = 0
        self._upcast: list[state.Change] = []

    # ---------------------------------------------------------------- what changed

    def changes(self) -> list[state.Change]:
        """State records that changed since the last call (the first time: all); ``None`` means that the key is gone."""
        changes, self._upcast = self._upcast, []
        changes += self._gone_steps()
        changes += self._unit_changes()
        changes += self._step_changes()
        signals = self.known.signals
        for signal_id in sorted(signals.dirty):
            held = signals.by_id.get(signal_id)
            changes.append((b"g" + signal_id.encode(), state.encode(held) if held is not None else None))
        signals.dirty.clear()
        if self.known.catalogue is not self._catalogue:
            changes += self._catalogue_changes()
        changes.append((state.HEADER_KEY, state.encode(self._header())))
        return changes

    def _header(self) -> state.Header:
        known = self.known
        return state.Header(
            state.FORMAT,
            known.policy,
            known.policy_version,
            known.catalogue_version,
            known.catalogue_applied,
            known.next_step,
            known.final_before,
            known.heard,
            self._sequence,
            known.tally.latest,
            [(source, start, end) for (source, start), end in sorted(known.gaps.items())],
            known.row_versions,
            known.absorbed_before,
        )

    def _gone_steps(self) -> list[state.Change]:
        """Records of rows whose step is final, and of tables that have become history."""
        changes: list[state.Change] = []
        for index in [index for index in self._row_records if index not in self.known.tally.steps]:
            changes += ((key, None) for key in self._row_records.pop(index))
        for index in [index for index in self._table_chunks if index not in self.known.tables]:
            changes += ((state.table_key(index, chunk), None) for chunk in range(self._table_chunks.pop(index)))
        return changes

    def _unit_changes(self) -> list[state.Change]:
        units, memory = self.known.units, self.known.grave
        changes: list[state.Change] = [
            (state.unit_key(b"u", key), None) for key in sorted(units.deleted) if key not in units.index
        ]
        changes += (
            (state.unit_key(b"s", key), None) for key in sorted(units.deleted_subjects) if key not in units.subjects
        )
        for slot in sorted(units.dirty):
            changes.append((state.unit_key(b"u", units.slots.keys[slot] or ()), state.encode_unit(units, slot)))
        for slot in sorted(units.dirty_subjects):
            key = units.subject_slots.keys[slot] or ()
            changes.append((state.unit_key(b"s", key), state.encode_subject(units, slot)))
        for unit in sorted(memory.dirty):
            kept = memory.entries.get(unit)
            changes.append((state.unit_key(b"m", unit), state.encode(kept) if kept else None))
        for collection in (units.deleted, units.deleted_subjects, units.dirty, units.dirty_subjects, memory.dirty):
            collection.clear()
        return changes

    def _step_changes(self) -> list[state.Change]:
        changes: list[state.Change] = []
        for index, table in sorted(self.known.tables.items()):
            if table.dirty:
                records = state.encode_table(table)
                self._table_chunks[index] = len(records)
                changes += records
                table.dirty = False
        tally = self.known.tally
        for index, open_step in sorted(tally.steps.items()):
            entries, calm = open_step.unsaved()
            for kind, pieces in ((b"e", state.pieces(entries)), (b"q", state.pieces(state.portions(calm)))):
                changes += ((self._rows_key(kind, index), piece) for piece in pieces)
        for tag in sorted(tally.unsaved_voids):
            changes += self._void_changes(tag)
        tally.unsaved_voids.clear()
        return changes

    def _rows_key(self, kind: bytes, step: int) -> bytes:
        """Key of the next record of rows of a step."""
        self._sequence += 1
        key = kind + state.number(step) + state.number(self._sequence)
        self._row_records.setdefault(step, []).append(key)
        return key

    def _void_changes(self, tag: int) -> list[state.Change]:
        voids = [(mention, void[0]) for mention, void in sorted(self.known.tally.voids.items()) if void[1] == tag]
        changes: list[state.Change] = [(_void_key(tag, i), piece) for i, piece in enumerate(state.pieces(voids))]
        written = len(changes)
        changes += ((_void_key(tag, i), None) for i in range(written, self._void_chunks.pop(tag, 0)))
        if written:
            self._void_chunks[tag] = written
        return changes

    def _catalogue_changes(self) -> list[state.Change]:
        catalogue = self.known.catalogue
        lots = [(product, lot, *facts) for product, known in catalogue.items() for lot, facts in known.items()]
        pieces = state.pieces(lots)
        changes: list[state.Change] = [(b"c" + state.number(i), piece) for i, piece in enumerate(pieces)]
        changes += ((b"c" + state.number(i), None) for i in range(len(pieces), self._catalogue_chunks))
        self._catalogue_chunks, self._catalogue = len(pieces), catalogue
        return changes

    # ---------------------------------------------------------------- reading back

    @classmethod
    def read(cls, policy: DetectionPolicy, stored: Iterable[tuple[bytes, bytes]]) -> "Snapshot":
        """What these records hold, in whatever format that can still be read; without records, nothing.

        A policy that came in band holds before the given one.

        Raises:
            TerminalError: records of a newer format or damaged ones, or a policy whose steps the state does not have.
        """
        old = dict(stored)
        if not old:
            return cls(Knowledge(policy))
        records = state.upcast(old)
        by_kind: dict[bytes, dict[bytes, bytes]] = {}
        for key, value in records.items():
            by_kind.setdefault(key[:1], {})[key[1:]] = value
        header = state.decode(records[state.HEADER_KEY], state.Header)
        snapshot = cls(Knowledge(_policy_in_force(header, policy)))
        if records is not old:  # the store still holds the old format
            snapshot._upcast = [(key, None) for key in sorted(old.keys() - records.keys())]
            snapshot._upcast += ((key, value) for key, value in sorted(records.items()) if old.get(key) != value)
        snapshot._read_header(header)
        snapshot._read_catalogue(by_kind.get(b"c", {}))
        snapshot._read_units(by_kind)
        snapshot._read_steps(by_kind)
        for value in by_kind.get(b"g", {}).values():
            snapshot.known.signals.add(state.decode(value, OpenSignal))
        snapshot.known.signals.dirty.clear()
        return snapshot

    def _read_header(self, header: state.Header) -> None:
        known = self.known
        known.policy_version, known.catalogue_version = header.policy_version, header.catalogue_version
        known.catalogue_applied, known.row_versions = header.catalogue_applied, header.row_versions
        known.next_step, known.final_before = header.next_step, header.final_before
        known.absorbed_before = header.absorbed_before
        known.heard, self._sequence = header.heard, header.sequence
        known.tally.latest = header.latest
        known.gaps = {(source, start): end for source, start, end in header.gaps}

    def _read_catalogue(self, chunks: dict[bytes, bytes]) -> None:
        for _, value in sorted(chunks.items()):
            rows = state.decode(value, list[tuple[str, str, float | None, int | None, int | None]])
            for product, lot, units, sold_from, sold_until in rows:
                self.known.catalogue.setdefault(product, {})[lot] = Lot(units, sold_from, sold_until)
        self._catalogue_chunks = len(chunks)

    def _read_units(self, by_kind: dict[bytes, dict[bytes, bytes]]) -> None:
        known = self.known
        units = {state.decode(key, tuple[str, str, str]): value for key, value in by_kind.get(b"u", {}).items()}
        subjects = {state.decode(key, tuple[str, str]): value for key, value in by_kind.get(b"s", {}).items()}
        state.restore_units(known.units, units, subjects)
        if known.catalogue_applied:
            known.units.describe_all(known.catalogue)
            known.units.dirty.clear()
        for key, value in by_kind.get(b"m", {}).items():
            known.grave.entries[state.decode(key, tuple[str, str, str])] = state.decode(value, list[Entry])

    def _read_steps(self, by_kind: dict[bytes, dict[bytes, bytes]]) -> None:
        tally = self.known.tally
        tables: dict[int, list[bytes]] = {}
        for key, value in sorted(by_kind.get(b"t", {}).items()):
            tables.setdefault(_number(key[:8]), []).append(value)
        for index, chunks in tables.items():
            self.known.tables[index] = state.restore_table(index, chunks)
            self._table_chunks[index] = len(chunks)
        for key, value in by_kind.get(b"v", {}).items():
            for mention, revision in state.decode(value, list[tuple[str, int]]):
                tally.voids[mention] = (revision, _number(key[:8]))
            self._void_chunks[_number(key[:8])] = max(self._void_chunks.get(_number(key[:8]), 0), _number(key[8:]) + 1)
        for key, value in sorted(by_kind.get(b"e", {}).items()):
            index = _number(key[:8])
            self._hold(index, b"e" + key)
            for entry, others in entries_together(state.decode(value, list[Entry])):
                tally.restore(entry, index, others)
        for index, records in groupby(sorted(by_kind.get(b"q", {}).items()), lambda record: _number(record[0][:8])):
            self._read_calm(index, records)
        for open_step in tally.steps.values():
            open_step.saved = len(open_step.kinds)
        tally.unsaved_voids.clear()
        self._recount()

    def _read_calm(self, step: int, records: Iterable[tuple[bytes, bytes]]) -> None:
        """Rows were put apart by their traits: bring those of a mention together again, or they would take more memory."""
        units: dict[tuple[str, tuple[Any, ...]], list[UnitKey]] = {}
        for key, value in records:
            self._hold(step, b"q" + key)
            for traits, mentions in state.decode(value, list[tuple[Traits, list[str]]]):
                for mention in mentions:
                    units.setdefault((mention, traits[1:]), []).append(traits[0])
        for (mention, alike), of in units.items():
            self.known.tally.restore_calm(mention, Kind(tuple(of), *alike), step)

    def _hold(self, step: int, key: bytes) -> None:
        """A record of a step: it goes when the step does, even if all of its rows are void."""
        self._row_records.setdefault(step, []).append(key)
        self.known.tally.open(step)

    def _recount(self) -> None:
        """Count all units of open steps again at the next close: a correction may have been pending for any of them."""
        for index, table in sorted(self.known.tables.items()):
            if not table.final:
                open_step = self.known.tally.open(index)
                for slot in table.slots.tolist():
                    kind, subject_id, lot = self.known.units.slots.keys[slot] or ("", "", "")
                    open_step.dirty.add((kind, subject_id, lot))
                open_step.dirty.update(open_step.units)


def _policy_in_force(header: state.Header, policy: DetectionPolicy) -> DetectionPolicy:
    kept = header.policy
    if header.policy_version:
        return kept
    if (kept.step, kept.time_zone) != (policy.step, policy.time_zone) and header.next_step is not None:
        raise TerminalError(
            f"detection.step, time_zone: the state has steps of {kept.step} in {kept.time_zone}; put it back, or take a new data_dir"
        )
    return policy


def _void_key(tag: int, chunk: int) -> bytes:
    return b"v" + state.number(tag) + state.number(chunk)


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big") - (1 << 63)
