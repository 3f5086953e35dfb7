"""The score stage: mentions of a raw partition in, packed rows for every scored partition out.

It keeps no state but the name of the catalogue in force, which is noted beside its position. Watermarks and the other
control records go to every scored partition, behind the rows they came after. The key of every record is the number of
the raw partition, so that ``alignment`` can tell them apart.
"""

import logging
import zlib
from collections.abc import Iterable, Sequence

from pipeline import metrics
from pipeline.runtime.catalogues import Catalogues
from pipeline.runtime.dead_records import Decoder
from pipeline.runtime.stage import Output, Record, Result, StateRecord
from pipeline.scoring.scorer import Scorer
from pipeline.settings import ScoringSettings
from schemas.codec import RawRecord, ScoredRecord, encode
from schemas.control import CatalogueUpdate, Watermark
from schemas.mention import Mention
from schemas.scored import ScoredBlock, ScoredRow

_log = logging.getLogger(__name__)


class ScoreStage:
    """See ``pipeline.runtime.stage.Stage``.

    Args:
        partitions: of ``mentions.scored.v1``.
        catalogues: where a version that is named in band is looked up.
        scoring: which sentiment.
        record_bytes: largest record that is written.
    """

    name = "score"
    topic = "mentions.raw.v1"
    block_records = 2000
    state_topic = None

    def __init__(self, partitions: int, catalogues: Catalogues, scoring: ScoringSettings, record_bytes: int) -> None:
        self.partitions = partitions
        self.record_bytes = record_bytes
        self.catalogues = catalogues
        self._scoring = scoring
        self._scorers: dict[str, Scorer] = {}

    def claim(self, partition: int, state: Iterable[StateRecord], note: str) -> "PartitionScore":
        """See ``Stage.claim``."""
        return PartitionScore(self, partition, note)

    def scorer(self, catalogue: str) -> Scorer:
        """The scorer for a version of the catalogue; partitions share it."""
        if catalogue not in self._scorers:
            scorer = Scorer(self.catalogues.entries(catalogue), sentiment=self._scoring.sentiment)
            self._scorers = {catalogue: scorer, **dict(list(self._scorers.items())[:1])}  # at most the last two
        return self._scorers[catalogue]


class PartitionScore:
    """The stage at work on one raw partition."""

    def __init__(self, stage: ScoreStage, partition: int, catalogue: str) -> None:
        self._stage = stage
        self._key = str(partition).encode()
        self._catalogue = catalogue or None
        self._decoder: Decoder[RawRecord] = Decoder(ScoreStage.topic, "score")

    def process(self, records: Sequence[Record]) -> Result:
        """See ``PartitionStage.process``."""
        outputs: list[Output] = []
        mentions: list[Mention] = []
        watermark: int | None = None
        for record in records:
            message = self._decoder.decode(record, outputs)
            if isinstance(message, Mention):
                if watermark is not None and (message.revision or message.event_time < watermark):
                    # Late, so it must not stand before the watermark that it came after.
                    self._flush(mentions, watermark, outputs)
                    mentions, watermark = [], None
                mentions.append(message)
            elif isinstance(message, Watermark):
                watermark = max(message.time, watermark if watermark is not None else message.time)
            elif message is not None:
                self._flush(mentions, watermark, outputs)
                mentions, watermark = [], None
                self._control(message, outputs)
        self._flush(mentions, watermark, outputs)
        return Result(outputs, note=self._catalogue or "")

    def _in_force(self) -> str:
        """The catalogue; of a partition whose first naming is no longer on the topic, the latest one there is."""
        if self._catalogue is None:
            self._catalogue = self._stage.catalogues.latest()
        return self._catalogue

    def _control(self, message: ScoredRecord, outputs: list[Output]) -> None:
        if isinstance(message, CatalogueUpdate):
            self._catalogue = message.version
        self._to_all(message, outputs)

    def _to_all(self, message: ScoredRecord, outputs: list[Output]) -> None:
        value = encode(message)
        outputs += (self._output(value, partition) for partition in range(self._stage.partitions))

    def _output(self, value: bytes, partition: int) -> Output:
        return Output("mentions.scored.v1", self._key, value, partition)

    def _flush(self, mentions: list[Mention], watermark: int | None, outputs: list[Output]) -> None:
        if mentions:
            with metrics.STAGE_SECONDS.labels("score").time():
                scored = self._stage.scorer(self._in_force()).scored(mentions)
            by_partition: dict[int, list[ScoredRow]] = {}
            for row in scored.rows:
                by_partition.setdefault(partition_of(row, self._stage.partitions), []).append(row)
            for partition in range(self._stage.partitions) if scored.retractions else sorted(by_partition):
                self._pack(ScoredBlock(by_partition.get(partition, []), scored.retractions), partition, outputs)
        if watermark is not None:
            self._to_all(Watermark("", watermark), outputs)

    def _pack(self, block: ScoredBlock, partition: int, outputs: list[Output]) -> None:
        """As few records as the brokers take."""
        value = encode(block)
        if len(value) <= self._stage.record_bytes:
            outputs.append(self._output(value, partition))
            return
        half, halves = len(block.rows) // 2, len(block.retractions) // 2
        if half or halves:
            self._pack(ScoredBlock(block.rows[:half], block.retractions[:halves]), partition, outputs)
            self._pack(ScoredBlock(block.rows[half:], block.retractions[halves:]), partition, outputs)
            return
        if block.retractions:  # what was counted before is void all the same
            outputs.append(self._output(encode(ScoredBlock([], block.retractions)), partition))
        outputs += (self._decoder.refused(row.mention_id, row.source_id, "too_large", len(value)) for row in block.rows)


def partition_of(row: ScoredRow, partitions: int) -> int:
    """The scored partition of a row: that of its subject, for ever; of an unknown product that of the mention."""
    if row.subject_kind == "product" and not row.subject_id:
        return zlib.crc32(row.mention_id.encode()) % partitions
    return partition_of_subject(row.subject_kind, row.subject_id, partitions)


def partition_of_subject(kind: str, subject_id: str, partitions: int) -> int:
    """The scored partition that a known subject is counted in."""
    return zlib.crc32(f"{kind}\0{subject_id}".encode()) % partitions
