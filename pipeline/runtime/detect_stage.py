"""The detect stage: scored rows of the subjects of one partition in, step counts and signals out; its state is a topic."""

import logging
import time
from collections.abc import Iterable, Sequence

from pipeline import metrics
from pipeline.detection.detector import Detector, Outputs
from pipeline.errors import TerminalError
from pipeline.runtime.alignment import PREFIX, Alignment
from pipeline.runtime.catalogues import Catalogues
from pipeline.runtime.dead_records import Decoder
from pipeline.runtime.stage import Output, Record, Result, StateRecord
from schemas.codec import ScoredRecord, encode
from schemas.control import CatalogueUpdate, PolicyUpdate, Watermark
from schemas.policy import DetectionPolicy
from schemas.scored import ScoredBlock
from schemas.signal import Signal
from schemas.step_count import StepCount

_log = logging.getLogger(__name__)


class DetectStage:
    """See ``pipeline.runtime.stage.Stage``.

    Args:
        origins: number of partitions of ``mentions.raw.v1``.
        catalogues: where a version that is named in band is looked up.
    """

    name = "detect"
    topic = "mentions.scored.v1"
    block_records = 200
    state_topic = "state.detect.v1"

    def __init__(self, origins: int, catalogues: Catalogues) -> None:
        self._origins = origins
        self._catalogues = catalogues

    def claim(self, partition: int, state: Iterable[StateRecord], note: str) -> "PartitionDetect":
        """See ``Stage.claim``."""
        records = list(state)
        alignment = Alignment(range(self._origins), records)
        # Until the policy comes in band, ahead of everything else, nothing is decided by the one given here.
        detector = Detector.restore(DetectionPolicy(), [one for one in records if not one[0].startswith(PREFIX)])
        return PartitionDetect(partition, alignment, detector, self._catalogues)


class PartitionDetect:
    """The stage at work on one scored partition."""

    def __init__(self, partition: int, alignment: Alignment, detector: Detector, catalogues: Catalogues) -> None:
        self._partition = str(partition)
        self._alignment = alignment
        self._detector = detector
        self._catalogues = catalogues
        self._catalogue: str | None = None
        self._decoder: Decoder[ScoredRecord] = Decoder(DetectStage.topic, "detect")
        self._too_late = self._overflowed = 0

    def process(self, records: Sequence[Record]) -> Result:
        """See ``PartitionStage.process``."""
        outputs: list[Output] = []
        found = Outputs()
        with metrics.STAGE_SECONDS.labels("detect").time():
            for record in records:
                message = self._decoder.decode(record, outputs)
                if message is not None and (origin := self._decoder.origin(record, outputs)) is not None:
                    for one in self._alignment.take(origin, message):
                        self._absorb(one, found)
        outputs += (Output("step_counts.v1", _count_key(one), encode(one)) for one in found.step_counts)
        outputs += (Output("signals.v1", one.signal_id.encode(), encode(one)) for one in found.signals)
        self._note(found)
        return Result(outputs, [*self._alignment.changes(), *self._detector.changes()])

    def _absorb(self, message: ScoredRecord, found: Outputs) -> None:
        if isinstance(message, CatalogueUpdate):
            if message.version == self._catalogue:
                return  # each raw partition brings it once
            self._catalogue = message.version
            message = CatalogueUpdate(message.version, self._catalogues.entries(message.version))
        elif isinstance(message, ScoredBlock):
            metrics.RETRACTIONS.inc(len(message.retractions))
        elif isinstance(message, Watermark):
            metrics.PARTITION_WATERMARK.labels(self._partition).set(message.time / 1000)
        try:
            said = self._detector.absorb(message)
        except TerminalError as error:
            if not isinstance(message, PolicyUpdate):
                raise
            # The record would be met again after every restart. What it cannot follow detection does not follow.
            _log.error("partition %s: this policy is not taken over: %s", self._partition, error)
            return
        found.step_counts += said.step_counts
        found.signals += said.signals

    def _note(self, found: Outputs) -> None:
        metrics.STEP_COUNTS.inc(len(found.step_counts))
        for signal in found.signals:
            metrics.SIGNALS.labels(signal.kind, signal.event, str(signal.historic).lower()).inc()
            _note_latency(signal)
        metrics.TOO_LATE.inc(self._detector.too_late - self._too_late)
        metrics.UNALIGNED.inc(self._alignment.overflowed - self._overflowed)
        metrics.HELD_ROWS.labels(self._partition).set(self._alignment.held_rows)
        self._too_late, self._overflowed = self._detector.too_late, self._alignment.overflowed


def _note_latency(signal: Signal) -> None:
    if signal.kind == "severe" and signal.event == "opened" and not signal.historic and signal.evidence:
        said = max(one.event_time for one in signal.evidence)
        metrics.EVENT_TO_SIGNAL.observe(max(0.0, time.time() - said / 1000))


def _count_key(count: StepCount) -> bytes:
    return "\0".join((count.subject_kind, count.subject_id, count.product_batch_id, count.objection_type)).encode()
