"""Identities: computed the same way everywhere, once."""

import hashlib


def _digest(*parts: str) -> str:
    """128 bits of BLAKE2b as 32 hex digits. The parts' lengths stand first, so that parts cannot run together."""
    text = f"{[*map(len, parts)]}{''.join(parts)}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def mention_id(source_id: str, native_id: str) -> str:
    """The id of a mention whose source has an id for it."""
    return _digest("mention", source_id, native_id)


def mention_id_without_native(source_id: str, content_hash: str, occurrence: int) -> str:
    """The id of a mention without a native id: its content and its number among equal records of the source."""
    return _digest("mention-content", source_id, content_hash, str(occurrence))


def content_hash(*fields: str) -> str:
    """Hash of the mapped fields of a record, in a fixed order."""
    return _digest("content", *fields)


def bytes_hash(data: bytes) -> str:
    """Hash of a record as it was read."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def signal_id(
    kind: str, subject_kind: str, subject_id: str, product_batch_id: str, objection_type: str, opened: int
) -> str:
    """The id of a signal: what it is about, and the event-time step (severe: local day) that opened it, ms UTC."""
    return _digest("signal", kind, subject_kind, subject_id, product_batch_id, objection_type, str(opened))


def dead_letter_id(locator: str, payload_hash: str) -> str:
    """The id of a dead letter: refusing the same record at the same place twice gives one."""
    return _digest("dead-letter", locator, payload_hash)
