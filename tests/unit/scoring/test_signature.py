"""The signature of near duplicates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.scoring.characters import columns
from pipeline.scoring.signature import signatures


def signature(text: str) -> int:
    laid = columns([text])
    return int(signatures(laid, laid.folded())[0])


BASE = "这款洗衣机噪音特别大客服也不处理"

DECORATION = st.sampled_from(
    [
        "@某某 ",
        "12",
        "３",
        "，",
        "！！",
        "[笑哭]",
        "[手机号]",
        "😀",
        "👍🏻",
        " ",
        "\n",
        "\u3000",
        "https://t.cn/A1b2 ",
        "…",
        "138****0000",
        "王女士",
        "\x00",
    ]
)


@given(st.lists(st.tuples(st.integers(0, len(BASE)), DECORATION), max_size=6))
def test_decoration_changes_nothing(inserted: list[tuple[int, str]]) -> None:
    text = BASE
    for place, decoration in sorted(inserted, reverse=True):
        text = text[:place] + decoration + text[place:]
    assert signature(text) == signature(BASE)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("@张三 太差了", "@李四五 太差了"),
        ("买了3台", "买了15台"),
        ("GOOD", "ｇｏｏｄ"),
        ("张先生说坏了", "李先生说坏了"),
        ("好[怒]", "好[笑哭]！"),
    ],
)
def test_same(one: str, other: str) -> None:
    assert signature(one) == signature(other)


@pytest.mark.parametrize(
    ("one", "other"), [("漏水", "漏油"), ("不好", "好不"), ("好", "好好"), ("坏了", "坏了又坏"), ("女士们坏了", "坏了")]
)
def test_different(one: str, other: str) -> None:
    assert signature(one) != signature(other)


@pytest.mark.parametrize("text", ["", " ", "！！！", "123", "😀", "[笑哭]", "@某某", "\ud800"])
def test_zero_without_letters(text: str) -> None:
    assert signature(text) == 0


@given(st.lists(st.text(), max_size=5))
def test_block_is_the_sum_of_its_texts(texts: list[str]) -> None:
    laid = columns(texts)
    assert signatures(laid, laid.folded()).tolist() == [signature(text) for text in texts]


def test_few_collisions() -> None:
    texts = [chr(0x3400 + number // 70) + chr(0x3800 + number % 70) for number in range(20_000)]
    laid = columns(texts)
    assert len(set(signatures(laid, laid.folded()).tolist())) == len(texts)
