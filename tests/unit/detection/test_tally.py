"""Voices, entries and voids."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated import DAILY, day, row, watermark

from pipeline.detection.detector import Detector
from pipeline.detection.entries import entry_of, gathered, quote
from pipeline.detection.tally import Tally
from pipeline.detection.voices import UnitTally, tabulate, voices
from schemas.control import Gap
from schemas.scored import Objection, ScoredBlock


@pytest.mark.parametrize(
    ("said", "count"),
    [
        ([], 0),
        ([("", 0)], 1),
        ([("", 0), ("", 0)], 2),  # unknown authors without text are their own voices
        ([("a", 1), ("a", 2)], 1),
        ([("a", 1), ("b", 1)], 1),
        ([("", 1), ("", 1)], 1),
        ([("a", 1), ("b", 2), ("b", 1)], 1),  # a said what b said
        ([("a", 1), ("b", 2), ("c", 0), ("a", 0)], 3),
    ],
)
def test_voices(said: list[tuple[str, int]], count: int) -> None:
    assert voices(said) == count


@given(st.lists(st.tuples(st.sampled_from(["", "a", "b", "c"]), st.integers(0, 4)), max_size=9), st.randoms())
def test_voices_do_not_depend_on_order(said: list[tuple[str, int]], random) -> None:
    shuffled = random.sample(said, len(said))
    assert voices(said) == voices(shuffled) <= len(said)


def entries(*rows) -> list:
    return [entry_of(one) for one in rows]


def test_tabulate_by_hand() -> None:
    at = day(1)
    praise = [Objection("delivery", "", (0, 1), "positive")]
    tally = tabulate(
        entries(
            row("1", at, "product_quality", "price"),
            row("2", at, "price", author="a-1"),  # the voice of mention 1
            row("3", at, "price", flags=["observed"]),
            row("4", at, "price", flags=["repost"]),
            row("5", at, "price", flags=["incentivised"]),
            row("6", at, flags=["default_review"]),
            row("7", at, "delivery", speech_act="suggestion"),
            row("8", at, objections=praise, speech_act="praise", product_batch_id=""),
            row("9", at),
        )
    )
    assert tally == UnitTally(
        mentions=9,
        organic=7,
        quiet=2,  # the praise and the last one
        known=8,
        any_voices=2,
        voices=(1, 0, 0, 2, 0, 0, 0),
        fresh=(1, 0, 0, 1, 0, 0, 0),
    )


def test_quotes_belong_to_their_types() -> None:
    text = "甲" * 150 + "太贵了" + "乙" * 150 + "送得慢"
    spans = [Objection("delivery", "", (303, 306), "negative"), Objection("price", "", (150, 153), "negative")]
    entry = entry_of(row("1", day(1), text=text, objections=spans, speech_act="doubt"))
    assert "太贵了" in entry.quote_of(3)
    assert entry.quote_of(4).endswith("送得慢")
    assert len(entry.quote_of(3)) == 120
    assert entry_of(row("1", day(1), text="")).quote_of(0) == ""


@given(st.text(max_size=300), st.integers(0, 300), st.integers(0, 300))
def test_quotes_are_short_and_on_one_line(text: str, start: int, end: int) -> None:
    words = quote(text, min(start, end, len(text)), min(max(start, end), len(text)))
    assert len(words) == min(len(text), 120)
    assert "\n" not in words


def test_the_higher_revision_holds() -> None:
    tally = Tally()
    assert tally.add(entry_of(row("m", day(1), "price")), 1)
    assert not tally.add(entry_of(row("m", day(1), "price")), 1)
    assert tally.add(entry_of(row("m", day(2), "delivery", revision=2, product_batch_id="L2")), 2)
    assert not tally.add(entry_of(row("m", day(1), "price", revision=1)), 1)
    assert tabulate(tally.steps[1].rows(("product", "P", "L1"))).mentions == 0
    assert tabulate(tally.steps[2].rows(("product", "P", "L2"))).voices[4] == 1


def test_voids_hold_for_rows_that_come_again_and_are_forgotten_with_their_step() -> None:
    tally = Tally()
    tally.void("m", 1)
    assert not tally.add(entry_of(row("m", day(1))), 3)
    tally.settle_voids(2)
    assert tally.voids == {"m": (1, 3)}
    tally.forget_voids(3)
    assert tally.voids
    tally.forget_voids(4)
    assert not tally.voids


def test_a_final_step_leaves_nothing_behind() -> None:
    tally = Tally()
    tally.add(entry_of(row("m", day(1), "price")), 1)
    tally.forget(1)
    assert not tally.steps


def test_calm_rows_are_held_together_and_taken_back_one_by_one() -> None:
    tally = Tally()
    unit = ("product", "P", "L1")
    for number in range(100):
        assert tally.add(entry_of(row(f"m{number}", day(1), carrier="C")), 1)
    assert not tally.add(entry_of(row("m7", day(1), carrier="C")), 1)
    assert tally.add(entry_of(row("loud", day(1), "price", carrier="C")), 1)
    assert len(gathered(tally.steps[1].rows(unit))) == 2
    assert tabulate(tally.steps[1].rows(unit)).mentions == 101
    tally.void("m7", 1)
    tally.void("m7", 2)
    assert not tally.add(entry_of(row("m7", day(1), carrier="C")), 1)
    assert tally.add(entry_of(row("m7", day(1), carrier="D", revision=2)), 1)
    assert not tally.add(entry_of(row("m7", day(2), carrier="D", revision=2)), 2)
    assert sorted((one.carrier, one.count) for one in gathered(tally.steps[1].rows(unit))) == [
        ("C", 1),
        ("C", 99),
        ("D", 1),
    ]
    assert tally.add(entry_of(row("m7", day(2), carrier="D", revision=3)), 2)
    assert tabulate(tally.steps[1].rows(unit)).mentions == 100
    assert tabulate(tally.steps[2].rows(unit)).mentions == 1
    tally.forget(1)
    tally.forget(2)


@pytest.mark.parametrize("flags", [["repost"], []])
def test_an_unknown_product_has_no_counts(flags: list[str]) -> None:
    detector = Detector(DAILY)
    unknown = {"subject_id": "", "product_id": "", "product_batch_id": "", "flags": flags}
    harm = row("m", day(1), "price", severity=4, **unknown)
    assert len(detector.absorb(ScoredBlock([harm])).signals) == (not flags)
    assert detector.absorb(watermark(20)).step_counts == []


def test_rows_of_final_steps_are_told_as_too_late() -> None:
    detector = Detector(DAILY)
    detector.absorb(ScoredBlock([row("m1", day(0), "price")]))
    detector.absorb(watermark(20))
    assert detector.too_late == 0
    assert not detector.absorb(ScoredBlock([row("m2", day(0), "price")])).signals
    assert detector.too_late == 1


def test_open_gaps_are_known_after_a_restore() -> None:
    detector = Detector(DAILY)
    detector.absorb(Gap("a", day(0), None, "down"))
    detector.absorb(Gap("b", day(0), day(1), "down"))
    kept = [(key, value) for key, value in detector.changes() if value is not None]
    assert [(gap.source_id, gap.start) for gap in Detector.restore(DAILY, kept).open_gaps()] == [("a", day(0))]
