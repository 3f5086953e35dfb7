"""Texts of a block as one array of folded code points: what every step of scoring reads.

All texts stand one after the other, each followed by one separator, so that a step is a handful of array operations
for the whole block. Folding keeps positions: one character in, one character out.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_CHARACTERS = 20_000
"""A longer text is scored by its first 20,000 characters: no input may cost more than its bytes."""

SEPARATOR = 10
"""Code point (line feed) between texts, turns and paragraphs; no n-gram and no rule crosses it."""

_UNICODE = 0x110000

# Traditional characters of consumer language that have one simplified form; written in pairs.
_TRADITIONAL = (
    "電电話话機机車车買买賣卖賠赔償偿質质量量壞坏響响壓压開开關关門门問问題题處处無无沒没貨货運运遲迟遞递費费價价錢钱貴贵實实際际圖图"
    "與与樣样後后務务態态讓让說说請请謝谢難难過过時时間间長长東东來来還还會会個个為为這这們们從从對对應应該该覺觉聽听見见現现發发動动"
    "擊击傷伤燙烫熱热燒烧滅灭煙烟藥药飯饭點点麵面雞鸡魚鱼體体頭头腦脑腫肿變变異异聲声噪噪漏漏網网線线訊讯號号碼码單单據据證证書书"
    "學学課课師师員员幫帮辦办嗎吗麼么誰谁歲岁兒儿寶宝愛爱歡欢樂乐憤愤氣气驚惊嚇吓絕绝騙骗詐诈濫滥爛烂髒脏亂乱舊旧維维護护換换"
)


@cache
def fold_table() -> NDArray[np.uint32]:
    """Code point → code point, shape (1114112,): full-width to ASCII, upper to lower case, common traditional forms.

    Control characters and blanks other than the line feed become a blank; carriage returns and Unicode line ends
    become separators.
    """
    table = np.arange(_UNICODE, dtype=np.uint32)
    table[:33] = ord(" ")
    table[[10, 11, 12, 13, 0x85, 0x2028, 0x2029]] = SEPARATOR
    table[0x7F:0xA1] = ord(" ")
    table[[0x3000, 0x200B, 0x200C, 0x200D, 0xFEFF, 0x00A0]] = ord(" ")
    table[0xFF01:0xFF5F] = np.arange(0x21, 0x7F)
    table[ord("A") : ord("Z") + 1] += 32
    table[0xFF21:0xFF3B] = table[ord("A") : ord("Z") + 1]
    pairs = np.array([ord(character) for character in _TRADITIONAL], dtype=np.uint32).reshape(-1, 2)
    table[pairs[:, 0]] = pairs[:, 1]
    return table


class TextColumns(NamedTuple):
    """The texts of a block, one after the other. ``n`` texts, ``c`` code points including one separator a text."""

    codes: NDArray[np.uint32]
    """Folded code points, shape (c,)."""
    starts: NDArray[np.int64]
    """First position of each text, shape (n,)."""
    ends: NDArray[np.int64]
    """Position of the separator behind each text, shape (n,)."""

    def folded(self) -> str:
        """All folded texts as one string; positions are those of ``codes``."""
        return self.codes.tobytes().decode("utf-32-le", "surrogatepass")

    def owner(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of the text in which each position stands."""
        return np.searchsorted(self.ends, positions, side="left")


def columns(texts: Sequence[str]) -> TextColumns:
    """Lay the texts out. They must not be longer than ``MAX_CHARACTERS``; cut them first.

    Lone surrogates are code points like any other here.
    """
    joined = "\n".join(texts) + "\n"
    raw = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    ends = np.cumsum(lengths + 1) - 1
    return TextColumns(fold_table()[raw] if len(texts) else raw[:0].astype(np.uint32), ends - lengths, ends)
