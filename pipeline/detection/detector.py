"""The detector: scored rows and watermarks in, step counts and signals out.

Rows are only put aside as they come (and harm is said at once); everything else happens when the watermark closes a
base step, in this order:

1. earlier steps whose entries changed are counted again, their changed cells published with the next revision;
2. the step is counted and published;
3. open spikes are reviewed, the scan opens new ones;
4. the severity path settles;
5. steps older than the allowed lateness become final and are published as such;
6. final steps that no window reaches any more are absorbed into the baselines.

So what is said depends on the set of rows before each close and on nothing else: not on blocks, order or duplicates.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from pipeline.detection import state
from pipeline.detection.baseline import Absorber, StepSums
from pipeline.detection.counts import CELLS, StepTable
from pipeline.detection.exposure import Bools, Catalogue, Lot, catalogue_of
from pipeline.detection.lifecycle import OpenSignal, OpenSignals
from pipeline.detection.rules import Rules
from pipeline.detection.scan import Scanner
from pipeline.detection.severity import SeverityPath
from pipeline.detection.spikes import Spikes
from pipeline.detection.steps import Steps
from pipeline.detection.tally import HARM, TYPES, Entry, OpenStep, Tally, entry_of, tabulate
from pipeline.detection.units import NEVER, Units
from pipeline.errors import TerminalError
from schemas.control import CatalogueUpdate, ControlRecord, Gap, PolicyUpdate, Watermark
from schemas.policy import DAY_MS, DetectionPolicy
from schemas.scored import ScoredBlock
from schemas.signal import Signal
from schemas.step_count import StepCount
from schemas.vocabulary import CountStatus

MAXIMUM_GAPS = 1000
"""Gaps remembered; older ones are forgotten first (and in any case when no step that is still to be absorbed needs them)."""
GAP_MEMORY_MS = 30 * DAY_MS


@dataclass
class Outputs:
    """What one record gave rise to, in the order in which it was decided."""

    step_counts: list[StepCount] = field(default_factory=list)
    signals: list[Signal] = field(default_factory=list)


class Detector:
    """Detection over one partition of scored rows. Not thread-safe; no clock, no I/O.

    Args:
        policy: in force until a `PolicyUpdate` comes in band.
        versions: what made the rows, for the outputs' ``versions``.

    Raises:
        ConfigurationError: the policy's time zone is unknown.
    """

    def __init__(self, policy: DetectionPolicy, *, versions: str = "") -> None:
        self._base_versions = versions
        self._policy_version = self._catalogue_version = ""
        self._catalogue: Catalogue = {}
        self._catalogue_applied = True
        self._catalogue_chunks = 0
        self._catalogue_dirty = False
        self._units = Units()
        self._tally = Tally()
        self._signals = OpenSignals()
        self._severity = SeverityPath(self._tally, self._signals)
        self._spikes = Spikes(self._units, self._tally, self._signals)
        self._tables: dict[int, StepTable] = {}
        self._dirty_tables: set[int] = set()
        self._table_chunks: dict[int, int] = {}
        self._entry_records: dict[int, list[int]] = {}
        self._void_chunks: dict[int, int] = {}
        self._sequence = 0
        self._deletions: list[bytes] = []
        self._gaps: dict[tuple[str, int], int | None] = {}
        self._next: int | None = None
        self._final_before = NEVER
        self._heard = 0
        self.too_late = 0
        """Rows that came when their step was final, and changed nothing here; since this detector began."""
        self._set_policy(policy)

    # ---------------------------------------------------------------- rules

    def _set_policy(self, policy: DetectionPolicy) -> None:
        steps = Steps(policy.step, policy.time_zone)
        self._rules = Rules(policy, steps, self._versions(), self._lots())
        self._absorber = Absorber(self._units, steps.length, self._silent)
        self._scanner = Scanner(self._units, self._absorber, self._rules.middle, self._silent)

    def _versions(self) -> str:
        named = (("policy", self._policy_version), ("catalogue", self._catalogue_version))
        return " ".join(filter(None, (self._base_versions, *(f"{name}={value}" for name, value in named if value))))

    def _lots(self) -> int:
        return sum(map(len, self._catalogue.values()))

    def _change_policy(self, update: PolicyUpdate) -> None:
        old, new = self._rules.policy, update.policy
        empty = self._next is None and not self._tally.steps
        if (old.step, old.time_zone) != (new.step, new.time_zone) and not empty:
            raise TerminalError(
                f"detection.step, time_zone: the base step cannot change from {old.step} in {old.time_zone} to {new.step} in"
                f" {new.time_zone} on existing state; put it back, or take a new data_dir"
            )
        self._policy_version = update.version
        self._set_policy(new)

    def _change_catalogue(self, update: CatalogueUpdate) -> None:
        self._catalogue = catalogue_of(update.entries)
        self._catalogue_version = update.version
        self._catalogue_applied = False
        self._catalogue_dirty = True
        self._rules = self._rules._replace(versions=self._versions(), lots=self._lots())

    # ---------------------------------------------------------------- records

    def absorb(self, record: ScoredBlock | ControlRecord) -> Outputs:
        """Take one record of the stream in. `Watermark` is the combined one of all sources: its ``source_id`` is ignored.

        Raises:
            TerminalError: a policy that existing state cannot follow.
        """
        match record:
            case ScoredBlock():
                return Outputs(signals=self._absorb_block(record))
            case Watermark():
                return self._advance(record.time)
            case Gap():
                self._gaps[record.source_id, record.start] = record.end
            case CatalogueUpdate():
                self._change_catalogue(record)
            case PolicyUpdate():
                self._change_policy(record)
            case _:
                pass  # idle and retired sources concern whoever combines the watermarks
        return Outputs()

    def _absorb_block(self, block: ScoredBlock) -> list[Signal]:
        tally, index, final_before = self._tally, self._rules.steps.index, self._final_before
        for retraction in block.retractions:
            tally.void(retraction.mention_id, retraction.revision)
        grave = []
        for row in block.rows:
            if row.deleted:
                tally.void(row.mention_id, row.revision)
                continue
            step = index(row.event_time)
            if step < final_before:
                self.too_late += 1  # final: from now on only storage corrects itself
                continue
            entry = entry_of(row)
            if tally.add(entry, step) and entry.severity >= HARM and entry.grave:
                grave.append(entry)
        return self._severity.at_once(grave, self._rules) if grave else []

    def open_gaps(self) -> list[Gap]:
        """Gaps that have no end yet; while one lasts, no step is taken into the baselines."""
        return [
            Gap(source, start, None, "since before a restart")
            for (source, start), end in self._gaps.items()
            if end is None
        ]

    def close_all(self) -> Outputs:
        """The history is complete: close every step that has mentions. They stay provisional until they are final."""
        if not self._tally.steps:
            return Outputs()
        return self._advance(self._rules.steps.end(max(self._tally.steps)))

    # ---------------------------------------------------------------- time

    def _advance(self, watermark: int) -> Outputs:
        outputs = Outputs()
        end = self._rules.steps.index(watermark)
        if self._next is None:
            self._next = min(min(self._tally.steps, default=end), end)
            self._settle_final(self._next - 1)
        while self._next < end:
            if not self._busy(self._next):
                upcoming = min((step for step in self._tally.steps if step >= self._next), default=end)
                self._skip(min(upcoming, end))
            else:
                self._close(self._next, outputs)
                self._next += 1
        return outputs

    def _busy(self, step: int) -> bool:
        """Whether closing this step can have any effect beyond the passing of time."""
        return bool(self._signals.by_id) or any(index <= step for index in self._tally.steps)

    def _skip(self, until: int) -> None:
        """Pass over steps without mentions, while nothing is open and nothing waits to become final."""
        assert self._next is not None  # noqa: S101 - set by _advance
        if until > self._next:
            silent = sum(self._silent(step) for step in range(self._next, until)) if self._gaps else 0
            self._heard += until - self._next - silent
            self._next = until
            self._tally.settle_voids(until - 1)
            self._settle_final(until - 1)
            self._tally.forget_voids(self._final_before)
            self._drop_old_tables(until - 1)

    def _settle_final(self, closed: int) -> None:
        """After a step closed: which steps take no more corrections. Depends on steps alone, not on watermarks."""
        steps = self._rules.steps
        self._final_before = max(
            self._final_before, steps.index(steps.end(closed) - self._rules.policy.allowed_lateness_ms)
        )

    def _silent(self, step: int) -> bool:
        """Whether a step lies wholly within a recorded gap of a source: what it lacks is no data rather than zero."""
        start, end = self._rules.steps.start(step), self._rules.steps.end(step)
        return any(gap[1] <= start and (until is None or until >= end) for gap, until in self._gaps.items())

    # ---------------------------------------------------------------- step close

    def _close(self, step: int, outputs: Outputs) -> None:
        if not self._catalogue_applied:
            self._units.apply_catalogue(self._catalogue, step)
            self._catalogue_applied = True
        revised = sorted(index for index, open_step in self._tally.steps.items() if index < step and open_step.dirty)
        for index in (*revised, step):
            outputs.step_counts += self._tabulate(index, step)
        outputs.signals += self._scan(step)
        outputs.signals += self._severity.settle(step, revised, self._rules)
        self._tally.settle_voids(step)
        self._settle_final(step)
        outputs.step_counts += self._finish(step)
        self._heard += not self._silent(step)
        self._forget_gaps(step)
        self._evict()

    def _tabulate(self, index: int, closing: int) -> list[StepCount]:
        """Count the units of a step whose entries changed; rows for the cells that changed with them."""
        open_step = self._tally.steps.get(index)
        if open_step is None or not open_step.dirty:
            return []
        known = self._tables.get(index)
        tallies = {key: tabulate(open_step.units[key]) for key in sorted(open_step.dirty)}
        open_step.dirty.clear()
        # A unit of which everything was taken back before it was ever counted is as if never spoken of.
        spoken = {
            key: tally
            for key, tally in tallies.items()
            if tally.mentions or (known is not None and self._units.index.get(key) in known.rows)
        }
        if not spoken:
            return []
        self._units.register(spoken, closing, self._heard, self._catalogue)
        slots = [self._units.index[key] for key in spoken]
        table = self._tables.setdefault(index, StepTable(index))
        changed = table.update(slots, list(spoken.values()), self._units, self._rules.middle(index))
        self._units.last_seen[slots] = np.maximum(self._units.last_seen[slots], index)
        self._dirty_tables.add(index)
        return self._publish(table, changed)

    def _publish(self, table: StepTable, cells: Bools) -> list[StepCount]:
        rules = self._rules
        status: CountStatus = "final" if table.final else "provisional"
        start = rules.steps.start(table.step)
        return table.publish(cells, self._units, status, start, rules.policy.step, rules.versions)

    def _scan(self, step: int) -> list[Signal]:
        """Review open spikes and open new ones, at the units of every subject that is spoken of or has a spike."""
        table = self._tables.get(step)
        spoken = set(table.slots.tolist()) if table is not None else set()
        slots = np.array(sorted({*spoken, *self._spikes.slots()}), np.int64)
        if not len(slots):
            return []
        units = self._units
        scan = self._scanner.scan(self._tables, step, units.family(slots), self._rules.policy)
        unheard = {unit: self._silent(step) and units.index[unit] not in spoken for unit, _ in self._signals.spikes}
        said = self._spikes.review(scan, self._rules, unheard)
        history = self._heard - units.born[units.subject[scan.slots]]
        return said + self._spikes.open(scan, self._rules, history)

    def _finish(self, closed: int) -> list[StepCount]:
        """Steps that became final: publish them as such, drop their entries."""
        published = []
        for index in sorted(index for index in self._tally.steps if index < self._final_before):
            table = self._tables.get(index)
            if table is not None:
                table.final = True
                published += self._publish(table, np.ones((len(table.slots), CELLS), np.bool_))
                self._dirty_tables.add(index)
            self._severity.finish(index, self._rules)
            self._tally.forget(index)
            self._deletions += (_entries_key(index, number) for number in self._entry_records.pop(index, ()))
        self._tally.forget_voids(self._final_before)
        self._drop_old_tables(closed)
        return published

    def _absorb(self, table: StepTable) -> None:
        order = np.argsort(table.slots)
        spoken = order[table.mentions[order] > 0]
        if not len(spoken):
            return
        slots = table.slots[spoken]
        sums = StepSums(
            table.step,
            slots,
            table.organic[spoken].astype(np.float64),
            table.quiet[spoken].astype(np.float64),
            table.count[spoken, :TYPES].astype(np.float64),
        )
        self._absorber.absorb(sums, self._rules.middle(table.step), self._spikes.alarmed())

    def _drop_old_tables(self, closed: int) -> None:
        """A table is needed until it is final and no window reaches it any more; only then it becomes history.

        So no window is held against a history that its own steps have already raised.
        """
        oldest = closed + 2 - max(self._rules.policy.windows)
        for index in sorted(index for index in self._tables if index < min(oldest, self._final_before)):
            table = self._tables.pop(index)
            if not self._silent(index):
                self._absorb(table)
            self._dirty_tables.discard(index)
            chunks = self._table_chunks.pop(index, 0)
            self._deletions += (state.table_key(index, chunk) for chunk in range(chunks))

    def _forget_gaps(self, closed: int) -> None:
        horizon = self._rules.steps.start(closed) - GAP_MEMORY_MS - self._rules.policy.allowed_lateness_ms
        for gap in [gap for gap, end in self._gaps.items() if end is not None and end < horizon]:
            del self._gaps[gap]
        for gap in sorted(self._gaps, key=lambda gap: (gap[1], gap[0]))[: max(0, len(self._gaps) - MAXIMUM_GAPS)]:
            del self._gaps[gap]

    def _evict(self) -> None:
        units = self._units
        if len(units.index) > units.maximum:
            used = [table.slots for table in self._tables.values()]
            protected = set(np.concatenate(used).tolist() if used else ()) | set(self._spikes.slots())
            units.evict(protected)

    # ---------------------------------------------------------------- state

    def changes(self) -> list[state.Change]:
        """State records that changed since the last call (the first time: all); ``None`` means that the key is gone."""
        changes: list[state.Change] = [(key, None) for key in self._deletions]
        self._deletions.clear()
        changes += self._unit_changes()
        changes += self._step_changes()
        for signal_id in sorted(self._signals.dirty):
            held = self._signals.by_id.get(signal_id)
            changes.append((b"g" + signal_id.encode(), state.encode(held) if held is not None else None))
        self._signals.dirty.clear()
        if self._catalogue_dirty:
            changes += self._catalogue_changes()
        header = state.Header(
            state.FORMAT,
            self._rules.policy,
            self._policy_version,
            self._catalogue_version,
            self._catalogue_applied,
            self._next,
            self._final_before,
            self._heard,
            self._sequence,
            self._tally.latest,
            [(source, start, end) for (source, start), end in sorted(self._gaps.items())],
        )
        changes.append((b"h", state.encode(header)))
        return changes

    def _unit_changes(self) -> list[state.Change]:
        units, memory = self._units, self._severity.memory
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
        for index in sorted(self._dirty_tables):
            records = state.encode_table(self._tables[index])
            self._table_chunks[index] = len(records)
            changes += records
        self._dirty_tables.clear()
        for index, open_step in sorted(self._tally.steps.items()):
            unsaved = [entry for entry in open_step.unsaved if not entry.dead]
            open_step.unsaved.clear()
            for part in state.parts(unsaved):
                self._sequence += 1
                self._entry_records.setdefault(index, []).append(self._sequence)
                changes.append((_entries_key(index, self._sequence), state.encode(part)))
        for tag in sorted(self._tally.unsaved_voids):
            changes += self._void_changes(tag)
        self._tally.unsaved_voids.clear()
        return changes

    def _void_changes(self, tag: int) -> list[state.Change]:
        voids = [(mention, void[0]) for mention, void in sorted(self._tally.voids.items()) if void[1] == tag]
        changes: list[state.Change] = [(_void_key(tag, i), state.encode(p)) for i, p in enumerate(state.parts(voids))]
        changes += ((_void_key(tag, i), None) for i in range(len(changes), self._void_chunks.pop(tag, 0)))
        if voids:
            self._void_chunks[tag] = len(state.parts(voids))
        return changes

    def _catalogue_changes(self) -> list[state.Change]:
        lots = [(product, lot, *facts) for product, known in self._catalogue.items() for lot, facts in known.items()]
        parts = state.parts(lots)
        changes: list[state.Change] = [(b"c" + state.number(i), state.encode(part)) for i, part in enumerate(parts)]
        changes += ((b"c" + state.number(i), None) for i in range(len(parts), self._catalogue_chunks))
        self._catalogue_chunks, self._catalogue_dirty = len(parts), False
        return changes

    @classmethod
    def restore(cls, policy: DetectionPolicy, records: Iterable[tuple[bytes, bytes]], *, versions: str = "") -> Self:
        """A detector that goes on where the one that wrote these records stood; without records, a new one.

        A policy that came in band holds before the given one.

        Raises:
            TerminalError: records of another format or damaged ones, or a policy whose steps the state does not have.
        """
        by_kind: dict[bytes, dict[bytes, bytes]] = {}
        for key, value in records:
            by_kind.setdefault(key[:1], {})[key[1:]] = value
        if not by_kind:
            return cls(policy, versions=versions)
        if b"h" not in by_kind:
            raise TerminalError("the detection state has no header")
        header = state.decode_header(by_kind[b"h"][b""])
        kept = header.policy
        other_steps = (kept.step, kept.time_zone) != (policy.step, policy.time_zone)
        if other_steps and header.next_step is not None and not header.policy_version:
            raise TerminalError(
                f"detection.step, time_zone: the state has steps of {kept.step} in {kept.time_zone}; put it back, or take a new data_dir"
            )
        detector = cls(kept if header.policy_version else policy, versions=versions)
        detector._restore_header(header)
        detector._restore_catalogue(by_kind.get(b"c", {}), header)
        detector._restore_units(by_kind)
        detector._restore_steps(by_kind)
        for value in by_kind.get(b"g", {}).values():
            detector._signals.add(state.decode(value, OpenSignal))
        detector._signals.dirty.clear()
        return detector

    def _restore_header(self, header: state.Header) -> None:
        self._policy_version, self._catalogue_version = header.policy_version, header.catalogue_version
        self._next, self._final_before = header.next_step, header.final_before
        self._heard, self._sequence = header.heard, header.sequence
        self._tally.latest = header.latest
        self._gaps = {(source, start): end for source, start, end in header.gaps}

    def _restore_catalogue(self, chunks: dict[bytes, bytes], header: state.Header) -> None:
        for _, value in sorted(chunks.items()):
            rows = state.decode(value, list[tuple[str, str, float | None, int | None, int | None]])
            for product, lot, units, sold_from, sold_until in rows:
                self._catalogue.setdefault(product, {})[lot] = Lot(units, sold_from, sold_until)
        self._catalogue_chunks = len(chunks)
        self._catalogue_applied = header.catalogue_applied
        self._rules = self._rules._replace(versions=self._versions(), lots=self._lots())

    def _restore_units(self, by_kind: dict[bytes, dict[bytes, bytes]]) -> None:
        units = {state.decode(key, tuple[str, str, str]): value for key, value in by_kind.get(b"u", {}).items()}
        subjects = {state.decode(key, tuple[str, str]): value for key, value in by_kind.get(b"s", {}).items()}
        state.restore_units(self._units, units, subjects)
        if self._catalogue_applied:
            self._units.describe_all(self._catalogue)
            self._units.dirty.clear()
        for key, value in by_kind.get(b"m", {}).items():
            self._severity.memory.entries[state.decode(key, tuple[str, str, str])] = state.decode(value, list[Entry])

    def _restore_steps(self, by_kind: dict[bytes, dict[bytes, bytes]]) -> None:
        tables: dict[int, list[bytes]] = {}
        for key, value in sorted(by_kind.get(b"t", {}).items()):
            tables.setdefault(_number(key[:8]), []).append(value)
        for index, chunks in tables.items():
            self._tables[index] = state.restore_table(index, chunks)
            self._table_chunks[index] = len(chunks)
        for key, value in by_kind.get(b"v", {}).items():
            for mention, revision in state.decode(value, list[tuple[str, int]]):
                self._tally.voids[mention] = (revision, _number(key[:8]))
            self._void_chunks[_number(key[:8])] = max(self._void_chunks.get(_number(key[:8]), 0), _number(key[8:]) + 1)
        for key, value in sorted(by_kind.get(b"e", {}).items()):
            index = _number(key[:8])
            self._entry_records.setdefault(index, []).append(_number(key[8:]))
            for entry in state.decode(value, list[Entry]):
                self._tally.restore(entry, index)
            self._tally.steps.setdefault(index, OpenStep()).unsaved.clear()
        self._tally.unsaved_voids.clear()
        self._recount()

    def _recount(self) -> None:
        """Count all units of open steps again at the next close: a correction may have been pending for any of them."""
        for index, table in sorted(self._tables.items()):
            if not table.final:
                open_step = self._tally.steps.setdefault(index, OpenStep())
                for slot in table.slots.tolist():
                    kind, subject_id, lot = self._units.slots.keys[slot] or ("", "", "")
                    open_step.units.setdefault((kind, subject_id, lot), [])
                open_step.dirty.update(open_step.units)


def _entries_key(step: int, sequence: int) -> bytes:
    return b"e" + state.number(step) + state.number(sequence)


def _void_key(tag: int, chunk: int) -> bytes:
    return b"v" + state.number(tag) + state.number(chunk)


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big") - (1 << 63)
