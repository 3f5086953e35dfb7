"""Products and their lots: what can be at fault, under which names, and how many units are in the field."""

from typing import Annotated

from msgspec import Meta, Struct

from schemas.vocabulary import Milliseconds


class CatalogueEntry(Struct, frozen=True):
    """One lot of one product; a product without known lots has one entry with an empty ``product_batch_id``."""

    product_id: str
    name: str
    aliases: Annotated[list[str], Meta(description="other names that customers use")]
    product_batch_id: Annotated[str, Meta(description="the lot, version, edition or model year; may be empty")] = ""
    units: Annotated[
        Annotated[float, Meta(ge=0)] | None, Meta(description="units of the lot sold in all; null if unknown")
    ] = None
    sold_from: Annotated[Milliseconds | None, Meta(description="first unit in the field, ms UTC")] = None
    sold_until: Annotated[Milliseconds | None, Meta(description="last unit in the field, ms UTC")] = None


class CatalogueChunk(Struct, frozen=True):
    """A part of one version of the catalogue; all of it together is what `CatalogueUpdate` names. Never changed."""

    version: Annotated[str, Meta(description="hash of all entries")]
    number: Annotated[int, Meta(ge=0, description="of this chunk, from 0")]
    chunks: Annotated[int, Meta(ge=1, description="chunks of this version")]
    entries: list[CatalogueEntry]
