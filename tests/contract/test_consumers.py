"""The examples go through every consumer of their topic: scoring, detection, storage's encoder, the notice."""

from importlib import resources
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from pipeline.alerting import notice
from pipeline.detection.detector import Detector
from pipeline.errors import TerminalError
from pipeline.scoring.scorer import Scorer
from pipeline.storage import native
from pipeline.storage.rows import TABLES, columns_of
from schemas.catalogue import CatalogueChunk, CatalogueEntry
from schemas.codec import RawRecord, ScoredRecord, decode
from schemas.control import CatalogueUpdate, Gap
from schemas.dead_letter import DeadLetter
from schemas.mention import Mention
from schemas.policy import DetectionPolicy
from schemas.scored import ScoredBlock
from schemas.signal import Signal
from schemas.step_count import StepCount

EXAMPLES = resources.files("schemas") / "examples"


def example(name: str, kind: Any) -> Any:
    return decode((EXAMPLES / f"{name}.json").read_bytes(), kind)


def encoded(table: str, structs: list[msgspec.Struct]) -> bytes:
    return native.encode(TABLES[table], columns_of(TABLES[table], structs))


@pytest.fixture
def catalogue() -> list[CatalogueEntry]:
    return [example("catalogue_entry", CatalogueEntry)]


@pytest.mark.parametrize("name", ["mention", "call", "deletion"])
def test_mentions_are_scored_and_stored(catalogue: list[CatalogueEntry], name: str) -> None:
    mention: Mention = example(f"raw_record.{name}", RawRecord)
    rows = Scorer(catalogue).score([mention])
    assert [row.primary for row in rows] == [True] + [False] * (len(rows) - 1)
    assert rows[0].mention_id == mention.mention_id
    assert encoded("mentions", [rows[0]])


def test_the_example_mention_is_understood(catalogue: list[CatalogueEntry]) -> None:
    primary, *others = Scorer(catalogue).score([example("raw_record.mention", RawRecord)])
    assert (primary.product_id, primary.product_batch_id, primary.speech_act) == ("washer-w7", "L2603", "complaint")
    assert primary.objections[0].type == "product_quality"
    assert {(row.subject_kind, row.subject_id) for row in others} == {
        ("carrier", "顺丰"),
        ("region", "广东"),
        ("channel", "review"),
    }


@pytest.mark.parametrize("name", ["watermark", "gap", "idle", "retired", "catalogue", "policy"])
def test_control_records_are_taken_by_detection(name: str) -> None:
    detector = Detector(DetectionPolicy(step="1d"))
    assert detector.absorb(example(f"raw_record.{name}", RawRecord)).signals == []


def test_a_catalogue_that_is_only_named_must_be_looked_up_first() -> None:
    chunk: CatalogueChunk = example("catalogue_chunk", CatalogueChunk)
    named: CatalogueUpdate = example("raw_record.catalogue_named", RawRecord)
    detector = Detector(DetectionPolicy(step="1d"))
    with pytest.raises(TerminalError, match=named.version):
        detector.absorb(named)
    assert (chunk.version, chunk.number + 1) == (named.version, chunk.chunks)
    assert detector.absorb(CatalogueUpdate(chunk.version, chunk.entries)).signals == []
    assert detector.absorb(named).signals == []  # in force by now


def test_scored_blocks_are_detected_and_stored() -> None:
    block: ScoredBlock = example("scored_record.block", ScoredRecord)
    detector = Detector(DetectionPolicy(step="1d"))
    detector.absorb(block)
    counts = detector.close_all().step_counts
    assert {(one.subject_kind, one.objection_type, one.count) for one in counts} == {
        ("product", "any", 1),
        ("product", "product_quality", 1),
        ("carrier", "any", 1),
        ("carrier", "product_quality", 1),
    }
    assert encoded("step_counts", list(counts))


def test_counts_signals_letters_and_gaps_are_stored() -> None:
    assert encoded("step_counts", [example("step_count", StepCount)])
    assert encoded("signals", [example("signal", Signal)])
    assert encoded("dead_letters", [example("dead_letter", DeadLetter)])
    gap = example("raw_record.gap", RawRecord)
    assert isinstance(gap, Gap)
    assert encoded("gaps", [gap])


def test_a_signal_is_said_in_both_languages() -> None:
    signal: Signal = example("signal", Signal)
    zone = ZoneInfo("Asia/Shanghai")
    assert notice.headline(signal, "zh", {"washer-w7": "云净W7"}) == "[新] 云净W7 · 批次 L2603 产品质量异议激增"
    assert notice.headline(signal, "en") == "[NEW] washer-w7 · lot L2603 product quality: objections spike"
    assert "9 voices object in the last 2 d" in notice.numbers(signal, "en", zone, "1d")
    assert "近 2 天 9 位客户" in notice.numbers(signal, "zh", zone, "1d")
    assert "lot L2603 94% of the excess, 25% of the exposure" in notice.drivers(signal, "en")
    assert notice.quotes(signal, 2) == ["洗衣机脱水噪音特别大，批号L2603"]
