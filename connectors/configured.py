"""From the configuration to sources that can be read."""

from collections.abc import Iterable

from connectors.base import Source
from connectors.files import FileSource
from connectors.masking import Masker, Pseudonymiser
from pipeline.settings import Settings, duration_ms


def sources(settings: Settings, lots: Iterable[str], pseudonym_key: bytes, *, complete: bool) -> list[Source]:
    """The configured sources.

    Args:
        settings: what to read.
        lots: lots of the catalogue, which masking leaves alone.
        pseudonym_key: key of the authors' pseudonyms.
        complete: nobody is writing to the sources now (``--until-end``).
    """
    masker, pseudonymise = Masker(lots), Pseudonymiser(pseudonym_key)
    return [
        FileSource(
            one.name,
            one.path,
            one.form,
            one.channel,
            one.fields,
            time_zone=one.time_zone or settings.time_zone,
            time_format=one.time_format,
            max_lateness_ms=duration_ms(one.max_lateness),
            complete=complete,
            masker=masker,
            pseudonymise=pseudonymise,
        )
        for one in settings.sources
    ]
