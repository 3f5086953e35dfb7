"""Whatever the race between raw partitions, detection sees late rows, edits and rules behind the watermark they came after."""

from collections.abc import Iterable, Sequence

from hypothesis import given
from hypothesis import strategies as st
from stored import a_row

from pipeline.runtime import alignment
from pipeline.runtime.alignment import Alignment
from schemas.codec import ScoredRecord
from schemas.control import CatalogueUpdate, Gap, Watermark
from schemas.scored import Retraction, ScoredBlock

Origin = list[ScoredRecord]


def block(*rows: tuple[str, int], revision: int = 0) -> ScoredBlock:
    made = [a_row(mention_id=name, event_time=time, revision=revision) for name, time in rows]
    return ScoredBlock(made, [Retraction(name, revision) for name, _ in rows] if revision else [])


def effects(taken: Iterable[ScoredRecord]) -> list[object]:
    """What happened, in order, rows by name."""
    said: list[object] = []
    for one in taken:
        match one:
            case ScoredBlock():
                said += [row.mention_id for row in one.rows]
            case Watermark():
                said.append(one.time)
            case _:
                said.append(type(one).__name__)
    return said


def feed(aligned: Alignment, records: Iterable[tuple[int, ScoredRecord]]) -> list[object]:
    return effects(one for origin, record in records for one in aligned.take(origin, record))


def test_a_watermark_counts_when_all_partitions_have_passed_it() -> None:
    aligned = Alignment([0, 1])
    assert feed(aligned, [(0, Watermark("", 10))]) == []
    assert feed(aligned, [(1, Watermark("", 8))]) == [8]
    assert feed(aligned, [(1, Watermark("", 12))]) == [10]
    assert aligned.combined == 10


def test_rows_that_are_ahead_are_taken_in_at_once_and_late_ones_wait() -> None:
    aligned = Alignment([0, 1])
    feed(aligned, [(0, Watermark("", 10)), (1, Watermark("", 5))])
    assert feed(aligned, [(0, block(("new", 11), ("late", 9)))]) == ["new"]
    assert aligned.held_rows == 1
    assert feed(aligned, [(1, block(("other", 6)))]) == ["other"]
    assert feed(aligned, [(1, Watermark("", 10))]) == [10, "late"]
    assert aligned.held_rows == 0


def test_edits_and_rules_wait_for_their_watermark_and_no_longer() -> None:
    aligned = Alignment([0, 1])
    feed(aligned, [(0, Watermark("", 10)), (1, Watermark("", 5))])
    ahead = [(0, block(("edit", 12), revision=1)), (0, Gap("s", 1, None, "")), (0, CatalogueUpdate("v2"))]
    assert feed(aligned, ahead) == []
    assert feed(aligned, [(1, CatalogueUpdate("v1"))]) == ["CatalogueUpdate"]
    assert feed(aligned, [(0, Watermark("", 20)), (1, Watermark("", 30))]) == [
        10, "edit", "Gap", "CatalogueUpdate", 20,
    ]  # fmt: skip


def test_before_its_first_watermark_a_partition_is_ahead_of_nothing() -> None:
    aligned = Alignment([0, 1])
    assert feed(aligned, [(0, block(("a", 1))), (0, Gap("s", 1, None, ""))]) == ["a", "Gap"]


def test_more_held_rows_than_memory_allows_are_counted(monkeypatch: object) -> None:
    before, alignment.MAXIMUM_HELD = alignment.MAXIMUM_HELD, 2
    try:
        aligned = Alignment([0, 1])
        feed(aligned, [(0, Watermark("", 10)), (1, Watermark("", 5))])
        assert feed(aligned, [(0, block(("a", 1), ("b", 1)))]) == []
        assert feed(aligned, [(0, block(("c", 1)))]) == ["c"]
        assert (aligned.held_rows, aligned.overflowed) == (2, 1)
    finally:
        alignment.MAXIMUM_HELD = before


@st.composite
def origins(draw: st.DrawFn) -> list[Origin]:
    """Two to four partitions that carry the same watermarks and rules, and rows of their own between them."""
    number = draw(st.integers(2, 4))
    times = sorted(draw(st.sets(st.integers(1, 50), min_size=1, max_size=5)))
    rules = draw(st.lists(st.booleans(), min_size=len(times), max_size=len(times)))
    made: list[Origin] = []
    for origin in range(number):
        records: Origin = []
        for at, (time, rule) in enumerate(zip([*times, 60], [*rules, False], strict=True)):
            for row in range(draw(st.integers(0, 3))):
                name = f"{origin}.{at}.{row}"
                records.append(block((name, draw(st.integers(0, 60))), revision=draw(st.integers(0, 1))))
            if at < len(times):
                records.append(Watermark("", time))
            if rule:
                records.append(CatalogueUpdate(f"v{at}"))
        made.append(records)
    return made


def interleaved(made: Sequence[Origin], order: Sequence[int]) -> list[tuple[int, ScoredRecord]]:
    """All records, each origin's in its order; ``order`` says whose turn it is."""
    left = [list(records) for records in made]
    found = []
    for turn in order:
        waiting = [origin for origin, records in enumerate(left) if records]
        if not waiting:
            break
        origin = waiting[turn % len(waiting)]
        found.append((origin, left[origin].pop(0)))
    for origin, records in enumerate(left):
        found += [(origin, record) for record in records]
    return found


def seen(said: Sequence[object], times: dict[str, int]) -> list[object]:
    """What decides: between two watermarks, which rules and which rows of steps that they leave closed."""
    closed: list[object] = []
    watermark = -1
    for one in said:
        if isinstance(one, int):
            watermark = one
        elif one == "CatalogueUpdate" or times[str(one)] < watermark:
            closed.append((watermark, one))
    return sorted(set(closed), key=str)


@given(origins(), st.lists(st.integers(0, 11), max_size=60), st.lists(st.integers(0, 11), max_size=60))
def test_no_race_changes_what_late_rows_and_rules_meet(made: list[Origin], one: list[int], other: list[int]) -> None:
    times = {
        row.mention_id: row.event_time
        for records in made
        for r in records
        if isinstance(r, ScoredBlock)
        for row in r.rows
    }
    results = []
    for order in (one, other):
        said = feed(Alignment(range(len(made))), interleaved(made, order))
        assert sorted(str(name) for name in said if isinstance(name, str) and name != "CatalogueUpdate") == sorted(
            times
        )
        results.append(seen(said, times))
    assert results[0] == results[1]


@given(origins(), st.lists(st.integers(0, 11), max_size=60), st.integers(1, 7))
def test_snapshots_between_change_nothing(made: list[Origin], order: list[int], every: int) -> None:
    records = interleaved(made, order)
    whole = feed(Alignment(range(len(made))), records)
    state: dict[bytes, bytes] = {}
    aligned = Alignment(range(len(made)))
    parted: list[object] = []
    for number, record in enumerate(records):
        parted += feed(aligned, [record])
        for key, value in aligned.changes():
            if value is None:
                del state[key]
            else:
                state[key] = value
        if number % every == 0:
            again = Alignment(range(len(made)), state.items())
            assert (again.combined, again.held_rows) == (aligned.combined, aligned.held_rows)
            aligned = again
    assert parted == whole
    # All partitions have passed the last watermark: nothing waits any more, and nothing is left of what did.
    assert not [key for key in state if key.startswith(alignment.PREFIX + b"h")]
