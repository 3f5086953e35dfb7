"""``complaint-radar rescore``: what the raw topic still holds, scored anew into rows of a new generation.

Only the database changes: nothing goes to the scored topic, so nothing is counted again and nobody is alerted. A row of a
newer generation replaces the older one of the same revision (``mentions.row_version``).
"""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from pipeline.errors import TerminalError
from pipeline.runtime import kafka
from pipeline.runtime.catalogues import Catalogues
from pipeline.runtime.kafka import Names
from pipeline.runtime.stage import record_version
from pipeline.scoring.scorer import Scorer
from pipeline.settings import KafkaSettings, ScoringSettings
from pipeline.storage.engine import Engine
from pipeline.storage.writer import write_block
from schemas.codec import RawRecord, decode
from schemas.control import CatalogueUpdate
from schemas.mention import Mention

RAW = "mentions.raw.v1"
BLOCK_MENTIONS = 5000


class _Generation(msgspec.Struct):
    generation: int


class _Rescore:
    """Mentions are scored by the catalogue that was in force where they stand, a block at a time."""

    def __init__(self, engine: Engine, catalogues: Catalogues, scoring: ScoringSettings, generation: int) -> None:
        self._engine = engine
        self._catalogues = catalogues
        self._scoring = scoring
        self._generation = generation
        self._scorers: dict[str, Scorer] = {}
        self._waiting: dict[str, list[Mention]] = {}
        self.rows = 0

    def add(self, catalogue: str, mention: Mention) -> None:
        waiting = self._waiting.setdefault(catalogue, [])
        waiting.append(mention)
        if len(waiting) >= BLOCK_MENTIONS:
            self._write(catalogue)

    def finish(self) -> None:
        for catalogue in list(self._waiting):
            self._write(catalogue)

    def _write(self, catalogue: str) -> None:
        if catalogue not in self._scorers:
            entries = self._catalogues.entries(catalogue)
            self._scorers[catalogue] = Scorer(entries, sentiment=self._scoring.sentiment)
        rows = [row for row in self._scorers[catalogue].score(self._waiting.pop(catalogue)) if row.primary]
        if refused := write_block(self._engine, "mentions", rows, generation=self._generation):
            raise TerminalError(f"the database refuses {len(refused)} rows, the first because: {refused[0].detail}")
        self.rows += len(rows)


def rescore(brokers: KafkaSettings, scoring: ScoringSettings, engine: Engine, say: Callable[[str], None]) -> int:
    """Score the whole raw topic as it stands now; the number of rows written.

    Raises:
        TerminalError: the database refuses rows, or a catalogue is gone from its topic.
        TransientError, ConfigurationError: brokers or database; call it again.
    """
    generation = _generations(engine) + 1
    say(f"rows get generation {generation}")
    catalogues = Catalogues(brokers)
    work = _Rescore(engine, catalogues, scoring, generation)
    for catalogue, mention in _mentions(brokers, catalogues.latest()):
        work.add(catalogue, mention)
    work.finish()
    return work.rows


def _mentions(brokers: KafkaSettings, before: str) -> Iterator[tuple[str, Mention]]:
    """Every mention of the raw topic, with the version of the catalogue in force where it stands.

    ``before``: the version for what stands before the first naming that the topic still holds.
    """
    in_force: dict[int, str] = {}
    for record in kafka.read_to_end(brokers, "rescore", Names(brokers).topic(RAW)):
        try:
            message: Any = decode(record.value, RawRecord, record_version(record.headers))
        except msgspec.DecodeError:
            continue  # a dead letter since it was first read
        if isinstance(message, CatalogueUpdate):
            in_force[record.partition] = message.version
        elif isinstance(message, Mention):
            yield in_force.get(record.partition, before), message


def _generations(engine: Engine) -> int:
    found = engine.query("SELECT max(generation) AS generation FROM mentions")
    row = msgspec.json.decode(found.splitlines()[0], type=_Generation, strict=False)
    return row.generation
