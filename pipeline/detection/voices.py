"""What the rows of one unit in one step add up to: mentions, and distinct voices a type."""

from collections.abc import Iterable
from typing import NamedTuple

from pipeline.detection.entries import NEVER_OPENS, NOT_EXPOSURE, QUIET, TYPES, Entry, Row


def voices(said: list[tuple[str, int]]) -> int:
    """Distinct voices among (author, near-duplicate signature): connected components of the author-signature graph.

    Two entries are one voice when they share an author, or a text that differs in names and numbers only, directly or
    through others. An empty author and a signature of 0 connect to nothing.
    """
    if len(said) < 2:
        return len(said)
    authors = [author for author, _ in said if author]
    signatures = [signature for _, signature in said if signature]
    if len(set(authors)) == len(authors) and len(set(signatures)) == len(signatures):
        return len(said)
    return _components(said)


def _components(said: list[tuple[str, int]]) -> int:
    parent = list(range(len(said)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    seen: dict[str | int, int] = {}
    count = len(said)
    for node, keys in enumerate(said):
        for key in keys:
            if not key:
                continue
            one, other = root(seen.setdefault(key, node)), root(node)
            if one != other:
                parent[other] = one
                count -= 1
    return count


def said_by(entries: Iterable[Entry]) -> list[tuple[str, int]]:
    """What tells the voices of entries apart."""
    return [(entry.author, entry.signature) for entry in entries]


class UnitTally(NamedTuple):
    """What one unit's live entries in one step add up to."""

    mentions: int
    organic: int
    """Mentions of the customers' own accord: no reposts, no rewarded ones."""
    quiet: int
    """Organic mentions that name nothing negative and are no default review: the pulse of sales."""
    known: int
    """Mentions whose lot is known."""
    any_voices: int
    voices: tuple[int, ...]
    """Distinct voices a type, history included."""
    fresh: tuple[int, ...]
    """The same without what was observed undated or backfilled: what may open a spike."""


def tabulate(rows: Iterable[Row]) -> UnitTally:
    """Add up one unit's rows of one step."""
    mentions = organic = quiet = known = 0
    objecting: list[Entry] = []
    for row in rows:
        count, flags = row.count, row.flags
        mentions += count
        organic += count * (not flags & NOT_EXPOSURE)
        quiet += count * bool(flags & QUIET)
        known += count * (row.product_batch_id != "")
        if isinstance(row, Entry) and row.types and count:
            objecting.append(row)
    if not objecting:
        return UnitTally(mentions, organic, quiet, known, 0, _NO_VOICES, _NO_VOICES)
    every = _voices_by_type(objecting)
    fresh_only = [entry for entry in objecting if not entry.flags & NEVER_OPENS]
    fresh = every if len(fresh_only) == len(objecting) else _voices_by_type(fresh_only)
    return UnitTally(mentions, organic, quiet, known, voices(said_by(objecting)), every, fresh)


_NO_VOICES = (0,) * TYPES


def _voices_by_type(objecting: list[Entry]) -> tuple[int, ...]:
    said: list[list[tuple[str, int]]] = [[] for _ in range(TYPES)]
    for entry in objecting:
        remaining = entry.types
        while remaining:
            lowest = remaining & -remaining
            said[lowest.bit_length() - 1].append((entry.author, entry.signature))
            remaining ^= lowest
    return tuple(map(voices, said))
