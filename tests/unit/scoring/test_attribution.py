"""Which product and lot, from fields and from text."""

from collections.abc import Callable

import pytest

from pipeline.scoring.attribution import bare_date
from pipeline.scoring.scorer import Scorer
from schemas.catalogue import CatalogueEntry
from schemas.mention import Mention
from schemas.scored import ScoredRow

Make = Callable[..., Mention]


@pytest.mark.parametrize(
    ("text", "fields", "product", "lot"),
    [
        ("好", {"product": "W10", "product_batch": "WX2305-02"}, "W10", "WX2305-02"),
        ("好", {"product": "静音星", "product_batch": "ｗｘ2305 02"}, "W10", "WX2305-02"),
        ("好", {"product": "旗舰店 静音星洗衣机 白色"}, "W10", ""),
        ("好", {"product": "W10", "product_batch": "WX230501"}, "W10", "WX2305O1"),
        ("好", {"product": "W10", "product_batch": "WX9999"}, "W10", ""),
        ("好", {"product": "W10", "product_batch": "3508"}, "W10", ""),
        ("好", {"product_batch": "WX2305O1"}, "W10", "WX2305O1"),
        ("好", {"product_batch": "BBBB1"}, "", ""),
        ("好", {"product_batch": "SAME-1"}, "", ""),
        ("好", {"product": "乙机", "product_batch": "SAME-1"}, "X2", "SAME-1"),
        ("甲机，批次SAME1", {}, "X1", "SAME-1"),
        ("好", {"product": "晨星", "version": "4.2.1"}, "P1", "4.2.1"),
        ("好", {"product": "晨星", "version": "v9"}, "P1", ""),
        ("好", {"product": "别家的"}, "", ""),
        ("我的静音星漏水", {}, "W10", ""),
        ("晨星手机Pro很卡", {}, "P2", ""),
        ("Quiet Star坏了", {}, "W10", ""),
        ("quiet starfish", {}, "", ""),
        ("批次号WX2305 02漏水", {}, "W10", "WX2305-02"),
        ("ＷＸ２３０５０２漏水", {}, "W10", "WX2305-02"),
        ("wx23o5-01漏水", {}, "W10", "WX2305O1"),
        ("3508块钱买的", {}, "", ""),
        ("批次3508漏水", {}, "W20", "3508"),
        ("三五零八批的洗衣机漏水", {}, "W20", "3508"),
        ("三五零八块钱", {}, "", ""),
        ("静音星，批次3508", {}, "W20", "3508"),
        ("2025春季班和描述不符", {}, "C1", "2025春季班"),
        ("电话13800003508", {}, "", ""),
        ("批次XWX230502", {}, "", ""),
    ],
)
def test_attribution(scorer: Scorer, mention: Make, text: str, fields: dict[str, str], product: str, lot: str) -> None:
    row = scorer.score([mention(text, **fields)])[0]
    assert (row.product_id, row.product_batch_id) == (product, lot)
    assert (row.attribution_confidence > 0) == bool(product)
    assert row.subject_id == product


def test_names_inside_words_of_the_lexicon(mention: Make) -> None:
    scorer = Scorer([CatalogueEntry("C9", "课程", []), CatalogueEntry("1001", "噪音大", [])])
    rows = scorer.score([mention("课程不符"), mention("噪音大"), mention("花了1001元")])
    assert [row.product_id for row in rows if row.primary] == ["C9", "1001", ""]
    assert [one.subtype for one in rows[0].objections] == ["course"]


def test_confidence_orders_the_evidence(scorer: Scorer, mention: Make) -> None:
    def confidence(text: str, **fields: str) -> float:
        found: ScoredRow = scorer.score([mention(text, **fields)])[0]
        return found.attribution_confidence

    given = confidence("好", product="W10", product_batch="WX2305-02")
    repaired = confidence("好", product="W10", product_batch="WX23O502")
    named = confidence("静音星坏了")
    several = confidence("静音星和大容量都坏了")
    assert given == 1
    assert given > repaired > named > several > 0


@pytest.mark.parametrize(
    ("fields", "product", "lot"),
    [
        ({"product": " 手机 ", "product_batch": " L1 "}, "手机", "L1"),
        ({"product": "手机", "product_batch": "2025-06-01"}, "手机", ""),
        ({"product": "威驰", "product_batch": "2017"}, "威驰", "2017"),
        ({"product_batch": "L1"}, "", ""),
        ({}, "", ""),
    ],
)
def test_without_catalogue(plain_scorer: Scorer, mention: Make, fields: dict[str, str], product: str, lot: str) -> None:
    row = plain_scorer.score([mention("好", **fields)])[0]
    assert (row.product_id, row.product_batch_id) == (product, lot)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2025-06-01", True), ("2025/6/1", True), ("20250601", True), ("2025年6月1日", True), ("2025年6月", True),
     ("２０２５.０６", True), ("2025", False), ("L20250601", False), ("20251399", False), ("3508", False)],
)  # fmt: skip
def test_bare_date(text: str, expected: bool) -> None:
    assert bare_date(text) is expected


@pytest.mark.parametrize(
    ("text", "fields", "carrier", "region"),
    [
        ("顺丰速运太慢", {}, "顺丰", ""),
        ("圆通把件弄丢了，我在苏州", {}, "圆通", "江苏"),
        ("EMS太慢", {}, "邮政EMS", ""),
        ("快递太慢", {"carrier": "中通快递", "region": "苏州"}, "中通", "苏州"),
        ("快递太慢", {"carrier": "某某物流"}, "某某物流", ""),
        ("上海大众漏油", {}, "", ""),
        ("items are fine", {}, "", ""),
    ],
)
def test_carrier_and_region(
    plain_scorer: Scorer, mention: Make, text: str, fields: dict[str, str], carrier: str, region: str
) -> None:
    row = plain_scorer.score([mention(text, **fields)])[0]
    assert (row.carrier, row.region) == (carrier, region)
