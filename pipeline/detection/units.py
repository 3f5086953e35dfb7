"""The units and subjects that detection knows, as columns: one slot a unit, with the history of its seven series.

Slots are given out lowest first and, within a step close, in the order of the keys, so that sums over slots (and with
them the last bits of every rate) do not depend on how mentions were cut into blocks.
"""

import heapq
from collections.abc import Iterable

import numpy as np

from pipeline.detection.entries import TYPES, UnitKey
from pipeline.detection.exposure import Bools, Catalogue, Floats, Ints, Lot, units_in_field

SubjectKey = tuple[str, str]

MAXIMUM_UNITS = 100_000
"""Units kept by one detector; above it those silent for longest are forgotten (7 series each, ~0.5 KB of state a unit)."""

NEVER = -(1 << 40)
"""A step before all steps."""


class Slots:
    """Numbers for keys: the lowest free one first, so that it does not matter whether a snapshot lay in between."""

    def __init__(self) -> None:
        self.keys: list[tuple[str, ...] | None] = []
        self._free: list[int] = []

    def take(self, key: tuple[str, ...]) -> int:
        """A slot for the key."""
        if self._free:
            slot = heapq.heappop(self._free)
            self.keys[slot] = key
            return slot
        self.keys.append(key)
        return len(self.keys) - 1

    def release(self, slot: int) -> None:
        """The slot's key is gone."""
        self.keys[slot] = None
        heapq.heappush(self._free, slot)

    def restore(self, taken: dict[int, tuple[str, ...]]) -> None:
        """Take exactly these slots."""
        self.keys = [taken.get(slot) for slot in range(max(taken, default=-1) + 1)]
        self._free = [slot for slot, key in enumerate(self.keys) if key is None]


