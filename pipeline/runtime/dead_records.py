"""Records of a topic that a stage cannot take: dead letters that say where they stand."""

import time
from typing import Any, Generic, TypeVar

import msgspec

from connectors.masking import Masker
from pipeline import metrics
from pipeline.errors import TerminalError
from pipeline.runtime.stage import Output, Record
from schemas import identity
from schemas.codec import TOPICS, NewerVersion, decode, encode
from schemas.dead_letter import DeadLetter, DeadLetterReason

PAYLOAD_CHARACTERS = 4000
"""Cut of a dead letter's payload; at most 16 KB."""

T = TypeVar("T")


class Decoder(Generic[T]):
    """Values off one topic, for one stage. ``topic``: its name in ``schemas/topics.yaml``."""

    def __init__(self, topic: str, stage: str) -> None:
        self._kind: Any = TOPICS[topic]
        self._stage = stage
        # Whoever wrote a record that is none of ours may not have masked it.
        self._mask = Masker().mask

    def decode(self, record: Record, outputs: list[Output]) -> T | None:
        """The message; None if it is none, and the dead letter among the outputs.

        Raises:
            TerminalError: a newer version of this system wrote it: it must be read by one.
        """
        try:
            message: T = decode(record.value, self._kind, record.version)
        except NewerVersion as error:
            where = f"{record.topic}-{record.partition}-{record.offset}"
            raise TerminalError(f"{where}: {error}; bring this worker to the version that writes") from None
        except msgspec.DecodeError as error:
            outputs.append(self._dead_letter(record, str(error)))
            return None
        return message

    def origin(self, record: Record, outputs: list[Output]) -> int | None:
        """The raw partition that a scored record names in its key; None if it does not, and the dead letter as above."""
        key = record.key or b""
        if key.isdigit():
            return int(key)
        outputs.append(self._dead_letter(record, f"the key {key!r} is no number of a raw partition"))
        return None

    def _dead_letter(self, record: Record, detail: str) -> Output:
        text = record.value[: 4 * PAYLOAD_CHARACTERS].decode("utf-8", "replace").replace("\0", "")
        return self._letter(
            locator=f"{record.topic}-{record.partition}-{record.offset}",
            source_id="",
            reason="unreadable",
            detail=self._mask(detail),
            payload=self._mask(text)[:PAYLOAD_CHARACTERS],
            payload_hash=identity.bytes_hash(record.value),
        )

    def refused(self, mention_id: str, source_id: str, reason: DeadLetterReason, size: int) -> Output:
        """The dead letter of a row that became too large to be passed on; it is told by its id, not shown."""
        return self._letter(
            locator=f"mention {mention_id}",
            source_id=source_id,
            reason=reason,
            detail=f"its row has {size} bytes",
            payload="",
            payload_hash=mention_id,
        )

    def _letter(
        self, *, locator: str, source_id: str, reason: DeadLetterReason, detail: str, payload: str, payload_hash: str
    ) -> Output:
        metrics.DEAD_LETTERS.labels(source_id, reason).inc()
        letter = DeadLetter(
            dead_letter_id=identity.dead_letter_id(locator, payload_hash),
            source_id=source_id,
            stage=self._stage,
            reason=reason,
            detail=detail,
            locator=locator,
            payload=payload,
            payload_hash=payload_hash,
            time=time.time_ns() // 1_000_000,
        )
        return Output("dead_letters.v1", letter.dead_letter_id.encode(), encode(letter))
