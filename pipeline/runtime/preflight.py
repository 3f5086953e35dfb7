"""``complaint-radar check``: is everything there that this configuration needs? Looks at all of it and changes nothing.

Every part is looked at by itself: what is wrong with one hides nothing of the others. Outside libraries are imported when
their part is looked at, so that ``run`` can use ``check_sources`` without Kafka.
"""

import logging
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import msgspec

from connectors.base import Source
from connectors.catalogue import read_catalogue
from connectors.configured import sources as configured_sources
from pipeline.errors import ConfigurationError, RadarError, TerminalError
from pipeline.settings import ClickHouseSettings, FilesSourceSettings, KafkaSettings, Settings, password
from pipeline.storage import migrations
from pipeline.storage.engine import Engine

CLOCK_SECONDS = 5.0
"""Difference between our clock and the database's that is worth a warning."""
_LIBRARIES = (
    "kafka-python",
    "aiokafka",
    "faust-streaming",
    "clickhouse-driver",
    "chdb-core-lite|chdb-core|chdb",
    "snownlp",
)
_WITHOUT_GROUP = ("connect", "exporter", "relay", "rescore")
"""Consumers that read their topics from the beginning, or by themselves."""

State = Literal["ok", "warn", "fail"]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: State
    """``fail``: it will not work; ``warn``: it works, and a person should know."""
    words: str
    """In plain words: what was found, and, unless it is fine, what to do."""


def check(settings: Settings) -> Iterator[Finding]:
    """Look at all that a loaded configuration needs; each finding as soon as it is known. Raises nothing."""
    secrets = _secrets(settings)
    for what, look in _looks(settings):
        try:
            for finding in look():
                yield _without(secrets, finding)
        except RadarError as error:
            yield _without(secrets, Finding(what, "fail", str(error)))
        except Exception as error:
            yield _without(secrets, Finding(what, "fail", f"{type(error).__name__}: {error}"))


def check_sources(sources: Sequence[Source], settings: Settings) -> None:
    """Look at the sources before they are read, and log what is there.

    Raises:
        ConfigurationError: as ``Source.check``; or base steps are hours, and a source's times name none.
    """
    for source in sources:
        _log.info("source %s: %s", source.source_id, look_at(source, settings))


def look_at(source: Source, settings: Settings) -> str:
    """What is there at a source, in plain words. Errors as ``check_sources``."""
    found = source.check()
    if found.date_only and settings.detection.step == "1h":
        raise ConfigurationError(
            f"detection.step: '1h' does not do: the times of source {source.source_id!r} are days without an hour; "
            f"write `detection: {{step: 1d}}`"
        )
    return found.summary


def _looks(settings: Settings) -> Iterator[tuple[str, Callable[[], Iterator[Finding]]]]:
    yield "versions", _versions
    yield "configuration", lambda: _configuration(settings)
    yield "catalogue", lambda: _catalogue(settings)
    for source in settings.sources:
        yield f"source {source.name}", lambda source=source: _source(source, settings)  # type: ignore[misc]
    if settings.sources or settings.clickhouse is None:
        yield "data folder", lambda: _data_folder(settings.data_dir)
    if (brokers := settings.kafka) is not None:
        yield "kafka", lambda: _kafka(brokers)
    if (server := settings.clickhouse) is not None:
        yield "clickhouse", lambda: _clickhouse(server)


# -- this machine ------------------------------------------------------------------------------------------------------


def _versions() -> Iterator[Finding]:
    found = {name.partition("|")[0]: _version(name.split("|")) for name in _LIBRARIES}
    ours = f"complaint-radar {_version(['complaint-radar']) or 'not installed'}, Python {platform.python_version()}"
    yield Finding("versions", "ok", ", ".join([ours, *(f"{name} {one}" for name, one in found.items() if one)]))
    if missing := [name for name, one in found.items() if not one]:
        yield Finding("versions", "fail", f"not installed: {', '.join(missing)}; install complaint-radar again")


def _version(names: Sequence[str]) -> str:
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return ""


