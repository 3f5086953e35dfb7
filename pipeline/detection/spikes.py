"""Spikes and slow ramps: opened by the scan, updated as they grow, closed when the series has been calm.

A ramp is held against the past for as long as it is open: it is calm when the rate has come down, or when two marks have
gone by and the new rate is what there was before.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from scipy.special import betainc

from pipeline.detection.concentration import Member, concentration, held_by_one_carrier, held_by_one_lot
from pipeline.detection.counts import StepTable
from pipeline.detection.entries import NOT_EXPOSURE, Row, UnitKey, gathered
from pipeline.detection.evidence import historic, opening, strongest
from pipeline.detection.exposure import Bools, Floats, Ints
from pipeline.detection.lifecycle import OpenSignal, OpenSignals
from pipeline.detection.rules import Rules, minimum_history
from pipeline.detection.scan import CALM, SHARE_OF_RAMPS, Scan, threshold
from pipeline.detection.tally import Tally
from pipeline.detection.units import Units
from schemas.identity import signal_id
from schemas.signal import Concentration, Signal
from schemas.vocabulary import OBJECTION_TYPES, Dimension, SignalKind, SubjectKind

DELIVERY = OBJECTION_TYPES.index("delivery")
TOLD_BY: dict[str, tuple[Dimension, ...]] = {"region": ("carrier",), "channel": ("carrier", "region")}
"""Kind of subject → kinds whose own spike tells an excess that they explain; never in both directions, or none would."""


ALL_BUT = 0.8
"""Share of a carrier's late deliveries of a product from which on they are one lot's, which is told then."""


class Cell(NamedTuple):
    """One series in one window of a scan."""

    row: int
    type_index: int
    window: int
    """Index into the scan's windows."""


def interval(mean: float, size: float) -> tuple[float, float]:
    """Central 95 % interval of a negative binomial count, by bisection on its distribution function."""
    if not mean > 0:
        return (0.0, 0.0)
    share = mean / (size + mean)

    def quantile(level: float) -> float:
        low, high = -1, 1
        while 1.0 - betainc(high + 1.0, size, share) < level:
            low, high = high, high * 2
        while high - low > 1:
            middle = (low + high) // 2
            if 1.0 - betainc(middle + 1.0, size, share) >= level:
                high = middle
            else:
                low = middle
        return float(high)

    return (quantile(0.025), quantile(0.975))


