"""Messages to bytes and back: JSON, as every topic carries it."""

from typing import TypeVar

import msgspec

from schemas.control import ControlRecord
from schemas.mention import Mention
from schemas.scored import ScoredBlock

RawRecord = Mention | ControlRecord
"""A value of ``mentions.raw.v1``; the field ``record`` tells which."""

ScoredRecord = ScoredBlock | ControlRecord
"""A value of ``mentions.scored.v1``; the field ``record`` tells which."""

T = TypeVar("T")

_encoder = msgspec.json.Encoder()


def encode(message: msgspec.Struct) -> bytes:
    """The message as UTF-8 JSON."""
    return _encoder.encode(message)


def decode(data: bytes, kind: type[T]) -> T:
    """The message of that type.

    Raises:
        msgspec.ValidationError: well-formed JSON that is no such message.
        msgspec.DecodeError: not JSON.
    """
    return msgspec.json.decode(data, type=kind)
