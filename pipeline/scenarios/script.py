"""What is said on each day of a scenario, drawn with its seed: every run sees the same mentions."""

from collections.abc import Callable, Iterator, Mapping
from math import exp
from random import Random
from typing import TypeVar

import msgspec

from pipeline.scenarios.story import Lot, Multiply, Product, Scenario, Talk
from schemas import identity
from schemas.mention import Mention
from schemas.policy import HOUR_MS
from schemas.vocabulary import Channel

_CHANNELS: tuple[Channel, ...] = ("review", "social", "chat")
_CHANNEL_WEIGHTS = (6, 3, 1)
_MINUTE_MS = 60_000
_PRAISE = "praise"
_EVERYDAY = Talk(days=(0, 0), theme=_PRAISE, mentions=0)
"""How everyday mentions are made: in no special way."""

Value = TypeVar("Value")


class Script:
    """Gives the mentions of one day after the other; once through, from day 0.

    Args:
        scenario: what happens.
        mask: takes personal data out of a text.
        pseudonymise: makes a pseudonym of an author's name.
    """

    def __init__(
        self, scenario: Scenario, mask: Callable[[str], str], pseudonymise: Callable[[str], str | None]
    ) -> None:
        self._scenario = scenario
        self._mask = mask
        self._pseudonymise = pseudonymise
        self._random = Random(scenario.seed)  # noqa: S311 - a script, not a secret
        self._number = 0

    def day(self, day: int) -> list[Mention]:
        """All that becomes known on a day, whenever it was said."""
        said = [one for product in self._scenario.products for one in self._everyday(product, day)]
        for number, phase in enumerate(self._scenario.phases):
            if isinstance(phase, Talk) and phase.lasts(day):
                said += self._talk(phase, number, day)
        return said

    def _everyday(self, product: Product, day: int) -> Iterator[Mention]:
        everything = {_PRAISE: 1.0 - sum(product.complaints.values())} | product.complaints
        for lot in product.lots:
            mean = product.mentions / len(product.lots) * lot.in_field(day) * self._liveliness(product, lot, day)
            for _ in range(self._poisson(mean)):
                theme = self._pick(everything)
                yield self._mention(_EVERYDAY, product, lot, day, self._scenario.theme(theme).text(self._random))

    def _liveliness(self, product: Product, lot: Lot, day: int) -> float:
        factor = 1.0
        for phase in self._scenario.phases:
            if isinstance(phase, Multiply) and phase.concerns(product, lot) and phase.lasts(day):
                factor *= phase.by
        return factor

    def _talk(self, phase: Talk, number: int, day: int) -> Iterator[Mention]:
        """The mentions of a phase on a day, shared out by what each lot has in the field."""
        concerned = {
            (product.id, lot.id): (lot.units or 1.0) * lot.in_field(day)
            for product in self._scenario.products
            for lot in product.lots
            if phase.concerns(product, lot) and lot.in_field(day)
        }
        if not concerned:
            return  # nobody has one yet
        theme = self._scenario.theme(phase.theme)
        first = ""
        for count in range(self._whole(phase.mentions_on(day))):
            product_id, lot_id = self._pick(concerned)
            product = self._scenario.product(product_id)
            lot = product.lot(lot_id)
            if not phase.copies:
                yield self._mention(phase, product, lot, day, theme.text(self._random), f"author-{number}")
                continue
            text = theme.said[0] + "！" * (count % 3) + "[怒]" * (count % 2)
            copied = self._mention(phase, product, lot, day, text)
            first = first or copied.native_id or ""
            yield msgspec.structs.replace(copied, repost_of=first if count % 2 else None)

    def _mention(self, phase: Talk, product: Product, lot: Lot, day: int, text: str, one_author: str = "") -> Mention:
        """A mention that becomes known on a day. A text that names its lot comes without one beside it."""
        random, scenario = self._random, self._scenario
        channel: Channel = phase.channel or random.choices(_CHANNELS, _CHANNEL_WEIGHTS)[0]
        carrier = phase.carrier or random.choice(scenario.carriers)
        author = one_author if phase.one_author else f"user-{random.randrange(200_000)}"
        filled = text.format(lot=lot.id, product=product.name, carrier=carrier, phone=self._phone())
        self._number += 1
        native_id = f"{day:02d}-{self._number:06d}"
        event_time, ingest_time = self._times(phase, day)
        return Mention(
            mention_id=identity.mention_id(scenario.name, native_id),
            source_id=scenario.name,
            native_id=native_id,
            channel=channel,
            text=self._mask(filled),
            event_time=event_time,
            ingest_time=ingest_time,
            author=self._pseudonymise(author),
            author_role="customer",
            incentivised=phase.incentivised,
            backfill=phase.said_before is not None,
            product=product.name,
            product_batch=None if "{lot}" in text else lot.id,
            carrier=carrier if channel == "review" else None,
            region=phase.region or random.choice(scenario.regions),
        )

    def _times(self, phase: Talk, day: int) -> tuple[int, int]:
        """When it was said, and when it was read."""
        scenario = self._scenario
        said_on = day - (self._random.randint(*phase.said_before) if phase.said_before else 0)
        said = scenario.midnight(said_on) + int(self._random.triangular(6, 24, 20) * HOUR_MS) - 1
        if scenario.read_on is not None:
            return said, scenario.midnight(scenario.read_on)
        return said, scenario.midnight(day) + 9 * HOUR_MS if phase.said_before else said + _MINUTE_MS

    def _phone(self) -> str:
        return f"139{self._random.randrange(10**8):08d}"

    def _pick(self, shares: Mapping[Value, float]) -> Value:
        return self._random.choices(list(shares), list(shares.values()))[0]

    def _whole(self, amount: float) -> int:
        """A fraction is a chance."""
        return int(amount) + (self._random.random() < amount % 1)

    def _poisson(self, mean: float) -> int:
        """Knuth's method; the means here are small."""
        limit, number, product = exp(-mean), 0, self._random.random()
        while product > limit:
            number += 1
            product *= self._random.random()
        return number
