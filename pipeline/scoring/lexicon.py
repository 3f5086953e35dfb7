"""The lexicons as columns over terms, and the one Aho-Corasick pass that finds all terms of all lexicons in a block.

A term is one string with every meaning that any lexicon gives it. Method: Aho & Corasick 1975, by pyahocorasick.
"""

import hashlib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from itertools import chain, product
from typing import Any, NamedTuple, get_args

import ahocorasick
import numpy as np
import yaml
from numpy.typing import NDArray

from pipeline.errors import ConfigurationError
from pipeline.scoring.characters import TextColumns, columns
from schemas.vocabulary import OBJECTION_TYPES, Emotion, ObjectionType, SpeechAct

EMOTIONS: tuple[Emotion, ...] = get_args(Emotion)
SPEECH_ACTS: tuple[SpeechAct, ...] = get_args(SpeechAct)

_OPINION_ROLES = (
    "negation_far",
    "negation_near",
    "negation_behind",
    "barrier",
    "plain",
    "resolved",
    "conditional",
    "worry",
    "near_miss",
    "asking",
    "request",
    "intensifier",
    "diminisher",
)
ROLES: dict[str, int] = {
    name: 1 << number
    for number, name in enumerate(
        [
            *_OPINION_ROLES,
            *(f"act_{act}" for act in SPEECH_ACTS),
            "child",
            "narrative",
            "loose",
            "cause",
            "figurative",
            "opinion",
            "place",
            "product",
            "lot",
        ]
    )
}
"""Name of a role → its bit. The lexicon proper is everything but ``place``."""

_FILES = ("taxonomy", "opinion", "speech_act", "severity", "emotion", "places")
_STRONG, _MILD = 0.7, 0.4
_UNNAMED_SEVERITY = 0


class Subtype(NamedTuple):
    """Second level of the taxonomy."""

    type: ObjectionType
    name: str
    severity: int
    fallback: bool


class Together(NamedTuple):
    """Two words in one clause that are worse together: bit of the rule, and its level."""

    bit: int
    level: int


class Terms:
    """All terms, as columns over their number. Built by ``Lexicons``, extended by the catalogue, then read only."""

    def __init__(self, subtypes: tuple[Subtype, ...]) -> None:
        self.number: dict[str, int] = {}
        self.subtypes = subtypes
        self.rows: list[dict[str, Any]] = []

    def add(self, term: str, **meaning: Any) -> None:
        """Give a term one more meaning; ``role`` adds up, anything else may be said once."""
        row = self.row(term)
        row["role"] = row.get("role", 0) | meaning.pop("role", 0)
        for name, value in meaning.items():
            if row.get(name, value) != value:
                raise ConfigurationError(f"lexicon: {term!r} has two values for {name}: {row[name]!r} and {value!r}")
            row[name] = value

    def row(self, term: str) -> dict[str, Any]:
        """The meanings of a term, which is new if it was not known."""
        if term not in self.number:
            self.number[term] = len(self.rows)
            self.rows.append({})
        return self.rows[self.number[term]]

    def column(self, name: str, absent: float, dtype: Any) -> NDArray[Any]:
        """One meaning of all terms, shape (terms,)."""
        return np.array([row.get(name, absent) for row in self.rows], dtype=dtype)


def fold(text: str) -> str:
    """A string as the texts are folded."""
    return columns([text]).folded()[:-1]


@cache
def _sources() -> tuple[dict[str, Any], str, str]:
    """Content of the lexicon files by name, their common hash, and the version of the taxonomy."""
    folder = files("pipeline.scoring") / "lexicons"
    raw = {name: (folder / f"{name}.yaml").read_bytes() for name in _FILES}
    digest = hashlib.blake2b(b"\0".join(raw[name] for name in _FILES), digest_size=4).hexdigest()
    loaded = {name: yaml.safe_load(data) for name, data in raw.items()}
    return loaded, digest, str(loaded["taxonomy"]["version"])


