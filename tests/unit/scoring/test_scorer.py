"""Rows, blocks, odd input."""

import time
from collections.abc import Callable, Sequence

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.scoring.characters import MAX_CHARACTERS
from pipeline.scoring.scorer import Scorer, scored_text
from schemas.mention import Mention, Turn
from schemas.scored import ScoredRow

Make = Callable[..., Mention]

PIECES = [
    "物流太慢", "没有", "异响", "，", "。", "很好", "不", "批次WX2305-01", "wx2305 02", "顺丰", "广州", "静音星", "\n", " ", "？", "！",
    "“", "”", "@某人 ", "https://a.cn/x", "[怒]", "如果", "已经修好了", "起火", "\ud800", "\x00", "😀", "Ａ", "3508批", "三五零八批", "A",
    "住院", "导致", "孩子", "刹车", "失灵", "差点", "会不会", "爆炸", "手机", "失望", "包装", "烂", "都没有",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=12).map("".join)


def test_rows_of_a_mention(plain_scorer: Scorer, mention: Make) -> None:
    rows = plain_scorer.score(
        [mention("顺丰太慢", region="广东", product="P", product_batch="L1", rating=1.0, url="u")]
    )
    assert [(row.subject_kind, row.subject_id, row.primary) for row in rows] == [
        ("product", "P", True),
        ("carrier", "顺丰", False),
        ("region", "广东", False),
        ("channel", "review", False),
    ]
    assert [bool(row.text) for row in rows] == [True, False, False, False]
    assert {row.product_batch_id for row in rows} == {"L1"}
    assert (rows[0].native_id, rows[0].rating, rows[0].url) == ("n", 1.0, "u")
    assert all(row.objections == rows[0].objections for row in rows)


def test_unknown_product_has_the_empty_subject(plain_scorer: Scorer, mention: Make) -> None:
    rows = plain_scorer.score([mention("太慢")])
    assert [(row.subject_kind, row.subject_id) for row in rows] == [("product", ""), ("channel", "review")]


def test_deleted_mention(plain_scorer: Scorer, mention: Make) -> None:
    rows = plain_scorer.score([mention("", deleted=True, revision=3, product="P", carrier="顺丰")])
    assert len(rows) == 1
    assert (rows[0].deleted, rows[0].primary, rows[0].text, rows[0].objections) == (True, True, "", [])
    assert rows[0].revision == 3


def test_default_review_is_denominator_only(plain_scorer: Scorer, mention: Make) -> None:
    row = plain_scorer.score([mention("系统默认好评", default_review=True)])[0]
    assert (row.objections, row.speech_act, row.sentiment, row.severity) == ([], "other", 0, 0)
    assert row.text == "系统默认好评"


def test_flags(plain_scorer: Scorer, mention: Make) -> None:
    fields = {"repost_of": "1", "incentivised": True, "default_review": True, "observed": True, "backfill": True}
    assert plain_scorer.score([mention("好", **fields)])[0].flags == [
        "repost", "incentivised", "default_review", "observed", "backfill",
    ]  # fmt: skip
    assert plain_scorer.score([mention("好")])[0].flags == []


def test_only_the_customer_is_scored(plain_scorer: Scorer, mention: Make) -> None:
    turns = [Turn("agent", "是起火了吗"), Turn("customer", "没有，就是漏水"), Turn("agent", "好的，漏电吗")]
    text = "\n".join(turn.text for turn in turns)
    row = plain_scorer.score([mention(text, turns=turns, channel="call")])[0]
    assert [text[one.span[0] : one.span[1]] for one in row.objections] == ["漏水"]
    assert row.severity == 1
    alone = plain_scorer.score([mention("没有，就是漏水", channel="call")])[0]
    assert row.sentiment == alone.sentiment
    assert row.near_duplicate_signature == alone.near_duplicate_signature


def test_turns_that_are_not_those_of_the_text(mention: Make) -> None:
    assert scored_text(mention("漏水了", turns=[Turn("agent", "别的话")])) == "漏水了"


