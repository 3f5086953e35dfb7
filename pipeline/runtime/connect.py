"""``complaint-radar connect``: all sources of the configuration onto ``mentions.raw.v1``, exactly once.

One process: what the sources promise together is one watermark, written to every raw partition behind the mentions it
covers. A block is one transaction: mentions, watermark, gaps, dead letters, heartbeats and the cursors they stand for.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec

from connectors.base import Source
from connectors.catalogue import read_catalogue
from connectors.configured import sources as configured_sources
from connectors.publish import Published, Publisher, partition_of
from pipeline import metrics
from pipeline.detection.steps import Steps
from pipeline.errors import ConfigurationError, TransientError
from pipeline.runtime import catalogues, kafka
from pipeline.runtime.catalogues import version_of
from pipeline.runtime.embedded import pseudonym_key
from pipeline.runtime.health import Health, supervised
from pipeline.runtime.intake import Block, Intake
from pipeline.runtime.kafka import Names
from pipeline.runtime.preflight import check_sources
from pipeline.runtime.process import brokers_of
from pipeline.runtime.stage import version_headers
from pipeline.settings import KafkaSettings, Settings, duration_ms
from schemas import identity
from schemas.catalogue import CatalogueEntry
from schemas.codec import encode
from schemas.control import CatalogueUpdate, Gap, Idle, PolicyUpdate, Retired, Watermark
from schemas.dead_letter import DeadLetter
from schemas.mention import Mention
from schemas.policy import DetectionPolicy

RAW = "mentions.raw.v1"
CURSORS = "cursors.v1"
BLOCK_MENTIONS = 2000
"""Mentions a transaction: written well within a second."""
HEARTBEAT_SECONDS = 10.0
NAMING_SECONDS = 86_400.0
"""How often catalogue and policy are named in band while nothing changes."""
_OWN_CURSOR = b"@connect"
_log = logging.getLogger(__name__)


class Memory(msgspec.Struct):
    """What the connector itself remembers, under the key ``@connect``."""

    catalogue: str = ""
    """Version published last."""
    base_step: str = ""
    """Base step and time zone of the policy: detection's state cannot follow another one."""
    latest: int | None = None
    """Latest event time published, ms UTC."""
    gaps: list[Gap] = []
    """Gaps that have no end yet."""
    retired: list[str] = []
    """Sources that were read once and are no longer configured, as far as that has been said."""


