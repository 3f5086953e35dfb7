"""What a scenario is: products and lots, what happens to them day by day, and the signals that must come of it.

One YAML file each in ``stories``, strictly read. Days are counted from ``first_day``, which is day 0.
"""

import datetime as dt
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta, Struct

from pipeline.errors import ConfigurationError
from pipeline.scenarios.wording import BLANKS, Theme, themes
from schemas.catalogue import CatalogueEntry
from schemas.policy import DAY_MS, DetectionPolicy
from schemas.vocabulary import Channel, Dimension, ObjectionType, SignalKind, SubjectKind

ZONE = ZoneInfo("Asia/Shanghai")
POLICY = DetectionPolicy(step="1d", time_zone=str(ZONE), false_signals_per_week=1 / 52, series=70)
"""One false signal a year over ten lots, whatever else is in the catalogue: a scenario alone and all of them together are
then judged alike."""

Days = tuple[int, int]
"""The first and the last day of something, both included."""
Amount = Annotated[float, Meta(ge=0)]


class _Strict(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A misspelt key is an error."""


class Words(_Strict, frozen=True, kw_only=True):
    """The same in both languages."""

    zh: str
    en: str

    @property
    def both(self) -> tuple[str, str]:
        """Chinese first."""
        return self.zh, self.en


class Lot(_Strict, frozen=True, kw_only=True):
    """A lot, version, edition or model year; its units come into the field evenly over the days of its sale."""

    id: str
    units: Amount | None = None
    """Sold in all; unknown: rates are then per mention."""
    sold: Days = (-180, -1)

    def in_field(self, day: int) -> float:
        """Which share of its units is in the field at the middle of a day."""
        first, last = self.sold
        return min(1.0, max(0.0, (day + 0.5 - first) / (last + 1 - first)))


class Product(_Strict, frozen=True, kw_only=True):
    """A product and what is said of it on any day."""

    id: str
    name: str
    lots: Annotated[tuple[Lot, ...], Meta(min_length=1)]
    mentions: Amount
    """A day, over all lots, when all units are in the field."""
    complaints: dict[str, Amount]
    """Theme → its share of them; all others praise."""
    aliases: tuple[str, ...] = ()

    def lot(self, lot_id: str) -> Lot:
        """The lot of this id."""
        return next(lot for lot in self.lots if lot.id == lot_id)


class Phase(_Strict, frozen=True, kw_only=True, tag_field="do"):
    """Something that happens from one day until another."""

    days: Days
    products: tuple[str, ...] = ()
    """Concerned; none named: all of the scenario."""
    lot: str = ""
    """Concerned; empty: all of them."""

    def lasts(self, day: int) -> bool:
        """Whether it happens on a day."""
        return self.days[0] <= day <= self.days[1]

    def concerns(self, product: Product, lot: Lot) -> bool:
        """Whether it happens to this lot of this product."""
        return (not self.products or product.id in self.products) and self.lot in ("", lot.id)


class Talk(Phase, frozen=True, kw_only=True, tag="talk"):
    """Mentions besides the everyday ones."""

    theme: str
    mentions: Amount
    """A day; a fraction is a chance."""
    rising_to: Amount | None = None
    """On the last day; from the first on they change evenly. None: they stay as they are."""
    channel: Channel | None = None
    carrier: str | None = None
    region: str | None = None
    one_author: bool = False
    copies: bool = False
    """All say the same; every other one is marked as a repost."""
    incentivised: bool = False
    said_before: Days | None = None
    """Filed late: said so many days before (the least, the most), and marked as back-fill."""

    def mentions_on(self, day: int) -> float:
        """How many on a day of this phase."""
        first, last = self.days
        rise = 0.0 if self.rising_to is None else self.rising_to - self.mentions
        return self.mentions + rise * (day - first) / max(last - first, 1)


class Multiply(Phase, frozen=True, kw_only=True, tag="multiply"):
    """All that is said on ordinary days is said so many times as often."""

    by: Amount


class Outage(Phase, frozen=True, kw_only=True, tag="outage"):
    """A channel cannot be read; what was said there comes the day after, as back-fill. Concerns all products."""

    channels: tuple[Channel, ...]


class Expected(_Strict, frozen=True, kw_only=True):
    """A signal that must come."""

    kind: SignalKind
    subject: str
    type: ObjectionType
    days: Days
    """It must open on one of these."""
    lot: str = ""
    subject_kind: SubjectKind = "product"
    verdict: Dimension = "none"
    historic: bool = False
    closed: Days | None = None
    """It must close on one of these; None: when does not matter, nor whether."""


class Shortfall(_Strict, frozen=True, kw_only=True):
    """What detection does not reach yet, and why; what is none must be as expected."""

    missing: Words | None = None
    extra: Words | None = None


class Query(_Strict, frozen=True, kw_only=True):
    """A question to the database, shown at the end."""

    title: Words
    sql: str


class Scenario(_Strict, frozen=True, kw_only=True):
    """A whole file. Every signal that ``expected`` does not name is an error."""

    name: str
    title: Words
    story: Words
    days: Annotated[int, Meta(ge=1, le=400)]
    products: Annotated[tuple[Product, ...], Meta(min_length=1)]
    phases: tuple[Talk | Multiply | Outage, ...] = ()
    expected: tuple[Expected, ...] = ()
    shortfall: Shortfall = Shortfall()
    queries: tuple[Query, ...] = ()
    sentences: dict[str, Theme] = {}
    """Themes of its own, beside those of ``sentences.yaml``."""
    first_day: dt.date = dt.date(2026, 3, 1)
    seed: int = 20_260_301
    carriers: tuple[str, ...] = ("顺丰", "中通", "圆通", "韵达")
    regions: tuple[str, ...] = ("广东", "浙江", "江苏", "四川", "北京", "山东", "湖北")
    read_on: int | None = None
    """Day on which all of it is read at once; None: each mention a minute after it was said."""

    def midnight(self, day: int) -> int:
        """When a day begins, ms UTC; the zone has no summer time."""
        begin = dt.datetime.combine(self.first_day, dt.time(), ZONE)
        return int(begin.timestamp() * 1000) + day * DAY_MS

    def day_of(self, time: int) -> int:
        """Number of the day that a time (ms UTC) lies in."""
        return (time - self.midnight(0)) // DAY_MS

    def product(self, product_id: str) -> Product:
        """The product of this id."""
        return next(product for product in self.products if product.id == product_id)

    def theme(self, name: str) -> Theme:
        """The theme of this name."""
        return self.sentences.get(name) or themes()[name]

    def speaks_of(self, subject_kind: str, subject_id: str) -> bool:
        """Whether a subject is one of its products, or one that it expects a signal about."""
        if subject_kind == "product":
            return any(product.id == subject_id for product in self.products)
        return any((one.subject_kind, one.subject) == (subject_kind, subject_id) for one in self.expected)

    def catalogue(self) -> list[CatalogueEntry]:
        """Products and lots as a brand would hand them over."""
        return [
            CatalogueEntry(
                product.id,
                product.name,
                list(product.aliases),
                lot.id,
                lot.units,
                self.midnight(lot.sold[0]),
                self.midnight(lot.sold[1] + 1),
            )
            for product in self.products
            for lot in product.lots
        ]


def names() -> list[str]:
    """The scenarios that are shipped, in the order of their names."""
    files = (resources.files("pipeline.scenarios") / "stories").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def load(name: str) -> Scenario:
    """A scenario that is shipped, by its name, however it is written, or one of your own, by the path of its file.

    Raises:
        ConfigurationError: there is none, or it is wrong: says where and what.
    """
    if name.lower() in names():
        file = resources.files("pipeline.scenarios") / "stories" / f"{name.lower()}.yaml"
        return read(file.read_bytes(), file.name)
    if not name.endswith((".yaml", ".yml")) or not Path(name).is_file():
        raise ConfigurationError(f"--scenario: {name!r} is none and no file; there are {', '.join(names())}")
    return read(Path(name).read_bytes(), name)


def read(text: bytes, where: str) -> Scenario:
    """The scenario that a YAML text describes; ``where``: what to call it in errors.

    Raises:
        ConfigurationError: says where and what.
    """
    try:
        scenario = msgspec.yaml.decode(text, type=Scenario)
    except msgspec.MsgspecError as error:
        raise ConfigurationError(f"{where}: {error}") from None
    if mistakes := list(_mistakes(scenario)):
        raise ConfigurationError(f"{where}: {'; '.join(mistakes)}")
    return scenario


def _mistakes(scenario: Scenario) -> Iterator[str]:
    """What does not fit together, in words."""
    lots = {product.id: {lot.id for lot in product.lots} for product in scenario.products}
    for number, phase in enumerate(scenario.phases):
        yield from (f"phases[{number}]: {mistake}" for mistake in _mistakes_of_phase(phase, lots, scenario.days))
    yield from _mistakes_of_words(scenario)
    for product in scenario.products:
        if sum(product.complaints.values()) > 1:
            yield f"{product.id!r}: more complaints than mentions"
    for number, one in enumerate(scenario.expected):
        if one.subject_kind == "product" and one.lot not in lots.get(one.subject, {}):
            yield f"expected[{number}]: no lot {one.lot!r} of {one.subject!r}"


def _mistakes_of_phase(phase: Phase, lots: Mapping[str, set[str]], days: int) -> Iterator[str]:
    yield from (f"no product {one!r}" for one in phase.products if one not in lots)
    if phase.lot and not any(phase.lot in lots.get(one, ()) for one in phase.products or lots):
        yield f"no lot {phase.lot!r}"
    if not 0 <= phase.days[0] <= phase.days[1] < days:
        yield f"days {list(phase.days)} are not within 0 to {days - 1}"


def _mistakes_of_words(scenario: Scenario) -> Iterator[str]:
    spoken = {theme for product in scenario.products for theme in product.complaints}
    spoken.update(phase.theme for phase in scenario.phases if isinstance(phase, Talk))
    yield from (f"no theme {theme!r}" for theme in sorted(spoken.difference(themes(), scenario.sentences)))
    for name, theme in scenario.sentences.items():
        for blank in theme.unknown_blanks():
            yield f"sentences: {name}: no blank {blank!r}; there are {', '.join(BLANKS)}"
