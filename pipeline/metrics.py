"""Every metric of the system, once: name, help text, labels. The only file that knows prometheus-client.

Base units, and no label whose values grow without bound.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

REGISTRY = CollectorRegistry()
_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LONG_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 21600.0, 86400.0)

MENTIONS = Counter("radar_mentions", "Mentions taken in.", ["source"], registry=REGISTRY)
DEAD_LETTERS = Counter("radar_dead_letters", "Records refused, by reason.", ["source", "reason"], registry=REGISTRY)
BACKFILL = Counter(
    "radar_backfill_mentions", "Mentions that came later than their source had promised.", ["source"], registry=REGISTRY
)
TOO_LATE = Counter(
    "radar_too_late_rows",
    "Rows (a mention has one a subject) whose step was final: stored, not counted.",
    registry=REGISTRY,
)
SIGNALS = Counter("radar_signals", "Signal revisions raised.", ["kind", "event", "historic"], registry=REGISTRY)
STEP_COUNTS = Counter("radar_step_counts", "Step count revisions published.", registry=REGISTRY)
WATERMARK = Gauge(
    "radar_watermark_timestamp_seconds",
    "Event time up to which every source has promised to be complete.",
    ["stage"],
    registry=REGISTRY,
)
COMMITTED = Gauge(
    "radar_last_commit_timestamp_seconds", "When the last block was committed.", ["stage"], registry=REGISTRY
)
STAGE_SECONDS = Histogram(
    "radar_block_seconds", "Time a block spends in a stage.", ["stage"], buckets=_SECONDS, registry=REGISTRY
)
RECORDS = Counter("radar_records", "Records of a topic taken in and committed.", ["stage"], registry=REGISTRY)
RETRACTIONS = Counter("radar_retractions", "Retractions that detection was sent.", registry=REGISTRY)
RETRIES = Counter("radar_retries", "Calls to something outside that had to be repeated.", ["stage"], registry=REGISTRY)
CHECKPOINT_SECONDS = Histogram(
    "radar_checkpoint_seconds",
    "Time from a block's outputs to their commit.",
    ["stage"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
RECORD_AGE = Histogram(
    "radar_record_age_seconds",
    "Time from a record's being written on its topic to the commit of what came of it.",
    ["stage"],
    buckets=_LONG_SECONDS,
    registry=REGISTRY,
)
EVENT_TO_ROW = Histogram(
    "radar_event_to_row_seconds",
    "Time from a mention's being said to its row in the database; back-fill left out.",
    buckets=_LONG_SECONDS,
    registry=REGISTRY,
)
EVENT_TO_SIGNAL = Histogram(
    "radar_event_to_signal_seconds",
    "Time from a severe mention's being said to its signal.",
    buckets=_LONG_SECONDS,
    registry=REGISTRY,
)
PARTITIONS = Gauge("radar_partitions", "Input partitions that this worker holds.", ["stage"], registry=REGISTRY)
PARTITION_WATERMARK = Gauge(
    "radar_partition_watermark_timestamp_seconds",
    "Event time that a scored partition has passed.",
    ["partition"],
    registry=REGISTRY,
)
LAG = Gauge(
    "radar_partition_lag_records",
    "Offsets of an input partition that are not committed yet, as last seen by its worker.",
    ["stage", "topic", "partition"],
    registry=REGISTRY,
)
STATE_BYTES = Counter(
    "radar_state_written_bytes", "State written in checkpoints, keys included.", ["stage"], registry=REGISTRY
)
STATE_RECORDS = Gauge(
    "radar_state_records",
    "State records that a partition began with.",
    ["stage", "partition"],
    registry=REGISTRY,
)
RESTORE_SECONDS = Gauge(
    "radar_restore_seconds", "Time it took to begin on the partitions taken last.", ["stage"], registry=REGISTRY
)
HELD_ROWS = Gauge(
    "radar_held_rows", "Rows that wait for a watermark of slower partitions.", ["partition"], registry=REGISTRY
)
UNALIGNED = Counter(
    "radar_unaligned_rows", "Late rows that were not made to wait, because too many did.", registry=REGISTRY
)
STORE_UP = Gauge(
    "radar_store_up", "1 while the database takes rows, 0 while a block waits for it.", ["stage"], registry=REGISTRY
)
SOURCE_UP = Gauge("radar_source_up", "1 while the source can be read, 0 while it fails.", ["source"], registry=REGISTRY)


def forget_partition(partition: int) -> None:
    """This worker no longer holds the partition: what was last seen of it is another's to tell."""
    for gauge in (LAG, STATE_RECORDS, HELD_ROWS, PARTITION_WATERMARK):
        gauge.remove_by_labels({"partition": str(partition)})


