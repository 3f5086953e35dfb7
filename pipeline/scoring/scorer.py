"""A block of mentions in, scored rows out. Everything between is columns; structs exist at the edge only."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from pipeline.scoring.attribution import Attribution, Attributor
from pipeline.scoring.characters import MAX_CHARACTERS, TextColumns, columns
from pipeline.scoring.lexicon import EMOTIONS, ROLES, SPEECH_ACTS, Hits, Lexicons, TermColumns, fold
from pipeline.scoring.objections import Findings, Reader
from pipeline.scoring.sentiment import SentimentHead
from pipeline.scoring.signature import signatures
from schemas.catalogue import CatalogueEntry
from schemas.mention import Mention
from schemas.scored import Objection, Retraction, ScoredBlock, ScoredRow
from schemas.vocabulary import Emotion, Flag, ObjectionType, Polarity, SpeechAct

_PIECE_CHARACTERS = 200_000
"""Characters laid out at a time, so that memory does not grow with the block."""

_POLARITIES: tuple[Polarity, ...] = ("neutral", "positive", "negative")
"""Indexed by 0, 1, -1."""


class _Language(NamedTuple):
    """What the texts of a block say, one entry a mention, as plain lists ready for rows."""

    sentiment: list[float]
    probability: list[float]
    objections: list[list[Objection]]
    speech_act: list[SpeechAct]
    emotion: list[Emotion]
    intensity: list[float]
    severity: list[int]
    signature: list[int]
    carrier: list[str]
    region: list[str]
    attribution: list[Attribution]


_SAID = _Language._fields[:7]
"""The fields of ``_Language`` that stand in a row one after the other."""


class Scorer:
    """Scores mentions with the shipped model and lexicons and one catalogue. Holds no state between blocks."""

    def __init__(
        self, catalogue: Sequence[CatalogueEntry], *, sentiment: Literal["builtin", "snownlp"] = "builtin"
    ) -> None:
        lexicons = Lexicons()
        self._attributor = Attributor(catalogue, lexicons.lot_context)
        self._attributor.add_terms(lexicons.terms)
        self._names = list(lexicons.terms.number)
        self._terms = TermColumns(lexicons.terms)
        self._reader = Reader(lexicons, self._terms)
        self._carriers, self._regions = lexicons.carriers, lexicons.regions
        self._subtypes: list[tuple[ObjectionType, str]] = [(one.type, one.name) for one in lexicons.subtypes]
        self._known_carriers = {
            name: self._carriers[row["carrier"]]
            for name, row in zip(lexicons.terms.number, lexicons.terms.rows, strict=True)
            if "carrier" in row
        }
        self._head = SentimentHead()
        model = self._head.version
        self._snownlp = None
        if sentiment == "snownlp":
            from pipeline.scoring.snownlp_adapter import SnowNLPSentiment

            self._snownlp = SnowNLPSentiment()
            model = self._snownlp.version
        self.versions = (
            f"model={model};lexicon={lexicons.version};taxonomy={lexicons.taxonomy_version}"
            f";catalogue={self._attributor.version}"
        )
        """What made a row; rows with equal versions are comparable."""

    def scored(self, mentions: Sequence[Mention]) -> ScoredBlock:
        """What detection is told of mentions: their rows, and what those that are edits take back."""
        retractions = [Retraction(one.mention_id, one.revision) for one in mentions if one.revision]
        return ScoredBlock(self.score(mentions), retractions)

    def score(self, block: Sequence[Mention]) -> list[ScoredRow]:
        """All rows of a block, those of one mention together and its primary row first.

        A mention gives one row for its product (``""`` if unknown), and, where known, one for its carrier and region,
        and one for its channel. A deleted mention gives its primary row only, without text. Raises nothing.
        """
        rows: list[ScoredRow] = []
        begin = size = 0
        for number, mention in enumerate(block):
            length = min(len(mention.text), MAX_CHARACTERS)
            if size and size + length > _PIECE_CHARACTERS:
                self._rows(block[begin:number], rows)
                begin, size = number, 0
            size += length + 1
        self._rows(block[begin:], rows)
        return rows

    def _rows(self, block: Sequence[Mention], rows: list[ScoredRow]) -> None:
        """Append the rows of a part of a block. Rows are made by position: names would double their cost."""
        versions = self.versions
        language = self._understand(block)
        for mention, carrier, region, about, signature, said in zip(
            block,
            language.carrier,
            language.region,
            language.attribution,
            language.signature,
            zip(*language[: len(_SAID)], strict=True),
            strict=True,
        ):
            place = (mention.version or "", carrier, region, mention.channel, mention.source_id)
            times = (mention.event_time, mention.ingest_time)
            shared: tuple[Any, ...] = (
                *about,
                *place,
                *times,
                *said,
                mention.author or "",
                signature,
                _flags(mention),
                versions,
            )
            head = (mention.mention_id, mention.revision, mention.deleted)
            if mention.deleted:
                rows.append(ScoredRow(*head, "product", about.product_id, True, *shared))
                continue
            full = (*shared, mention.text, mention.native_id or "", mention.rating, mention.url or "")
            rows.append(ScoredRow(*head, "product", about.product_id, True, *full))
            if carrier:
                rows.append(ScoredRow(*head, "carrier", carrier, False, *shared))
            if region:
                rows.append(ScoredRow(*head, "region", region, False, *shared))
            rows.append(ScoredRow(*head, "channel", mention.channel, False, *shared))

    def _understand(self, block: Sequence[Mention]) -> _Language:
        texts = [scored_text(mention) for mention in block]
        laid = columns(texts)
        folded = laid.folded()
        probability = self._head.column_probabilities(laid)
        hits = self._terms.find(laid, folded)
        role = self._terms.role[hits.term]
        proper = hits.take(role != ROLES["place"]).outermost()
        about_product = np.array([bool(mention.product) for mention in block], dtype=np.bool_)
        read = self._reader.read(laid, proper, probability, about_product)
        # The rules keep to the built-in head, so that objections do not depend on the choice.
        if self._snownlp is not None:
            probability = self._snownlp.probabilities(texts)
        probability = np.round(probability, 4)
        # Names are found whatever the lexicon says about the words around them (「课程」 in 「课程不符」).
        names = hits.take((role & (ROLES["product"] | ROLES["lot"])) > 0)
        carriers, regions = self._places(hits.take((role & ROLES["place"]) > 0).outermost(), len(block))
        return _Language(
            sentiment=np.round(2 * probability - 1, 4).tolist(),
            probability=probability.tolist(),
            objections=self._objections(read.findings, laid),
            speech_act=[SPEECH_ACTS[act] for act in read.speech_act.tolist()],
            emotion=[EMOTIONS[emotion] for emotion in read.emotion.tolist()],
            intensity=read.intensity.tolist(),
            severity=read.severity.tolist(),
            signature=signatures(laid, folded).tolist(),
            carrier=[
                self._given_carrier(mention.carrier) or found for mention, found in zip(block, carriers, strict=True)
            ],
            region=[(mention.region or "").strip() or found for mention, found in zip(block, regions, strict=True)],
            attribution=self._attributions(block, laid, folded, names.outermost()),
        )

    def _objections(self, findings: Findings, laid: TextColumns) -> list[list[Objection]]:
        found: list[list[Objection]] = [[] for _ in laid.starts]
        first = laid.starts[findings.owner]
        for owner, subtype, start, end, polarity in zip(
            findings.owner.tolist(),
            findings.subtype.tolist(),
            (findings.start - first).tolist(),
            (findings.end - first).tolist(),
            findings.polarity.tolist(),
            strict=True,
        ):
            kind, name = self._subtypes[subtype]
            found[owner].append(Objection(kind, name, (start, end), _POLARITIES[polarity]))
        return found

    def _places(self, hits: Hits, number: int) -> tuple[list[str], list[str]]:
        """The first carrier and the first region that each text names."""
        named = []
        for column, names in ((self._terms.carrier, self._carriers), (self._terms.region, self._regions)):
            found = [""] * number
            value = column[hits.term]
            chosen = value >= 0
            owners, first = np.unique(hits.owner[chosen], return_index=True)
            for owner, place in zip(owners.tolist(), value[chosen][first].tolist(), strict=True):
                found[owner] = names[place]
            named.append(found)
        return named[0], named[1]

    def _given_carrier(self, given: str | None) -> str:
        if not given:
            return ""
        name = given.strip()
        return self._known_carriers.get(fold(name), name) if name else ""

    def _attributions(self, block: Sequence[Mention], laid: TextColumns, folded: str, hits: Hits) -> list[Attribution]:
        attributor = self._attributor
        named: dict[int, list[tuple[int, str]]] = {}
        products = self._terms.product[hits.term]
        for place in np.flatnonzero(products >= 0).tolist():
            term = self._names[hits.term[place]]
            found = attributor.named(term, int(products[place]), folded, int(hits.start[place]), int(hits.end[place]))
            if found is not None:
                named.setdefault(int(hits.owner[place]), []).append(found)
        worded = np.flatnonzero((self._terms.role[hits.term] & ROLES["lot"]) > 0)
        lots = attributor.lots_in_texts(
            laid, folded, [(int(hits.start[place]), self._names[hits.term[place]]) for place in worded.tolist()]
        )
        attribute = attributor.attribute
        return [attribute(mention, named.get(number, ()), lots.get(number, ())) for number, mention in enumerate(block)]


def scored_text(mention: Mention) -> str:
    """What of a mention is scored: the customer's own words, at most ``MAX_CHARACTERS``, every character at its place.

    In a call or chat the turns of others are blotted out by line feeds. Text that a platform put in, and what was
    withdrawn, says nothing.
    """
    if mention.deleted or mention.default_review:
        return ""
    text = mention.text[:MAX_CHARACTERS]
    if mention.turns is None:
        return text
    parts, position = [], 0
    for turn in mention.turns:
        end = position + len(turn.text)
        if not text.startswith(turn.text[: max(0, len(text) - position)], position):
            # The turns are not those of the text: nobody knows who said what, so all of it counts.
            return text
        parts.append(text[position:end] if turn.role == "customer" else "\n" * (min(end, len(text)) - position))
        position = end + 1
        if position > len(text):
            break
    return "\n".join(parts)


def _flags(mention: Mention) -> list[Flag]:
    flags: list[Flag] = []
    if mention.repost_of is not None:
        flags.append("repost")
    if mention.incentivised:
        flags.append("incentivised")
    if mention.default_review:
        flags.append("default_review")
    if mention.observed:
        flags.append("observed")
    if mention.backfill:
        flags.append("backfill")
    return flags
