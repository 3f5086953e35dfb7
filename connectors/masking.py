"""Personal data out of a text, before anything leaves the connector.

First version: mobile numbers, 身份证 numbers (with their check digit), bank cards (prefix and Luhn), number plates and
e-mail addresses. The lots of the catalogue stay, even where they look like one of these: an 11-digit lot that starts
with 1 has the form of a mobile number.

Every pattern is bounded and starts at the edge of a run of its characters, so that the time is linear in the length.
Sources of the forms: GB 11643-1999 and ISO 7064 MOD 11-2 (identity numbers), ISO/IEC 7812 (Luhn), GA 36-2018 (plates).
"""

import hashlib
import hmac
import re
import unicodedata
from collections.abc import Callable, Iterable

_MAY_HOLD = re.compile(r"[0-9@\uff10-\uff19\uff20]")
_FULL_WIDTH = re.compile(r"[\uff10-\uff19\uff20-\uff3a\uff41-\uff5a]")
_TO_ASCII = {
    code: chr(code - 0xFEE0) for code in [*range(0xFF10, 0xFF1A), *range(0xFF20, 0xFF3B), *range(0xFF41, 0xFF5B)]
}

_PROVINCES = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
_PATTERN = re.compile(
    rf"""
      (?P<email>   (?<![A-Za-z0-9._%+-]) [A-Za-z0-9._%+-]{{1,64}} @ [A-Za-z0-9-]{{1,63}} (?: \.[A-Za-z0-9-]{{1,63}} ){{1,4}} )
    | (?P<idcard>  (?<![0-9]) [1-9][0-9]{{5}} (?:18|19|20)[0-9]{{2}} (?:0[1-9]|1[0-2]) (?:0[1-9]|[12][0-9]|3[01])
                   [0-9]{{3}}[0-9Xx] (?![0-9]) )
    | (?P<phone>   (?<![0-9]) (?: (?:\+|00)? 86 [\ -]? )? 1[3-9][0-9] [\ -]? [0-9]{{4}} [\ -]? [0-9]{{4}} (?![0-9]) )
    | (?P<card>    (?<![0-9]) (?:62|[345])[0-9]{{2,3}} (?: [\ -]? [0-9]{{4}} ){{3}} (?: [\ -]? [0-9]{{1,3}} )? (?![0-9]) )
    | (?P<plate>   [{_PROVINCES}] [A-HJ-NP-Z] [\ ·•-]?
                   (?: [A-HJ-NP-Z0-9]{{6}} | [A-HJ-NP-Z0-9]{{5}} | [A-HJ-NP-Z0-9]{{4}}[警学挂港澳使领] ) (?![A-Za-z0-9]) )
    """,
    re.VERBOSE,
)
_TOKEN = {"email": "<email>", "idcard": "<id-card>", "phone": "<phone>", "card": "<bank-card>", "plate": "<plate>"}
_WORD = re.compile(r"[A-Za-z0-9-]{1,64}")
_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


def is_identity_number(number: str) -> bool:
    """Whether the 18 characters carry the check character of ISO 7064 MOD 11-2."""
    total = sum(weight * int(digit) for weight, digit in zip(_ID_WEIGHTS, number[:17], strict=True))
    return "10X98765432"[total % 11] == number[17].upper()


def is_luhn(digits: str) -> bool:
    """Whether the digits pass the Luhn check of ISO/IEC 7812."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _is_card(match: str) -> bool:
    digits = re.sub(r"[ -]", "", match)
    return 16 <= len(digits) <= 19 and is_luhn(digits)


_CONFIRM: dict[str, Callable[[str], bool]] = {
    "idcard": is_identity_number,
    "card": _is_card,
    "plate": lambda plate: any(c.isdigit() for c in plate),
}


class Masker:
    """Replaces personal data by tokens such as ``<phone>``.

    Args:
        keep: lots, as the catalogue writes them, that stay whatever they look like.
    """

    def __init__(self, keep: Iterable[str] = ()) -> None:
        self._keep = frozenset(unicodedata.normalize("NFKC", lot).upper() for lot in keep if lot)

    def mask(self, text: str) -> str:
        """The text without personal data. Texts without a digit or @ come back as they are."""
        if _MAY_HOLD.search(text) is None:
            return text
        plain = text.translate(_TO_ASCII) if _FULL_WIDTH.search(text) else text  # one to one: positions agree
        pieces: list[str] = []
        done = position = 0
        while (match := _PATTERN.search(plain, position)) is not None:
            kind = match.lastgroup or ""
            start, end = match.span()
            confirmed = kind not in _CONFIRM or _CONFIRM[kind](match.group())
            if confirmed and not self._is_lot(plain, start, end):
                pieces += (text[done:start], _TOKEN[kind])
                done = position = end
            else:
                position = end if confirmed else start + 1
        return "".join((*pieces, text[done:])) if pieces else text

    def _is_lot(self, plain: str, start: int, end: int) -> bool:
        if not self._keep:
            return False
        while start > 0 and end - start < 64 and _WORD.fullmatch(plain[start - 1]):
            start -= 1
        while end < len(plain) and end - start < 64 and _WORD.fullmatch(plain[end]):
            end += 1
        return plain[start:end].upper() in self._keep


class Pseudonymiser:
    """Turns an author's id into a keyed pseudonym: the same person, the same word, but nobody's name.

    The pseudonym names its key (first 4 hex digits of the key's hash), so that a change of key can be told.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._key_id = hashlib.blake2b(key, digest_size=2, person=b"radar-key-id").hexdigest()

    def __call__(self, identity: str) -> str:
        """The pseudonym: key id, a colon, 80 bits of HMAC-SHA256 in hex."""
        return (
            f"{self._key_id}:{hmac.digest(self._key, identity.encode('utf-8', 'surrogatepass'), 'sha256')[:10].hex()}"
        )
