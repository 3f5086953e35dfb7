"""The detector over counts that are given instead of mentions: what it would have said, and how rare it held each count.

Nothing is decided here: the counts go through the same tables, baselines, scan, promise and life of spikes as those that
detection makes of mentions (`Detector.replay`). What is settled here is how counts stand for mentions:

- A series is an objection type of a product's lot. The seven types have their places; other names are spread, seven each
  in the order of their names, over subjects beside the product, each of which holds all the product's lots: so what was
  a sibling (the same type of another lot) stays one, and types know nothing of each other in either case.
- With totals, exposure is mentions: a unit's total of the step, of which its counts are objecting voices. A unit whose
  total is 0 was not spoken of.
- Without totals, exposure is one unit in the field, always: a constant. A step without a count is silence, that is, zero
  for up to 14 steps (see `baseline`). As no mentions are known, the least number of mentions that a spike needs is given.
- A step is what the policy says; counts of steps of unknown length are best taken for days, so that half of the history
  lies within 60 steps.
- All voices are fresh, no gaps are known, and no unit is ever forgotten.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace

from pipeline.detection.detector import Closing, Detector
from pipeline.detection.entries import TYPE_INDEX, TYPES, UnitKey
from pipeline.detection.exposure import Bools, Floats, Ints
from pipeline.detection.knowledge import Knowledge
from pipeline.detection.rebuild import tallies_by_step
from pipeline.detection.scan import MINIMUM_MENTIONS
from pipeline.detection.snapshot import Snapshot
from pipeline.detection.units import MAXIMUM_UNITS
from pipeline.detection.voices import UnitTally
from schemas.catalogue import CatalogueEntry
from schemas.control import CatalogueUpdate, Gap
from schemas.policy import DetectionPolicy
from schemas.signal import Signal
from schemas.step_count import StepCount

_BESIDE = "\x1f"
"""Between a product and the number of the subject beside it that holds further types."""


class Series(NamedTuple):
    """What is counted apart; types may have any names."""

    product_id: str
    product_batch_id: str
    objection_type: str


class Judged(NamedTuple):
    """What the detector held of the counts of one step, in the order in which they were given."""

    p_values: Floats
    """Corrected for the number of windows; its mid-p-value is held against the promise. 1 where no spike may open now (nobody objects,
    or too few), NaN where it is too early to say (no history, or too little)."""
    open_spike: Bools
    """Whether a spike is open once the step is closed."""
    signals: list[Signal]
    """What was said, of steps without counts before this one too. Types are told by `Backtest.series_of`."""


class Backtest:
    """One run over all series. Steps come in ascending order, and what is said of one depends on no later one.

    Args:
        policy: as in live detection; where it names no number of series, that of ``series`` shares the promise.
        series: all that will be counted, distinct.
        totals: whether each count comes with the mentions of its lot; else exposure is constant.
        step_days: how long a step is in truth, for the season; to all else it is what the policy says.

    Raises:
        ConfigurationError: the policy's time zone is unknown.
    """

    def __init__(
        self, policy: DetectionPolicy, series: Sequence[Series], *, totals: bool, step_days: float = 1.0
    ) -> None:
        self._series = series
        self._totals = totals
        cells = _cells(series)
        self._units = sorted({unit for unit, _ in cells})
        number = {unit: index for index, unit in enumerate(self._units)}
        self._unit: Ints = np.array([number[unit] for unit, _ in cells], np.int64)
        self._type: Ints = np.array([type_index for _, type_index in cells], np.int64)
        self._at = {cell: index for index, cell in enumerate(cells)}
        self._slot: Ints = np.full(len(self._units), -1, np.int64)
        self._entries: list[CatalogueEntry] = []
        self._known = Knowledge(replace(policy, series=policy.series or max(1, len(series))), step_days=step_days)
        self._known.units.maximum = max(MAXIMUM_UNITS, len(self._units))
        self._detector = Detector(policy, snapshot=Snapshot(self._known))

    def close(self, step: int, series: Ints, counts: Ints, totals: Ints | None = None) -> Judged:
        """Close one step.

        Args:
            step: its number under the policy; above that of the last call.
            series: (n,) positions in the series given at first, distinct.
            counts: (n,) objecting voices.
            totals: (n,) mentions of the series' lot, the same for all types of a lot; if they were promised.

        Raises:
            TerminalError: the step has been passed already.
        """
        units = np.unique(self._unit[series])
        row = np.searchsorted(units, self._unit[series])
        voices = np.zeros((len(units), TYPES), np.int64)
        voices[row, self._type[series]] = counts
        if totals is None:
            mentions = voices.sum(axis=1) + MINIMUM_MENTIONS
            self._describe(units)
        else:
            mentions = np.zeros(len(units), np.int64)
            mentions[row] = totals
        closing = self._detector.replay(step, self._tallies(units, mentions, voices))
        return self._judged(closing, series, units)

    def series_of(self, signal: Signal) -> Series:
        """What a signal is about, in the names that were given."""
        unit = (signal.subject_kind, signal.subject_id, signal.product_batch_id)
        return self._series[self._at[unit, TYPE_INDEX[signal.objection_type]]]

    def _describe(self, units: Ints) -> None:
        """Every lot is one unit, always in the field. It is told of when first counted: what comes later is not known yet."""
        new = units[self._slot[units] < 0].tolist()
        if new:
            lots = (self._units[unit] for unit in new)
            self._entries += (CatalogueEntry(subject, subject, [], lot, 1.0, None, None) for _, subject, lot in lots)
            self._detector.absorb(CatalogueUpdate("", self._entries))

    def _tallies(self, units: Ints, mentions: Ints, voices: Ints) -> dict[UnitKey, UnitTally]:
        spoken = mentions > 0
        least = voices.max(axis=1, initial=0)  # who objects to two things is counted twice, so the sum may be too much
        quiet = np.maximum(mentions - least, 0) if self._totals else np.zeros_like(mentions)
        columns = (column[spoken].tolist() for column in (units, mentions, quiet, least, voices))
        return {
            self._units[unit]: UnitTally(total, total, calm, total, objecting, (said := tuple(cells)), said)
            for unit, total, calm, objecting, cells in zip(*columns, strict=True)
        }

    def _judged(self, closing: Closing, series: Ints, units: Ints) -> Judged:
        index = self._known.units.index
        for unit in units[self._slot[units] < 0].tolist():
            self._slot[unit] = index.get(self._units[unit], -1)
        p_values, slot = np.full(len(series), np.nan), self._slot[self._unit[series]]
        if len(closing.slots):
            place = np.minimum(np.searchsorted(closing.slots, slot), len(closing.slots) - 1)
            seen = closing.slots[place] == slot
            p_values[seen] = closing.p_values[place[seen], self._type[series[seen]]]
        opened = np.zeros(len(self._series), np.bool_)
        opened[[self._at[cell] for cell in self._known.signals.risen]] = True
        return Judged(p_values, opened[series], closing.signals)


class Rejudged(NamedTuple):
    """What the detector makes of one step of stored counts."""

    step: int
    """Its number under the policy."""
    units: list[UnitKey]
    """(r): those looked at."""
    p_values: Floats
    """(r, 7): as in `Judged`."""
    signals: list[Signal]
    """Spikes that opened, grew or closed."""


def rejudge(
    policy: DetectionPolicy,
    catalogue: Sequence[CatalogueEntry],
    step_counts: Iterable[StepCount],
    gaps: Iterable[Gap] = (),
) -> Iterator[Rejudged]:
    """Stored step counts given to a new detector, step by step: what it would have said of them under a policy.

    Besides what counts cannot tell (`pipeline.detection.rebuild`), they name no mention: evidence and severity stay empty, and no
    carrier clears a lot of late deliveries.

    Args:
        policy: tried; its base step and time zone must be those of the counts.
        catalogue: taken for all of the past; may be empty.
        step_counts: the latest revision of each cell, ascending by ``step_start``.
        gaps: as recorded.

    Raises:
        TerminalError: step counts out of order, or of other base steps than the policy's.
        ConfigurationError: the policy's time zone is unknown.
    """
    known = Knowledge(policy)
    detector = Detector(policy, snapshot=Snapshot(known))
    if catalogue:
        detector.absorb(CatalogueUpdate("", list(catalogue)))
    for gap in gaps:
        detector.absorb(gap)
    for step, spoken in tallies_by_step(step_counts, policy):
        closing = detector.replay(step, spoken)
        keys = (known.units.slots.keys[slot] or ("", "", "") for slot in closing.slots.tolist())
        units = [(kind, subject, lot) for kind, subject, lot in keys]
        yield Rejudged(step, units, closing.p_values, closing.signals)


def _cells(series: Sequence[Series]) -> list[tuple[UnitKey, int]]:
    """The unit and type that stand for each series."""
    foreign = sorted({one.objection_type for one in series} - TYPE_INDEX.keys())
    places = {name: divmod(number + TYPES, TYPES) for number, name in enumerate(foreign)}
    places |= {name: (0, index) for name, index in TYPE_INDEX.items()}
    found: list[tuple[UnitKey, int]] = []
    for product, lot, name in series:
        group, type_index = places[name]
        subject = f"{product}{_BESIDE}{group}" if group else product
        found.append((("product", subject, lot), type_index))
    return found
