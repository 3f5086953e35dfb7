"""``complaint-radar run`` and ``dead-letters replay``: the embedded runtime, configured, supervised, observable."""

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from zoneinfo import ZoneInfo

from connectors.catalogue import read_catalogue
from connectors.configured import sources as configured_sources
from pipeline import metrics
from pipeline.alerting import notice
from pipeline.errors import ConfigurationError, HeldError, TransientError
from pipeline.runtime.checkpoint import SqliteCheckpoint
from pipeline.runtime.embedded import CHECKPOINT_FILE, EmbeddedRuntime, open_engine, pseudonym_key
from pipeline.runtime.health import Health, supervised
from pipeline.runtime.preflight import check_sources
from pipeline.scoring.scorer import Scorer
from pipeline.settings import Settings, duration_ms
from pipeline.storage import dead_letters
from pipeline.storage.embedded import EmbeddedEngine
from pipeline.storage.sql_service import SqlService, ask
from schemas.signal import Signal

PROGRESS_SECONDS = 5.0

_log = logging.getLogger(__name__)


@contextmanager
def _runtime(
    settings: Settings, tell: Callable[[Signal], None], *, complete: bool
) -> Iterator[tuple[EmbeddedEngine, EmbeddedRuntime]]:
    if not settings.sources:
        raise ConfigurationError("sources: at least one is needed; the README shows one")
    catalogue = read_catalogue(settings.catalogue, settings.time_zone) if settings.catalogue else []
    engine = open_engine(settings.data_dir)
    runtime = None
    try:
        secret = settings.pseudonym_key
        key = secret.get_secret_value().encode() if secret else pseudonym_key(settings.data_dir)
        sources = configured_sources(settings, (entry.product_batch_id for entry in catalogue), key, complete=complete)
        check_sources(sources, settings)
        scorer = Scorer(catalogue, sentiment=settings.scoring.sentiment)
        runtime = EmbeddedRuntime(engine, sources, catalogue, settings.policy(), scorer, tell)
        yield engine, runtime
    finally:
        if runtime is not None:
            runtime.close()
        engine.close()


def run(settings: Settings, stop: threading.Event, *, until_end: bool, close: bool) -> None:
    """Run until ``stop`` is set, or with ``until_end`` until the sources have given all they have now.

    When the database cannot take a block for a while, everything is begun again from the last commit: what was read since
    then is read again.

    Raises:
        ConfigurationError, TerminalError: see ``pipeline.errors``.
        TransientError: with ``until_end`` only; else it is tried again.
    """
    zone = ZoneInfo(settings.time_zone)

    def tell(signal: Signal) -> None:
        numbers = notice.numbers(signal, "zh", zone, settings.detection.step)
        level = logging.INFO if signal.historic else logging.WARNING
        _log.log(level, "%s%s — %s", "（历史）" if signal.historic else "", notice.headline(signal, "zh"), numbers)

    with supervised(settings) as health:
        while not stop.is_set():
            try:
                _run_from_checkpoint(settings, stop, health, tell, until_end=until_end, close=close)
            except TransientError as error:
                if until_end:
                    raise
                _log.warning("%s; begun again from the last commit in %s", error, settings.poll_interval)
                stop.wait(duration_ms(settings.poll_interval) / 1000)
            if until_end:
                return


def _run_from_checkpoint(
    settings: Settings,
    stop: threading.Event,
    health: Health,
    tell: Callable[[Signal], None],
    *,
    until_end: bool,
    close: bool,
) -> None:
    with _runtime(settings, tell, complete=until_end) as (engine, runtime):
        service = SqlService(engine, settings.data_dir)
        service.start()
        health.ready = True
        _calm_collector()
        try:
            runtime.tell_waiting()
            while not stop.is_set():
                _pass(runtime, settings, stop, health)
                if until_end:
                    break
                stop.wait(duration_ms(settings.poll_interval) / 1000)
            if runtime.failed and until_end:
                raise TransientError("; ".join(map(str, runtime.failed.values())))
            if close and not stop.is_set():
                runtime.close_history()
        finally:
            health.ready = False
            service.stop()
        end = "stopped" if stop.is_set() else "the sources are at their end"
        _log.info("%d mentions taken in; %s", runtime.mentions, end)


def _calm_collector() -> None:
    """Let the cycle collector look seldom: blocks come and go by reference count, and hold no cycles (5 % of a run)."""
    gc.freeze()
    gc.set_threshold(200_000, 50, 50)


def _pass(runtime: EmbeddedRuntime, settings: Settings, stop: threading.Event, health: Health) -> None:
    """One pass over the sources; one that cannot be read is asked again in the next."""

    def stopped() -> bool:
        health.turned()
        return stop.is_set()

    begin = told = time.monotonic()
    before = runtime.mentions
    for _ in runtime.run_pass(stopped):
        if time.monotonic() - told > PROGRESS_SECONDS:
            told = time.monotonic()
            _log.info("%d mentions, %.0f a second", runtime.mentions, (runtime.mentions - before) / (told - begin))
    for source in settings.sources:
        error = runtime.failed.get(source.name)
        metrics.SOURCE_UP.labels(source.name).set(error is None)
        if error is not None:
            _log.warning("source %s: %s; asked again in %s", source.name, error, settings.poll_interval)


def replay(
    settings: Settings, identities: list[str], reason: str | None, source: str | None, say: Callable[[str], None]
) -> None:
    """Have dead letters read again: here if no ``run`` is at work, else by it at its next turn."""
    asked, others = dead_letters.to_read_again(
        lambda query: ask(settings.data_dir, query, "jsonl"), identities, reason, source
    )
    if others:
        say(f"{others} are rows that the database refused: they have no record to be read again")
    if not asked:
        say("no dead letters to replay")
        return
    checkpoint = SqliteCheckpoint(settings.data_dir / CHECKPOINT_FILE)
    checkpoint.ask_replay(asked)
    checkpoint.close()
    try:
        with _runtime(settings, lambda _: None, complete=True) as (_, runtime):
            say(f"{len(asked)} dead letters read again, {runtime.replay_dead_letters()} taken in")
    except HeldError:
        say(
            f"{len(asked)} dead letters will be read again by the process that runs, as it was configured when it started"
        )
