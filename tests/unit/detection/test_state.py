"""Snapshots: format, refusals, size, and that forgetting reaches them."""

import msgspec
import pytest
from msgspec.structs import replace
from simulated import DAILY, day, row, run, watermark

from pipeline.detection.detector import Detector
from pipeline.errors import TerminalError
from schemas.catalogue import CatalogueEntry
from schemas.control import CatalogueUpdate, Gap, PolicyUpdate
from schemas.scored import Retraction, ScoredBlock


def snapshot(detector: Detector, records: dict[bytes, bytes] | None = None) -> dict[bytes, bytes]:
    records = {} if records is None else records
    for key, value in detector.changes():
        if value is None:
            records.pop(key, None)
        else:
            records[key] = value
    return records


def started() -> Detector:
    detector = Detector(DAILY)
    run(detector, [ScoredBlock([row("m", day(1), "price")]), watermark(2)])
    return detector


def test_nothing_restores_to_a_new_detector() -> None:
    assert Detector.restore(DAILY, []).absorb(watermark(1)).step_counts == []


@pytest.mark.parametrize("header", [msgspec.msgpack.encode([99]), msgspec.msgpack.encode("x"), b"\xc1"])
def test_another_format_or_damage_is_refused(header: bytes) -> None:
    with pytest.raises(TerminalError, match="state"):
        Detector.restore(DAILY, {**snapshot(started()), b"h": header}.items())


def test_a_state_without_header_is_refused() -> None:
    records = snapshot(started())
    del records[b"h"]
    with pytest.raises(TerminalError, match="no header"):
        Detector.restore(DAILY, records.items())


def test_a_damaged_record_is_refused() -> None:
    records = snapshot(started())
    unit = next(key for key in records if key.startswith(b"u"))
    with pytest.raises(TerminalError, match="cannot be read"):
        Detector.restore(DAILY, {**records, unit: b"\x00"}.items())


def test_steps_cannot_change_on_existing_state() -> None:
    hourly = replace(DAILY, step="1h")
    with pytest.raises(TerminalError, match="1d in UTC"):
        Detector.restore(hourly, snapshot(started()).items())
    with pytest.raises(TerminalError, match="base step"):
        started().absorb(PolicyUpdate("p", hourly))
    Detector(DAILY).absorb(PolicyUpdate("p", hourly))  # nothing is there yet


def test_a_policy_that_came_in_band_is_kept() -> None:
    detector = started()
    detector.absorb(PolicyUpdate("p7", replace(DAILY, minimum_voices=9)))
    again = Detector.restore(DAILY, snapshot(detector).items(), versions="v1")
    run(again, [ScoredBlock([row("n", day(3), "price")])])
    assert {count.versions for count in again.absorb(watermark(4)).step_counts} == {"v1 policy=p7"}


def test_what_is_final_leaves_the_snapshot() -> None:
    detector, records = started(), {}
    snapshot(detector, records)
    assert {key[:1] for key in records} == {b"h", b"u", b"s", b"t", b"e"}
    run(detector, [watermark(40)])
    snapshot(detector, records)
    assert {key[:1] for key in records} == {b"h", b"u", b"s"}
    assert max(len(value) for key, value in records.items() if key[:1] == b"u") < 7 * 4096


def test_only_what_changed_is_written() -> None:
    detector = started()
    detector.changes()
    assert [key for key, _ in detector.changes()] == [b"h"]
    detector.absorb(ScoredBlock([row("n", day(2.5), "price", product_batch_id="L2")]))
    assert [key[:1] for key, _ in detector.changes()] == [b"e", b"h"]


def test_many_rows_and_retractions_are_cut_into_records() -> None:
    detector, records = Detector(DAILY), {}
    detector.absorb(
        ScoredBlock([row(f"m{i}", day(1), "price") for i in range(2500)], [Retraction(f"n{i}", 1) for i in range(1500)])
    )
    snapshot(detector, records)
    assert {kind: sum(key[:1] == kind for key in records) for kind in (b"e", b"v")} == {b"e": 3, b"v": 2}
    detector = Detector.restore(DAILY, records.items())
    detector.absorb(watermark(2))
    snapshot(detector, records)
    assert sum(key[:1] == b"v" for key in records) == 2  # under another tag now
    again = Detector.restore(DAILY, records.items())
    outputs = run(again, [ScoredBlock([row("n7", day(1), "price")]), watermark(9)])
    assert {count.count for count in outputs.step_counts} == {2500}
    snapshot(again, records)
    assert not any(key[:1] in (b"e", b"v", b"t") for key in records)


def test_a_catalogue_in_several_records_comes_back_and_shrinks() -> None:
    lots = [CatalogueEntry("P", "p", [], f"L{number}", 10.0, day(0), day(9)) for number in range(2500)]
    detector = Detector(DAILY)
    detector.absorb(CatalogueUpdate("c1", lots))
    detector.absorb(Gap("s", day(0), None, "down"))
    records = snapshot(detector)
    assert sum(key[:1] == b"c" for key in records) == 3
    again = Detector.restore(DAILY, records.items())
    counts = run(again, [ScoredBlock([row("m", day(4), product_batch_id="L7")]), watermark(9)]).step_counts
    assert counts[0].exposure == pytest.approx(5.0, rel=0.1)
    again.absorb(CatalogueUpdate("c2", lots[:10]))
    assert sum(key[:1] == b"c" for key in snapshot(again, records)) == 1