def _configuration(settings: Settings) -> Iterator[Finding]:
    if settings.clickhouse:
        where = "into a ClickHouse server"
    elif settings.kafka:
        where = "rows are not stored (clickhouse is not set)"
    else:
        where = f"into the database in {settings.data_dir}"
    how = "over Kafka" if settings.kafka else "in one process"
    words = f"read; {_counted(len(settings.sources), 'source')}, {how}, {where}"
    if settings.sources:
        yield Finding("configuration", "ok", words)
    else:
        yield Finding("configuration", "warn", f"{words}; `run` and `connect` need a source, the README shows one")


def _catalogue(settings: Settings) -> Iterator[Finding]:
    if settings.catalogue is None:
        yield Finding(
            "catalogue", "ok", "none: product and lot are taken as the sources give them, rates are per mention"
        )
        return
    entries = read_catalogue(settings.catalogue, settings.time_zone)
    lots = [entry for entry in entries if entry.product_batch_id]
    without = sum(entry.units is None for entry in lots)
    products = len({entry.product_id for entry in entries})
    words = f"{settings.catalogue.name}: {_counted(products, 'product')}, {_counted(len(lots), 'lot')}"
    if not entries:
        yield Finding("catalogue", "warn", f"{settings.catalogue.name} names no product: no mention will have one")
    elif without:
        yield Finding("catalogue", "warn", f"{words}, {without} without units: their rates are per mention")
    else:
        yield Finding("catalogue", "ok", words)


def _source(one: FilesSourceSettings, settings: Settings) -> Iterator[Finding]:
    # Nothing of it is read through, so any key of pseudonyms does; the real one may not be made yet.
    alone = settings.model_copy(update={"sources": (one,)})
    (source,) = configured_sources(alone, (), b"not used", complete=False)
    yield Finding(f"source {one.name}", "ok", look_at(source, settings))


def _data_folder(path: Path) -> Iterator[Finding]:
    there = next(one for one in (path, *path.resolve().parents) if one.exists())
    if not there.is_dir():
        yield Finding("data folder", "fail", f"data_dir: {there} is no folder")
    elif not os.access(there, os.R_OK | os.W_OK | os.X_OK):
        yield Finding("data folder", "fail", f"data_dir: {there} cannot be written by this user")
    elif there != path:
        yield Finding("data folder", "ok", f"{path} will be made")
    else:
        yield Finding("data folder", "ok", f"{path} can be written")


# -- Kafka -------------------------------------------------------------------------------------------------------------


def _kafka(settings: KafkaSettings) -> Iterator[Finding]:
    from pipeline.runtime import topics

    with topics.connected(settings) as client:
        seen = topics.look(client, settings)
        brokers, speaks = seen.cluster.brokers, seen.cluster.version
        yield Finding(
            "kafka", "ok", f"{_counted(brokers, 'broker')}, version {speaks}, at {settings.bootstrap_servers}"
        )
        yield from _topics(seen, settings)
        yield from _groups(client, settings)


def _topics(seen: Any, settings: KafkaSettings) -> Iterator[Finding]:
    from pipeline.runtime import topics

    found = topics.compare(seen, settings)
    for one in found:
        yield Finding(f"topic {one.topic}", _weight(one), str(one).removeprefix(f"{one.topic}: "))
    for name, state in seen.topics.items():
        if state.leaderless:
            words = f"{state.leaderless} of {state.partitions} partitions have no leader: their brokers are down"
            yield Finding(f"topic {name}", "fail", words)
        elif state.lagging:
            words = f"{state.lagging} of {state.partitions} partitions have a replica that is behind or down"
            yield Finding(f"topic {name}", "warn", words)
    if seen.topics and not found:
        yield Finding("topics", "ok", f"all {len(seen.topics)} are as stated")


def _weight(one: Any) -> State:
    """How much a difference of a topic matters: without the topic, or the state's partition, nothing works."""
    from pipeline.runtime import topics

    needed = one.what == "topic" or (one.what == "partitions" and one.topic.endswith(topics.STATE))
    if one.doer == "nobody":
        return "ok"
    return "fail" if needed else "warn"


def _groups(client: Any, settings: KafkaSettings) -> Iterator[Finding]:
    from pipeline.runtime import kafka, kafka_admin

    names = kafka.Names(settings)
    read: dict[str, list[str]] = {}
    for name, spec in kafka.topic_specs().items():
        for stage in spec.consumers:
            if stage not in _WITHOUT_GROUP:
                read.setdefault(names.group(stage), []).append(names.topic(name))
    found = kafka_admin.group_states(client, read)
    for group in read:
        yield _group(group, found.get(group))


