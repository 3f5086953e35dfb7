"""The closed sets of words that messages may use. Changing one is a change of contract."""

from typing import Annotated, Literal, get_args

from msgspec import Meta

Channel = Literal["review", "social", "call", "chat", "email", "survey"]
AuthorRole = Literal["customer", "staff", "media", "unknown"]
TurnRole = Literal["customer", "agent", "system"]

ObjectionType = Literal[
    "product_quality",
    "service_attitude",
    "service_efficiency",
    "price",
    "delivery",
    "after_sales",
    "expectation_gap",
]
Polarity = Literal["negative", "neutral", "positive"]
SpeechAct = Literal["complaint", "doubt", "suggestion", "question", "praise", "other"]
Emotion = Literal["anger", "disappointment", "helplessness", "sadness", "fear", "joy", "neutral"]
Severity = Annotated[
    int,
    Meta(
        ge=0,
        le=4,
        description="0 no objection, 1 inconvenience, 2 loss, 3 danger with nobody hurt, 4 harm",
    ),
]
Flag = Literal["repost", "incentivised", "default_review", "observed", "backfill"]

SubjectKind = Literal["product", "carrier", "region", "channel"]
Dimension = Literal["batch", "carrier", "region", "channel", "version", "none"]
ExposureKind = Literal["units", "mentions"]
CountStatus = Literal["provisional", "final"]
SignalKind = Literal["spike", "ramp", "severe", "incident"]
SignalEvent = Literal["opened", "updated", "closed"]
Tier = Literal["page", "ticket", "info"]

OBJECTION_TYPES: tuple[ObjectionType, ...] = get_args(ObjectionType)
OBJECTING_ACTS: frozenset[SpeechAct] = frozenset({"complaint", "doubt"})
"""Only these speech acts feed objection counts; every other mention is denominator."""

ANY_OBJECTION = "any"
"""In step counts: voices that object to anything at all; the row that carries a step's mentions and exposure."""

Milliseconds = Annotated[int, Meta(description="milliseconds since the epoch, UTC")]
Share = Annotated[float, Meta(ge=0, le=1)]