class Spikes:
    """Opens, updates and closes the spikes and ramps of one detector."""

    def __init__(self, units: Units, tally: Tally, signals: OpenSignals) -> None:
        self._units = units
        self._tally = tally
        self._signals = signals

    def slots(self) -> list[int]:
        """Slots of the units with an open spike or ramp."""
        return [self._units.index[unit] for unit, _ in self._signals.risen]

    def alarmed(self) -> Ints:
        """(m, 2): slot and type of each series with an open spike or ramp."""
        pairs = sorted((self._units.index[unit], type_index) for unit, type_index in self._signals.risen)
        return np.array(pairs, np.int64).reshape(-1, 2)

    def review(self, scan: Scan, rules: Rules, unheard: Mapping[UnitKey, bool]) -> list[Signal]:
        """Update and close open spikes. ``unheard``: units that no source could have spoken of in this step."""
        said = []
        rows = {int(slot): row for row, slot in enumerate(scan.slots)}
        for held in self._signals.rises():
            unit, type_index = held.series
            row = rows[self._units.index[unit]]
            window = int(np.argmin(np.abs(np.array(scan.windows[:-1]) - held.signal.window)))
            window = scan.ramp if held.signal.kind == "ramp" else window
            said += self._review_one(held, scan, Cell(row, type_index, window), rules, unheard.get(unit, False))
        return said

    def _review_one(self, held: OpenSignal, scan: Scan, cell: Cell, rules: Rules, unheard: bool) -> list[Signal]:
        fresh = int(scan.newest[cell.row, cell.type_index])
        held.voices += fresh
        at = (cell.window, cell.row, cell.type_index)
        tail = scan.tail(at)
        if unheard:
            return []
        held.calm = held.calm + 1 if tail > CALM else 0
        self._signals.dirty.add(held.signal.signal_id)
        if held.calm >= rules.policy.close_after:
            slot = int(scan.slots[cell.row])
            self._units.reset[slot, cell.type_index] = scan.step
            self._units.dirty.add(slot)
            signal = self._tell(held, scan, cell, rules, closing=True)
            self._signals.remove(signal.signal_id)
            return [signal]
        if held.grown():
            return [self._tell(held, scan, cell, rules, closing=False)]
        return []

    def hear(self, table: StepTable, start: int) -> None:
        """Add the voices of a past step (its start: ms UTC) to the open spikes whose last revision is older than it."""
        for held in self._signals.rises():
            unit, type_index = held.series
            row = table.rows.get(self._units.index[unit])
            if row is not None and held.signal.step_start < start:
                held.voices += int(table.fresh[row, type_index])

    def end(self, signal: Signal, step: int) -> None:
        """A spike closed in a past step: windows do not reach back to it."""
        unit, type_index = self._signals.by_id[signal.signal_id].series
        slot = self._units.index[unit]
        self._units.reset[slot, type_index] = step
        self._units.dirty.add(slot)
        self._signals.remove(signal.signal_id)

    def _tell(self, held: OpenSignal, scan: Scan, cell: Cell, rules: Rules, *, closing: bool) -> Signal:
        at = (cell.window, cell.row, cell.type_index)
        observed, mean = int(scan.every[at]), _number(scan.expected.mean[at])
        changes: dict[str, object] = {
            "step_start": rules.steps.start(scan.step),
            "observed": observed,
            "expected": mean,
            "interval": interval(mean, _number(scan.expected.size[at])),
            "exposure": float(scan.exposure[cell.window, cell.row]),
            "rate_ratio": observed / mean if mean > 0 else 0.0,
            "p_value": scan.p_value(at),
            "voices": held.voices,
        }
        if not closing:
            rows = self._rows(held.series[0], scan.step, scan.windows[cell.window])
            against = opening(rows, cell.type_index)
            changes["evidence"] = strongest(against, cell.type_index) or held.signal.evidence
            changes["severity"] = max((entry.severity for entry in against), default=held.signal.severity)
            changes["concentration"] = self._concentration(scan, cell, rows)
        return held.say("closed" if closing else "updated", **changes)

    def open(self, scan: Scan, rules: Rules, history: Ints) -> list[Signal]:
        """Open signals where the scan is rarer than the promise allows. ``history``: steps heard of each row's subject."""
        window, _, mid_p = scan.best()
        limit = threshold(rules.policy, rules.steps.length, rules.lots)
        may, spike = self._may_open(scan, rules, history), mid_p < limit
        rare = may & (spike | (scan.mid_p[scan.ramp] < SHARE_OF_RAMPS * limit))
        said = []
        for row, type_index in zip(*(axis.tolist() for axis in np.nonzero(rare)), strict=True):
            unit = self._unit(int(scan.slots[row]))
            series, sudden = (unit, type_index), bool(spike[row, type_index])
            if series not in self._signals.spikes and (sudden or series not in self._signals.ramps):
                at = int(window[row, type_index]) if sudden else scan.ramp
                said += self._open_one(unit, scan, Cell(row, type_index, at), limit, rules)
        return said

    def p_values(self, scan: Scan, rules: Rules, history: Ints) -> Floats:
        """(r, 7): of the scan, corrected for its windows; 1 where no spike may open now."""
        _, p_value, _ = scan.best()
        found: Floats = np.where(self._may_open(scan, rules, history), p_value, 1.0)
        return found

    def _may_open(self, scan: Scan, rules: Rules, history: Ints) -> Bools:
        """(r, 7): where a spike may open if the counts are rare: somebody objects now, and the product is no newcomer."""
        closed = self._units.reset[scan.slots] == scan.step  # just now, after the scan
        known = history >= minimum_history(rules.policy, self._units, scan.slots)
        may: Bools = ~closed & (scan.newest >= 1) & known[:, None]
        return may

    def _open_one(self, unit: UnitKey, scan: Scan, cell: Cell, limit: float, rules: Rules) -> list[Signal]:
        at = (cell.window, cell.row, cell.type_index)
        length, mean = scan.windows[cell.window], float(scan.expected.mean[at])
        rows = self._rows(unit, scan.step, length)
        verdict = self._concentration(scan, cell, rows)
        if self._explained_elsewhere(unit, scan, cell, rows, verdict):
            return []
        against = opening(rows, cell.type_index)
        observed, start = int(scan.voices[at]), rules.steps.start(scan.step)
        subject: SubjectKind = unit[0]  # type: ignore[assignment]
        kind: SignalKind = "ramp" if cell.window == scan.ramp else "spike"
        signal = Signal(
            signal_id=signal_id(kind, *unit, OBJECTION_TYPES[cell.type_index], start),
            revision=0,
            event="opened",
            kind=kind,
            tier="ticket",
            severity=max((entry.severity for entry in against), default=0),
            historic=historic(against, rules.policy.alerting_horizon_ms),
            subject_kind=subject,
            subject_id=unit[1],
            product_batch_id=unit[2],
            objection_type=OBJECTION_TYPES[cell.type_index],
            opened_step=start,
            step_start=start,
            observed=observed,
            expected=mean,
            interval=interval(mean, float(scan.expected.size[at])),
            exposure=float(scan.exposure[cell.window, cell.row]),
            exposure_kind="units" if self._units.by_units[scan.slots[cell.row]] else "mentions",
            rate_ratio=observed / mean,
            window=length,
            p_value=scan.p_opening(at),
            voices=observed,
            concentration=verdict,
            evidence=strongest(against, cell.type_index),
            opening_state=_opening_state(scan, cell, limit),
            versions=rules.versions,
        )
        self._signals.add(OpenSignal(signal, voices=observed))
        return [signal]

    def _explained_elsewhere(
        self, unit: UnitKey, scan: Scan, cell: Cell, rows: Sequence[Row], verdict: Concentration
    ) -> bool:
        """Whether the excess is another subject's: one lot's for a carrier, region or channel; a carrier's for a lot.

        A failing carrier makes every lot that it delivers look late, and every region and channel: its own spike tells it.
        Of `delivery` a lot is cleared where a carrier explains the excess of its own mentions best (unless it is late with
        that lot only, which keeps the carrier's own spike from opening), or that of the whole product while no lot does.
        """
        if unit[0] != "product":
            one_lot = held_by_one_lot(rows, cell.type_index, self._expected_of_held(rows, scan, cell))
            return one_lot or verdict.dimension in TOLD_BY.get(unit[0], ())
        if cell.type_index != DELIVERY:
            return False
        length = scan.windows[cell.window]
        subject = int(self._units.subject[scan.slots[cell.row]])
        members = self._units.members[subject]
        everyone = [row for member in members for row in self._rows(member, scan.step, length)]
        if verdict.dimension == "carrier":
            late = [
                row.product_batch_id for row in everyone if row.carrier == verdict.value and row.objects_to(DELIVERY)
            ]
            return late.count(unit[2]) < ALL_BUT * len(late)
        siblings, said = self._siblings(scan, cell), scan.family(subject).mentions[cell.window].sum()
        expected = sum(member.expected for member in siblings) * _share_held(everyone, said)
        return held_by_one_carrier(everyone, DELIVERY, expected, siblings)

    def _unit(self, slot: int) -> UnitKey:
        kind, subject_id, lot = self._units.slots.keys[slot] or ("", "", "")
        return kind, subject_id, lot

    def _rows(self, unit: UnitKey, step: int, length: int) -> list[Row]:
        """The unit's live rows in a window, as far as they are still held."""
        held = (self._tally.steps.get(index) for index in range(step - length + 1, step + 1))
        return gathered(row for open_step in held if open_step is not None for row in open_step.rows(unit))

    def _concentration(self, scan: Scan, cell: Cell, rows: Sequence[Row]) -> Concentration:
        unit = self._unit(int(scan.slots[cell.row]))
        expected = self._expected_of_held(rows, scan, cell)
        siblings = self._siblings(scan, cell) if unit[0] == "product" else []
        return concentration(rows, cell.type_index, expected, unit[2], siblings, {unit[0]: True})

    @staticmethod
    def _expected_of_held(rows: Sequence[Row], scan: Scan, cell: Cell) -> float:
        """Voices expected of those steps of the window whose rows are still held, by their share of its mentions."""
        mean = _number(scan.expected.mean[cell.window, cell.row, cell.type_index])
        return mean * _share_held(rows, float(scan.mentions[cell.window, cell.row]))

    def _siblings(self, scan: Scan, cell: Cell) -> list[Member]:
        """The product's lots in the same window, those measured like this one, in the order of their names."""
        units, slot = self._units, scan.slots[cell.row]
        family = scan.family(int(units.subject[slot]))
        rows = np.flatnonzero(units.by_units[family.slots] == units.by_units[slot])
        voices = family.voices[cell.window, rows, cell.type_index]
        exposure = family.exposure[cell.window, rows] * family.windows[cell.window]
        if not units.by_units[slot]:
            exposure = np.maximum(exposure - voices, 0.0) + 0.5
        expected = family.expected.mean[cell.window, rows, cell.type_index]
        if cell.window == scan.ramp:  # a young lot has no past to hold its voices against
            expected = np.where(
                np.isnan(expected), family.expected.mean[cell.window - 1, rows, cell.type_index], expected
            )
        expected = np.nan_to_num(expected)
        lots = [self._unit(int(family.slots[row]))[2] for row in rows]
        facts = zip(lots, voices.tolist(), expected.tolist(), exposure.tolist(), strict=True)
        return sorted(Member(*fact) for fact in facts)


