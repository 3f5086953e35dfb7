"""The severity path: harm to one customer, or danger told by two, opens a signal without any rise in volume.

Only primary rows of the customers' own accord count. Harm (severity 4) is said at once; what is said then is one voice
and its words, so that it does not depend on how rows were cut into blocks, and the step close that follows corrects it
from all it knows. Two voices of danger (severity 3) are decided at a step close. One event day of one (product, lot,
type) is one signal. It closes when nothing grave was said for `severity_pair_ms` (or the allowed lateness, if longer).
"""

from collections.abc import Iterable, Mapping

import msgspec

from pipeline.detection.entries import HARM, Entry, UnitKey
from pipeline.detection.evidence import historic, strongest
from pipeline.detection.lifecycle import OpenSignal, OpenSignals, SeriesKey
from pipeline.detection.rules import Rules
from pipeline.detection.tally import Tally
from pipeline.detection.voices import said_by, voices
from schemas.identity import signal_id
from schemas.policy import DAY_MS, DetectionPolicy
from schemas.signal import Concentration, Signal
from schemas.vocabulary import OBJECTION_TYPES, SignalEvent

REMEMBERED = 64
"""Grave entries kept of a unit after their step is final, the latest of them."""


def _order(entry: Entry) -> tuple[int, str]:
    return (entry.event_time, entry.mention_id)


def series_of(entry: Entry) -> SeriesKey:
    """What a grave entry is about: its unit (product and lot) and its first negative objection."""
    return ("product", entry.subject_id, entry.product_batch_id), entry.severe_type


class Memory:
    """Grave entries of final steps, by unit, as long as a pair could still be made with them."""

    def __init__(self) -> None:
        self.entries: dict[UnitKey, list[Entry]] = {}
        self.dirty: set[UnitKey] = set()

    def keep(self, grave: Iterable[Entry]) -> None:
        """Keep the entries of a step that became final."""
        for entry in grave:
            if not entry.dead:
                unit = series_of(entry)[0]
                kept = sorted([*self.entries.get(unit, ()), entry], key=_order)
                self.entries[unit] = kept[-REMEMBERED:]
                self.dirty.add(unit)

    def forget(self, before: int) -> None:
        """Drop what happened before (ms UTC)."""
        for unit in [unit for unit, kept in self.entries.items() if kept[0].event_time < before]:
            kept = [entry for entry in self.entries[unit] if entry.event_time >= before]
            if kept:
                self.entries[unit] = kept
            else:
                del self.entries[unit]
            self.dirty.add(unit)


