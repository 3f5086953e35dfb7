"""Which product and which lot a mention is about, and how sure that is.

What the source gives comes first, then names in the text, then lots in the text. A lot counts only where the
catalogue knows it; one that was mistyped (O for 0, I for 1, B for 8) only where exactly one lot fits.
"""

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import ahocorasick

from pipeline.scoring.characters import TextColumns
from pipeline.scoring.lexicon import ROLES, Terms, fold
from schemas.catalogue import CatalogueEntry
from schemas.mention import Mention

_JOINERS = re.compile(r"[\s\-_‐-―－/]+")
_CONFUSABLE = str.maketrans("oib", "018")
_WORD = re.compile(r"[a-z0-9.]+")
_SPOKEN = re.compile(r"[零〇一二三四五六七八九幺两洞拐]{3,12}")
_SPOKEN_DIGITS = str.maketrans("零〇一二三四五六七八九幺两洞拐", "001234567891207")
_BARE_DATE = re.compile(
    r"(?:19|20)\d\d(?:[-/.](?:0?[1-9]|1[0-2])(?:[-/.](?:0?[1-9]|[12]\d|3[01]))?|(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"
    r"|年(?:0?[1-9]|1[0-2])月(?:(?:0?[1-9]|[12]\d|3[01])[日号])?)"
)
_MAX_TOKEN = 40
_LONGEST_NAME = 200
_MAX_PARTS = 4
"""Words that together may be one lot written with blanks."""
_CONTEXT_BEFORE, _CONTEXT_BEHIND = 8, 4

_AMBIGUOUS = -2
_UNKNOWN = -1


class Attribution(NamedTuple):
    """Product and lot, empty where unknown, and the confidence 0..1 (0: product unknown)."""

    product_id: str
    product_batch_id: str
    confidence: float


class _Lot(NamedTuple):
    product: int
    lot_id: str


class LotInText(NamedTuple):
    """A lot that a text names."""

    lots: tuple[_Lot, ...]
    repaired: bool


NOBODY = Attribution("", "", 0.0)

# Confidence by what the attribution rests on. They order the evidence; they are not measured probabilities.
_GIVEN, _GIVEN_CONTAINS, _NAMED, _NAMED_AMONG_OTHERS, _BY_LOT = 1.0, 0.9, 0.7, 0.5, 0.8
_REPAIRED_FACTOR = 0.8


def normal_lot(text: str) -> str:
    """A lot id as it is compared: half-width, lower case, without blanks and dashes."""
    return _JOINERS.sub("", fold(text)).strip(".")


def bare_date(text: str) -> bool:
    """Whether the text is a date and nothing else (a year alone is a model year)."""
    return bool(_BARE_DATE.fullmatch(fold(text).strip()))


