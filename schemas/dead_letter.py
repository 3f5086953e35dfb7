"""What could not be taken in, with its reason; nothing is dropped in silence."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from schemas.vocabulary import Milliseconds

DeadLetterReason = Literal[
    "unreadable",
    "wrong_encoding",
    "missing_field",
    "wrong_type",
    "absurd_time",
    "too_large",
    "poison_row",
]


class DeadLetter(Struct, frozen=True, tag="dead_letter", tag_field="record"):
    """One record that was refused. Key: ``dead_letter_id``."""

    dead_letter_id: Annotated[str, Meta(description="hash of the locator and the payload hash")]
    source_id: str
    stage: Annotated[str, Meta(description="connector, score, detect or store")]
    reason: DeadLetterReason
    detail: Annotated[str, Meta(description="in words; masked")]
    locator: Annotated[str, Meta(description="where it stands: file and record number, or topic-partition-offset")]
    payload: Annotated[str, Meta(description="the record, masked, cut at 16 KB")]
    payload_hash: Annotated[str, Meta(description="of the record as it was read")]
    time: Milliseconds