def test_turns_keep_positions_up_to_the_cap(mention: Make) -> None:
    turns = [Turn("customer" if number % 2 else "agent", "字" * 700) for number in range(60)]
    text = "\n".join(turn.text for turn in turns)
    scored = scored_text(mention(text, turns=turns))
    assert len(scored) <= MAX_CHARACTERS
    assert all(mine in (theirs, "\n") for mine, theirs in zip(scored, text, strict=False))


def test_empty_block(plain_scorer: Scorer) -> None:
    assert plain_scorer.score([]) == []


def test_empty_text(plain_scorer: Scorer, mention: Make) -> None:
    row = plain_scorer.score([mention("")])[0]
    assert (row.sentiment, row.sentiment_probability, row.near_duplicate_signature) == (0, 0.5, 0)


def test_rows_are_valid_messages(scorer: Scorer, mention: Make) -> None:
    for row in scorer.score([mention("静音星漏水，顺丰太慢，客服态度差！"), mention("")]):
        assert msgspec.json.decode(msgspec.json.encode(row), type=ScoredRow) == row


def test_versions_name_what_made_the_row(plain_scorer: Scorer, scorer: Scorer, mention: Make) -> None:
    assert plain_scorer.versions != scorer.versions
    assert [part.partition("=")[0] for part in scorer.versions.split(";")] == [
        "model",
        "lexicon",
        "taxonomy",
        "catalogue",
    ]
    assert scorer.score([mention("好")])[0].versions == scorer.versions


def check(rows: Sequence[ScoredRow]) -> None:
    for row in rows:
        assert -1 <= row.sentiment <= 1
        assert 0 <= row.intensity <= 1
        assert 0 <= row.severity <= 4
        assert 0 <= row.attribution_confidence <= 1
        assert 0 <= row.near_duplicate_signature < 2**64
        objecting = any(one.polarity == "negative" for one in row.objections)
        assert (row.severity > 0) == objecting
        if row.primary:
            assert all(0 <= one.span[0] < one.span[1] <= len(row.text) for one in row.objections)
            assert all(row.text[one.span[0] : one.span[1]].strip() for one in row.objections)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TEXTS, min_size=1, max_size=6))
def test_block_is_the_sum_of_its_mentions(scorer: Scorer, mention: Make, texts: list[str]) -> None:
    block = [mention(text, mention_id=str(number)) for number, text in enumerate(texts)]
    together = scorer.score(block)
    assert together == [row for one in block for row in scorer.score([one])]
    check(together)


def test_large_blocks_are_cut_without_a_trace(scorer: Scorer, mention: Make) -> None:
    block = [mention(f"静音星漏水{number}，" + "物流太慢。" * 800, mention_id=str(number)) for number in range(60)]
    assert scorer.score(block) == [row for one in block for row in scorer.score([one])]


@pytest.mark.parametrize(
    "unit",
    [
        "@",
        "不",
        "没有",
        "“",
        "[",
        "a@",
        "http://",
        "0",
        "a-",
        "三",
        "1 ",
        "批",
        "异响",
        "好",
        "\x00",
        "\ud800",
        "先生",
        ".",
        "静音星",
        "啊",
    ],
)
def test_no_text_takes_longer_than_its_length(scorer: Scorer, mention: Make, unit: str) -> None:
    def seconds(characters: int) -> float:
        text = unit * (characters // len(unit))
        begin = time.process_time()
        check(scorer.score([mention(text)]))
        return time.process_time() - begin

    seconds(100)
    short = min(seconds(MAX_CHARACTERS // 4) for _ in range(3))
    # Four times the text, and then a megabyte of it: linear up to the cap, flat beyond; room for a busy machine.
    assert min(seconds(MAX_CHARACTERS) for _ in range(3)) < 12 * short + 0.02
    assert min(seconds(1_000_000) for _ in range(2)) < 16 * short + 0.1


def test_snownlp_when_chosen(mention: Make) -> None:
    snownlp = pytest.importorskip("snownlp")
    scorer = Scorer([], sentiment="snownlp")
    text = "物流太慢，很失望"
    row = scorer.score([mention(text), mention("\ud800"), mention("")])[0]
    assert row.sentiment_probability == pytest.approx(snownlp.SnowNLP(text).sentiments, abs=1e-4)
    assert "snownlp" in row.versions
    assert [one.type for one in row.objections] == ["delivery"]