class Connector:
    """Publishes blocks of the sources' stream. Begin it anew after a ``TransientError``.

    Raises:
        ConfigurationError: topics are missing, or the brokers refuse us.
        TransientError: they are not there.
    """

    def __init__(self, settings: KafkaSettings, sources: Sequence[Source]) -> None:
        self._names = Names(settings)
        options = kafka.client_options(settings, "connect")
        self._publisher = Publisher(options, self._names.transactional_id("connect"), kafka.errors)
        try:
            cursors = {
                record.key: record.value
                for record in kafka.read_to_end(settings, "connect", self._names.topic(CURSORS))
                if record.value is not None
            }
            self._partitions = list(self._publisher.partitions(self._names.topic(RAW)))
        except BaseException:
            self._publisher.close()
            raise
        own = cursors.pop(_OWN_CURSOR, None)
        self._memory = msgspec.json.decode(own, type=Memory) if own else Memory()
        self._intake = Intake(sources, {key.decode(): value for key, value in cursors.items()}, list(self._memory.gaps))
        self._sources = [source.source_id for source in sources]
        self._read_once = {key.decode() for key in cursors}
        self._heartbeat = self._named = 0.0
        self._rules: list[CatalogueUpdate | PolicyUpdate] = []
        self.mentions = 0

    @property
    def failed(self) -> dict[str, TransientError]:
        """Sources that could not be read in the last pass, and why."""
        return self._intake.failed

    def begin(self, catalogue: Sequence[CatalogueEntry], policy: DetectionPolicy) -> None:
        """Publish the catalogue, name it and the policy in band, and say which sources are gone.

        Raises:
            ConfigurationError: the policy has another base step than what was published before.
        """
        memory = self._memory
        records: list[Published] = []
        self._check_base_step(policy)
        version = version_of(list(catalogue))
        if version != memory.catalogue:
            chunks = catalogues.chunks(version, catalogue)
            records += (self._record(one.topic, one.value, one.key, one.partition) for one in chunks)
            memory.catalogue = version
        self._rules = [CatalogueUpdate(version), PolicyUpdate(version_of(policy), policy)]
        records += self._name_rules()
        gone = sorted(self._read_once.difference(self._sources))
        if gone != memory.retired:
            new = [name for name in gone if name not in memory.retired]
            records += (self._record("sources.v1", encode(Retired(name)), name.encode()) for name in new)
            memory.retired = gone
        self._publisher.commit([*records, self._remember()])

    def _check_base_step(self, policy: DetectionPolicy) -> None:
        base_step = f"{policy.step} in {policy.time_zone}"
        if self._memory.base_step not in ("", base_step):
            raise ConfigurationError(
                f"detection.step, time_zone: the history on the brokers has steps of {self._memory.base_step}, which cannot become "
                f"{base_step}; put it back, or take another kafka.prefix and read the sources again"
            )
        self._memory.base_step = base_step

    def _name_rules(self) -> list[Published]:
        """Say in every raw partition which catalogue and policy hold: at each start, and daily, since a topic forgets."""
        self._named = time.monotonic()
        return [record for rule in self._rules for record in self._to_all(rule)]

    def run_pass(self, stopped: "threading.Event", turned: "Health") -> Iterator[int]:
        """Read every source to what it has now; yields the number of mentions of each committed block."""

        def asked() -> bool:
            turned.turned()
            return stopped.is_set()

        for block in self._intake.blocks(BLOCK_MENTIONS, asked):
            self._publish(block)
            yield len(block.mentions)
        self._beat()

    def close_history(self, policy: DetectionPolicy) -> None:
        """The history is complete: a watermark that closes the step of the latest mention ever published."""
        if self._memory.latest is not None:
            steps = Steps(policy.step, policy.time_zone)
            end = steps.end(steps.index(self._memory.latest))
            self._publisher.commit(self._to_all(Watermark("", end)))

    def close(self) -> None:
        """Let go of the brokers."""
        self._publisher.close()

    def _publish(self, block: Block) -> None:
        records = list(self._mentions(block))
        for gap in block.gaps:
            records += self._to_all(gap)
            records.append(self._record("sources.v1", encode(gap), gap.source_id.encode()))
            self._note_gap(gap)
        if block.watermark is not None:
            records += self._to_all(Watermark("", block.watermark))
            metrics.WATERMARK.labels("connect").set(block.watermark / 1000)
        for letter in block.dead_letters:
            records.append(self._record("dead_letters.v1", encode(letter), letter.dead_letter_id.encode()))
            metrics.DEAD_LETTERS.labels(letter.source_id, letter.reason).inc()
        records += (self._record(CURSORS, cursor, name.encode()) for name, cursor in block.position.items())
        begin = time.monotonic()
        self._publisher.commit([*records, self._remember()])
        metrics.CHECKPOINT_SECONDS.labels("connect").observe(time.monotonic() - begin)
        metrics.COMMITTED.labels("connect").set(time.time())
        self._count(block.mentions)

    def _mentions(self, block: Block) -> Iterator[Published]:
        for mention in block.mentions:
            value = encode(mention)
            if len(value) > kafka.RECORD_BYTES:
                block.dead_letters.append(_too_large(mention, len(value)))
                continue
            self._memory.latest = max(self._memory.latest or mention.event_time, mention.event_time)
            key = mention.mention_id.encode()
            yield self._record(RAW, value, key, self._partitions[partition_of(key, len(self._partitions))])

    def _count(self, mentions: Sequence[Mention]) -> None:
        self.mentions += len(mentions)
        for source_id, number in Counter(mention.source_id for mention in mentions).items():
            metrics.MENTIONS.labels(source_id).inc(number)
        for source_id, number in Counter(mention.source_id for mention in mentions if mention.backfill).items():
            metrics.BACKFILL.labels(source_id).inc(number)

    def _note_gap(self, gap: Gap) -> None:
        others = [one for one in self._memory.gaps if (one.source_id, one.start) != (gap.source_id, gap.start)]
        self._memory.gaps = [*others, gap] if gap.end is None else others

    def _beat(self) -> None:
        """Say of every source that it was read: who listens can tell a quiet source from a dead connector."""
        if time.monotonic() - self._heartbeat > HEARTBEAT_SECONDS:
            self._heartbeat = time.monotonic()
            heard = [name for name in self._sources if name not in self.failed]
            records = [self._record("sources.v1", encode(Idle(name)), name.encode()) for name in heard]
            if time.monotonic() - self._named > NAMING_SECONDS:
                records += self._name_rules()
            self._publisher.commit(records)

    def _to_all(self, message: Watermark | Gap | CatalogueUpdate | PolicyUpdate) -> list[Published]:
        value = encode(message)
        return [self._record(RAW, value, None, partition) for partition in self._partitions]

    def _remember(self) -> Published:
        return self._record(CURSORS, msgspec.json.encode(self._memory), _OWN_CURSOR)

    def _record(self, topic: str, value: bytes, key: bytes | None, partition: int | None = None) -> Published:
        return Published(self._names.topic(topic), key, value, partition, version_headers(topic))


