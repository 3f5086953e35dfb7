"""One ordinary row."""

import pytest

from schemas.scored import Objection, ScoredRow


@pytest.fixture
def example_row() -> ScoredRow:
    return ScoredRow(
        mention_id="m1",
        revision=0,
        deleted=False,
        subject_kind="product",
        subject_id="kettle",
        primary=True,
        product_id="kettle",
        product_batch_id="L1",
        attribution_confidence=0.5,
        version="",
        carrier="",
        region="",
        channel="review",
        source_id="shop",
        event_time=1_735_700_000_000,
        ingest_time=1_735_700_001_000,
        sentiment=-0.5,
        sentiment_probability=0.25,
        objections=[Objection("product_quality", "defect", (0, 2), "negative")],
        speech_act="complaint",
        emotion="anger",
        intensity=0.5,
        severity=2,
        author="a1",
        near_duplicate_signature=1,
        flags=[],
        versions="v1",
        text="漏水，退货",
    )
