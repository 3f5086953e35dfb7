"""``complaint-radar rebuild``: the state of detection made again, of what was published, when its topic is lost.

Baselines come from the step counts in the database, signals and gaps from their topics. Then detection reads again what
was written since the first step that was not closed. What cannot be had back is named in ``pipeline.detection.rebuild``.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from pipeline.detection.rebuild import MEMORY_MS, rebuild
from pipeline.detection.steps import Steps
from pipeline.errors import ConfigurationError
from pipeline.runtime import kafka, kafka_admin
from pipeline.runtime.catalogues import Catalogues, version_of
from pipeline.runtime.detect_stage import DetectStage
from pipeline.runtime.kafka import Names
from pipeline.runtime.kafka_checkpoint import Claims
from pipeline.runtime.score_stage import partition_of_subject
from pipeline.runtime.stage import StateChange, record_version
from pipeline.settings import KafkaSettings, Settings
from pipeline.storage.engine import Engine
from pipeline.storage.history import step_counts
from schemas.catalogue import CatalogueEntry
from schemas.codec import TOPICS, decode
from schemas.control import Gap
from schemas.signal import Signal
from schemas.step_count import StepCount


def rebuild_state(
    settings: Settings,
    brokers: KafkaSettings,
    engine: Engine,
    catalogue: list[CatalogueEntry],
    say: Callable[[str], None],
) -> None:
    """Write the state topic anew and set detection's positions, a partition at a time.

    Raises:
        ConfigurationError: detect workers are at work.
        TransientError, TerminalError: brokers or database; call it again.
    """
    names = Names(brokers)
    scored = names.topic(DetectStage.topic)
    with kafka_admin.admin(brokers) as client:
        group = names.group(DetectStage.name)
        state = kafka_admin.group_states(client, {group: [scored]}).get(group)
    if state is not None and state.members:
        raise ConfigurationError("detect workers are at work: stop all of them first")
    partitions = kafka.partition_count(brokers, scored)
    counts = step_counts(engine.query, time.time_ns() // 1_000_000 - MEMORY_MS)
    policy = settings.policy()
    steps = Steps(policy.step, policy.time_zone)
    signals = _latest_signals(brokers)
    gaps = _gaps(brokers)
    say(f"{len(counts)} step counts, {len(signals)} signals, {len(gaps)} gaps")
    states: dict[int, list[StateChange]] = {}
    positions: dict[int, int] = {}
    for partition in range(partitions):

        def ours(one: StepCount | Signal, partition: int = partition) -> bool:
            return partition_of_subject(one.subject_kind, one.subject_id, partitions) == partition

        own = [signal for signal in signals if ours(signal)]
        own_counts = list(filter(ours, counts))
        # Each partition closed its own steps; what it had taken in of later ones must be read again.
        watermark = max((steps.end(steps.index(one.step_start)) for one in own_counts), default=None)
        detector = rebuild(
            policy,
            version_of(catalogue),
            catalogue,
            own_counts,
            [signal for signal in own if signal.event != "closed"],
            watermark,
            policy_version=version_of(policy),
            closed_signals=[signal for signal in own if signal.event == "closed"],
            gaps=gaps,
        )
        states[partition] = detector.changes()
        positions[partition] = kafka.offset_at(brokers, scored, partition, watermark or 0)
    asyncio.run(_write(brokers, DetectStage(0, Catalogues(brokers)), states, positions))
    say(
        f"{partitions} partitions rebuilt; detection reads again what was written since the first step that was not closed"
    )


async def _write(
    brokers: KafkaSettings, stage: DetectStage, states: dict[int, list[StateChange]], positions: dict[int, int]
) -> None:
    claims = Claims(brokers, stage)
    old = await claims.states(list(states))
    for partition, changes in states.items():
        checkpoint = await claims.claim(partition)
        try:
            kept = {key for key, _ in changes}
            gone: list[StateChange] = [(key, None) for key, _ in old[partition] if key not in kept]
            await checkpoint.commit([], [*gone, *changes], positions[partition])
        finally:
            await checkpoint.close()


def _latest_signals(brokers: KafkaSettings) -> list[Signal]:
    latest: dict[str, Signal] = {}
    for signal in _readable(brokers, "signals.v1"):
        if signal.signal_id not in latest or latest[signal.signal_id].revision < signal.revision:
            latest[signal.signal_id] = signal
    return list(latest.values())


def _gaps(brokers: KafkaSettings) -> list[Gap]:
    latest = {(gap.source_id, gap.start): gap for gap in _readable(brokers, "sources.v1") if isinstance(gap, Gap)}
    return list(latest.values())


def _readable(brokers: KafkaSettings, topic: str) -> Iterator[Any]:
    """The messages of a topic; what is none was passed over by all its readers, and is here."""
    for record in kafka.read_to_end(brokers, "rebuild", Names(brokers).topic(topic)):
        if record.value is not None:
            with contextlib.suppress(msgspec.DecodeError):
                yield decode(record.value, TOPICS[topic], record_version(record.headers))