WsgiApp = Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]


def exposition() -> WsgiApp:
    """The WSGI application that serves the metrics in Prometheus' text format."""
    app: Any = make_wsgi_app(REGISTRY)
    return app  # type: ignore[no-any-return]


# -- what the exporter tells: series that come and go ------------------------------------------------------------------


class Family(NamedTuple):
    """A metric whose series are made at each scrape."""

    name: str
    """A counter's without ``_total``."""
    documentation: str
    labels: tuple[str, ...] = ()
    kind: type[GaugeMetricFamily] | type[CounterMetricFamily] = GaugeMetricFamily


class Reading(NamedTuple):
    """The value of one series at the moment of a scrape."""

    family: Family
    labels: Sequence[str]
    value: float


SIGNAL = Family(
    "radar_signal",
    "1 while the signal is open, 0 for 15 minutes after its close or after a change of tier. Historic ones are left out.",
    ("signal_id", "kind", "tier", "subject_kind", "subject_id", "product_batch_id", "objection_type"),
)
SIGNAL_VOICES = Family("radar_signal_voices", "Distinct voices since an open signal opened.", ("signal_id",))
SIGNAL_EXPECTED = Family(
    "radar_signal_expected", "Voices that history and exposure explain, in an open signal's window.", ("signal_id",)
)
SIGNAL_SEVERITY = Family("radar_signal_severity", "Severity of an open signal, 0 to 4.", ("signal_id",))
SIGNAL_OPENED = Family(
    "radar_signal_opened_timestamp_seconds",
    "Start of the base step that opened an open signal (severe: of the event day).",
    ("signal_id",),
)
SIGNALS_NOT_EXPORTED = Family(
    "radar_signals_not_exported",
    "Times an open signal was left out of radar_signal because too many are open.",
    kind=CounterMetricFamily,
)
EXPORTER_UP_TO_DATE = Family(
    "radar_exporter_up_to_date",
    "1 if the signals were last found read to their end within 30 s, 0 if the brokers are away.",
)
EXPORTER_UNREADABLE = Family(
    "radar_exporter_unreadable_records",
    "Records that the exporter could not read and passed over.",
    ("topic",),
    CounterMetricFamily,
)
SOURCE_HEARD = Family(
    "radar_source_heard_timestamp_seconds", "When the connector last said that it looked at the source.", ("source",)
)
SOURCE_GAP = Family("radar_source_gap", "1 while a gap of the source has no end, 0 if there is none.", ("source",))
STAGE_RUNNING = Family("radar_stage_running", "1 while a worker is in the stage's consumer group.", ("stage",))
LAG_RECORDS = Family(
    "radar_lag_records",
    "Offsets between what a stage has committed and the end of its topics; ends of transactions count, so it is not 0 at rest.",
    ("stage",),
)
LAG_SECONDS = Family(
    "radar_lag_seconds", "Age of the oldest record that a stage has not committed yet; 0 if there is none.", ("stage",)
)
_LIVE = (
    SIGNAL,
    SIGNAL_VOICES,
    SIGNAL_EXPECTED,
    SIGNAL_SEVERITY,
    SIGNAL_OPENED,
    SIGNALS_NOT_EXPORTED,
    EXPORTER_UP_TO_DATE,
    EXPORTER_UNREADABLE,
    SOURCE_HEARD,
    SOURCE_GAP,
    STAGE_RUNNING,
    LAG_RECORDS,
    LAG_SECONDS,
)


class Live(Collector):
    """Asks ``read`` at each scrape, so that all series of one scrape belong to the same moment. None: this is no exporter."""

    def __init__(self) -> None:
        self.read: Callable[[], Iterable[Reading]] | None = None

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """All families, most of them without a series unless this is the exporter."""
        made = {one.name: one.kind(one.name, one.documentation, labels=one.labels) for one in _LIVE}
        for family, labels, value in self.read() if self.read else ():
            made[family.name].add_metric(labels, value)
        yield from made.values()


LIVE = Live()
REGISTRY.register(LIVE)
