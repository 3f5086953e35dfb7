"""What a block of texts objects to: types with spans and polarity, severity, speech act, emotion; rules on columns.

A term that says by itself what is wrong (or right) is an objection (or praise) unless it is negated; a term that only
names the matter takes the polarity of the opinion next to it in its clause. See ``lexicons/`` for the words.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.scoring.characters import TextColumns
from pipeline.scoring.context import Context, context
from pipeline.scoring.lexicon import EMOTIONS, ROLES, SPEECH_ACTS, Hits, Lexicons, TermColumns

_OPINION_AFTER = 8
"""Characters between a matter and the opinion behind it."""
_OPINION_BEFORE = 3
_HYPOTHETICAL_LIMIT = 2
_NO_OPINION = 2
_UNRESOLVABLE = frozenset({"service_attitude", "price", "expectation_gap"})
"""Types which stay objections though the matter was settled: rudeness is not undone by a repair."""
_LASTING_SUBTYPES = frozenset({"harm", "privacy"})

_NEUTRAL = EMOTIONS.index("neutral")


class Findings(NamedTuple):
    """Objections of a block, by text and start, shape (objections,)."""

    owner: NDArray[np.int64]
    subtype: NDArray[np.int64]
    start: NDArray[np.int64]
    """In the code points of the block; as ``end``."""
    end: NDArray[np.int64]
    polarity: NDArray[np.int64]
    severity: NDArray[np.int64]
    feared: NDArray[np.bool_]
    """Feared, suspected or heard of."""


class Understanding(NamedTuple):
    """What the rules say about each text; all but ``findings`` of shape (n,)."""

    findings: Findings
    severity: NDArray[np.int64]
    speech_act: NDArray[np.int64]
    """Index into ``SPEECH_ACTS``."""
    emotion: NDArray[np.int64]
    """Index into ``EMOTIONS``."""
    intensity: NDArray[np.float64]


class Reader:
    """Applies the rules with one set of lexicons."""

    def __init__(self, lexicons: Lexicons, terms: TermColumns) -> None:
        self._terms = terms
        self._together = lexicons.together
        self._subtypes = lexicons.subtypes
        self._resolvable = np.array(
            [one.type not in _UNRESOLVABLE and one.name not in _LASTING_SUBTYPES for one in lexicons.subtypes]
        )
        self._of_a_product = next(
            number
            for number, one in enumerate(lexicons.subtypes)
            if (one.type, one.name) == ("product_quality", "defect")
        )

    def read(
        self, laid: TextColumns, hits: Hits, probability: NDArray[np.float64], about_product: NDArray[np.bool_]
    ) -> Understanding:
        """Understand a block.

        Args:
            laid: the folded texts.
            hits: the terms of the lexicon proper and of the catalogue, none inside another.
            probability: of each text to be positive, shape (n,).
            about_product: whether the source names the product of each text, shape (n,).
        """
        role = self._terms.role[hits.term]
        around = context(hits, laid.codes, role)
        findings = self._findings(hits, role, around, about_product)
        number = len(laid.starts)
        objecting = findings.polarity < 0
        severity = np.zeros(number, dtype=np.int64)
        np.maximum.at(severity, findings.owner[objecting], findings.severity[objecting])
        act = _speech_acts(hits, role, around, findings, probability, laid)
        emotion, intensity = self._emotions(hits, role, around, laid)
        return Understanding(findings, severity, act, emotion, intensity)

    def _findings(
        self, hits: Hits, role: NDArray[np.int64], around: Context, about_product: NDArray[np.bool_]
    ) -> Findings:
        wrong, right = self._by_themselves(hits, around, about_product)
        about, used = self._by_opinion(hits, role, around)
        # A general word such as 「不错」 that is said about a named matter says nothing about the product.
        fallback = self._terms.fallback
        wrong_general = fallback[wrong.subtype] & np.isin(wrong.start, hits.start[used])
        right_general = fallback[right.subtype] & np.isin(right.start, hits.start[used])
        parts = [_take(wrong, ~wrong_general), _take(right, ~right_general), about]
        merged = Findings(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
        return self._distinct(merged)

    def _by_themselves(
        self, hits: Hits, around: Context, about_product: NDArray[np.bool_]
    ) -> tuple[Findings, Findings]:
        terms = self._terms
        problem, praise = terms.problem[hits.term], terms.praise[hits.term]
        # What runs into a problem on its left is the rest of a word (「发烫」 and 「烫到」).
        rest = np.zeros(len(problem), dtype=np.bool_)
        rest[1:] = around.run_into[1:] & (problem[:-1] >= 0)
        chosen = np.flatnonzero((problem >= 0) & ~around.negated & ~rest)
        subtype = problem[chosen]
        settled = around.resolved[chosen] & self._resolvable[subtype]
        open_ = ~(settled | around.conditional[chosen] | around.asked[chosen])
        told, loose = self._unfounded(hits, around, chosen, about_product)
        open_ &= ~told
        level = self._levels(hits, around, chosen, subtype)
        level = np.where(loose, np.minimum(level, _HYPOTHETICAL_LIMIT), level)
        wrong = Findings(
            hits.owner[chosen],
            subtype,
            hits.start[chosen],
            hits.end[chosen],
            np.where(open_, -1, 0),
            level,
            around.worry[chosen],
        )
        plainly = ~(around.negated | around.run_into | around.conditional | around.asked | around.worry)
        chosen = np.flatnonzero((praise >= 0) & (problem < 0) & plainly)
        nothing = np.zeros(len(chosen), dtype=np.int64)
        right = Findings(
            hits.owner[chosen],
            praise[chosen],
            hits.start[chosen],
            hits.end[chosen],
            nothing + 1,
            nothing,
            nothing.astype(np.bool_),
        )
        return wrong, right

    def _levels(
        self, hits: Hits, around: Context, chosen: NDArray[np.int64], subtype: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Severity of each problem, by its word, the words with it, and whether it is said to have happened."""
        terms = self._terms
        named = terms.severity[hits.term[chosen]]
        level = np.where(named > 0, named, terms.subtype_severity[subtype])
        clause = around.clause[chosen]
        parts = terms.rule_part[hits.term]
        problems = terms.rule_problem[hits.term[chosen]]
        for rule in self._together:
            worse = (problems & rule.bit > 0) & np.isin(clause, around.clause[parts & rule.bit > 0])
            level = np.where(worse, np.maximum(level, rule.level), level)
        with_child = np.isin(clause, around.clause[(terms.role[hits.term] & ROLES["child"]) > 0])
        level = np.where(with_child & (level == 3), 4, level)
        doubtful = around.worry | around.near_miss | around.quoted | around.conditional | around.asked
        return np.where(doubtful[chosen], np.minimum(level, _HYPOTHETICAL_LIMIT), level)

    def _unfounded(
        self, hits: Hits, around: Context, chosen: NDArray[np.int64], about_product: NDArray[np.bool_]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Harm with no word of a cause beside it (a book is full of 「住院」), and danger that may be a figure of speech.

        Beside means in the same clause or the one before.
        """
        terms = self._terms
        role = terms.role[hits.term]
        clause = around.clause[chosen]
        caused = (role & ROLES["cause"]) > 0
        thing = caused | (terms.product[hits.term] != -1) | (terms.aspect[hits.term] >= 0)

        def beside(evidence: NDArray[np.bool_]) -> NDArray[np.bool_]:
            found = around.clause[evidence]
            near: NDArray[np.bool_] = np.isin(clause, found) | np.isin(clause - 1, found)
            return near

        told = ((role[chosen] & ROLES["narrative"]) > 0) & ~beside(caused)
        loose = ((role[chosen] & ROLES["loose"]) > 0) & ~beside(thing) & ~about_product[hits.owner[chosen]]
        return told, loose

    def _by_opinion(self, hits: Hits, role: NDArray[np.int64], around: Context) -> tuple[Findings, NDArray[np.int64]]:
        """Matters and what is said about them; also the hits that were used as opinion."""
        terms = self._terms
        aspect = terms.aspect[hits.term]
        aspect = np.where((aspect < 0) & (terms.product[hits.term] != -1), self._of_a_product, aspect)
        matters = np.flatnonzero(aspect >= 0)
        opinions = np.flatnonzero(role & ROLES["opinion"])
        nothing = np.zeros(0, dtype=np.int64)
        if not len(matters) or not len(opinions):
            none = Findings(nothing, nothing, nothing, nothing, nothing, nothing, nothing.astype(np.bool_))
            return none, nothing
        following = np.searchsorted(hits.start[opinions], hits.end[matters])
        polarity = np.full(len(matters), _NO_OPINION, dtype=np.int64)
        chosen = np.zeros(len(matters), dtype=np.int64)
        # First what follows the matter, then the one after, then what precedes it.
        for step, reach in ((0, _OPINION_AFTER), (1, _OPINION_AFTER), (-1, _OPINION_BEFORE)):
            place = following + step
            candidate = opinions[np.clip(place, 0, len(opinions) - 1)]
            gap = np.maximum(hits.start[candidate] - hits.end[matters], hits.start[matters] - hits.end[candidate])
            fits = (place >= 0) & (place < len(opinions)) & (gap >= 0) & (gap <= reach)
            fits &= around.clause[candidate] == around.clause[matters]
            said = terms.opinion_about[hits.term[candidate], aspect[matters]].astype(np.int64)
            take = fits & (said != _NO_OPINION) & (polarity == _NO_OPINION)
            polarity = np.where(take, np.where(around.negated[candidate], -said, said), polarity)
            chosen = np.where(take, candidate, chosen)
        keep = polarity != _NO_OPINION
        keep &= ~(around.conditional[chosen] | around.asked[chosen])
        matters, chosen, polarity = matters[keep], chosen[keep], polarity[keep]
        subtype = aspect[matters]
        settled = around.resolved[matters] & self._resolvable[subtype]
        found = Findings(
            hits.owner[matters],
            subtype,
            np.minimum(hits.start[matters], hits.start[chosen]),
            np.maximum(hits.end[matters], hits.end[chosen]),
            np.where(settled & (polarity < 0), 0, polarity),
            terms.subtype_severity[subtype],
            around.worry[matters] | around.worry[chosen],
        )
        return found, chosen

    def _distinct(self, found: Findings) -> Findings:
        """One finding a text, subtype and polarity: the first; general words only where nothing else is said."""
        if not len(found.owner):
            return found
        # A general praise or complaint counts only where the text holds no other of the same polarity.
        general = self._terms.fallback[found.subtype]
        side = found.owner * 3 + found.polarity
        found = _take(found, ~general | ~np.isin(side, side[~general]))
        key = (found.owner * len(self._subtypes) + found.subtype) * 3 + found.polarity
        order = np.lexsort((found.end, found.start, key))
        first = order[np.concatenate([[True], key[order][1:] != key[order][:-1]])]
        # The worst of them gives the severity, asserted beats feared.
        place = np.searchsorted(np.sort(key[first]), key)
        worst = np.zeros(len(first), dtype=np.int64)
        np.maximum.at(worst, place, found.severity)
        feared = np.ones(len(first), dtype=np.bool_)
        np.logical_and.at(feared, place, found.feared)
        result = _take(found, first)._replace(severity=worst, feared=feared)
        return _take(result, np.lexsort((result.subtype, result.start)))

    def _emotions(
        self, hits: Hits, role: NDArray[np.int64], around: Context, laid: TextColumns
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        terms = self._terms
        number = len(laid.starts)
        label = terms.emotion[hits.term]
        chosen = np.flatnonzero((label >= 0) & ~around.negated & ~around.conditional)
        weight = terms.emotion_weight[hits.term[chosen]].copy()
        for name, factor in (("intensifier", 1.3), ("diminisher", 0.7)):
            weight = np.where(_touched(hits, role, around, chosen, ROLES[name]), weight * factor, weight)
        total = np.zeros((number, len(EMOTIONS)))
        strongest = np.zeros((number, len(EMOTIONS)))
        cell = (hits.owner[chosen], label[chosen])
        np.add.at(total, cell, weight)
        np.maximum.at(strongest, cell, weight)
        best = np.argmax(total, axis=1)
        rows = np.arange(number)
        shouts = np.bincount(laid.owner(np.flatnonzero(laid.codes == ord("!"))), minlength=number)
        # Further words of the same emotion, and exclamation marks, raise it; it stays within 0..1.
        more = 0.2 * (total[rows, best] - strongest[rows, best]) + 0.05 * np.minimum(shouts, 4)
        felt = total[rows, best] > 0
        intensity = np.where(felt, np.minimum(strongest[rows, best] + more, 1.0), 0.0)
        rounded: NDArray[np.float64] = np.rint(intensity * 100) / 100
        return np.where(felt, best, _NEUTRAL), rounded


def _take(found: Findings, chosen: NDArray[np.int64] | NDArray[np.bool_]) -> Findings:
    return Findings(
        found.owner[chosen],
        found.subtype[chosen],
        found.start[chosen],
        found.end[chosen],
        found.polarity[chosen],
        found.severity[chosen],
        found.feared[chosen],
    )


def _touched(
    hits: Hits, role: NDArray[np.int64], around: Context, chosen: NDArray[np.int64], bit: int
) -> NDArray[np.bool_]:
    """Whether a word of that role stands right before or right behind each chosen hit, in its clause."""
    found = np.zeros(len(chosen), dtype=np.bool_)
    for step in (-1, 1):
        other = np.clip(chosen + step, 0, len(role) - 1)
        gap = np.maximum(hits.start[other] - hits.end[chosen], hits.start[chosen] - hits.end[other])
        found |= ((role[other] & bit) > 0) & (gap >= 0) & (gap <= 1) & (around.clause[other] == around.clause[chosen])
    return found


def _speech_acts(
    hits: Hits,
    role: NDArray[np.int64],
    around: Context,
    findings: Findings,
    probability: NDArray[np.float64],
    laid: TextColumns,
) -> NDArray[np.int64]:
    """The act of each text: the first that applies, what weighs most coming first."""
    number = len(probability)
    cue = {
        act: _present(hits.owner[(role & ROLES[f"act_{act}"] > 0) & ~around.negated], number)
        for act in ("complaint", "doubt", "suggestion", "question", "praise")
    }
    objecting = findings.polarity < 0
    happened = _present(findings.owner[objecting & ~findings.feared], number)
    feared = _present(findings.owner[objecting & findings.feared], number)
    praised = _present(findings.owner[findings.polarity > 0], number)
    asks = cue["question"] | _present(hits.owner[around.asked], number)
    asks |= _present(laid.owner(np.flatnonzero(laid.codes == ord("?"))), number)
    long_enough = laid.ends - laid.starts >= 8
    choices = [
        (happened, "complaint"),
        (feared | (cue["doubt"] & (probability < 0.9)), "doubt"),
        (cue["complaint"] & ~(praised & (probability > 0.5)), "complaint"),
        (cue["suggestion"], "suggestion"),
        (asks & ~praised, "question"),
        ((praised & (probability >= 0.1)) | (cue["praise"] & (probability >= 0.3)), "praise"),
        ((probability >= 0.9) & long_enough, "praise"),
        ((probability <= 0.15) & long_enough, "complaint"),
    ]
    return np.select(
        [condition for condition, _ in choices],
        [np.full(number, SPEECH_ACTS.index(act)) for _, act in choices],
        SPEECH_ACTS.index("other"),
    )


def _present(owners: NDArray[np.int64], number: int) -> NDArray[np.bool_]:
    found = np.zeros(number, dtype=np.bool_)
    found[owners] = True
    return found
