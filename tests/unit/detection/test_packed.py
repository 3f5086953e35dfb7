"""Rows held in few bytes: found again, told from each other, and given back as they came."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from simulated import DAILY, day, row

from pipeline.detection.detector import Detector
from pipeline.detection.entries import entry_of, rows_together
from pipeline.detection.index import Index, head_of, heads_of, keyed
from pipeline.detection.tally import Tally
from schemas.identity import mention_id
from schemas.scored import Retraction, ScoredBlock, ScoredRow

KINDS = ("product", "carrier", "region", "channel")


def four(native: str, *types: str, **changes: object) -> list[ScoredRow]:
    """A mention's rows as scoring makes them."""
    first = row(mention_id("s", native), day(1), *types, carrier="C", region="R", **changes)
    bare = replace(first, text="", primary=False)
    others = [replace(bare, subject_kind=kind, subject_id=kind[0].upper()) for kind in KINDS[1:]]
    return [first, *others]


def taken(tally: Tally, rows: list[ScoredRow]) -> list[bool]:
    return [tally.add(entry_of(one), 1, others) for one, others in rows_together(rows)]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 1 << 40)), max_size=300), st.booleans())
def test_the_index_finds_what_a_dictionary_would(pairs: list[tuple[int, int]], crowded: bool) -> None:
    index, known = Index(), {}
    heads = {key: key << 20 if crowded else head_of(key.to_bytes(16, "little")) for key, _ in pairs}
    for key, place in pairs:
        head = heads[key]
        assert place in index.find(head) or place not in known.get(key, ())
        known.setdefault(key, []).append(place)
        if not index.add(head, place):
            held = [(heads[one], where) for one, places in known.items() for where in places]
            index.rebuild(*(np.array(column, np.uint64) for column in zip(*held, strict=True)))
    for key, places in known.items():
        assert sorted(set(places)) == sorted(set(places) & set(index.find(heads[key])))


def test_heads_are_the_same_one_by_one_and_together() -> None:
    keys = [keyed(mention_id("s", str(number)))[0] for number in range(50)]
    assert heads_of(b"".join(keys)).tolist() == [head_of(key) for key in keys]


def test_only_an_id_that_is_32_digits_is_its_own_key() -> None:
    hexed = mention_id("s", "1")
    assert keyed(hexed)[0].hex() == hexed
    for odd in ("m1", hexed.upper(), hexed[:30], f"{hexed[:16]} {hexed[16:]}", ""):
        assert keyed(odd)[0].hex() != odd
        tally = Tally()
        assert tally.add(entry_of(row(odd, day(1), "price")), 1)
        (found,) = tally.steps[1].rows(("product", "P", "L1"))
        assert found.mention_id == odd


def test_an_odd_id_is_known_as_long_as_any_step_has_it() -> None:
    tally = Tally()
    tally.add(entry_of(row("m", day(1), "price")), 1)
    tally.add(entry_of(row("m", day(2), "price", revision=1)), 2)
    tally.forget(1)
    assert [one.mention_id for one in tally.steps[2].rows(("product", "P", "L1"))] == ["m"]


def test_rows_that_say_the_same_are_one_record_and_come_back_as_they_were() -> None:
    tally = Tally()
    rows = four("loud", "price", intensity=0.5, severity=2) + four("calm")
    assert taken(tally, rows) == [True, True]
    assert taken(tally, rows) == [False, False]
    assert len(tally.steps[1].kinds) == 2
    entries, calm = tally.steps[1].unsaved()
    wanted = [entry_of(one) for one in rows]
    assert entries == [replace(one, step=1) for one in wanted[:4]]
    assert calm == {one.traits: [one.mention_id] for one in wanted[4:]}
    assert tally.steps[1].unsaved() == ([], {})


def test_a_row_that_was_known_leaves_the_others_without_its_words() -> None:
    tally = Tally()
    first, *rest = four("loud", "price", severity=3)
    assert taken(tally, [first]) == [True]
    assert taken(tally, [first, *rest]) == [True]
    severe = tally.steps[1].severe
    assert [(one.subject_kind, one.primary) for one in severe] == [("product", True)]
    (found,) = tally.steps[1].rows(("carrier", "C", ""))
    assert (found.primary, found.quotes) == (False, ())


def test_mentions_alike_share_what_they_count_by_and_a_restart_holds_as_few_records() -> None:
    detector = Detector(DAILY)
    rows = [one for number in range(300) for one in four(str(number), *(("price",) if number % 4 == 0 else ()))]
    detector.absorb(ScoredBlock(rows, [Retraction(mention_id("s", "gone"), 1)]))
    stored = {key: value for key, value in detector.changes() if value is not None}
    again = Detector.restore(DAILY, stored.items())
    for one in (detector, again):
        (step,) = one._tally.steps.values()
        assert len(step.kinds) == 300
        assert len({id(kind) for kind in step.kinds}) == 2
        assert len(step.keys) + sum(map(len, step.said)) < 300 * (16 + 60)
