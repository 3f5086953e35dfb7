"""The life of signals: opened once, updated when they matter more, closed when it has been calm.

While a signal on a series is open no second spike opens on it, so a long spike neither repeats nor falls silent.
"""

from collections.abc import Iterator

import msgspec

from pipeline.detection.entries import TYPE_INDEX, UnitKey
from schemas.signal import Signal
from schemas.vocabulary import SignalEvent, SignalKind

GROWTH = 1.5
"""A signal is told again when its voices have grown by this factor since it was last told (or its tier changed)."""

SeriesKey = tuple[UnitKey, int]
RISES: frozenset[SignalKind] = frozenset({"spike", "ramp"})
"""Kinds of signals of a rate that has risen."""


class OpenSignal(msgspec.Struct, array_like=True):
    """A signal that is not closed: what was last said of it, and what has happened since."""

    signal: Signal
    voices: int
    """Distinct voices since it opened (each step's apart)."""
    calm: int = 0
    """Calm steps in a row."""
    settled: bool = False
    """Severe: whether a step close has confirmed it; until then it was said at once, of one voice."""
    last_event: int = 0
    """Severe: event time of its latest entry, ms UTC."""

    @property
    def series(self) -> SeriesKey:
        """Unit and type it is about."""
        signal = self.signal
        unit = (signal.subject_kind, signal.subject_id, signal.product_batch_id)
        return unit, TYPE_INDEX[signal.objection_type]

    def grown(self) -> bool:
        """Whether the voices have grown enough to be told again."""
        return self.voices >= GROWTH * self.signal.voices

    def say(self, event: SignalEvent, **changes: object) -> Signal:
        """The next revision; it becomes what was last said."""
        signal = self.signal
        self.signal = msgspec.structs.replace(signal, revision=signal.revision + 1, event=event, **changes)
        return self.signal


class OpenSignals:
    """The open signals of one detector, by id and by series."""

    def __init__(self) -> None:
        self.by_id: dict[str, OpenSignal] = {}
        self.spikes: dict[SeriesKey, str] = {}
        self.ramps: dict[SeriesKey, str] = {}
        self.severe: dict[SeriesKey, list[str]] = {}
        self.dirty: set[str] = set()

    def __len__(self) -> int:
        return len(self.by_id)

    def add(self, held: OpenSignal) -> None:
        """Keep a signal that has just opened (or was restored)."""
        signal = held.signal
        self.by_id[signal.signal_id] = held
        self.dirty.add(signal.signal_id)
        if signal.kind in RISES:
            self._rises(signal.kind)[held.series] = signal.signal_id
        else:
            ids = self.severe.setdefault(held.series, [])
            ids.append(signal.signal_id)
            ids.sort()

    def remove(self, signal_id: str) -> None:
        """Forget a signal that has closed."""
        held = self.by_id.pop(signal_id)
        self.dirty.add(signal_id)
        if held.signal.kind in RISES:
            del self._rises(held.signal.kind)[held.series]
            return
        self.severe[held.series].remove(signal_id)
        if not self.severe[held.series]:
            del self.severe[held.series]

    def _rises(self, kind: SignalKind) -> dict[SeriesKey, str]:
        return self.ramps if kind == "ramp" else self.spikes

    @property
    def risen(self) -> set[SeriesKey]:
        """Series with an open spike or ramp."""
        return self.spikes.keys() | self.ramps.keys()

    def rises(self) -> Iterator[OpenSignal]:
        """The open spikes and ramps, in the order of their ids (a copy: they may close meanwhile)."""
        return self._of_kinds(*RISES)

    def severities(self) -> Iterator[OpenSignal]:
        """The open severe signals, likewise."""
        return self._of_kinds("severe")

    def _of_kinds(self, *kinds: str) -> Iterator[OpenSignal]:
        for signal_id in sorted(self.by_id):
            held = self.by_id[signal_id]
            if held.signal.kind in kinds:
                yield held
