"""``complaint-radar exporter``: live signals, what was heard of the sources, and how far the stages are, as metrics.

One process at a time. It reads ``signals.v1`` from its beginning, and ``sources.v1``, without a group. Until the signals are
read to their end /metrics answers 503: an answer that lacks a signal would say that it is over. While the brokers are away
it goes on telling what it knows, and says that it may be old.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from typing import Any, NamedTuple

import msgspec

from pipeline import metrics
from pipeline.errors import ConfigurationError, TerminalError, TransientError
from pipeline.metrics import Reading
from pipeline.runtime import kafka, kafka_admin
from pipeline.runtime.health import Health, supervised
from pipeline.runtime.kafka import Names
from pipeline.runtime.process import PATIENCE_SECONDS, brokers_of
from pipeline.runtime.stage import record_version
from pipeline.settings import KafkaSettings, Settings
from schemas.codec import TOPICS, NewerVersion, decode
from schemas.control import ControlRecord, Gap, Idle, Retired, Watermark
from schemas.signal import Signal

SIGNALS = "signals.v1"
SOURCES = "sources.v1"
STAGES = ("score", "detect", "store")
SIGNAL_CAP = 2000
"""Open signals that are told at most; severe ones are told in any case."""
ZERO_SECONDS = 900.0
"""How long 0 is told after a close: longer than any rule looks back, and than a short absence of Prometheus."""
OLD_SECONDS = 30.0
"""After so long without having been found at the end, what is told may be old."""
LAG_SECONDS = 15.0
"""How often the stages are looked at."""
SOURCE_RECORDS = 500_000
"""Records of ``sources.v1`` that are read at most when the exporter starts, half a minute: heartbeats of a month for one source, of
half a day for a hundred. What was heard last before that is not known."""
LABEL_CHARACTERS = 200
"""Cut of a label's value: a product's name comes from outside."""
_LOOK_SECONDS = 5.0
_POLL_MS = 200
_PAUSE_SECONDS = 1.0

_log = logging.getLogger(__name__)


class Shown(NamedTuple):
    """What is kept of an open signal."""

    labels: tuple[str, ...]
    """As ``metrics.SIGNAL`` names them."""
    severe: bool
    """Told however many are open."""
    opened: int
    """ms UTC."""
    severity: int
    voices: int
    expected: float


def _shown(signal: Signal) -> Shown:
    labels = tuple(str(getattr(signal, name))[:LABEL_CHARACTERS] for name in metrics.SIGNAL.labels)
    severe = signal.tier == "page" or signal.kind == "severe"
    return Shown(labels, severe, signal.opened_step, signal.severity, signal.voices, signal.expected)


class LiveSignals:
    """Which signals are open, and which were until lately. The last record of a signal holds. Times are seconds UTC."""

    def __init__(self, cap: int = SIGNAL_CAP) -> None:
        self._cap = cap
        self._open: dict[str, Shown] = {}
        self._zeros: dict[tuple[str, ...], float] = {}

    def take(self, signal: Signal, written: float, now: float) -> None:
        """Take in a revision.

        Args:
            signal: it.
            written: when it was written on its topic; for how long 0 is told counts from then.
            now: the time.
        """
        before = self._open.pop(signal.signal_id, None)
        after = _shown(signal)
        is_open = signal.event != "closed" and not signal.historic
        if is_open:
            self._open[signal.signal_id] = after
            self._zeros.pop(after.labels, None)
        if before is not None and (not is_open or before.labels != after.labels):
            self._end(before.labels, written, now)
        elif not is_open and not signal.historic:  # its opening is no longer on the topic, but may have been told
            self._end(after.labels, written, now)

    def drop(self, signal_id: str, written: float, now: float) -> None:
        """The signal was deleted from its topic: it is over."""
        before = self._open.pop(signal_id, None)
        if before is not None:
            self._end(before.labels, written, now)

    def trim(self) -> int:
        """Let go of what is above the cap, the oldest first; gives their number. Only once all signals are read.

        One that is let go comes back with its next revision, if there is room then.
        """
        over = len(self._open) - self._cap
        if over <= 0:
            return 0
        oldest = sorted((one.opened, name) for name, one in self._open.items() if not one.severe)[:over]
        for _, name in oldest:
            del self._open[name]
        return len(oldest)

    def readings(self, now: float) -> Iterator[Reading]:
        """The series as they stand now."""
        self._zeros = {labels: until for labels, until in self._zeros.items() if until > now}
        for labels in self._zeros:
            yield Reading(metrics.SIGNAL, labels, 0)
        for one in self._open.values():
            name = one.labels[:1]
            yield Reading(metrics.SIGNAL, one.labels, 1)
            yield Reading(metrics.SIGNAL_VOICES, name, one.voices)
            yield Reading(metrics.SIGNAL_EXPECTED, name, one.expected)
            yield Reading(metrics.SIGNAL_SEVERITY, name, one.severity)
            yield Reading(metrics.SIGNAL_OPENED, name, one.opened / 1000)

    def _end(self, labels: tuple[str, ...], written: float, now: float) -> None:
        until = min(written, now) + ZERO_SECONDS  # the writer's clock may be ahead
        if until > now:
            self._zeros[labels] = until


class HeardSources:
    """When each source was last spoken of, and which of them have a gap without an end."""

    def __init__(self) -> None:
        self._heard: dict[str, float] = {}
        self._gaps: dict[str, set[int]] = {}

    def take(self, message: ControlRecord, written: float) -> None:
        """Take in a record. ``written``: when it was written on its topic, seconds UTC."""
        if isinstance(message, Retired):
            self._heard.pop(message.source_id, None)
            self._gaps.pop(message.source_id, None)
        elif isinstance(message, Idle | Watermark | Gap) and message.source_id:
            self._heard[message.source_id] = written
            gaps = self._gaps.setdefault(message.source_id, set())
            if isinstance(message, Gap):
                (gaps.add if message.end is None else gaps.discard)(message.start)

    def readings(self) -> Iterator[Reading]:
        """The series as they stand now."""
        for source, heard in self._heard.items():
            yield Reading(metrics.SOURCE_HEARD, (source,), heard)
            yield Reading(metrics.SOURCE_GAP, (source,), float(bool(self._gaps[source])))


class StageState(NamedTuple):
    """How far a stage is."""

    running: bool
    """Somebody is in its group."""
    behind: int | None
    """Offsets not committed yet; None: it never committed any."""
    seconds: float | None
    """Age of the oldest record not committed yet."""


class View:
    """What is told at a scrape. Written by the threads that read, and read by those of the admin port."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        """Whoever changes the signals or sources holds it."""
        self.signals: LiveSignals | None = None
        """None until they are read."""
        self.sources: HeardSources | None = None
        self.stages: Mapping[str, StageState] = {}
        self.caught_up = 0.0
        """When the signals were last found read to their end, seconds UTC."""
        self.not_exported = 0
        self._unreadable = Counter[str]({SIGNALS: 0, SOURCES: 0})
        self._furthest: dict[Any, int] = {}

    def unreadable(self, topic: str, record: Any) -> None:
        """Count a record, once: what is read again after a lost connection is no news."""
        place = (record.topic, record.partition)
        if record.offset > self._furthest.get(place, -1):
            self._furthest[place] = record.offset
            self._unreadable[topic] += 1
            _log.error("%s-%d-%d cannot be read; passed over", record.topic, record.partition, record.offset)

    def readings(self) -> list[Reading]:
        """All series, of one moment."""
        now = time.time()
        with self.lock:
            told = [
                Reading(metrics.EXPORTER_UP_TO_DATE, (), float(now - self.caught_up < OLD_SECONDS)),
                Reading(metrics.SIGNALS_NOT_EXPORTED, (), self.not_exported),
                *(Reading(metrics.EXPORTER_UNREADABLE, (topic,), n) for topic, n in self._unreadable.items()),
                *(self.signals.readings(now) if self.signals else ()),
                *(self.sources.readings() if self.sources else ()),
            ]
        return [*told, *_stage_readings(self.stages)]


def _stage_readings(stages: Mapping[str, StageState]) -> Iterator[Reading]:
    for stage, state in stages.items():
        yield Reading(metrics.STAGE_RUNNING, (stage,), float(state.running))
        if state.behind is not None:
            yield Reading(metrics.LAG_RECORDS, (stage,), state.behind)
        if state.seconds is not None:
            yield Reading(metrics.LAG_SECONDS, (stage,), state.seconds)


class Follower:
    """Reads the two topics from their beginning and goes on reading. Begin with a new one after a ``TransientError``.

    What it reads is told when it is complete, the signals before the sources; until then the view keeps what it had.

    Raises:
        ConfigurationError: a topic is missing, or the brokers refuse us.
        TransientError: they are not there.
    """

    def __init__(self, settings: KafkaSettings, view: View) -> None:
        names = Names(settings)
        self._topics = {names.topic(topic): topic for topic in (SIGNALS, SOURCES)}
        self._view = view
        self._signals = LiveSignals()
        self._sources = HeardSources()
        self._ends: dict[Any, int] = {}
        self._looked = 0.0
        self._seen = 0.0
        self._away = False
        self._reader = kafka.consumer(settings, "exporter", max_poll_records=2000)
        try:
            with kafka.errors("looking at the topics"):
                self._expected = sum(len(kafka.partitions_of(self._reader, topic)) for topic in self._topics)
                # Without a group, whoever subscribes has all partitions.
                self._reader.subscribe(list(self._topics))
        except BaseException:
            self._reader.close()
            raise

    def close(self) -> None:
        """Let go of the brokers."""
        self._reader.close()

    def run(self, stop: threading.Event, health: Health) -> None:
        """Follow until ``stop`` is set.

        Raises:
            TransientError: the brokers are away in a way that the client does not mend by itself.
            TerminalError: a newer version of this system writes the topics.
        """
        with kafka.errors("reading signals"):
            while not stop.is_set():
                health.turned()
                for tp, records in self._reader.poll(timeout_ms=_POLL_MS).items():
                    self._take(self._topics[tp.topic], records)
                self._look()
                if self._reached(SIGNALS):
                    self._tell_signals()
                    health.complete = health.ready = True
                if self._view.signals is self._signals and self._reached(SOURCES):
                    self._view.sources = self._sources

    def _take(self, topic: str, records: Collection[Any]) -> None:
        now = time.time()
        with self._view.lock:
            for record in records:
                self._take_one(topic, record, now)

    def _take_one(self, topic: str, record: Any, now: float) -> None:
        written = record.timestamp / 1000
        if record.value is None:
            if topic == SIGNALS:
                self._signals.drop((record.key or b"").decode(errors="replace"), written, now)
            return
        try:
            message = decode(record.value, TOPICS[topic], record_version(record.headers))
        except NewerVersion as error:
            where = f"{record.topic}-{record.partition}-{record.offset}"
            raise TerminalError(f"{where}: {error}; bring this exporter to the version that writes") from None
        except (msgspec.DecodeError, ValueError):
            self._view.unreadable(topic, record)
            return
        if topic == SIGNALS:
            self._signals.take(message, written, now)
        else:
            self._sources.take(message, written)

    def _tell_signals(self) -> None:
        if self._view.signals is not self._signals:
            self._looked = 0.0  # now for the sources
        with self._view.lock:
            self._view.signals = self._signals
            self._view.not_exported += self._signals.trim()
            self._view.caught_up = self._seen

    def _look(self) -> None:
        """Ask for the ends of the topics now and then: the client is silent about brokers that are away."""
        held = self._reader.assignment()
        if time.monotonic() - self._looked < (_LOOK_SECONDS if self._ends else 0) or len(held) < self._expected:
            return
        self._looked = time.monotonic()
        try:
            with kafka.errors("looking at the ends of topics"):
                ends = self._reader.end_offsets(list(held), timeout_ms=5000)
        except TransientError as error:
            if not self._away:
                _log.warning("%s; what is told may be old", error)
            self._away = True
            return
        if self._away:
            _log.info("the brokers are back")
        self._away = False
        self._seen = time.time()
        if not self._ends:
            self._postpone_sources(ends)
        elif self._view.signals is self._signals:
            self._reader.resume(*held)
        self._ends = ends

    def _postpone_sources(self, ends: Mapping[Any, int]) -> None:
        """People wait for signals: only when these are read, the sources are, and not from further back than is of use."""
        for tp, end in ends.items():
            if self._topics[tp.topic] == SOURCES:
                self._reader.pause(tp)
                self._reader.seek(tp, max(0, end - SOURCE_RECORDS))

    def _reached(self, topic: str) -> bool:
        """Whether the topic is read to where it last was seen to end."""
        ends = {tp: end for tp, end in self._ends.items() if self._topics[tp.topic] == topic}
        return bool(ends) and all((self._reader.position(tp, timeout_ms=1000) or 0) >= end for tp, end in ends.items())


class StageWatch:
    """Looks at the stages' consumer groups now and then."""

    def __init__(self, settings: KafkaSettings, view: View) -> None:
        self._settings = settings
        self._view = view
        names = Names(settings)
        self._groups = {names.group(stage): stage for stage in STAGES}
        self._inputs = {
            group: [names.topic(name) for name, spec in kafka.topic_specs().items() if stage in spec.consumers]
            for group, stage in self._groups.items()
        }

    def run(self, stop: threading.Event) -> None:
        """Look until ``stop`` is set. What cannot be looked at is not told; signals do not depend on it."""
        while not stop.is_set():
            try:
                with (
                    kafka_admin.admin(self._settings) as client,
                    closing(kafka.consumer(self._settings, "exporter-lag", max_poll_records=500)) as reader,
                ):
                    while not stop.wait(0 if not self._view.stages else LAG_SECONDS):
                        self._view.stages = self.look(client, reader)
            except Exception as error:
                # Whatever it was: a thread that ended would leave the last figures to stand for ever.
                self._view.stages = {}
                _log.warning("the stages cannot be looked at: %s", error)
                stop.wait(LAG_SECONDS)

    def look(self, client: Any, reader: Any) -> dict[str, StageState]:
        """The stages as they are now.

        Args:
            client: an admin client.
            reader: a consumer without a group or an assignment.
        """
        states = kafka_admin.group_states(client, self._inputs)
        offsets = client.list_group_offsets(list(states)) if states else {}
        found = dict.fromkeys(STAGES, StageState(running=False, behind=None, seconds=None))
        for group, state in states.items():
            positions = _positions(reader, {tp: at.offset for tp, at in offsets[group].items()})
            written = _oldest(reader, positions) if state.behind else None
            age = max(0.0, time.time() - written / 1000) if written is not None else 0.0
            committed = bool(positions)
            found[self._groups[group]] = StageState(
                running=state.members, behind=state.behind if committed else None, seconds=age if committed else None
            )
        return found