def _too_large(mention: Mention, size: int) -> DeadLetter:
    locator = f"{mention.source_id}:{mention.native_id or mention.mention_id}"
    return DeadLetter(
        dead_letter_id=identity.dead_letter_id(locator, mention.mention_id),
        source_id=mention.source_id,
        stage="connector",
        reason="too_large",
        detail=f"its record has {size} bytes, {kafka.RECORD_BYTES} at most can be passed on",
        locator=locator,
        payload=mention.text[:4000],
        payload_hash=mention.mention_id,
        time=mention.ingest_time,
    )


def connect(settings: Settings, stop: threading.Event, *, until_end: bool, close: bool) -> None:
    """Publish until ``stop`` is set, or with ``until_end`` until the sources have given all they have now.

    Raises:
        ConfigurationError, TerminalError: see ``pipeline.errors``.
        TransientError: with ``until_end`` only; else everything is begun again from the last commit.
    """
    brokers = brokers_of(settings)
    if not settings.sources:
        raise ConfigurationError("sources: at least one is needed; the README shows one")
    with supervised(settings) as health:
        while not stop.is_set():
            try:
                _connect_from_cursors(settings, brokers, stop, health, until_end=until_end, close=close)
            except TransientError as error:
                if until_end:
                    raise
                metrics.RETRIES.labels("connect").inc()
                _log.warning("%s; begun again from the last commit in %s", error, settings.poll_interval)
                health.wait(stop, duration_ms(settings.poll_interval) / 1000)
            if until_end:
                return


def _connect_from_cursors(
    settings: Settings, brokers: KafkaSettings, stop: threading.Event, health: Health, *, until_end: bool, close: bool
) -> None:
    catalogue = read_catalogue(settings.catalogue, settings.time_zone) if settings.catalogue else []
    sources = sources_of(settings, catalogue, complete=until_end)
    check_sources(sources, settings)
    connector = Connector(brokers, sources)
    try:
        connector.begin(catalogue, settings.policy())
        health.ready = True
        while not stop.is_set():
            for _ in connector.run_pass(stop, health):
                pass
            _tell_failures(connector, settings)
            if until_end:
                break
            health.wait(stop, duration_ms(settings.poll_interval) / 1000)
        if connector.failed and until_end:
            raise TransientError("; ".join(map(str, connector.failed.values())))
        if close and not stop.is_set():
            connector.close_history(settings.policy())
    finally:
        health.ready = False
        connector.close()
    _log.info(
        "%d mentions published; %s", connector.mentions, "stopped" if stop.is_set() else "the sources are at their end"
    )


def sources_of(settings: Settings, catalogue: Sequence[CatalogueEntry], *, complete: bool) -> list[Source]:
    """The configured sources, with this installation's key of pseudonyms."""
    secret = settings.pseudonym_key
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    key = secret.get_secret_value().encode() if secret else pseudonym_key(settings.data_dir)
    return configured_sources(settings, (entry.product_batch_id for entry in catalogue), key, complete=complete)


def _tell_failures(connector: Connector, settings: Settings) -> None:
    for source in settings.sources:
        error = connector.failed.get(source.name)
        metrics.SOURCE_UP.labels(source.name).set(error is None)
        if error is not None:
            _log.warning("source %s: %s; asked again in %s", source.name, error, settings.poll_interval)
