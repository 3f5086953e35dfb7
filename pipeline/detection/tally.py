"""The mentions of steps that are not final yet.

Counts are a pure function of the set of live rows: neither the order of arrival nor duplicates show. A row is keyed by
(mention, unit); of two, the higher revision holds, and a void (retraction, deletion, edit) ends all lower ones.
"""

from collections.abc import Iterable, Iterator, Sequence
from sys import intern

import numpy as np

from pipeline.detection.entries import HARM, Entry, Kind, UnitKey, of_nothing
from pipeline.detection.index import Index, head_of, heads_of, keyed
from pipeline.detection.packed import NOTHING, OpenStep, pack

UNDECIDED = -1
"""Tag of a void that no step has closed after."""


FURTHEST_AHEAD = 64
"""Steps ahead of the watermark up to which a row is expected; one wrong date must not keep voids for ever."""

NUMBER_BITS = 28
"""Of a record's place: its number within its step. The other bits tell the step."""


class Tally:
    """All live rows of the steps that are not final, by step and unit and by mention."""

    def __init__(self) -> None:
        self.steps: dict[int, OpenStep] = {}
        self._index = Index()
        self._turns: list[OpenStep | None] = [None]
        """The steps by the number that places tell them by."""
        self._spelt: dict[bytes, str] = {}
        self._kinds = Kinds()
        self.voids: dict[str, tuple[int, int]] = {}
        """Mention → revision below which nothing holds, and the step with which the void may be forgotten."""
        self.latest = -(1 << 40)
        """Latest step that any row was of, taken in or not."""
        self.unsaved_voids: set[int] = set()
        """Tags whose voids changed since they were last saved."""

    # ---------------------------------------------------------------- taking in

    def add(self, entry: Entry, step: int, others: Sequence[UnitKey] = ()) -> bool:
        """Take an entry in, unless it is known or void. Returns whether anything was taken in.

        Args:
            entry: without quotes and no longer primary afterwards, if it was known and another unit's row was not.
            step: that it is of.
            others: units for which the mention has a row that says the same; none of those is primary.
        """
        mention_id, revision, unit = entry.mention_id, entry.revision, entry.unit
        if step > self.latest:
            self.latest = step
        if revision:
            self.void(mention_id, revision)  # an edit ends what was counted before, in whatever unit
        if self.voids and self._is_void(mention_id, revision):
            return False
        units: tuple[UnitKey, ...] = (unit, *others)
        if of_nothing(unit) and not (entry.grave and entry.severity >= HARM):
            units = units[1:]  # an unknown product has no rate, and takes the severity path with harm only
        key, head = keyed(mention_id)
        places = self._index.find(head)
        if places or others:
            known = [kind for _, _, kind in self._records(key, places) if kind.revision >= revision]
            units = tuple(one for one in dict.fromkeys(units) if not any(one in kind.units for kind in known))
        if not units:
            return False
        if units[0] != unit:
            entry.primary, entry.quotes = False, ()
        self._take(entry, units, key, head, step)
        return True

    def restore(self, entry: Entry, step: int, others: Sequence[UnitKey] = ()) -> None:
        """Take back in what a state record holds, unless a void has ended it since."""
        if not self._is_void(entry.mention_id, entry.revision):
            self._take(entry, (entry.unit, *others), *keyed(entry.mention_id), step)

    def restore_calm(self, mention_id: str, kind: Kind, step: int) -> None:
        """The same of rows that object to nothing."""
        if not self._is_void(mention_id, kind.revision):
            self._hold(mention_id, *keyed(mention_id), self._kinds.of(kind), NOTHING, self.open(step))

    def _is_void(self, mention_id: str, revision: int) -> bool:
        void = self.voids.get(mention_id) if self.voids else None
        return void is not None and revision < void[0]

    def open(self, step: int) -> OpenStep:
        """The step of that number, made if new."""
        open_step = self.steps.get(step)
        if open_step is None:
            open_step = self.steps[step] = OpenStep(step, len(self._turns), self._spelt)
            self._turns.append(open_step)
        return open_step

    def _take(self, entry: Entry, units: tuple[UnitKey, ...], key: bytes, head: int, step: int) -> None:
        kind = Kind(
            units,
            entry.revision,
            entry.product_id,
            entry.product_batch_id,
            entry.flags,
            entry.version,
            entry.carrier,
            entry.region,
            entry.channel,
        )
        open_step = self.steps.get(step) or self.open(step)
        said = pack(entry) if entry.speaks else NOTHING
        self._hold(entry.mention_id, key, head, self._kinds.of(kind), said, open_step)
        if said and entry.grave:
            entry.step = step
            open_step.severe.append(entry)

    def _hold(self, mention_id: str, key: bytes, head: int, kind: Kind, said: bytes, open_step: OpenStep) -> None:
        if key.hex() != mention_id:
            self._spelt[key] = mention_id
        if not self._index.add(head, open_step.turn << NUMBER_BITS | open_step.add(key, kind, said)):
            self._reindex()

    def _reindex(self) -> None:
        """Index the records of the open steps anew, and number those steps from one."""
        self._turns = [None, *self.steps.values()]
        heads, places = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
        for turn, open_step in enumerate(self.steps.values(), 1):
            open_step.turn = turn
            heads.append(heads_of(open_step.keys))
            places.append(np.arange(len(heads[-1]), dtype=np.uint64) | np.uint64(turn << NUMBER_BITS))
        self._index.rebuild(np.concatenate(heads), np.concatenate(places))

    # ---------------------------------------------------------------- taking back

    def _records(self, key: bytes, places: Iterable[int]) -> Iterator[tuple[OpenStep, int, Kind]]:
        """Those live records in these places that are the mention's: step, number and kind."""
        for place in places:
            open_step, number = self._turns[place >> NUMBER_BITS], place & (1 << NUMBER_BITS) - 1
            kind = open_step.kinds[number] if open_step is not None else None
            if open_step is not None and kind is not None and open_step.key(number) == key:
                yield open_step, number, kind

    def void(self, mention_id: str, revision: int, tag: int = UNDECIDED) -> None:
        """What was counted of the mention with a lower revision is void; so is what still comes of it."""
        void = self.voids.get(mention_id)
        if void is not None:
            if void[0] >= revision:
                return
            self.unsaved_voids.add(void[1])
        self.voids[mention_id] = (revision, tag)
        self.unsaved_voids.add(tag)
        key, head = keyed(mention_id)
        for open_step, number, kind in self._records(key, self._index.find(head)):
            if kind.revision < revision:
                open_step.void(number)

    def settle_voids(self, step: int) -> None:
        """After a step closed: fix until when the voids before it are needed.

        A row that they concern may come again as long as its step is open, and rows may run ahead of the watermark.
        """
        undecided = [mention for mention, (_, tag) in self.voids.items() if tag == UNDECIDED]
        if not undecided:
            return
        last = max(step, min(self.latest, step + FURTHEST_AHEAD))
        for mention in undecided:
            self.voids[mention] = (self.voids[mention][0], last)
        self.unsaved_voids.update((UNDECIDED, last))

    def forget(self, step: int) -> None:
        """The step is final: drop its rows."""
        open_step = self.steps.pop(step, None)
        if open_step is None:
            return
        self._turns[open_step.turn] = None
        self._kinds.forget(len(self.steps))
        for key in map(open_step.key, range(len(open_step.kinds) if self._spelt else 0)):
            if not any(self._records(key, self._index.find(head_of(key)))):
                self._spelt.pop(key, None)
        if not self.steps:
            self._reindex()  # nothing is left: give its room back

    def forget_voids(self, final_before: int) -> None:
        """Drop the voids that no step which still takes corrections needs."""
        gone = [mention for mention, (_, tag) in self.voids.items() if tag != UNDECIDED and tag < final_before]
        for mention in gone:
            self.unsaved_voids.add(self.voids.pop(mention)[1])


class Kinds:
    """One object of what many mentions have in common."""

    def __init__(self) -> None:
        self._known: dict[Kind, Kind] = {}
        self._units: dict[UnitKey, UnitKey] = {}
        self._steps_left = 0

    def of(self, kind: Kind) -> Kind:
        """The kind that equals this one."""
        known = self._known.get(kind)
        if known is None:
            known = Kind(
                tuple(map(self._units.setdefault, kind.units, kind.units)),
                kind.revision,
                intern(kind.product_id),
                intern(kind.product_batch_id),
                kind.flags,
                intern(kind.version),
                intern(kind.carrier),
                intern(kind.region),
                intern(kind.channel),
            )
            self._known[known] = known
        return known

    def forget(self, open_steps: int) -> None:
        """A step was dropped: begin anew now and then, so that no kind is there more than twice, nor for ever."""
        self._steps_left -= 1
        if self._steps_left <= 0:
            self._known.clear()
            self._units.clear()
            self._steps_left = open_steps
