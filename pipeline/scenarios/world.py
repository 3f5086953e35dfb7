"""The source that a scenario is: its mentions day by day, as they come to be known.

Nothing is labelled: a mention carries what a shop or a network would tell of it, and a text.
"""

from collections.abc import Iterator, Sequence

import msgspec

from connectors.base import Checkpoint, SourceCheck, SourceItem
from connectors.masking import Masker, Pseudonymiser
from pipeline.errors import TerminalError
from pipeline.scenarios.script import Script
from pipeline.scenarios.story import Outage, Scenario
from schemas.control import Gap, Idle, Watermark
from schemas.dead_letter import DeadLetter
from schemas.mention import Mention


class World:
    """A scenario as a ``Source``.

    Args:
        scenario: what happens.
        pseudonym_key: of the authors' pseudonyms.
    """

    def __init__(self, scenario: Scenario, pseudonym_key: bytes) -> None:
        self.source_id = scenario.name
        self._scenario = scenario
        self._mask = Masker(lot.id for product in scenario.products for lot in product.lots).mask
        self._pseudonymise = Pseudonymiser(pseudonym_key)

    def check(self) -> SourceCheck:
        """See ``Source.check``."""
        return SourceCheck(f"{self._scenario.days} scripted days", date_only=False)

    def reread(self, refused: Sequence[tuple[str, str]]) -> Iterator[Mention | DeadLetter]:
        """See ``Source.reread``: nothing is ever refused here."""
        yield from ()

    def read(self, cursor: bytes | None) -> Iterator[SourceItem]:
        """See ``Source.read``: a day, a checkpoint. A scenario is never resumed; ``cursor`` must be None."""
        if cursor is not None:
            raise TerminalError("a scenario starts in a new folder; choose another --data-dir")
        script = Script(self._scenario, self._mask, self._pseudonymise)
        withheld: list[Mention] = []
        for day in range(self._scenario.days):
            lost = self._lost_channels(day)
            known = script.day(day) + ([] if lost else [self._late(one, day) for one in withheld])
            withheld = [*withheld, *(one for one in known if one.channel in lost)] if lost else []
            heard = [one for one in known if one.channel not in lost]
            yield from sorted(heard, key=lambda one: (one.event_time, one.mention_id))
            yield from self._gaps(day)
            yield Watermark(self.source_id, self._scenario.midnight(day + 1) - 1)
            yield Checkpoint(str(day + 1).encode())
        yield Idle(self.source_id)

    def _outages(self) -> Iterator[Outage]:
        return (phase for phase in self._scenario.phases if isinstance(phase, Outage))

    def _lost_channels(self, day: int) -> set[str]:
        """Channels that cannot be read on a day."""
        return {channel for one in self._outages() if one.lasts(day) for channel in one.channels}

    def _gaps(self, day: int) -> Iterator[Gap]:
        """What is said of an outage: on its first day that it is there, on the day after it when it ended."""
        for outage in self._outages():
            first, last = outage.days
            if day in (first, last + 1):
                end = None if day == first else self._scenario.midnight(day)
                yield Gap(self.source_id, self._scenario.midnight(first), end, f"{', '.join(outage.channels)} not read")

    def _late(self, mention: Mention, day: int) -> Mention:
        """What was said in an outage, as it is read after it."""
        return msgspec.structs.replace(mention, backfill=True, ingest_time=self._scenario.midnight(day))
