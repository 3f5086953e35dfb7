"""One thing a customer said, as a connector publishes it: masked, identified, dated."""

from typing import Annotated, Literal, get_args

from msgspec import Meta, Struct

from schemas.vocabulary import AuthorRole, Channel, Milliseconds, TurnRole


class Turn(Struct, frozen=True, gc=False):
    """One turn of a call or chat."""

    role: TurnRole
    text: Annotated[str, Meta(description="what was said, masked")]


class Mention(Struct, frozen=True, gc=False, tag="mention", tag_field="record"):
    """A post, review, call, chat, e-mail or survey answer. Key of ``mentions.raw.v1``: ``mention_id``."""

    mention_id: Annotated[str, Meta(description="hash of source_id and native id (schemas.identity); never changes")]
    source_id: Annotated[str, Meta(description="immutable name of the source")]
    native_id: Annotated[str | None, Meta(description="the source's own id; null where it has none")]
    channel: Channel
    text: Annotated[
        str, Meta(description="the customer's own words, masked; of a call, all turns joined by line feeds")
    ]
    event_time: Annotated[Milliseconds, Meta(description="when the customer said it, ms since the epoch, UTC")]
    ingest_time: Annotated[Milliseconds, Meta(description="when the connector read it, ms since the epoch, UTC")]
    revision: Annotated[int, Meta(ge=0, description="0 at first; each edit or deletion adds one")] = 0
    deleted: Annotated[bool, Meta(description="the source says that it was withdrawn; text is then empty")] = False
    author: Annotated[str | None, Meta(description="keyed pseudonym of the author; null if unknown")] = None
    author_role: AuthorRole = "unknown"
    turns: Annotated[list[Turn] | None, Meta(description="calls and chats only")] = None
    repost_of: Annotated[
        str | None, Meta(description="native id of what is reposted; text is then the reposter's own words")
    ] = None
    incentivised: Annotated[bool, Meta(description="the author was rewarded")] = False
    default_review: Annotated[bool, Meta(description="text put in by the platform: denominator only")] = False
    observed: Annotated[bool, Meta(description="undated at the source: event_time is the time of first sight")] = False
    backfill: Annotated[bool, Meta(description="older than what the source had promised to be complete")] = False
    product: Annotated[str | None, Meta(description="product as the source names it")] = None
    product_batch: Annotated[str | None, Meta(description="lot as the source gives it, perhaps dirty")] = None
    version: Annotated[str | None, Meta(description="firmware, app or edition as the source gives it")] = None
    carrier: Annotated[str | None, Meta(description="carrier as the source gives it")] = None
    region: Annotated[str | None, Meta(description="region as the source gives it")] = None
    rating: Annotated[float | None, Meta(description="stars or score, in the source's own scale")] = None
    url: Annotated[str | None, Meta(description="where it stands, free of personal data")] = None


MappedField = Literal[
    "native_id",
    "text",
    "event_time",
    "channel",
    "author",
    "author_role",
    "repost_of",
    "incentivised",
    "deleted",
    "turns",
    "product",
    "product_batch",
    "version",
    "carrier",
    "region",
    "rating",
    "url",
]
"""What a source's own field can be mapped to in the configuration."""
MAPPED_FIELDS: tuple[MappedField, ...] = get_args(MappedField)
