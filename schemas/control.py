"""What travels in band beside mentions, so that a replay sees it at the same place."""

from typing import Annotated

from msgspec import Meta, Struct

from schemas.catalogue import CatalogueEntry
from schemas.policy import DetectionPolicy
from schemas.vocabulary import Milliseconds


class Watermark(Struct, frozen=True, tag="watermark", tag_field="record"):
    """A promise: nothing older than ``time`` will come, unless marked ``backfill``."""

    source_id: Annotated[str, Meta(description="the source that promises; empty: all of them together")]
    time: Milliseconds


class Gap(Struct, frozen=True, tag="gap", tag_field="record"):
    """A time for which a source has told, or may have told, nothing. Key of the table: source and start."""

    source_id: str
    start: Milliseconds
    end: Annotated[Milliseconds | None, Meta(description="null while it lasts")]
    reason: str


class Idle(Struct, frozen=True, tag="idle", tag_field="record"):
    """The source has given all it has for now; it leaves the minimum of watermarks until it speaks again."""

    source_id: str


class Retired(Struct, frozen=True, tag="retired", tag_field="record"):
    """The source was taken out of the configuration and leaves the minimum of watermarks for good."""

    source_id: str


class CatalogueUpdate(Struct, frozen=True, tag="catalogue", tag_field="record"):
    """A new catalogue, effective for every base step that is not yet closed where it is read."""

    version: Annotated[str, Meta(description="hash of the entries")]
    entries: Annotated[
        list[CatalogueEntry] | None, Meta(description="null on a topic: they stand in catalogue.v1 under this version")
    ] = None


class PolicyUpdate(Struct, frozen=True, tag="policy", tag_field="record"):
    """A new policy, effective for every base step that is not yet closed where it is read."""

    version: Annotated[str, Meta(description="hash of the policy")]
    policy: DetectionPolicy


ControlRecord = Watermark | Gap | Idle | Retired | CatalogueUpdate | PolicyUpdate
