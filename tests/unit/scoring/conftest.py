"""One scorer for all tests of scoring: it holds no state between blocks."""

from collections.abc import Callable

import pytest

from pipeline.scoring.scorer import Scorer
from schemas.catalogue import CatalogueEntry
from schemas.mention import Mention
from schemas.scored import ScoredRow


@pytest.fixture(scope="session")
def mention() -> Callable[..., Mention]:
    """Makes a mention of which only the text and the named fields matter."""

    def make(text: str, **fields: object) -> Mention:
        known = {
            "mention_id": "m",
            "source_id": "s",
            "native_id": "n",
            "channel": "review",
            "event_time": 1,
            "ingest_time": 2,
        }
        return Mention(**{**known, "text": text, **fields})

    return make


@pytest.fixture(scope="session")
def plain_scorer() -> Scorer:
    """A scorer without a catalogue."""
    return Scorer([])


@pytest.fixture(scope="session")
def scorer() -> Scorer:
    """A scorer with a small catalogue of awkward lots."""
    return Scorer(
        [
            CatalogueEntry("W10", "静音星洗衣机", ["静音星", "quiet star"], "WX2305O1", 1000.0),
            CatalogueEntry("W10", "静音星洗衣机", ["静音星", "quiet star"], "WX2305-02", 1000.0),
            CatalogueEntry("W20", "大容量洗衣机", ["大容量", "QS"], "3508", 500.0),
            CatalogueEntry("W20", "大容量洗衣机", ["大容量", "QS"], "B8B81", 500.0),
            CatalogueEntry("W20", "大容量洗衣机", ["大容量", "QS"], "88881", 500.0),
            CatalogueEntry("P1", "晨星手机", ["晨星"], "4.2.1"),
            CatalogueEntry("C1", "数据分析课", ["数据课"], "2025春季班"),
            CatalogueEntry("P2", "晨星手机Pro", [], ""),
            CatalogueEntry("X1", "甲机", [], "SAME-1"),
            CatalogueEntry("X2", "乙机", [], "SAME-1"),
        ]
    )


@pytest.fixture(scope="session")
def read(plain_scorer: Scorer, mention: Callable[..., Mention]) -> Callable[..., ScoredRow]:
    """The primary row of one text, without a catalogue."""

    def run(text: str, **fields: object) -> ScoredRow:
        return plain_scorer.score([mention(text, **fields)])[0]

    return run