class Lexicons:
    """The shipped lexicons: terms, subtypes, rules, names of carriers and regions."""

    def __init__(self) -> None:
        source, self.version, self.taxonomy_version = _sources()
        types: Mapping[str, Mapping[str, Any]] = source["taxonomy"]["types"]
        self.subtypes = tuple(
            Subtype(kind, name, entry["severity"], bool(entry.get("fallback")))
            for kind in OBJECTION_TYPES
            for name, entry in types[kind].items()
        )
        self.terms = Terms(self.subtypes)
        self._add_taxonomy(types)
        self._add_roles(source["opinion"], source["speech_act"])
        self.together = self._add_severity(source["severity"])
        self._add_emotions(source["emotion"])
        self.carriers = self._add_places("carrier", source["places"]["carriers"])
        self.regions = self._add_places("region", source["places"]["regions"])
        self._add("place", source["places"]["decoys"])
        self.lot_context = tuple(source["places"]["lot_context"].split())

    def _add(self, role: str, words: str, **meaning: Any) -> None:
        for term in words.split():
            self.terms.add(term, role=ROLES[role] if role else 0, **meaning)

    def _add_taxonomy(self, types: Mapping[str, Mapping[str, Any]]) -> None:
        for number, subtype in enumerate(self.subtypes):
            entry = types[subtype.type][subtype.name]
            for kind, name in (("problems", "problem"), ("praise", "praise"), ("aspects", "aspect")):
                self._add("", entry.get(kind, ""), **{name: number})
            for composed in entry.get("compose", ()):
                first, middle, last = (row.split() for row in composed["words"])
                terms = ["".join(parts) for parts in product(first, ["", *middle], last)]
                self._add("", " ".join(terms), problem=number, severity=composed["severity"])
            for kind, polarity in (("bad", -1), ("good", 1)):
                self._add("opinion", entry.get(kind, ""), **{f"about_{number}": polarity})

    def _add_roles(self, opinion: Mapping[str, str], speech_act: Mapping[str, str]) -> None:
        for name, polarity in (("positive", 1), ("negative", -1), ("neutral", 0)):
            self._add("opinion", opinion[name], polarity=polarity)
        for role in _OPINION_ROLES:
            self._add(role, opinion[role])
        for act, words in speech_act.items():
            self._add(f"act_{act}", words)

    def _add_severity(self, source: Mapping[str, Any]) -> tuple[Together, ...]:
        for level, words in source["levels"].items():
            self._add("", words, severity=int(level))
            for term in words.split():
                if "problem" not in self.terms.row(term):
                    raise ConfigurationError(f"severity.yaml: {term!r} is no problem in taxonomy.yaml")
        for role in ("child", "narrative", "loose", "cause", "figurative"):
            self._add(role, source[role])
        rules = []
        for number, rule in enumerate(source["together"]):
            for name in ("part", "problem"):
                for term in rule[name].split():
                    row = self.terms.row(term)
                    row[f"rule_{name}"] = row.get(f"rule_{name}", 0) | 1 << number
            rules.append(Together(1 << number, int(rule["level"])))
        return tuple(rules)

    def _add_emotions(self, source: Mapping[str, Mapping[str, str]]) -> None:
        for label, strengths in source.items():
            number = EMOTIONS.index(label)
            for name, weight in (("strong", _STRONG), ("mild", _MILD)):
                self._add("", strengths[name], emotion=number, emotion_weight=weight)

    def _add_places(self, kind: str, source: Mapping[str, str]) -> tuple[str, ...]:
        for number, (name, others) in enumerate(source.items()):
            for term in {fold(name), *others.split()}:
                self._add("place", term, **{kind: number})
        return tuple(source)


class TermColumns:
    """The columns over terms as arrays, shape (terms,), and the automaton."""

    def __init__(self, terms: Terms) -> None:
        self.length = np.array([len(term) for term in terms.number], dtype=np.int64)
        self.role = terms.column("role", 0, np.int64)
        self.problem = terms.column("problem", -1, np.int64)
        self.praise = terms.column("praise", -1, np.int64)
        self.aspect = terms.column("aspect", -1, np.int64)
        self.severity = terms.column("severity", _UNNAMED_SEVERITY, np.int64)
        self.emotion = terms.column("emotion", -1, np.int64)
        self.emotion_weight = terms.column("emotion_weight", 0, np.float64)
        self.carrier = terms.column("carrier", -1, np.int64)
        self.region = terms.column("region", -1, np.int64)
        self.product = terms.column("product", -1, np.int64)
        self.rule_part = terms.column("rule_part", 0, np.int64)
        self.rule_problem = terms.column("rule_problem", 0, np.int64)
        # A word of opinion means the same about everything unless the subtype says otherwise; 2 means no opinion.
        general = terms.column("polarity", 2, np.int8)
        self.opinion_about = np.repeat(general[:, np.newaxis], len(terms.subtypes), axis=1)
        for subtype in range(len(terms.subtypes)):
            special = terms.column(f"about_{subtype}", 2, np.int8)
            self.opinion_about[:, subtype] = np.where(special == 2, general, special)
        self.subtype_severity = np.array([subtype.severity for subtype in terms.subtypes], dtype=np.int64)
        self.fallback = np.array([subtype.fallback for subtype in terms.subtypes], dtype=np.bool_)
        self._automaton = ahocorasick.Automaton()
        for term, number in terms.number.items():
            self._automaton.add_word(term, number)
        self._automaton.make_automaton()

    def find(self, laid: TextColumns, folded: str) -> "Hits":
        """All terms of a block; one pass over its characters."""
        found: Iterable[int] = chain.from_iterable(self._automaton.iter(folded))
        flat = np.fromiter(found, dtype=np.int64).reshape(-1, 2)
        term = flat[:, 1]
        end = flat[:, 0] + 1
        start = end - self.length[term]
        order = np.argsort((start << 16) - self.length[term], kind="stable")
        return Hits(term[order], start[order], end[order], laid.owner(start[order]))


class Hits(NamedTuple):
    """Terms found in a block, shape (hits,), by start, the longer first."""

    term: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    owner: NDArray[np.int64]

    def take(self, chosen: NDArray[Any]) -> "Hits":
        """Some of the hits, in the same order."""
        return Hits(self.term[chosen], self.start[chosen], self.end[chosen], self.owner[chosen])

    def outermost(self) -> "Hits":
        """Without the hits that lie inside another one (「好」 in 「好久」)."""
        if not len(self.term):
            return self
        reach = np.maximum.accumulate(self.end)
        inside = np.zeros(len(self.term), dtype=np.bool_)
        inside[1:] = self.end[1:] <= reach[:-1]
        return self.take(~inside)
