"""A signature by which near duplicates are known: equal for texts that differ in nothing but decoration.

Left out before hashing: @names, links, tags in square brackets (emoticons, masks), a surname before a title, digits,
punctuation, blanks, emoji; letter case and width do not count. What stays are letters. The hash is a polynomial over
the letters in their order, modulo 2^64.
"""

import re
from functools import cache

import numpy as np
from numpy.typing import NDArray

from pipeline.scoring.characters import MAX_CHARACTERS, TextColumns

# Every repetition is bounded, so that no text makes the search slower than its length.
_DECORATION = re.compile(
    r"@[\w\-]{1,30}"
    r"|https?://[\x21-\x7e]{1,500}"
    r"|www\.[\x21-\x7e]{1,500}"
    r"|\[[^\[\]\n]{1,12}\]"
    r"|\w(?:先生|女士|小姐)(?!们)"
)
_DECORATED = re.compile(r"[@\[]|://|www\.|先生|女士|小姐")
_MULTIPLIER = 0x9E3779B97F4A7C15


@cache
def _letter_table() -> NDArray[np.bool_]:
    """Which code points are letters (of any script, no digits), shape (1114112,)."""
    return np.array([chr(code).isalpha() for code in range(0x110000)], dtype=np.bool_)


@cache
def _powers() -> NDArray[np.uint64]:
    """Powers of the multiplier modulo 2^64 for every position of a text."""
    powers = np.full(MAX_CHARACTERS + 1, _MULTIPLIER, dtype=np.uint64)
    powers[0] = 1
    product: NDArray[np.uint64] = np.multiply.accumulate(powers)
    return product


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64: every bit of the input reaches every bit of the output."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def signatures(laid: TextColumns, folded: str) -> NDArray[np.uint64]:
    """The signature of each text, shape (n,); 0 where no letter is left.

    Args:
        laid: the texts; each at most ``MAX_CHARACTERS`` long.
        folded: ``laid.folded()``.
    """
    keep = _letter_table()[laid.codes]
    if _DECORATED.search(folded):
        for match in _DECORATION.finditer(folded):
            keep[match.start() : match.end()] = False
    kept = np.concatenate([[0], np.cumsum(keep)])
    first, last = kept[laid.starts], kept[laid.ends]
    letters = laid.codes[keep].astype(np.uint64)
    rank = np.arange(len(letters)) - np.repeat(first, last - first)
    weighed = _mix(letters + np.uint64(_MULTIPLIER)) * _powers()[rank]
    sums = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(weighed, dtype=np.uint64)])
    mixed = _mix((sums[last] - sums[first]) ^ (last - first).astype(np.uint64))
    # 0 is kept for texts without letters.
    return np.where(last == first, np.uint64(0), np.maximum(mixed, np.uint64(1)))
