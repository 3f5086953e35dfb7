"""Messages to bytes and back: JSON, as every topic carries it, each kind in a version of its own.

A message on a topic says in the record header ``schema-version`` in which version of its kind it was written. What an
older version wrote is brought up step by step, as a JSON object, before it becomes a struct; what a newer one wrote is
refused with an error of its own, because a reader must then stop: passed over as bad input it would be lost. When a number
must be raised, and who is upgraded first, stands in docs/contracts.md.
"""

from collections.abc import Callable
from functools import cache
from types import UnionType
from typing import Any, TypeVar, overload

import msgspec

from schemas.action import Action
from schemas.catalogue import CatalogueChunk
from schemas.control import ControlRecord
from schemas.dead_letter import DeadLetter
from schemas.mention import Mention
from schemas.scored import ScoredBlock
from schemas.signal import Signal
from schemas.step_count import StepCount

RawRecord = Mention | ControlRecord
"""A value of ``mentions.raw.v1``; the field ``record`` tells which."""

ScoredRecord = ScoredBlock | ControlRecord
"""A value of ``mentions.scored.v1``; the field ``record`` tells which."""

SCHEMA_VERSION_HEADER = "schema-version"
"""Record header of every message on a topic: the version of its kind, an integer in ASCII."""

TOPICS: dict[str, Any] = {
    "mentions.raw.v1": RawRecord,
    "mentions.scored.v1": ScoredRecord,
    "step_counts.v1": StepCount,
    "signals.v1": Signal,
    "sources.v1": ControlRecord,
    "dead_letters.v1": DeadLetter,
    "catalogue.v1": CatalogueChunk,
    "actions.v1": Action,
    "cursors.v1": bytes,
    "state.detect.v1": bytes,
}
"""What each topic of ``topics.yaml`` carries. Of ``bytes`` the owner alone knows the format, and its version."""

VERSIONS: dict[Any, int] = {
    RawRecord: 1,
    ScoredRecord: 1,
    ControlRecord: 1,
    StepCount: 1,
    Signal: 1,
    DeadLetter: 1,
    CatalogueChunk: 1,
    Action: 1,
    bytes: 1,
}
"""The version that is written of each kind of message."""

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]

UPCASTERS: dict[tuple[Any, int], Upcaster] = {}
"""(kind, n) → what makes version n + 1 of a JSON object of version n. Versions without one can no longer be read."""

T = TypeVar("T")

_encoder = msgspec.json.Encoder()
_decoder = cache(msgspec.json.Decoder)
"""Decoder of a kind. Made once: for a union that takes thirty times as long as to decode a small message."""


class NewerVersion(ValueError):
    """A message was written by a newer version of this system: the reader must stop, and go on when it is upgraded."""

    def __init__(self, kind: str, found: int, known: int) -> None:
        super().__init__(f"written by a newer version: {kind} of version {found}, this reader knows {known}")
        self.found = found
        self.known = known


def encode(message: msgspec.Struct) -> bytes:
    """The message as UTF-8 JSON, in the current version of its kind."""
    return _encoder.encode(message)


def version_of_topic(topic: str) -> bytes:
    """Value of the header ``schema-version`` of what is written to a topic of ``topics.yaml``, by its name there."""
    return b"%d" % VERSIONS[TOPICS[topic]]


@overload
def decode(data: bytes, kind: type[T], version: int | None = None) -> T: ...


@overload
def decode(data: bytes, kind: UnionType, version: int | None = None) -> Any: ...


def decode(data: bytes, kind: Any, version: int | None = None) -> Any:
    """The message of that type.

    Args:
        data: JSON.
        kind: a message struct or one of the unions above.
        version: that it was written in; None: the current one of its kind.

    Raises:
        NewerVersion: ``version`` is above the current one.
        msgspec.ValidationError: well-formed JSON that is no such message, or of a version that can no longer be read.
        msgspec.DecodeError: not JSON.
    """
    if version is None or version == VERSIONS[kind]:
        return _decoder(kind).decode(data)
    return msgspec.convert(_brought_up(data, kind, version), kind)


def _brought_up(data: bytes, kind: Any, version: int) -> Any:
    """The JSON object of an older version, as the current one would have written it."""
    current, name = VERSIONS[kind], _name(kind)
    if version > current:
        raise NewerVersion(name, version, current)
    value = msgspec.json.decode(data)
    for number in range(version, current):
        upcast = UPCASTERS.get((kind, number))
        if upcast is None:
            raise msgspec.ValidationError(f"{name} of version {number} can no longer be read")
        try:
            value = upcast(value)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            # It is one bad message, not a fault of the reader.
            raise msgspec.ValidationError(f"no {name} of version {number}: {error!r}") from error
    return value


def _name(kind: Any) -> str:
    """A kind in words: of a union, all of its members."""
    return " | ".join(member.__name__ for member in getattr(kind, "__args__", (kind,)))
