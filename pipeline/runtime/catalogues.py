"""Versions of the catalogue by name: published once, looked up by every stage that meets the name in band."""

from collections.abc import Iterable, Iterator, Sequence

from pipeline.errors import TerminalError
from pipeline.runtime.kafka import Names, read_to_end
from pipeline.runtime.stage import Output
from pipeline.settings import KafkaSettings
from schemas.catalogue import CatalogueChunk, CatalogueEntry
from schemas.codec import decode, encode

TOPIC = "catalogue.v1"
CHUNK = 2000
"""Entries a record: a few hundred kilobytes."""


def chunks(version: str, entries: Sequence[CatalogueEntry]) -> Iterator[Output]:
    """The records that publish one version."""
    parts = [list(entries[at : at + CHUNK]) for at in range(0, len(entries), CHUNK)] or [[]]
    for number, part in enumerate(parts):
        chunk = CatalogueChunk(version, number, len(parts), part)
        yield Output(TOPIC, f"{version}/{number}".encode(), encode(chunk), 0)


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
            values = (record.value for record in read_to_end(self._settings, "catalogue", self._topic) if record.value)
            self._known |= _complete(decode(value, CatalogueChunk) for value in values)
        if version not in self._known:
            raise TerminalError(
                f"catalogue {version} is not on {self._topic}: start `connect` with the catalogue again"
            )
        return self._known[version]


def _complete(found: Iterable[CatalogueChunk]) -> dict[str, list[CatalogueEntry]]:
    by_version: dict[str, dict[int, CatalogueChunk]] = {}
    for chunk in found:
        by_version.setdefault(chunk.version, {})[chunk.number] = chunk
    return {
        version: [entry for number in sorted(parts) for entry in parts[number].entries]
        for version, parts in by_version.items()
        if len(parts) == parts[min(parts)].chunks
    }