class Attributor:
    """Attribution against one catalogue; without entries the given fields are taken as they are."""

    def __init__(self, catalogue: Sequence[CatalogueEntry], lot_context: Sequence[str]) -> None:
        self._products: list[str] = []
        self._names: dict[str, int] = {}
        self._exact: dict[str, tuple[_Lot, ...]] = {}
        self._repaired: dict[str, tuple[_Lot, ...]] = {}
        self._context = re.compile("|".join(map(re.escape, sorted(lot_context, key=len, reverse=True))))
        number: dict[str, int] = {}
        for entry in catalogue:
            product = number.setdefault(entry.product_id, len(number))
            for name in (entry.product_id, entry.name, *entry.aliases):
                self._add_name(fold(name).strip(), product)
            self._add_lot(entry.product_batch_id, product)
        self._products = list(number)
        self._finder = ahocorasick.Automaton()
        for name, product in self._names.items():
            if _telling(name):
                self._finder.add_word(name, (name, product))
        self._findable = len(self._finder) > 0
        self._finder.make_automaton()
        self.has_lots = bool(self._exact)
        parts = sorted("\x1f".join((e.product_id, e.name, *e.aliases, e.product_batch_id)) for e in catalogue)
        digest = hashlib.blake2b("\x1e".join(parts).encode("utf-8", "surrogatepass"), digest_size=4)
        self.version = digest.hexdigest() if catalogue else "none"
        """Hash of the names and lots of the catalogue."""
        self._given = lru_cache(maxsize=65_536)(self._find_given)

    def _add_name(self, name: str, product: int) -> None:
        if name:
            known = self._names.setdefault(name, product)
            if known != product:
                self._names[name] = _AMBIGUOUS

    def _add_lot(self, lot_id: str, product: int) -> None:
        normal = normal_lot(lot_id)
        if normal:
            lot = _Lot(product, lot_id)
            for table, key in ((self._exact, normal), (self._repaired, normal.translate(_CONFUSABLE))):
                known = table.get(key, ())
                if lot not in known:
                    table[key] = (*known, lot)

    def add_terms(self, terms: Terms) -> None:
        """Put names, and lots that are no plain word of ASCII, into the automaton of all terms.

        A name of digits only, such as a numeric product id, is no name in a text.
        """
        for name, product in self._names.items():
            if _telling(name) and not name.isdigit() and product != _AMBIGUOUS:
                terms.add(name, role=ROLES["product"], product=product)
        for normal in self._exact:
            if _telling(normal) and not normal.isascii():
                terms.add(normal, role=ROLES["lot"])

    def attribute(self, mention: Mention, named: Sequence[tuple[int, str]], lots: Sequence[LotInText]) -> Attribution:
        """The surest attribution of one mention.

        Args:
            mention: its given fields are read, not its text.
            named: products that the text names: number and folded name.
            lots: lots that the text names.
        """
        if not self._products:
            return _as_given(mention)
        product, confidence = self._product(mention.product, named)
        given = mention.product_batch
        if given is not None and given.strip():
            return self._with_lot(product, confidence, self._lookup(normal_lot(given)))
        if mention.version:
            found = self._with_lot(product, confidence, self._lookup(normal_lot(mention.version)))
            if found.product_batch_id:
                return found
        # A product that the source gives rules out lots of others; one that only the text names does not.
        candidates = (product, _UNKNOWN) if confidence < _GIVEN_CONTAINS else (product,)
        for candidate in candidates:
            for lot in lots:
                found = self._with_lot(candidate, confidence, lot)
                if found.product_batch_id and (candidate == product or not lot.repaired):
                    return found
        return Attribution(self._products[product], "", confidence) if product >= 0 else NOBODY

    def _product(self, given: str | None, named: Sequence[tuple[int, str]]) -> tuple[int, float]:
        if given:
            product, confidence = self._given(given)
            if product >= 0:
                return product, confidence
        if not named:
            return _UNKNOWN, 0.0
        longest = max(len(name) for _, name in named)
        product = next(number for number, name in named if len(name) == longest)
        alone = all(number == product for number, _ in named)
        return product, _NAMED if alone else _NAMED_AMONG_OTHERS

    def _find_given(self, given: str) -> tuple[int, float]:
        name = fold(given).strip()
        product = self._names.get(name, _UNKNOWN)
        if product >= 0:
            return product, _GIVEN
        # A shop's title holds the name among other words: the longest name inside it decides.
        inside = [(len(known), number) for _, (known, number) in self._finder.iter(name)] if self._findable else []
        longest = max(inside, default=(0, _UNKNOWN))[0]
        best = {number for length, number in inside if length == longest}
        return (best.pop(), _GIVEN_CONTAINS) if len(best) == 1 and _AMBIGUOUS not in best else (_UNKNOWN, 0.0)

    def _lookup(self, normal: str) -> LotInText:
        exact = self._exact.get(normal)
        if exact:
            return LotInText(exact, repaired=False)
        return LotInText(self._repaired.get(normal.translate(_CONFUSABLE), ()), repaired=True)

    def _with_lot(self, product: int, confidence: float, found: LotInText) -> Attribution:
        """Product and lot together; a lot of another product than the known one is no lot."""
        fitting = found.lots
        if product >= 0:
            fitting = tuple(lot for lot in found.lots if lot.product == product)
        if len(fitting) == 1 and (not found.repaired or len(found.lots) == 1):
            sure = max(confidence, _BY_LOT) * (_REPAIRED_FACTOR if found.repaired else 1)
            return Attribution(self._products[fitting[0].product], fitting[0].lot_id, round(sure, 3))
        return Attribution(self._products[product], "", confidence) if product >= 0 else NOBODY

    def lots_in_texts(
        self, laid: TextColumns, folded: str, worded: Sequence[tuple[int, str]]
    ) -> dict[int, list[LotInText]]:
        """Lots that the texts name, by number of the text; only for a catalogue with lots.

        Args:
            laid: the folded texts.
            folded: ``laid.folded()``.
            worded: position and words of the lots that the automaton has found.
        """
        found: dict[int, list[LotInText]] = {}
        if not self.has_lots:
            return found
        written = [(position, self._lookup(words)) for position, words in worded] + self._written(folded)
        for position, lot in written:
            found.setdefault(_owner(laid, position), []).append(lot)
        for match in _SPOKEN.finditer(folded):
            if self._beside_context(folded, match.start(), match.end()):
                lot = self._lookup(match.group().translate(_SPOKEN_DIGITS))
                if lot.lots:
                    found.setdefault(_owner(laid, match.start()), []).append(lot)
        return found

    def _written(self, folded: str) -> list[tuple[int, LotInText]]:
        """Position and lot of every lot written in ASCII."""
        found = []
        behind = 0
        for match in _WORD.finditer(folded):
            start, end = match.span()
            if start < behind or end - start > _MAX_TOKEN:
                continue
            lot, end = self._longest(folded, start, end)
            if lot is not None:
                behind = end
                found.append((start, lot))
        return found

    def _longest(self, folded: str, start: int, end: int) -> tuple[LotInText | None, int]:
        """The lot that begins with the word at [start, end), over as many words as fit."""
        best: tuple[LotInText | None, int] = (None, end)
        normal = folded[start:end]
        for _ in range(_MAX_PARTS):
            if len(normal) > _MAX_TOKEN:
                break
            lot = self._lookup(normal.strip("."))
            if lot.lots and self._credible(folded, start, end, normal, lot):
                best = (lot, end)
            following = _WORD.match(folded, end + 1) if folded[end : end + 1] in (" ", "-", "_", "/") else None
            if following is None:
                break
            normal += following.group()
            end = following.end()
        return best

    def _credible(self, folded: str, start: int, end: int, normal: str, lot: LotInText) -> bool:
        """Digits or letters alone may be anything: they, short ids and repaired ids need a word such as 「批次」 beside them."""
        mixed = any(map(str.isdigit, normal)) and any(map(str.isalpha, normal))
        plain = mixed and len(normal) >= (6 if lot.repaired else 4)
        return plain or self._beside_context(folded, start, end)

    def _beside_context(self, folded: str, start: int, end: int) -> bool:
        before = folded[max(0, start - _CONTEXT_BEFORE) : start].rpartition("\n")[2]
        behind = folded[end : end + _CONTEXT_BEHIND].partition("\n")[0]
        return bool(self._context.search(before) or self._context.match(behind.lstrip(" ")))

    def named(self, term: str, product: int, folded: str, start: int, end: int) -> tuple[int, str] | None:
        """A product named at [start, end), unless the name is part of a longer Latin word."""
        if term[0].isascii() and start and folded[start - 1].isascii() and folded[start - 1].isalnum():
            return None
        if term[-1].isascii() and folded[end : end + 1].isascii() and folded[end : end + 1].isalnum():
            return None
        return product, term


def _telling(name: str) -> bool:
    """Whether a name or lot is long enough to be looked for inside a text."""
    return 2 <= len(name) <= _LONGEST_NAME and "\n" not in name


def _owner(laid: TextColumns, position: int) -> int:
    return int(laid.ends.searchsorted(position))


@lru_cache(maxsize=65_536)
def _plain(product: str | None, lot: str | None) -> Attribution:
    product_id = product.strip() if product else ""
    lot_id = lot.strip() if lot else ""
    if lot_id and bare_date(lot_id):
        lot_id = ""
    return Attribution(product_id, lot_id if product_id else "", 1.0 if product_id else 0.0)


def _as_given(mention: Mention) -> Attribution:
    return _plain(mention.product, mention.product_batch)
