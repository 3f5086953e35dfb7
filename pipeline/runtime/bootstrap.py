"""``complaint-radar bootstrap``: load the history, wait until it is in the database, say from when a signal is possible.

History pages nobody by itself: what was ingested later than the alerting horizon after it happened is ``historic``.
"""

import datetime as dt
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import msgspec

from pipeline.detection.steps import Steps
from pipeline.errors import TransientError
from pipeline.runtime import kafka_admin
from pipeline.runtime.connect import connect
from pipeline.runtime.kafka import Names
from pipeline.runtime.process import brokers_of, server_engine
from pipeline.runtime.store import TOPICS as STORED
from pipeline.settings import KafkaSettings, Settings
from pipeline.storage.history import milliseconds

PATIENCE_SECONDS = 120.0
"""How long a stage may make no progress at all before it is called absent."""
READS = {"score": ("mentions.raw.v1",), "detect": ("mentions.scored.v1",), "store": STORED}
"""What each stage reads, in the order in which one waits for another."""

QUERY = (
    "SELECT subject_id, toInt64(min(step_start)) AS first, count() AS steps FROM "
    "(SELECT DISTINCT subject_id, {time} AS step_start FROM step_counts "
    "WHERE subject_kind = 'product' AND objection_type = 'any') GROUP BY subject_id ORDER BY subject_id"
)


@dataclass(frozen=True)
class History:
    """What was learnt of one product."""

    product_id: str
    first: dt.datetime
    steps: int
    """Base steps with mentions."""
    possible: dt.datetime
    """From when on a spike can open: before it there is too little to hold it against."""


class _Row(msgspec.Struct):
    subject_id: str
    first: int
    steps: int


def histories(query: Callable[[str], bytes], settings: Settings, time_column: str) -> Iterator[History]:
    """What the database has of each product.

    Args:
        query: runs a SELECT and gives JSON lines.
        settings: the detection policy.
        time_column: expression for ``step_start`` in ms UTC.
    """
    policy = settings.policy()
    steps, zone = Steps(policy.step, policy.time_zone), ZoneInfo(policy.time_zone)

    def moment(time_ms: int) -> dt.datetime:
        return dt.datetime.fromtimestamp(time_ms / 1000, zone)

    for line in query(QUERY.format(time=time_column)).splitlines():
        row = msgspec.json.decode(line, type=_Row, strict=False)
        possible = steps.start(steps.index(row.first) + policy.minimum_history)
        yield History(row.subject_id, moment(row.first), row.steps, moment(possible))


def bootstrap(settings: Settings, stop: threading.Event, say: Callable[[str], None]) -> None:
    """Load all that the sources have now, wait for it to be stored, and say what detection can do with it.

    Raises:
        TransientError: a stage has no worker, or a server is away. Call it again: nothing is loaded twice.
        ConfigurationError, TerminalError: see ``pipeline.errors``.
    """
    brokers = brokers_of(settings)
    engine = server_engine(settings)
    try:
        connect(settings, stop, until_end=True, close=False)
        await_stages(brokers, stop, say)
        if not stop.is_set():
            for history in histories(engine.query, settings, milliseconds(engine.query, "step_counts", "step_start")):
                say(
                    f"{history.product_id}: since {history.first:%Y-%m-%d}, {history.steps} steps with mentions; "
                    f"a spike is possible from {history.possible:%Y-%m-%d %H:%M}"
                )
    finally:
        engine.close()


def await_stages(settings: KafkaSettings, stop: threading.Event, say: Callable[[str], None]) -> None:
    """Wait until every stage has read what was there when it was asked.

    Raises:
        TransientError: one makes no progress: no worker of it is running.
    """
    names = Names(settings)
    for stage, topics in READS.items():
        behind, since = None, time.monotonic()
        while not stop.is_set():
            now = kafka_admin.unread(settings, names.group(stage), [names.topic(topic) for topic in topics])
            if now == 0:
                break
            if now != behind:
                behind, since = now, time.monotonic()
                say(f"{stage}: {now} records to go")
            if time.monotonic() - since > PATIENCE_SECONDS:
                raise TransientError(
                    f"{stage} has not moved for {PATIENCE_SECONDS:.0f} s, {behind} records to go: "
                    f"is a `complaint-radar worker --stage {stage}` running?"
                )
            stop.wait(1.0)
