"""``complaint-radar worker``: one stage between topics, or from them to the database, in one process."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Literal, TypeVar

from pipeline import metrics
from pipeline.errors import ConfigurationError, TransientError
from pipeline.runtime import kafka, kafka_admin
from pipeline.runtime.catalogues import Catalogues
from pipeline.runtime.health import Health, supervised
from pipeline.runtime.kafka import Names
from pipeline.runtime.process import PATIENCE_SECONDS, brokers_of, server_engine
from pipeline.settings import KafkaSettings, Settings

StageName = Literal["score", "detect", "store"]
_PAUSE_SECONDS = 1.0

_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)


def work(settings: Settings, stage: StageName, stop: threading.Event) -> None:
    """Run one stage until ``stop`` is set.

    Raises:
        ConfigurationError, TerminalError, TransientError: the process must end; started again it goes on where it stood.
    """
    brokers = brokers_of(settings)
    with supervised(settings) as health:
        if stage == "store":
            _store(settings, brokers, stop, health)
        else:
            _faust(settings, brokers, stage, stop, health)


def _faust(
    settings: Settings, brokers: KafkaSettings, stage: Literal["score", "detect"], stop: threading.Event, health: Health
) -> None:
    # Late: Faust takes a second to import, and other stages do without.
    from pipeline.runtime.detect_stage import DetectStage
    from pipeline.runtime.faust_app import run_worker
    from pipeline.runtime.score_stage import ScoreStage

    catalogues, names = Catalogues(brokers), Names(brokers)

    def count(topic: str) -> int:
        return _patiently(lambda: kafka.partition_count(brokers, names.topic(topic)), stop, health)

    _patiently(lambda: kafka_admin.check_rights(brokers, stage), stop, health)
    if stage == "score":
        run_worker(
            brokers,
            lambda: ScoreStage(count("mentions.scored.v1"), catalogues, settings.scoring, kafka.RECORD_BYTES),
            stop,
            health,
        )
    else:
        run_worker(brokers, lambda: DetectStage(count("mentions.raw.v1"), catalogues), stop, health)


def _patiently(call: Callable[[], _Result], stop: threading.Event, health: Health) -> _Result:
    """The call's result, tried again for a while: at the start of a whole system not everything is there at once."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return call()
        except (TransientError, ConfigurationError) as error:
            if time.monotonic() > until:
                raise
            if stop.is_set():
                raise SystemExit(0) from None  # there was nothing in hand yet
            _log.info("waiting: %s", error)
            health.wait(stop, _PAUSE_SECONDS)


def _store(settings: Settings, brokers: KafkaSettings, stop: threading.Event, health: Health) -> None:
    from pipeline.runtime.store import Store

    engine = server_engine(settings)
    try:
        _patiently(lambda: kafka_admin.check_rights(brokers, "store"), stop, health)
        while not stop.is_set():
            try:
                store = Store(brokers, engine)
                try:
                    store.run(stop, health)
                finally:
                    health.ready = False
                    store.close()
            except TransientError as error:
                metrics.RETRIES.labels("store").inc()
                _log.warning("%s; begun again from the last commit", error)
                health.wait(stop, _PAUSE_SECONDS)
    finally:
        engine.close()
