"""What stands around a term: its clause, a negation that reaches it, a condition, a quotation.

The rules are those of reading, not of grammar: a clause ends at punctuation (or a blank between Chinese words); a
negation reaches a few characters to its right unless a word such as 「就」 stands between.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.scoring.characters import SEPARATOR
from pipeline.scoring.lexicon import ROLES, Hits

_CLAUSE_ENDS = "，。！？；,!?;:：~…～"
_FAR_REACH = 6
_NEAR_REACH = 2
_BEHIND_REACH = 2
_RESOLVED_REACH = 4
"""Clauses over which 「解决了」 looks back."""
_LONGEST_QUOTATION = 60

_NEGATIONS = ROLES["negation_far"] | ROLES["negation_near"]


class Context(NamedTuple):
    """For each hit of a block, shape (hits,)."""

    clause: NDArray[np.int64]
    """Number of its clause within the block; clauses never cross texts."""
    negated: NDArray[np.bool_]
    asked: NDArray[np.bool_]
    """In a yes-or-no question."""
    conditional: NDArray[np.bool_]
    worry: NDArray[np.bool_]
    """Feared, suspected or heard of, not seen."""
    near_miss: NDArray[np.bool_]
    quoted: NDArray[np.bool_]
    resolved: NDArray[np.bool_]
    """The text goes on to say that it is over."""
    run_into: NDArray[np.bool_]
    """Begins inside the hit before it (「好看」 in 「不好看」)."""


def clause_numbers(codes: NDArray[np.uint32]) -> NDArray[np.int64]:
    """The number of the clause of each code point, shape (c,). An end mark belongs to the clause that it ends."""
    ends = np.isin(codes, np.array([ord(mark) for mark in _CLAUSE_ENDS], dtype=np.uint32))
    ends |= codes == SEPARATOR
    if len(codes):
        # A blank or a full stop is no end inside a name such as "iphone 13" or a number such as 2.4.
        after_ascii = np.concatenate([[False], (codes[:-1] > 32) & (codes[:-1] < 127)])
        ends |= ((codes == ord(" ")) | (codes == ord("."))) & ~after_ascii
    # A separator counts twice: the clause before a text's first one is then nobody's.
    step = ends.astype(np.int64) + (codes == SEPARATOR)
    number: NDArray[np.int64] = np.cumsum(step) - step
    return number


def context(hits: Hits, codes: NDArray[np.uint32], role: NDArray[np.int64]) -> Context:
    """Look around every hit.

    Args:
        hits: by start, none inside another.
        codes: folded code points of the block, shape (c,).
        role: bits of the role of each hit, shape (hits,).
    """
    clause = clause_numbers(codes)[hits.start]
    negated = _negated(hits, clause, role)
    run_into = np.zeros(len(hits.term), dtype=np.bool_)
    run_into[1:] = hits.start[1:] < hits.end[:-1]
    asked = np.isin(clause, clause[(role & ROLES["asking"]) > 0])
    return Context(
        clause,
        negated,
        asked,
        _after(hits, clause, role, "conditional"),
        _after(hits, clause, role, "worry"),
        _after(hits, clause, role, "near_miss"),
        _quoted(hits, codes),
        _resolved(hits, clause, role, negated),
        run_into,
    )


def _negated(hits: Hits, clause: NDArray[np.int64], role: NDArray[np.int64]) -> NDArray[np.bool_]:
    before = hits.take((role & (_NEGATIONS | ROLES["barrier"])) > 0)
    kinds = role[(role & (_NEGATIONS | ROLES["barrier"])) > 0]
    found = np.zeros(len(hits.term), dtype=np.bool_)
    if len(before.term):
        # The last one that begins before the hit; it may run into it (「没有」 and 「有异响」).
        last = np.searchsorted(before.start, hits.start, side="left") - 1
        known = last >= 0
        last = np.maximum(last, 0)
        reach = np.where(kinds & ROLES["negation_far"], _FAR_REACH, np.where(kinds & _NEGATIONS, _NEAR_REACH, -1))
        same = clause_of(before, hits, clause)[last] == clause
        found = known & same & (hits.start - before.end[last] <= reach[last])
    behind = hits.take((role & ROLES["negation_behind"]) > 0)
    if len(behind.term):
        following = np.searchsorted(behind.start, hits.end, side="left")
        known = following < len(behind.term)
        following = np.minimum(following, len(behind.term) - 1)
        same = clause_of(behind, hits, clause)[following] == clause
        found |= known & same & (behind.start[following] - hits.end <= _BEHIND_REACH)
    return found


def clause_of(some: Hits, hits: Hits, clause: NDArray[np.int64]) -> NDArray[np.int64]:
    """Clauses of some of the hits, given those of all."""
    return clause[np.searchsorted(hits.start, some.start)]


def _after(hits: Hits, clause: NDArray[np.int64], role: NDArray[np.int64], name: str) -> NDArray[np.bool_]:
    """Whether a term of that role stands before the hit in its clause."""
    chosen = (role & ROLES[name]) > 0
    ends, clauses = hits.end[chosen], clause[chosen]
    if not len(ends):
        return np.zeros(len(hits.term), dtype=np.bool_)
    # The first of a clause is enough: whatever follows it in the clause is meant.
    first, position = np.unique(clauses, return_index=True)
    place = np.minimum(np.searchsorted(first, clause), len(first) - 1)
    found: NDArray[np.bool_] = (first[place] == clause) & (ends[position[place]] <= hits.start)
    return found


def _quoted(hits: Hits, codes: NDArray[np.uint32]) -> NDArray[np.bool_]:
    opening = np.flatnonzero((codes == ord("“")) | (codes == ord("「")) | (codes == ord("『")))
    closing = np.flatnonzero((codes == ord("”")) | (codes == ord("」")) | (codes == ord("』")) | (codes == SEPARATOR))
    if not len(opening):
        return np.zeros(len(hits.term), dtype=np.bool_)
    last_open = np.searchsorted(opening, hits.start, side="right") - 1
    opened = np.where(last_open >= 0, opening[last_open], -_LONGEST_QUOTATION)
    # Separators count as closing, so the last position of the block always closes.
    closed = closing[np.searchsorted(closing, opened, side="right")]
    real: NDArray[np.bool_] = (codes[closed] != SEPARATOR) & (closed - opened <= _LONGEST_QUOTATION)
    return (last_open >= 0) & (closed >= hits.end) & real


def _resolved(
    hits: Hits, clause: NDArray[np.int64], role: NDArray[np.int64], negated: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    chosen = (role & ROLES["resolved"]) > 0
    if not chosen.any():
        return chosen
    requested = np.zeros(len(hits.term), dtype=np.bool_)
    for name in ("conditional", "request", "act_question"):
        requested |= _after(hits, clause, role, name)
    chosen &= ~negated & ~requested
    # 「没解决了」: what runs into the word from the left takes it back.
    chosen[1:] &= hits.start[1:] >= hits.end[:-1]
    if not chosen.any():
        return chosen
    starts, clauses, owners = hits.start[chosen], clause[chosen], hits.owner[chosen]
    following = np.searchsorted(starts, hits.end, side="left")
    known = following < len(starts)
    following = np.minimum(following, len(starts) - 1)
    near: NDArray[np.bool_] = clauses[following] - clause <= _RESOLVED_REACH
    same: NDArray[np.bool_] = owners[following] == hits.owner
    return known & near & same
