"""Every metric of the system, once: name, help text, labels. The only file that knows prometheus-client.

Base units, and no label whose values grow without bound.
"""

from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app

REGISTRY = CollectorRegistry()
_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

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
    registry=REGISTRY,
)
COMMITTED = Gauge("radar_last_commit_timestamp_seconds", "When the last block was committed.", registry=REGISTRY)
STAGE_SECONDS = Histogram(
    "radar_block_seconds", "Time a block spends in a stage.", ["stage"], buckets=_SECONDS, registry=REGISTRY
)
SOURCE_UP = Gauge("radar_source_up", "1 while the source can be read, 0 while it fails.", ["source"], registry=REGISTRY)

WsgiApp = Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]


def exposition() -> WsgiApp:
    """The WSGI application that serves the metrics in Prometheus' text format."""
    app: Any = make_wsgi_app(REGISTRY)
    return app  # type: ignore[no-any-return]
