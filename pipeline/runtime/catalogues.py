"""Versions of the catalogue by name: published once, looked up by every stage that meets the name in band."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from pipeline.errors import TerminalError
from pipeline.runtime.kafka import Names, read_to_end
from pipeline.runtime.stage import Output
from pipeline.settings import KafkaSettings
from schemas.catalogue import CatalogueChunk, CatalogueEntry
from schemas.codec import decode, encode

TOPIC = "catalogue.v1"
CHUNK = 2000
"""Entries a record at most …"""
CHUNK_BYTES = 500_000
"""… and bytes."""


def version_of(value: object) -> str:
    """Version of a catalogue or policy: a hash of what it says."""
    return hashlib.blake2b(msgspec.json.encode(value), digest_size=8).hexdigest()


def chunks(version: str, entries: Sequence[CatalogueEntry]) -> Iterator[Output]:
    """The records that publish one version."""
    parts = [part for at in range(0, len(entries), CHUNK) for part in _cut(entries[at : at + CHUNK])] or [[]]
    for number, part in enumerate(parts):
        chunk = CatalogueChunk(version, number, len(parts), list(part))
        yield Output(TOPIC, f"{version}/{number}".encode(), encode(chunk), 0)


def _cut(entries: Sequence[CatalogueEntry]) -> list[Sequence[CatalogueEntry]]:
    if len(entries) == 1 or len(msgspec.json.encode(entries)) <= CHUNK_BYTES:
        return [entries]
    middle = len(entries) // 2
    return _cut(entries[:middle]) + _cut(entries[middle:])


class Catalogues:
    """Looks versions up on the topic; what was found once is kept."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._topic = Names(settings).topic(TOPIC)
        self._known: dict[str, list[CatalogueEntry]] = {"": []}

    def entries(self, version: str) -> list[CatalogueEntry]:
        """The entries of a version; none for the empty name.

        Raises:
            TerminalError: it is not on the topic, although it is published before it is named.
            TransientError, ConfigurationError: see ``pipeline.runtime.kafka.errors``.
        """
        if version not in self._known:
            self._known |= _complete(self._chunks())
        if version not in self._known:
            raise TerminalError(
                f"catalogue {version} is not on {self._topic}: start `connect` with the catalogue again"
            )
        return self._known[version]

    def latest(self) -> str:
        """The version published last; empty before the first.

        For records that stand before the oldest naming that the topic still holds: it is named anew at least daily.
        """
        versions = [chunk.version for chunk in self._chunks()]
        return versions[-1] if versions else ""

    def _chunks(self) -> list[CatalogueChunk]:
        values = (record.value for record in read_to_end(self._settings, "catalogue", self._topic) if record.value)
        return [decode(value, CatalogueChunk) for value in values]


def _complete(found: Iterable[CatalogueChunk]) -> dict[str, list[CatalogueEntry]]:
    by_version: dict[str, dict[int, CatalogueChunk]] = {}
    for chunk in found:
        by_version.setdefault(chunk.version, {})[chunk.number] = chunk
    return {
        version: [entry for number in sorted(parts) for entry in parts[number].entries]
        for version, parts in by_version.items()
        if len(parts) == parts[min(parts)].chunks
    }