class SeverityPath:
    """Opens, updates and closes the severe signals of one detector."""

    def __init__(self, tally: Tally, signals: OpenSignals, memory: Memory) -> None:
        self._tally = tally
        self._signals = signals
        self._memory = memory
        self._reviewed: dict[SeriesKey, list[Entry]] = {}

    def at_once(self, grave: Iterable[Entry], rules: Rules) -> list[Signal]:
        """Open a signal for harm that no open signal speaks of; of several entries in a block the earliest opens it."""
        opened = []
        for entry in sorted((e for e in grave if e.severity >= HARM and not e.dead), key=_order):
            held = self._open(entry, entry.severe_type, rules)
            if held is not None:
                opened.append(held.signal)
        return opened

    def _open(self, opener: Entry, type_index: int, rules: Rules) -> OpenSignal | None:
        steps = rules.steps
        unit = ("product", opener.subject_id, opener.product_batch_id)
        day = steps.days.start(steps.days.index(opener.event_time))
        identity = signal_id("severe", *unit, OBJECTION_TYPES[type_index], day)
        if identity in self._signals.by_id:
            return None
        signal = Signal(
            signal_id=identity,
            revision=0,
            event="opened",
            kind="severe",
            tier="page",
            severity=opener.severity,
            historic=historic([opener], rules.policy.alerting_horizon_ms),
            subject_kind="product",
            subject_id=opener.subject_id,
            product_batch_id=opener.product_batch_id,
            objection_type=OBJECTION_TYPES[type_index],
            opened_step=day,
            step_start=steps.start(steps.index(opener.event_time)),
            observed=1,
            expected=0.0,
            interval=(0.0, 0.0),
            exposure=0.0,
            exposure_kind="mentions",
            rate_ratio=0.0,
            window=1,
            p_value=None,
            voices=1,
            concentration=Concentration("none", "", []),
            evidence=strongest([opener], type_index),
            opening_state="{}",
            versions=rules.versions,
        )
        held = OpenSignal(signal, voices=1, last_event=opener.event_time)
        self._signals.add(held)
        return held

    def settle(self, step: int, revised: Iterable[int], rules: Rules) -> list[Signal]:
        """A step has closed: confirm, update and close severe signals, and open those of pairs.

        Args:
            step: the step that closed.
            revised: earlier steps whose entries changed since the last close.
            rules: in force.
        """
        touched = [entry for index in (*revised, step) for entry in self._severe_of(index) if not entry.dead]
        if not touched and not self._signals.severe:
            return []
        known = self._known(step)
        about = {series: self._about(series, known) for series in self._signals.severe}
        due = rules.steps.end(step) - _quiet_ms(rules.policy)
        said = []
        for held in self._signals.severities():
            # Of hundreds of open signals few have news: a review of the same entries would say nothing again.
            known_as_before = held.settled and self._reviewed.get(held.series) == about[held.series]
            if not known_as_before or held.last_event <= due:
                said += self._review(held, about[held.series], step, rules)
        self._reviewed = about
        for series in sorted({series_of(entry) for entry in touched}):
            opened = self._pair(series, self._about(series, known), touched, rules)
            if opened:  # what was reviewed was another signal of the series
                self._reviewed.pop(series, None)
            said += opened
        return said

    def finish(self, step: int, rules: Rules) -> None:
        """The step is final: remember its grave entries for pairs that are yet to come, forget what is too old."""
        self._memory.keep(self._severe_of(step))
        self._memory.forget(rules.steps.end(step) - 2 * _quiet_ms(rules.policy) - DAY_MS)

    def _severe_of(self, step: int) -> list[Entry]:
        open_step = self._tally.steps.get(step)
        return open_step.severe if open_step is not None else []

    def _known(self, step: int) -> Mapping[SeriesKey, list[Entry]]:
        """Grave entries of the closed steps that are not final, by series."""
        known: dict[SeriesKey, list[Entry]] = {}
        for index, open_step in self._tally.steps.items():
            for entry in open_step.severe if index <= step else ():
                if not entry.dead:
                    known.setdefault(series_of(entry), []).append(entry)
        return known

    def _about(self, series: SeriesKey, known: Mapping[SeriesKey, list[Entry]]) -> list[Entry]:
        """The same with what is remembered, in the order of events."""
        remembered = [entry for entry in self._memory.entries.get(series[0], ()) if entry.severe_type == series[1]]
        return sorted((*remembered, *known.get(series, ())), key=_order)

    def _review(self, held: OpenSignal, known: list[Entry], step: int, rules: Rules) -> list[Signal]:
        """What a step close has to say of one open severe signal: nothing, or one revision."""
        steps, quiet = rules.steps, _quiet_ms(rules.policy)
        day = held.signal.opened_step
        day_end = steps.days.end(steps.days.index(day))
        of_day = [entry for entry in known if day <= entry.event_time < day_end]
        about = [entry for entry in known if day - rules.policy.severity_pair_ms <= entry.event_time]
        start = steps.start(step)
        if not held.settled and not any(entry.severity >= HARM for entry in of_day):
            return [] if self._still_said(held, day, day_end) else [self._take_back(held, start)]
        if not about and steps.end(step) - held.last_event < quiet:
            return [self._take_back(held, start)]  # all of it was taken back
        first, held.settled = not held.settled, True
        if about:
            held.voices = voices(said_by(about))
            held.last_event = max(held.last_event, about[-1].event_time)
        self._signals.dirty.add(held.signal.signal_id)
        if steps.end(step) - held.last_event >= quiet:
            return [self._close(held, start, said_voices=held.voices)]
        severity = max((entry.severity for entry in of_day), default=held.signal.severity)
        said_otherwise = first and [entry.mention_id for entry in about] != [
            one.mention_id for one in held.signal.evidence
        ]
        if said_otherwise or held.grown() or severity > held.signal.severity:
            return [self._say(held, "updated", about, severity, start, rules.policy)]
        return []

    def _still_said(self, held: OpenSignal, day: int, day_end: int) -> bool:
        """Whether harm of the signal's day stands in a step that is open yet."""
        return any(
            not entry.dead
            and entry.severity >= HARM
            and day <= entry.event_time < day_end
            and series_of(entry) == held.series
            for open_step in self._tally.steps.values()
            for entry in open_step.severe
        )

    def _say(
        self,
        held: OpenSignal,
        event: SignalEvent,
        about: list[Entry],
        severity: int,
        start: int,
        policy: DetectionPolicy,
    ) -> Signal:
        gravest = [
            entry for entry in about if entry.severity == severity and entry.event_time >= held.signal.opened_step
        ]
        return held.say(
            event,
            severity=severity,
            historic=historic(gravest, policy.alerting_horizon_ms) if gravest else held.signal.historic,
            observed=held.voices,
            voices=held.voices,
            step_start=start,
            evidence=strongest(about, held.series[1]),
        )

    def _take_back(self, held: OpenSignal, start: int) -> Signal:
        """Close a signal of which nothing stands any more, in words that do not depend on which row had come first."""
        signal = held.say("closed", step_start=start, observed=0, voices=0, evidence=[], historic=False)
        self._signals.remove(signal.signal_id)
        return signal

    def _close(self, held: OpenSignal, start: int, *, said_voices: int) -> Signal:
        signal = held.say("closed", step_start=start, observed=said_voices, voices=said_voices)
        self._signals.remove(signal.signal_id)
        return signal

    def _pair(self, series: SeriesKey, known: list[Entry], touched: list[Entry], rules: Rules) -> list[Signal]:
        """Open a signal for two distinct voices of danger, one of them new, if no confirmed signal speaks of them."""
        unit, type_index = series
        if not unit[1] or any(self._signals.by_id[i].settled for i in self._signals.severe.get(series, ())):
            return []
        new = sorted((entry for entry in touched if series_of(entry) == series), key=_order)
        for opener in new:
            since = opener.event_time - rules.policy.severity_pair_ms
            together = [entry for entry in known if since <= entry.event_time and _order(entry) <= _order(opener)]
            heard = voices(said_by(together))
            if heard < 2:
                continue
            held = self._open(opener, type_index, rules)
            if held is None:
                return []
            held.settled, held.voices = True, heard
            severity = max(entry.severity for entry in together if entry.event_time >= held.signal.opened_step)
            first = self._say(held, "opened", together, severity, held.signal.step_start, rules.policy)
            held.signal = msgspec.structs.replace(first, revision=0)
            return [held.signal]
        return []


def _quiet_ms(policy: DetectionPolicy) -> int:
    return max(policy.severity_pair_ms, policy.allowed_lateness_ms)
