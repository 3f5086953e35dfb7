"""The score and detect stages without any broker: records in, outputs and state out."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import TerminalError
from pipeline.runtime.detect_stage import DetectStage
from pipeline.runtime.score_stage import PartitionScore, ScoreStage, partition_of_subject
from pipeline.runtime.stage import Output, Record, Result
from pipeline.settings import ScoringSettings
from schemas.catalogue import CatalogueEntry
from schemas.codec import VERSIONS, RawRecord, ScoredRecord, decode, encode
from schemas.control import CatalogueUpdate, Gap, PolicyUpdate, Watermark
from schemas.dead_letter import DeadLetter
from schemas.mention import Mention
from schemas.policy import DAY_MS, DetectionPolicy
from schemas.scored import ScoredBlock, ScoredRow

PARTITIONS = 4
START = 1_767_600_000_000
HARM = "充电时爆炸，手被炸伤住院"


class KnownCatalogues:
    """Looks up what stands here."""

    def latest(self) -> str:
        return "v1"

    def entries(self, version: str) -> list[CatalogueEntry]:
        return {"v0": [], "v1": [CatalogueEntry("pot", "电饭煲", [], "L7", 1000.0, START, START + DAY_MS)]}[version]


def stage(record_bytes: int = 1_000_000) -> ScoreStage:
    return ScoreStage(PARTITIONS, KnownCatalogues(), ScoringSettings(), record_bytes)  # type: ignore[arg-type]


def mention(
    name: str, time: int = START, text: str = "漏水了", revision: int = 0, product: str | None = None
) -> Mention:
    return Mention(name, "shop", name, "review", text, time, time, revision=revision, product=product)


def records(*messages: Any, key: bytes | None = None, first: int = 0) -> list[Record]:
    values = [one if isinstance(one, bytes) else encode(one) for one in messages]
    return [Record("topic", 3, first + n, key, value, 1, START) for n, value in enumerate(values)]


def scored(result: Result) -> list[tuple[int | None, Any]]:
    assert {one.key for one in result.outputs if one.topic == "mentions.scored.v1"} <= {b"3"}
    return [(o.partition, decode(o.value, ScoredRecord)) for o in result.outputs if o.topic == "mentions.scored.v1"]


def rows(result: Result) -> list[tuple[int | None, ScoredRow]]:
    return [(at, row) for at, one in scored(result) if isinstance(one, ScoredBlock) for row in one.rows]


def letters(result: Result) -> list[DeadLetter]:
    return [decode(one.value, DeadLetter) for one in result.outputs if one.topic == "dead_letters.v1"]


def test_one_record_a_partition_and_watermarks_behind_the_rows() -> None:
    result = stage().claim(3, [], "").process(records(*(mention(f"m{n}") for n in range(50)), Watermark("", START + 1)))
    found = scored(result)
    assert sum(isinstance(one, ScoredBlock) for _, one in found) <= PARTITIONS
    assert [at for at, one in found if isinstance(one, Watermark)] == list(range(PARTITIONS))
    assert all(isinstance(one, Watermark) for _, one in found[-PARTITIONS:])
    assert len({row.mention_id for _, row in rows(result) if row.primary}) == 50
    for at, row in rows(result):
        if row.subject_id:
            assert at == partition_of_subject(row.subject_kind, row.subject_id, PARTITIONS)


@pytest.mark.parametrize("late", [mention("late", START - 5), mention("edit", START + 9, revision=1)])
def test_what_is_late_stays_behind_the_watermark_it_came_after(late: Mention) -> None:
    result = (
        stage()
        .claim(3, [], "")
        .process(
            records(mention("m"), Watermark("", START), mention("on time", START + 1), late, Watermark("", START + 10))
        )
    )
    order = [
        one.time if isinstance(one, Watermark) else {row.mention_id for row in one.rows if row.primary}
        for at, one in scored(result)
        if isinstance(one, Watermark) or any(row.primary for row in one.rows)
    ]
    first_watermark = order.index(START)
    assert {"m", "on time"} == set().union(*order[:first_watermark])  # type: ignore[arg-type]
    assert {late.mention_id} in order[first_watermark:]


def test_a_retraction_goes_to_every_partition() -> None:
    result = stage().claim(3, [], "").process(records(mention("m", revision=2)))
    told = {at for at, one in scored(result) if isinstance(one, ScoredBlock) and one.retractions}
    assert told == set(range(PARTITIONS))


def test_the_catalogue_named_in_band_is_used_from_there_on_and_remembered() -> None:
    claimed = stage().claim(3, [], "v0")
    result = claimed.process(
        records(mention("a", product="电饭煲"), CatalogueUpdate("v1"), mention("b", product="电饭煲"))
    )
    products = {row.mention_id: row.product_id for _, row in rows(result) if row.primary}
    assert products["b"] == "pot" != products["a"]
    assert result.note == "v1"
    assert sum(isinstance(one, CatalogueUpdate) for _, one in scored(result)) == PARTITIONS
    again = stage().claim(3, [], result.note).process(records(mention("c", product="电饭煲")))
    assert {row.product_id for _, row in rows(again) if row.primary} == {"pot"}


def test_before_the_first_naming_that_is_left_the_latest_catalogue_holds() -> None:
    result = stage().claim(3, [], "").process(records(mention("a", product="电饭煲")))
    assert {row.product_id for _, row in rows(result) if row.primary} == {"pot"}
    assert result.note == "v1"


def test_watermarks_never_go_back_within_a_block() -> None:
    late = mention("late", START + 5)
    result = stage().claim(3, [], "").process(records(Watermark("", START + 10), Watermark("", START), late))
    first = next(one for _, one in scored(result))
    assert first == Watermark("", START + 10)


def test_a_refused_row_does_not_take_its_retraction_with_it() -> None:
    result = stage(900).claim(3, [], "").process(records(mention("m", text="漏水了，很失望" * 40, revision=1)))
    assert [one.reason for one in letters(result)] == ["too_large"]
    told = {at for at, one in scored(result) if isinstance(one, ScoredBlock) and one.retractions}
    assert told == set(range(PARTITIONS))


def test_a_foreign_record_is_a_dead_letter() -> None:
    claimed = DetectStage(1, KnownCatalogues()).claim(1, [], "")  # type: ignore[arg-type]
    (good,) = records(Watermark("", START), key=b"0")
    result = claimed.process([good._replace(key=None), good._replace(key=b"x"), good._replace(version=0), good])
    assert [one.reason for one in letters(result)] == ["unreadable"] * 3
    assert claimed._alignment.combined == START


def test_a_policy_that_the_state_cannot_follow_is_not_followed() -> None:
    claimed = DetectStage(1, KnownCatalogues()).claim(1, [], "")  # type: ignore[arg-type]
    messages = [
        PolicyUpdate("p", DetectionPolicy(step="1d", time_zone="UTC")),
        Watermark("", START),
        PolicyUpdate("q", DetectionPolicy(step="1h", time_zone="UTC")),
        Watermark("", START + DAY_MS),
    ]
    claimed.process(records(*messages, key=b"0"))
    assert claimed._alignment.combined == START + DAY_MS


def test_what_is_no_message_becomes_a_dead_letter_and_the_rest_goes_on() -> None:
    result = (
        stage().claim(3, [], "").process(records(b'{"record": "mention", "x": "13912345678"}', mention("m"), b"\xff"))
    )
    assert [(one.locator, one.stage, one.reason) for one in letters(result)] == [
        ("topic-3-0", "score", "unreadable"),
        ("topic-3-2", "score", "unreadable"),
    ]
    assert "13912345678" not in letters(result)[0].payload
    assert len(rows(result)) > 0


def test_a_newer_version_stops_the_worker() -> None:
    (record,) = records(mention("m"))
    with pytest.raises(TerminalError, match="topic-3-0: written by a newer version"):
        stage().claim(3, [], "").process([record._replace(version=VERSIONS[RawRecord] + 1)])


@settings(max_examples=20)
@given(st.integers(1_500, 20_000))
def test_no_record_is_larger_than_the_brokers_take(limit: int) -> None:
    claimed: PartitionScore = stage(limit).claim(3, [], "")
    result = claimed.process(records(*(mention(f"m{n}", text="漏水了，很失望" * 10, revision=1) for n in range(20))))
    assert all(len(one.value) <= limit for one in result.outputs if one.topic == "mentions.scored.v1")
    kept = {row.mention_id for _, row in rows(result) if row.primary}
    refused = {one.payload_hash for one in letters(result) if one.reason == "too_large"}
    assert kept | refused == {f"m{n}" for n in range(20)}


def feed_detect(claimed: Any, outputs: list[Output]) -> Result:
    here = [one for one in outputs if one.topic == "mentions.scored.v1" and one.partition == 1]
    return claimed.process([Record("scored", 1, n, b"0", one.value, 1, START) for n, one in enumerate(here)])


def two_partitions() -> ScoreStage:
    """Of which the tests look at number 1."""
    made = stage()
    made.partitions = 2
    return made


SUBJECT = next(name for name in ("p1", "p2", "p3", "p4") if partition_of_subject("product", name, 2) == 1)


def test_a_severe_mention_becomes_a_signal_and_its_state_survives() -> None:
    policy = PolicyUpdate("p", DetectionPolicy(step="1d", time_zone="UTC"))
    score = two_partitions().claim(0, [], "v0")
    detect = DetectStage(1, KnownCatalogues())  # type: ignore[arg-type]
    first = score.process(records(policy, mention("m1", text=HARM, product=SUBJECT)))
    claimed = detect.claim(1, [], "")
    result = feed_detect(claimed, list(first.outputs))
    opened = [json.loads(one.value) for one in result.outputs if one.topic == "signals.v1"]
    assert [(one["kind"], one["event"], one["severity"], one["subject_id"]) for one in opened] == [
        ("severe", "opened", 4, SUBJECT)
    ]
    state = {key: value for key, value in result.state if value is not None}
    more = score.process(records(mention("m2", START + 1, HARM, product=SUBJECT), Watermark("", START + 3 * DAY_MS)))
    went_on = feed_detect(claimed, list(more.outputs))
    restored = feed_detect(detect.claim(1, state.items(), ""), list(more.outputs))
    assert went_on.outputs == restored.outputs
    assert {one.topic for one in restored.outputs} == {"step_counts.v1", "signals.v1"}


def test_gaps_reach_detection_once_from_all_partitions() -> None:
    gap = Gap("shop", START, None, "away")
    outputs = two_partitions().claim(0, [], "v0").process(records(gap)).outputs
    claimed = DetectStage(2, KnownCatalogues()).claim(1, [], "")  # type: ignore[arg-type]
    for origin in (b"0", b"1"):
        here = [one for one in outputs if one.partition == 1]
        claimed.process([Record("scored", 1, 0, origin, one.value, 1, START) for one in here])
    assert [(one.source_id, one.start) for one in claimed._detector.open_gaps()] == [("shop", START)]
