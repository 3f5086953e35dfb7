"""The detector: scored rows and watermarks in, step counts and signals out.

Rows are only put aside as they come (and harm is said at once); everything else happens when the watermark closes a
base step, in this order:

1. earlier steps whose entries changed are counted again, their changed cells published with the next revision;
2. the step is counted and published;
3. open spikes are reviewed, the scan opens new ones;
4. the severity path settles;
5. steps older than the allowed lateness become final and are published as such;
6. final steps that lie back far enough are absorbed into the baselines.

So what is said depends on the set of rows before each close and on nothing else: not on blocks, order or duplicates.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np

from pipeline.detection.baseline import GUARD_STEPS, Absorber, StepSums, posterior
from pipeline.detection.counts import CELLS, StepTable
from pipeline.detection.entries import HARM, TYPES, Entry, UnitKey, entry_of, rows_together
from pipeline.detection.exposure import Bools, Floats, Ints, catalogue_of
from pipeline.detection.knowledge import Knowledge
from pipeline.detection.lifecycle import OpenSignal
from pipeline.detection.rules import Rules, minimum_history
from pipeline.detection.scan import Scan, Scanner
from pipeline.detection.severity import SeverityPath
from pipeline.detection.snapshot import Snapshot
from pipeline.detection.spikes import Spikes
from pipeline.detection.state import Change
from pipeline.detection.steps import Steps
from pipeline.detection.voices import UnitTally, tabulate
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


class Closing(NamedTuple):
    """What the closing of a step of given counts came to."""

    slots: Ints
    """(r,): the units of every subject that was spoken of or has a spike, ascending."""
    p_values: Floats
    """(r, 7): as `Spikes.p_values`, NaN where it is too early to say."""
    signals: list[Signal]


class Detector:
    """Detection over one partition of scored rows. Not thread-safe; no clock, no I/O.

    Args:
        policy: in force until a `PolicyUpdate` comes in band.
        snapshot: what it goes on from; then the policy is that of the snapshot.

    Raises:
        ConfigurationError: the policy's time zone is unknown.
    """

    def __init__(self, policy: DetectionPolicy, *, snapshot: Snapshot | None = None) -> None:
        self._snapshot = snapshot or Snapshot(Knowledge(policy))
        self._known = known = self._snapshot.known
        self._units, self._tally, self._signals = known.units, known.tally, known.signals
        self._severity = SeverityPath(known.tally, known.signals, known.grave)
        self._spikes = Spikes(known.units, known.tally, known.signals)
        self.too_late = 0
        """Rows that came when their step was final, and changed nothing here; since this detector began."""
        self._set_policy(known.policy)

    @classmethod
    def restore(cls, policy: DetectionPolicy, records: Iterable[tuple[bytes, bytes]]) -> Self:
        """A detector that goes on where the one that wrote these records stood; without records, a new one.

        A policy that came in band holds before the given one. Records of an older format are brought up to date.

        Raises:
            TerminalError: records of a newer format or damaged ones, or a policy whose steps the state does not have.
        """
        return cls(policy, snapshot=Snapshot.read(policy, records))

    def changes(self) -> list[Change]:
        """State records that changed since the last call (the first time: all); ``None`` means that the key is gone."""
        return self._snapshot.changes()

    # ---------------------------------------------------------------- rules

    def _set_policy(self, policy: DetectionPolicy) -> None:
        self._known.policy = policy
        self._known.fit_units()
        steps = Steps(policy.step, policy.time_zone)
        self._rules = Rules(policy, steps, self._known.versions, self._known.lots)
        self._absorber = Absorber(self._units, steps.length, self._silent, self._known.season)
        self._scanner = Scanner(self._units, self._absorber, self._rules.middle, self._silent, self._known.season)

    def _change_policy(self, update: PolicyUpdate) -> None:
        if _in_force(update.version, self._known.policy_version):
            return
        old, new = self._rules.policy, update.policy
        empty = self._known.next_step is None and not self._tally.steps
        if (old.step, old.time_zone) != (new.step, new.time_zone) and not empty:
            raise TerminalError(
                f"detection.step, time_zone: the base step cannot change from {old.step} in {old.time_zone} to {new.step} in"
                f" {new.time_zone} on existing state; put it back, or take a new data_dir"
            )
        self._known.policy_version = update.version
        self._set_policy(new)

    def _change_catalogue(self, update: CatalogueUpdate) -> None:
        known = self._known
        if _in_force(update.version, known.catalogue_version):
            return
        if update.entries is None:
            raise TerminalError(
                f"catalogue {update.version}: its entries must be looked up before detection is told of it"
            )
        known.catalogue, known.catalogue_version = catalogue_of(update.entries), update.version
        known.catalogue_applied = False
        self._rules = self._rules._replace(versions=known.versions, lots=known.lots)

    def _apply_catalogue(self, step: int) -> None:
        """Units are described at a step close, so that it does not matter when in the step the catalogue came."""
        if not self._known.catalogue_applied:
            self._units.apply_catalogue(self._known.catalogue, step)
            self._known.catalogue_applied = True

    # ---------------------------------------------------------------- records

    def absorb(self, record: ScoredBlock | ControlRecord) -> Outputs:
        """Take one record of the stream in. `Watermark` is the combined one of all sources: its ``source_id`` is ignored.

        A catalogue or policy of the version in force changes nothing: it comes once with every raw partition.

        Raises:
            TerminalError: a policy that existing state cannot follow, or a new catalogue without its entries.
        """
        match record:
            case ScoredBlock():
                return Outputs(signals=self._absorb_block(record))
            case Watermark():
                return self._advance(record.time)
            case Gap():
                self._known.gaps[record.source_id, record.start] = record.end
            case CatalogueUpdate():
                self._change_catalogue(record)
            case PolicyUpdate():
                self._change_policy(record)
            case _:
                pass  # idle and retired sources concern whoever combines the watermarks
        return Outputs()

    def _absorb_block(self, block: ScoredBlock) -> list[Signal]:
        tally, index, final_before = self._tally, self._rules.steps.index, self._known.final_before
        if block.rows and block.rows[0].versions != self._known.row_versions:
            self._known.row_versions = block.rows[0].versions
            self._rules = self._rules._replace(versions=self._known.versions)
        for retraction in block.retractions:
            tally.void(retraction.mention_id, retraction.revision)
        grave = []
        for row, others in rows_together(block.rows):
            if row.deleted:
                tally.void(row.mention_id, row.revision)
                continue
            step = index(row.event_time)
            if step < final_before:
                self.too_late += 1 + len(others)  # final: from now on only storage corrects itself
                continue
            entry = entry_of(row)
            if tally.add(entry, step, others) and entry.severity >= HARM and entry.grave:
                grave.append(entry)
        return self._severity.at_once(grave, self._rules) if grave else []

    def open_gaps(self) -> list[Gap]:
        """Gaps that have no end yet; while one lasts, no step is taken into the baselines."""
        return [
            Gap(source, start, None, "since before a restart")
            for (source, start), end in self._known.gaps.items()
            if end is None
        ]

    def close_all(self) -> Outputs:
        """The history is complete: close every step that has mentions. They stay provisional until they are final."""
        if not self._tally.steps:
            return Outputs()
        return self._advance(self._rules.steps.end(max(self._tally.steps)))

    # ---------------------------------------------------------------- time

    def _advance(self, watermark: int) -> Outputs:
        outputs, known = Outputs(), self._known
        end = self._rules.steps.index(watermark)
        if known.next_step is None:
            self._begin(min(min(self._tally.steps, default=end), end))
        while (upcoming := self._upcoming()) < end:
            if not self._busy(upcoming):
                spoken = min((step for step in self._tally.steps if step >= upcoming), default=end)
                self._skip(min(spoken, end))
            else:
                self._close(upcoming, outputs)
                known.next_step = upcoming + 1
        return outputs

    def _begin(self, step: int) -> None:
        """The first watermark: this step is the first to close."""
        self._known.next_step = step
        self._settle_final(step - 1)

    def _upcoming(self) -> int:
        """The step that closes next."""
        assert self._known.next_step is not None  # noqa: S101 - set by _begin
        return self._known.next_step

    def _busy(self, step: int) -> bool:
        """Whether closing this step can have any effect beyond the passing of time."""
        return bool(self._signals.by_id) or any(index <= step for index in self._tally.steps)

    def _skip(self, until: int) -> None:
        """Pass over steps without mentions, while nothing is open and nothing waits to become final."""
        known, upcoming = self._known, self._upcoming()
        if until > upcoming:
            silent = sum(self._silent(step) for step in range(upcoming, until)) if known.gaps else 0
            known.heard += until - upcoming - silent
            known.next_step = until
            self._tally.settle_voids(until - 1)
            self._settle_final(until - 1)
            self._tally.forget_voids(known.final_before)
            self._drop_old_tables(until - 1)

    def _settle_final(self, closed: int) -> None:
        """After a step closed: which steps take no more corrections. Depends on steps alone, not on watermarks."""
        steps = self._rules.steps
        self._known.final_before = max(
            self._known.final_before, steps.index(steps.end(closed) - self._rules.policy.allowed_lateness_ms)
        )

    def _silent(self, step: int) -> bool:
        """Whether a step lies wholly within a recorded gap of a source: what it lacks is no data rather than zero."""
        start, end = self._rules.steps.start(step), self._rules.steps.end(step)
        return any(gap[1] <= start and (until is None or until >= end) for gap, until in self._known.gaps.items())

    # ---------------------------------------------------------------- step close

    def _close(self, step: int, outputs: Outputs) -> None:
        self._apply_catalogue(step)
        revised = sorted(index for index, open_step in self._tally.steps.items() if index < step and open_step.dirty)
        for index in (*revised, step):
            outputs.step_counts += self._tabulate(index, step)
        outputs.signals += self._scan(step)
        outputs.signals += self._severity.settle(step, revised, self._rules)
        self._tally.settle_voids(step)
        self._settle_final(step)
        outputs.step_counts += self._finish(step)
        self._pass(step)

    def _pass(self, step: int) -> None:
        """What else goes with the closing of a step."""
        self._known.heard += not self._silent(step)
        self._forget_gaps(step)
        self._evict()

    def _tabulate(self, index: int, closing: int) -> list[StepCount]:
        """Count the units of a step whose entries changed; rows for the cells that changed with them."""
        open_step = self._tally.steps.get(index)
        if open_step is None or not open_step.dirty:
            return []
        known = self._known.tables.get(index)
        tallies = {key: tabulate(open_step.rows(key)) for key in sorted(open_step.dirty)}
        open_step.dirty.clear()
        # A unit of which everything was taken back before it was ever counted is as if never spoken of.
        spoken = {
            key: tally
            for key, tally in tallies.items()
            if tally.mentions or (known is not None and self._units.index.get(key) in known.rows)
        }
        if not spoken:
            return []
        table, changed = self._count(index, spoken, closing)
        return self._publish(table, changed)

    def _count(self, index: int, tallies: Mapping[UnitKey, UnitTally], closing: int) -> tuple[StepTable, Bools]:
        """Put what the units of a step add up to into its table; the cells that changed."""
        units, known = self._units, self._known
        units.register(tallies, closing, known.heard, known.catalogue)
        slots = [units.index[key] for key in tallies]
        table = known.tables.setdefault(index, StepTable(index))
        changed = table.update(slots, list(tallies.values()), units, self._rules.middle(index))
        units.last_seen[slots] = np.maximum(units.last_seen[slots], index)
        return table, changed

    def _publish(self, table: StepTable, cells: Bools) -> list[StepCount]:
        rules = self._rules
        status: CountStatus = "final" if table.final else "provisional"
        start = rules.steps.start(table.step)
        return table.publish(cells, self._units, status, start, rules.policy.step, rules.versions)

    def _scan(self, step: int) -> list[Signal]:
        """Review open spikes and open new ones."""
        scan = self._scanner.look(self._known.tables, step, self._spikes.slots(), self._rules.policy)
        return [] if scan is None else self._decide(scan)

    def _spoken(self, step: int) -> set[int]:
        table = self._known.tables.get(step)
        return set(table.slots.tolist()) if table is not None else set()

    def _decide(self, scan: Scan) -> list[Signal]:
        silent, spoken, index = self._silent(scan.step), self._spoken(scan.step), self._units.index
        unheard = {unit: silent and index[unit] not in spoken for unit, _ in self._signals.risen}
        said = self._spikes.review(scan, self._rules, unheard)
        return said + self._spikes.open(scan, self._rules, self._history(scan.slots))

    def _history(self, slots: Ints) -> Ints:
        """(r,): steps heard of each slot's subject before the one that closes."""
        history: Ints = self._known.heard - self._units.born[self._units.subject[slots]]
        return history

    def _finish(self, closed: int) -> list[StepCount]:
        """Steps that became final: publish them as such, drop their entries."""
        published = []
        for index in sorted(index for index in self._tally.steps if index < self._known.final_before):
            table = self._known.tables.get(index)
            if table is not None:
                table.final = True
                published += self._publish(table, np.ones((len(table.slots), CELLS), np.bool_))
            self._severity.finish(index, self._rules)
            self._tally.forget(index)
        self._tally.forget_voids(self._known.final_before)
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
        """A table becomes history once it is final and a guard gap lies between it and now, and is dropped when no window
        reaches it any more. So the windows that tell most are not held against a history that their own steps have raised.
        """
        known, longest = self._known, max(self._rules.policy.windows)
        history = min(closed + 2 - min(longest, GUARD_STEPS), known.final_before)
        for index in sorted(index for index in known.tables if known.absorbed_before <= index < history):
            if not self._silent(index):
                self._absorb(known.tables[index])
        known.absorbed_before = max(known.absorbed_before, history)
        for index in [index for index in known.tables if index < min(closed + 2 - longest, known.final_before)]:
            del known.tables[index]

    def _forget_gaps(self, closed: int) -> None:
        horizon = self._rules.steps.start(closed) - GAP_MEMORY_MS - self._rules.policy.allowed_lateness_ms
        for gap in [gap for gap, end in self._known.gaps.items() if end is not None and end < horizon]:
            del self._known.gaps[gap]
        for gap in sorted(self._known.gaps, key=lambda gap: (gap[1], gap[0]))[
            : max(0, len(self._known.gaps) - MAXIMUM_GAPS)
        ]:
            del self._known.gaps[gap]

    def _evict(self) -> None:
        units = self._units
        if len(units.index) > units.maximum:
            used = [table.slots for table in self._known.tables.values()]
            protected = set(np.concatenate(used).tolist() if used else ()) | set(self._spikes.slots())
            units.evict(protected)

    # ---------------------------------------------------------------- a past that others recorded

    def recall(
        self,
        step: int,
        tallies: Mapping[UnitKey, UnitTally],
        *,
        opened: Iterable[OpenSignal] = (),
        closed: Iterable[Signal] = (),
    ) -> None:
        """Go through a step that was closed and published before; nothing is said of it again.

        Args:
            step: number of the step; ascending from call to call.
            tallies: what the units that were spoken of added up to.
            opened: spikes that opened in the step, as they are now.
            closed: spikes that closed in it.

        Raises:
            TerminalError: the step has been passed already.
        """
        self._reach(step)
        self._skip(step)
        self._apply_catalogue(step)
        for signal in closed:
            self._spikes.end(signal, step)
        if tallies:
            table, _ = self._count(step, tallies, step)
            table.final = True
            self._spikes.hear(table, self._rules.steps.start(step))
        for held in opened:
            self._units.register([held.series[0]], step, self._known.heard, self._known.catalogue)
            self._signals.add(held)
        self._leave(step)

    def replay(self, step: int, tallies: Mapping[UnitKey, UnitTally]) -> Closing:
        """Close a step whose counts are given, and the steps before it that have none: decide as if just counted.

        Counts tell of no mention: evidence and severity stay empty, and only the lot can be named as what drives a spike.

        Args:
            step: number of the step; ascending from call to call.
            tallies: what the units that were spoken of added up to.

        Returns:
            What was seen and said, with the signals of the steps without counts first.

        Raises:
            TerminalError: the step has been passed already.
        """
        self._reach(step)
        before: list[Signal] = []
        while (upcoming := self._upcoming()) < step:
            if self._busy(upcoming):
                before += self._close_given(upcoming, {}).signals
            else:
                self._skip(step)
        closing = self._close_given(step, tallies)
        return closing._replace(signals=before + closing.signals)

    def _close_given(self, step: int, tallies: Mapping[UnitKey, UnitTally]) -> Closing:
        self._apply_catalogue(step)
        if tallies:
            self._count(step, tallies, step)
        scan = self._scanner.look(self._known.tables, step, self._spikes.slots(), self._rules.policy)
        lively = np.array(sorted(self._spoken(step).union(self._spikes.slots())), np.int64)
        slots = self._units.family(lively)
        p_values = np.where(self._early(slots, step), np.nan, 1.0)
        signals = []
        if scan is not None:
            signals = self._decide(scan)
            rows = np.searchsorted(slots, scan.slots)
            found = self._spikes.p_values(scan, self._rules, self._history(scan.slots))
            p_values[rows] = np.where(np.isnan(p_values[rows]), np.nan, found)
        self._leave(step)
        return Closing(slots, p_values, signals)

    def _early(self, slots: Ints, step: int) -> Bools:
        """(r, 7): series of which no spike can be told yet, for want of a history."""
        if not len(slots):
            return np.zeros((0, TYPES), np.bool_)
        unknown = np.isnan(posterior(self._units, slots, step, self._absorber.drift).rate())
        needed = minimum_history(self._rules.policy, self._units, slots)
        early: Bools = unknown | (self._history(slots) < needed)[:, None]
        return early

    def _reach(self, step: int) -> None:
        """Begin with this step, if none was closed before."""
        if self._known.next_step is None:
            self._begin(step)
        if step < self._upcoming():
            raise TerminalError("step counts must be given in the order of their steps")

    def _leave(self, step: int) -> None:
        """A step of given counts is closed."""
        self._settle_final(step)
        self._drop_old_tables(step)
        self._pass(step)
        self._known.next_step = step + 1

    def resume(self, watermark: int | None, severe: Iterable[OpenSignal] = (), grave: Iterable[Entry] = ()) -> None:
        """All of the past has been recalled: go on from this watermark (ms UTC; None: from the last step).

        Closed steps take no more corrections: the entries that would have to be counted again are not there.

        Args:
            watermark: what has been promised.
            severe: severe signals that are open.
            grave: entries of closed steps that they rest on.
        """
        known = self._known
        if watermark is not None:
            end = self._rules.steps.index(watermark)
            if known.next_step is None:
                self._begin(end)
            self._skip(end)
        if known.next_step is not None:
            known.final_before = max(known.final_before, known.next_step)
            self._drop_old_tables(known.next_step - 1)
        for held in severe:
            self._signals.add(held)
        known.grave.keep(grave)


def _in_force(version: str, current: str) -> bool:
    """Whether an update names what is in force already; what has no name never is."""
    return version != "" and version == current