def _group(name: str, state: Any) -> Finding:
    what = f"group {name}"
    if state is None:
        return Finding(what, "ok", "has not committed anything yet")
    words = f"{'at work' if state.members else 'nobody is at work in it'}, {_counted(state.behind, 'offset')} behind"
    if state.lost:
        lost = f"{words}; {_counted(state.lost, 'offset')} were deleted by the brokers before they were read"
        return Finding(what, "warn", f"{lost}: it was stopped for longer than the topic's retention")
    return Finding(what, "ok" if state.members or not state.behind else "warn", words)


# -- ClickHouse --------------------------------------------------------------------------------------------------------


def _clickhouse(settings: ClickHouseSettings) -> Iterator[Finding]:
    from pipeline.storage.clickhouse import MINIMUM_VERSION, ServerEngine

    engine = ServerEngine(settings)
    try:
        yield from _database(engine, settings, MINIMUM_VERSION)
    finally:
        engine.close()


class _Told(msgspec.Struct, frozen=True):
    version: str
    now: int
    """Seconds since the epoch, by the server's clock."""


def _database(engine: Engine, settings: ClickHouseSettings, minimum: tuple[int, ...]) -> Iterator[Finding]:
    engine.query("SELECT 1")  # the connection is made by the first question, and would count in the clock's
    asked = time.time()
    answer = engine.query("SELECT version() AS version, toUInt32(toUnixTimestamp(now())) AS now")
    ours = (asked + time.time()) / 2
    told = msgspec.json.decode(answer, type=_Told)
    yield _server(told.version, settings, minimum)
    yield _clock(told.now + 0.5 - ours)
    yield _migrations(engine, settings)


def _server(told: str, settings: ClickHouseSettings, minimum: tuple[int, ...]) -> Finding:
    words = f"version {told}, database {settings.database}, at {settings.hosts}"
    if tuple(map(int, told.split(".")[:2])) < minimum:
        # That it is taken at all is clickhouse.allow_older.
        older = f"older than {'.'.join(map(str, minimum))}: its tables are yours to make (clickhouse.allow_older)"
        return Finding("clickhouse", "warn", f"{words}; {older}")
    return Finding("clickhouse", "ok", words)


def _migrations(engine: Engine, settings: ClickHouseSettings) -> Finding:
    try:
        todo = migrations.pending(engine)
    except TerminalError as error:
        return Finding("migrations", "fail", str(error))
    if not todo:
        return Finding("migrations", "ok", "the database is at this version")
    names = ", ".join(one.name for one in todo)
    if settings.allow_older:
        return Finding("migrations", "warn", f"not recorded as applied: {names}; see that the tables are there")
    return Finding("migrations", "fail", f"not applied yet: {names}; `complaint-radar migrate` applies them")


def _clock(ahead: float) -> Finding:
    """The clocks compared; ``ahead``: seconds that the server's is ahead of ours, good to a second."""
    if abs(ahead) <= CLOCK_SECONDS:
        return Finding("clock", "ok", f"that of ClickHouse and ours agree within {CLOCK_SECONDS:g} s")
    which = "ahead of" if ahead > 0 else "behind"
    return Finding("clock", "warn", f"that of ClickHouse is {abs(ahead):.0f} s {which} ours: set both by NTP")


# -- words -------------------------------------------------------------------------------------------------------------


def _secrets(settings: Settings) -> Mapping[str, str]:
    """Secrets of the configuration, by what stands in their place."""
    found = {"pseudonym_key": settings.pseudonym_key.get_secret_value() if settings.pseudonym_key else None}
    for name, section in (("kafka.password", settings.kafka), ("clickhouse.password", settings.clickhouse)):
        try:
            found[name] = password(section) if section else None
        except ConfigurationError:
            continue  # said by whoever needs it
    return {name: secret for name, secret in found.items() if secret}


def _without(secrets: Mapping[str, str], finding: Finding) -> Finding:
    """The finding with no secret in it, whatever a library's message repeats, and without its own name before it."""
    words = finding.words.removeprefix(f"{finding.what}: ")
    for name, secret in secrets.items():
        words = words.replace(secret, f"<{name}>")
    return Finding(finding.what, finding.state, words)


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
