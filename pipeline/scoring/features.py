"""Hashed character n-grams for a whole block at once, and linear heads on them.

Method: feature hashing (Weinberger et al. 2009) of character 1-, 2- and 3-grams, which need no word segmentation and
cope with new words and typing errors. Weights are 8-bit integers, so all sums are exact: a text scores the same
alone, in any block, and as the sum of its clauses.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.scoring.characters import SEPARATOR

BUCKET_BITS = 18
BUCKETS = 1 << BUCKET_BITS

_SHIFT = np.uint32(32 - BUCKET_BITS)
_SPREAD = np.uint32(0x9E3779B1)
_STEP = np.uint32(0x85EBCA6B)
_BIGRAM = np.uint32(0x27D4EB2F)
_TRIGRAM = np.uint32(0x165667B1)
_PIECE = 1 << 14
"""Code points handled at a time: the arrays between then stay in the cache, and below the size at which the allocator
asks the system for fresh pages each time (measured: twice as fast)."""


class Grams(NamedTuple):
    """The n-grams that begin at each position."""

    buckets: tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint32]]
    """Bucket of the 1-, 2- and 3-gram, each of shape (c,); 0 (which weighs nothing) where there is none."""
    number: NDArray[np.int32]
    """How many of the three exist, shape (c,)."""


def grams(codes: NDArray[np.uint32]) -> Grams:
    """Buckets of the n-grams of folded code points, shape (c,). An n-gram holds neither separator nor blank.

    Digits count as one character: a price or a lot says nothing about the mood.
    """
    size = len(codes)
    padded = np.full(size + 2, SEPARATOR, dtype=np.uint32)
    padded[:size] = codes
    padded[(padded >= 48) & (padded <= 57)] = 48
    one = ((padded != SEPARATOR) & (padded != 32)).astype(np.uint32)
    two = one[:-1] & one[1:]
    three = two[:-1] & one[2:]
    mixed = padded * _SPREAD
    pair = (mixed[:-1] ^ (mixed[:-1] >> np.uint32(15))) * _STEP + mixed[1:]
    triple = (pair[:-1] ^ (pair[:-1] >> np.uint32(13))) * _STEP + mixed[2:]
    first, second = one[:size], two[:size]
    unigrams = ((mixed[:size] ^ (mixed[:size] >> np.uint32(16))) * _STEP >> _SHIFT) * first
    bigrams = (((pair[:size] ^ (pair[:size] >> np.uint32(16))) * _BIGRAM) >> _SHIFT) * second
    trigrams = (((triple ^ (triple >> np.uint32(16))) * _TRIGRAM) >> _SHIFT) * three
    return Grams((unigrams, bigrams, trigrams), (first + second + three).astype(np.int32))


class RunningSums(NamedTuple):
    """Sums over the code points before each position; a stretch is a difference of two entries."""

    weight: NDArray[np.int64]
    """Sum of weights, shape (heads, c + 1)."""
    number: NDArray[np.int64]
    """Number of n-grams, shape (c + 1,)."""


def running_sums(codes: NDArray[np.uint32], weights: NDArray[np.int8]) -> RunningSums:
    """Weigh every n-gram of a block with every head in one pass.

    Args:
        codes: folded code points, shape (c,).
        weights: shape (heads, BUCKETS); bucket 0 must be 0.
    """
    size, heads = len(codes), len(weights)
    weight = np.zeros((heads, size + 1), dtype=np.int64)
    number = np.zeros(size + 1, dtype=np.int64)
    for begin in range(0, size, _PIECE):
        end = min(size, begin + _PIECE)
        # Two code points more, so that n-grams which reach over the cut are seen whole.
        piece = grams(codes[begin : end + 2])
        taken = end - begin
        number[begin + 1 : end + 1] = piece.number[:taken]
        for head in range(heads):
            table = weights[head]
            total = table[piece.buckets[0][:taken]].astype(np.int16)
            total += table[piece.buckets[1][:taken]]
            total += table[piece.buckets[2][:taken]]
            weight[head, begin + 1 : end + 1] = total
    np.cumsum(weight, axis=1, out=weight)
    np.cumsum(number, out=number)
    return RunningSums(weight, number)


def stretch_means(
    sums: RunningSums, head: int, starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sum of weights over the root of the number of n-grams, and that number, for stretches [start, end).

    The root makes long and short texts comparable (it is the length of the vector if no n-gram repeats). A stretch
    without n-grams has the value 0.
    """
    number = sums.number[ends] - sums.number[starts]
    total = (sums.weight[head, ends] - sums.weight[head, starts]).astype(np.float64)
    return total / np.sqrt(np.maximum(number, 1)), number
