"""A mention as scoring understood it: one row per (mention, subject)."""

from typing import Annotated

from msgspec import Meta, Struct

from schemas.vocabulary import (
    Channel,
    Emotion,
    Flag,
    Milliseconds,
    ObjectionType,
    Polarity,
    Severity,
    Share,
    SpeechAct,
    SubjectKind,
)

Span = Annotated[tuple[int, int], Meta(description="start and end (exclusive), in characters of the text")]


class Objection(Struct, frozen=True, gc=False):
    """One thing objected to (or praised, or merely named), justified by a span of the text."""

    type: ObjectionType
    subtype: Annotated[str, Meta(description="second level of the taxonomy")]
    span: Span
    polarity: Polarity


class ScoredRow(Struct, frozen=True, gc=False):
    """One mention seen as being about one subject.

    The subject decides the partition. Exactly one row of a mention is ``primary``: the product of the surest
    attribution, else the product ``""`` (unknown). Only it carries the text, is stored, and takes the severity path.
    """

    mention_id: str
    revision: int
    deleted: bool
    subject_kind: SubjectKind
    subject_id: str
    primary: bool
    product_id: Annotated[str, Meta(description="of the surest attribution; empty if unknown")]
    product_batch_id: Annotated[str, Meta(description="the lot; empty if unknown")]
    attribution_confidence: Share
    version: str
    carrier: str
    region: str
    channel: Channel
    source_id: str
    event_time: Milliseconds
    ingest_time: Milliseconds
    sentiment: Annotated[float, Meta(ge=-1, le=1, description="within ±0.1 is neutral")]
    sentiment_probability: Annotated[Share, Meta(description="calibrated probability that the text is positive")]
    objections: list[Objection]
    speech_act: SpeechAct
    emotion: Emotion
    intensity: Annotated[Share, Meta(description="of the emotion")]
    severity: Severity
    author: Annotated[str, Meta(description="pseudonym; empty if unknown")]
    near_duplicate_signature: Annotated[
        int,
        Meta(description="unsigned 64 bit; equal for texts that differ only in names, numbers, emoticons; 0: no text"),
    ]
    flags: list[Flag]
    versions: Annotated[str, Meta(description="model, lexicon, taxonomy and catalogue that made this row")]
    text: Annotated[str, Meta(description="masked text; primary rows only")] = ""
    native_id: str = ""
    rating: float | None = None
    url: str = ""


class Retraction(Struct, frozen=True, gc=False):
    """What was counted of this mention with a lower revision is void. Goes to every scored partition."""

    mention_id: str
    revision: int


class ScoredBlock(Struct, frozen=True, tag="scored", tag_field="record"):
    """All rows of one raw block that go to one partition of ``mentions.scored.v1``."""

    rows: list[ScoredRow]
    retractions: list[Retraction] = []