def _share_held(rows: Iterable[Row], mentions: float) -> float:
    """How much of a window's mentions the rows are that are still held: a long window reaches into final steps."""
    held = sum(row.count for row in rows if not row.flags & NOT_EXPOSURE)
    return min(1.0, held / mentions) if mentions > 0 else 1.0


def _number(value: float) -> float:
    return 0.0 if np.isnan(value) else float(value)


def _opening_state(scan: Scan, cell: Cell, limit: float) -> str:
    """JSON of what the decision was made from, a few hundred bytes."""
    row, type_index = cell.row, cell.type_index
    state = {
        "windows": list(scan.windows),
        "voices": scan.voices[:, row, type_index].tolist(),
        "mentions": scan.mentions[:, row].tolist(),
        "exposure": [round(float(value), 6) for value in scan.exposure[:, row]],
        "mean": scan.expected.mean[:, row, type_index].tolist(),
        "size": scan.expected.size[:, row, type_index].tolist(),
        "p_values": scan.p_values[:, row, type_index].tolist(),
        "gamma_events": float(scan.rates.events[row, type_index]),
        "gamma_exposure": float(scan.rates.exposure[row, type_index]),
        "dispersion": float(scan.rates.dispersion[row, type_index]),
        "threshold": limit,
    }
    return msgspec.json.encode(state).decode()  # what is not known is null: NaN is no JSON
