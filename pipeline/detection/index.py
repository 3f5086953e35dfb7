"""Where the records of a mention are: a hash table of one machine word a record.

A dictionary takes ten times that, and millions of mentions are held. A key is 128 random bits and stands with its record;
a word holds a few of them, so that hardly any other record has to be looked at, and the place of the record. Places that
are no longer in use stay until the table is made anew.
"""

from array import array
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]

KEY_BYTES = 16
PLACE_BITS = 48
_PLACE = (1 << PLACE_BITS) - 1
_MARK = (1 << 64 - PLACE_BITS) - 1
_WORD = (1 << 64) - 1
_SMALLEST = 6
_TAIL = 64
"""Words behind the table for those that would go beyond its end; the last one stays empty."""

_SPREAD = 0x9E3779B97F4A7C15
"""By which heads are multiplied, so that ids that are no hashes do not crowd: 2^64 over the golden ratio."""


def keyed(mention_id: str) -> tuple[bytes, int]:
    """The key of an id, and its head. The key is what the id spells in hex; of an id of any other form its hash."""
    try:
        key = bytes.fromhex(mention_id)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES or key.hex() != mention_id:
        key = blake2b(mention_id.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()
    return key, head_of(key)


def head_of(key: bytes) -> int:
    """The bits (64) by which a key of 16 bytes is found."""
    both = int.from_bytes(key, "little")
    return ((both ^ both >> 64) * _SPREAD) & _WORD


def heads_of(keys: bytes | bytearray) -> Words:
    """(n,): the same of keys that stand one behind the other."""
    low, high = np.frombuffer(keys, "<u8").reshape(-1, 2).T
    heads: Words = (low ^ high).astype(np.uint64) * np.uint64(_SPREAD)
    return heads


class Index:
    """Places (numbers above 0) by head."""

    def __init__(self) -> None:
        self.rebuild(np.zeros(0, np.uint64), np.zeros(0, np.uint64))

    def rebuild(self, heads: Words, places: Words) -> None:
        """Hold these places (n,) of these heads (n,) and no others, with room for as many again."""
        bits = max(_SMALLEST, len(heads).bit_length() + 1)
        self._shift = 64 - bits
        self._free = (5 << bits - 3) - len(heads)
        order = np.argsort(heads)
        heads, places = heads[order], places[order]
        home, rank = (heads >> np.uint64(self._shift)).astype(np.int64), np.arange(len(heads))
        at = np.maximum.accumulate(home - rank) + rank  # its home or, if that is taken, behind the one before it
        words = np.zeros(max(1 << bits, int(at[-1]) + 1 if len(at) else 0) + _TAIL, np.uint64)
        words[at] = (heads << np.uint64(PLACE_BITS)) | places
        self._words = array("Q", words.tobytes())
        self._sought, self._end = -1, 0  # what was looked for last, and where that ended: most are added then

    def add(self, head: int, place: int) -> bool:
        """Hold a place. False if there is no room for it: then the index wants to be rebuilt."""
        words, at = self._words, self._end if head == self._sought else head >> self._shift
        while words[at]:
            at += 1
        if not self._free or at == len(words) - 1:
            return False
        words[at] = (head & _MARK) << PLACE_BITS | place
        self._free -= 1
        return True

    def find(self, head: int) -> list[int]:
        """All places of a head, and hardly any others."""
        words, at, mark = self._words, head >> self._shift, head & _MARK
        found: list[int] = []
        while word := words[at]:
            if word >> PLACE_BITS == mark:
                found.append(word & _PLACE)
            at += 1
        self._sought, self._end = head, at
        return found