def _positions(reader: Any, committed: Mapping[Any, int]) -> dict[Any, int]:
    """Where a group stands in all partitions of the topics it reads: at the beginning of those it never committed."""
    some = {tp.topic: tp for tp in committed}
    return {
        tp: max(committed.get(tp, 0), 0)
        for topic, one in some.items()
        for number in reader.partitions_for_topic(topic) or ()
        for tp in [one._replace(partition=number)]
    }


def _oldest(reader: Any, positions: Mapping[Any, int], patience: float = 5.0) -> int | None:
    """When the oldest committed record at or after the positions was written, ms UTC; None if there is none.

    The record itself is fetched: by offsets alone the mark at a transaction's end looks like a record.
    """
    ends = reader.end_offsets(list(positions))
    waiting = {tp for tp, offset in positions.items() if offset < ends[tp]}
    oldest: int | None = None
    reader.assign(list(waiting))
    for tp in waiting:
        reader.seek(tp, positions[tp])
    until = time.monotonic() + patience
    while waiting and time.monotonic() < until:
        for tp, records in reader.poll(timeout_ms=_POLL_MS).items():
            waiting.discard(tp)
            reader.pause(tp)
            oldest = min(records[0].timestamp, oldest or records[0].timestamp)
        waiting = {tp for tp in waiting if (reader.position(tp, timeout_ms=1000) or 0) < ends[tp]}
    reader.unsubscribe()
    return oldest


def export(settings: Settings, stop: threading.Event) -> None:
    """Serve the metrics of live signals until ``stop`` is set.

    Raises:
        ConfigurationError: the brokers refuse us, or a topic has been missing for a minute.
        TerminalError: a newer version of this system writes the topics.
    """
    brokers = brokers_of(settings)
    view, ended = View(), threading.Event()
    metrics.LIVE.read = view.readings
    watch = threading.Thread(target=StageWatch(brokers, view).run, args=(ended,), name="stages", daemon=True)
    try:
        with supervised(settings, complete=False) as health:
            watch.start()
            _follow(brokers, view, stop, health)
    finally:
        ended.set()
        metrics.LIVE.read = None
        watch.join(2)


def _follow(settings: KafkaSettings, view: View, stop: threading.Event, health: Health) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not stop.is_set():
        try:
            with closing(Follower(settings, view)) as follower:
                follower.run(stop, health)
        except ConfigurationError as error:
            # At the start of a whole system not everything is there at once.
            if health.complete or time.monotonic() > until:
                raise
            _log.info("waiting: %s", error)
        except TransientError as error:
            _log.warning("%s; tried again", error)
        health.turned()
        stop.wait(_PAUSE_SECONDS)