class Units:
    """Columns over unit slots (N,) and series (N, 7), and over subject slots (S,).

    Args:
        terms: number of the terms of a season, p.
    """

    def __init__(self, terms: int = 0) -> None:
        self.maximum = MAXIMUM_UNITS
        self.index: dict[UnitKey, int] = {}
        self.subjects: dict[SubjectKey, int] = {}
        self.slots = Slots()
        self.subject_slots = Slots()
        self.taken: Bools = np.zeros(0, np.bool_)
        self.subject: Ints = np.zeros(0, np.int64)
        self.by_units: Bools = np.zeros(0, np.bool_)
        """Whether the exposure is units in the field; then the next three say how many."""
        self.units: Floats = np.zeros(0)
        self.sold_from: Floats = np.zeros(0)
        self.sold_until: Floats = np.zeros(0)
        self.last_seen: Ints = np.zeros(0, np.int64)
        """Last step with a mention (or the step in which the unit became known)."""
        self.as_of: Ints = np.zeros(0, np.int64)
        """Step that what follows is as of."""
        self.first: Ints = np.zeros(0, np.int64)
        """Step in which the unit's history began."""
        self.events: Floats = np.zeros((0, TYPES))
        """The rate is gamma distributed: worth so many events, outliers cut and older ones weighing less …"""
        self.exposure: Floats = np.zeros((0, TYPES))
        """… over this exposure: units x activity, or mentions that do not object to the type, season taken out."""
        self.squares: Floats = np.zeros((0, TYPES))
        """Squared errors over what they were expected to be before anything was known of the series …"""
        self.judged: Floats = np.zeros((0, TYPES))
        """… and the weight of the steps judged: their ratio is the dispersion."""
        self.season: Floats = np.zeros((0, TYPES, terms))
        """Coefficients of the season's terms, on the logarithm of the rate …"""
        self.season_variance: Floats = np.zeros((0, TYPES, terms))
        """… and their variances; 0: not learnt yet."""
        self.marks: Floats = np.zeros((0, TYPES, 4))
        """What events and exposure were: at the mark before the last (two columns), at the last mark (two) …"""
        self.marked: Ints = np.zeros((0, 2), np.int64)
        """… and the steps that the two marks are as of."""
        self.reset: Ints = np.zeros((0, TYPES), np.int64)
        """Step of the last closed spike: windows do not reach back to it."""
        self.born: Ints = np.zeros(0, np.int64)
        """Subjects: number of steps that the detector had heard when it first met the subject."""
        self.absorbed: Ints = np.zeros(0, np.int64)
        """Subjects: last step in the baseline, NEVER before the first."""
        self.quiet: Floats = np.zeros(0)
        """Subjects: discounted quiet mentions, outliers cut …"""
        self.weight: Floats = np.zeros(0)
        """… and discounted number of steps: their ratio is the usual activity."""
        self.members: dict[int, list[UnitKey]] = {}
        """Subject slot → its units, in the order of their keys."""
        self.dirty: set[int] = set()
        self.dirty_subjects: set[int] = set()
        self.deleted: set[UnitKey] = set()
        self.deleted_subjects: set[SubjectKey] = set()

    _UNIT_COLUMNS = (
        *("taken", "subject", "by_units", "units", "sold_from", "sold_until", "last_seen"),
        *(
            "as_of",
            "first",
            "events",
            "exposure",
            "squares",
            "judged",
            "season",
            "season_variance",
            "marks",
            "marked",
            "reset",
        ),
    )
    _SUBJECT_COLUMNS = ("born", "absorbed", "quiet", "weight")

    def set_terms(self, terms: int) -> None:
        """Another number of terms of the season; what had been learnt of other terms is forgotten."""
        if terms != self.season.shape[2]:
            self.season, self.season_variance = (np.zeros((len(self.events), TYPES, terms)) for _ in range(2))

    def __len__(self) -> int:
        """Slots in use, free ones between them included."""
        return len(self.slots.keys)

    def add_subject(self, key: SubjectKey, heard: int) -> int:
        """The slot of a subject, made if new. ``heard``: steps that the detector has heard so far."""
        slot = self.subjects.get(key)
        if slot is None:
            slot = self.subjects[key] = self.subject_slots.take(key)
            self.reserve()
            self.born[slot], self.absorbed[slot], self.quiet[slot], self.weight[slot] = heard, NEVER, 0.0, 0.0
            self.members[slot] = []
            self.dirty_subjects.add(slot)
        return slot

    def add(self, key: UnitKey, step: int, lot: Lot | None) -> int:
        """The slot of a unit of a known subject, made if new."""
        slot = self.index.get(key)
        if slot is None:
            slot = self.index[key] = self.slots.take(key)
            self.reserve()
            subject = self.subjects[key[:2]]
            self.taken[slot], self.subject[slot] = True, subject
            self.members[subject] = sorted([*self.members[subject], key])
            self.last_seen[slot] = self.as_of[slot] = self.first[slot] = step
            self.reset[slot] = NEVER
            self.by_units[slot] = False
            self._clear_history(slot)
            self.describe(slot, lot)
            self.dirty.add(slot)
        return slot

    def _clear_history(self, slot: int) -> None:
        learnt = (self.events, self.exposure, self.squares, self.judged, self.season, self.season_variance, self.marks)
        for column in learnt:
            column[slot] = 0.0
        self.marked[slot] = 0

    def describe(self, slot: int, lot: Lot | None) -> None:
        """What the catalogue in force says of the unit; a change of the exposure's kind starts its history anew."""
        by_units = lot is not None and lot.units is not None
        if by_units != self.by_units[slot]:
            self._clear_history(slot)
            self.by_units[slot] = by_units
            self.dirty.add(slot)
        self.units[slot] = lot.units if lot is not None and lot.units is not None else 0.0
        self.sold_from[slot] = -np.inf if lot is None or lot.sold_from is None else lot.sold_from
        self.sold_until[slot] = -np.inf if lot is None or lot.sold_until is None else lot.sold_until

    def describe_all(self, catalogue: Catalogue) -> None:
        """Apply a catalogue to all known units."""
        for key, slot in self.index.items():
            self.describe(slot, self.lot_of(key, catalogue))

    @staticmethod
    def lot_of(key: UnitKey, catalogue: Catalogue) -> Lot | None:
        """The catalogue's entry for a unit, if it is a lot of a product."""
        return catalogue.get(key[1], {}).get(key[2]) if key[0] == "product" else None

    def register(self, keys: Iterable[UnitKey], step: int, heard: int, catalogue: Catalogue) -> None:
        """Give slots to the units of these keys; a product that is new brings all lots that the catalogue knows of it.

        A lot that nobody speaks about is a sibling too: its silence over its units is what a noisy lot is held against.
        """
        wanted = {key for key in keys if key not in self.index}
        if not wanted:
            return
        for kind, subject_id in sorted({key[:2] for key in wanted} - self.subjects.keys()):
            self.add_subject((kind, subject_id), heard)
            if kind == "product":
                wanted.update((kind, subject_id, lot) for lot in catalogue.get(subject_id, ()))
        for key in sorted(wanted):
            self.add(key, step, self.lot_of(key, catalogue))

    def apply_catalogue(self, catalogue: Catalogue, step: int) -> None:
        """A new catalogue takes effect: lots of known products become units, all units are described anew."""
        self.describe_all(catalogue)
        wanted = {
            ("product", product, lot)
            for kind, product in self.subjects
            if kind == "product"
            for lot in catalogue.get(product, ())
        }
        for key in sorted(wanted - self.index.keys()):
            self.add(key, step, self.lot_of(key, catalogue))

    def evict(self, protected: set[int]) -> None:
        """Forget the units silent for longest, down to the maximum, but none of the protected slots."""
        surplus = len(self.index) - self.maximum
        if surplus <= 0:
            return
        candidates = ((int(self.last_seen[slot]), key) for key, slot in self.index.items() if slot not in protected)
        for _, key in heapq.nsmallest(surplus, candidates):
            slot = self.index.pop(key)
            subject = int(self.subject[slot])
            self.slots.release(slot)
            self._clear_history(slot)
            self.taken[slot] = self.by_units[slot] = False
            self.dirty.discard(slot)
            self.deleted.add(key)
            self.members[subject].remove(key)
            if not self.members[subject]:
                self._forget_subject(key[:2], subject)

    def _forget_subject(self, key: SubjectKey, slot: int) -> None:
        del self.subjects[key], self.members[slot]
        self.subject_slots.release(slot)
        self.dirty_subjects.discard(slot)
        self.deleted_subjects.add(key)

    def reserve(self) -> None:
        """Make the columns long enough for the slots that are taken."""
        for names, count in ((self._UNIT_COLUMNS, len(self)), (self._SUBJECT_COLUMNS, len(self.subject_slots.keys))):
            if len(getattr(self, names[0])) < count:
                for name in names:
                    column = getattr(self, name)
                    longer = np.zeros((max(64, 2 * count), *column.shape[1:]), column.dtype)
                    longer[: len(column)] = column
                    setattr(self, name, longer)

    def family(self, slots: Ints) -> Ints:
        """All slots of the subjects of these slots, ascending."""
        count = len(self)
        lively = np.zeros(len(self.subject_slots.keys), np.bool_)
        lively[self.subject[slots]] = True
        return np.flatnonzero(self.taken[:count] & lively[self.subject[:count]])

    def keys(self, slots: Ints) -> list[UnitKey]:
        """The units of slots that are taken."""
        kinds = [self.slots.keys[slot] or ("", "", "") for slot in slots.tolist()]
        return [(kind, subject, lot) for kind, subject, lot in kinds]

    def members_of(self, subject: int) -> Ints:
        """All slots of one subject slot, ascending."""
        return np.sort(np.array([self.index[key] for key in self.members[subject]], np.int64))

    def field(self, slots: Ints, instant: float | Floats) -> Floats:
        """Units in the field of each slot at an instant (ms UTC); meaningless where the exposure is mentions."""
        return units_in_field(self.units[slots], self.sold_from[slots], self.sold_until[slots], instant)
