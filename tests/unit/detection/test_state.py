"""Snapshots: format, refusals, size, and that forgetting reaches them."""

import base64
import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace
from simulated import DAILY, day, days, mentions, row, run, watermark

from pipeline.detection import state
from pipeline.detection.detector import Detector
from pipeline.errors import TerminalError
from schemas.catalogue import CatalogueEntry
from schemas.control import CatalogueUpdate, Gap, PolicyUpdate
from schemas.policy import DAY_MS
from schemas.scored import Retraction, ScoredBlock, ScoredRow


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


@pytest.mark.parametrize("header", [[], ["x"], [True], "x", None])
def test_a_damaged_header_is_refused(header: object) -> None:
    with pytest.raises(TerminalError, match="state"):
        Detector.restore(DAILY, {**snapshot(started()), b"h": msgspec.msgpack.encode(header)}.items())


def test_a_newer_format_is_refused_and_says_which_version_it_takes() -> None:
    newer = {**snapshot(started()), b"h": msgspec.msgpack.encode([99, "whatever"])}
    with pytest.raises(TerminalError, match=rf"newer version.* reads format 99, .*none above {state.FORMAT}"):
        Detector.restore(DAILY, newer.items())


@pytest.mark.parametrize("header", [msgspec.msgpack.encode([0]), b"\xc1"])
def test_a_forgotten_format_or_damage_is_refused(header: bytes) -> None:
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
    again = Detector.restore(DAILY, snapshot(detector).items())
    run(again, [ScoredBlock([row("n", day(3), "price")])])
    assert {count.versions for count in again.absorb(watermark(4)).step_counts} == {"v policy=p7"}


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
    outputs = run(again, [ScoredBlock([row("n7", day(1), "price")]), watermark(20)])
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


def recorded() -> dict[bytes, bytes]:
    """State of format 1 as it was written at the end of `recorded_stream`; its rows were made by ``v``."""
    text = (Path(__file__).parent / "data" / "state_format_1.json").read_text(encoding="ascii")
    return {bytes.fromhex(key): base64.b64decode(value) for key, value in json.loads(text).items()}


def recorded_days(first: int, last: int) -> list[list[ScoredRow]]:
    """Two lots, one of them noisy from day 10 on."""
    return [
        [
            one
            for number, lot in ((7 * today + 49, "L1"), (7 * today + 50, "L2"))
            for one in mentions(
                np.random.default_rng(number),
                today,
                lot=lot,
                talk=8,
                complaints=9 if lot == "L1" and today >= 10 else 1,
            )
        ]
        for today in range(first, last)
    ]


def recorded_stream() -> list:
    """A policy, a catalogue, an open spike, a gap, harm just said, a retraction that still holds."""
    return [
        PolicyUpdate("p1", replace(DAILY, allowed_lateness_ms=DAY_MS)),
        CatalogueUpdate("c1", [CatalogueEntry("P", "p", [], "L2", 500.0, day(-9), day(90))]),
        *days(recorded_days(0, 12)),
        Gap("s", day(5), day(6), "down"),
        ScoredBlock(
            [row("harm", day(12.5), "price", severity=4), row("x", day(12.6), "delivery")], [Retraction("gone", 2)]
        ),
    ]


def recorded_rest() -> list:
    late = ScoredBlock([row("gone", day(12.7), "price"), *recorded_days(12, 13)[0]])
    return [late, watermark(13), *days(recorded_days(13, 30), 13)]


def go_on(records: dict[bytes, bytes]) -> None:
    """From these records on, counts are as if the detector had never stopped, and open signals live on.

    What is expected of the counts is not the same: the baselines of the older formats were of another model.
    """
    straight, again = Detector(DAILY), Detector.restore(DAILY, records.items())
    run(straight, recorded_stream())
    found = run(again, recorded_rest())
    assert found.step_counts == run(straight, recorded_rest()).step_counts
    for kind in ("spike", "severe"):
        events = [signal.event for signal in found.signals if signal.kind == kind]
        assert events.count("opened") == 0
        assert {"updated", "closed"} & set(events)


def test_format_1_is_brought_up_to_date() -> None:
    assert msgspec.msgpack.decode(recorded()[b"h"])[0] == 1
    go_on(recorded())


def test_of_format_1_nobody_knows_what_made_the_rows_until_the_next_ones_say() -> None:
    again = Detector.restore(DAILY, recorded().items())
    assert {one.versions for one in again.absorb(watermark(13)).step_counts} == {"policy=p1 catalogue=c1"}
    run(again, [ScoredBlock([row("n", day(13.5))])])
    assert again.absorb(watermark(14)).step_counts[-1].versions == "v policy=p1 catalogue=c1"


def test_what_was_brought_up_to_date_is_written_back_once() -> None:
    again, store = Detector.restore(DAILY, recorded().items()), recorded()
    snapshot(again, store)
    assert msgspec.msgpack.decode(store[b"h"])[0] == state.FORMAT
    assert [key for key, _ in again.changes()] == [b"h"]
    go_on(store)


def test_older_formats_are_chained(monkeypatch) -> None:
    """An invented format 0: it had no gaps in its header, kept units under ``U``, and a record that is gone since."""

    def from_0(records: dict[bytes, bytes]) -> dict[bytes, bytes]:
        _, *fields = msgspec.msgpack.decode(records[b"h"])
        kept = {(b"u" + key[1:] if key[:1] == b"U" else key): value for key, value in records.items() if key != b"z"}
        return {**kept, b"h": msgspec.msgpack.encode([1, *fields, [["s", day(5), day(6)]]])}

    monkeypatch.setitem(state.UPCASTERS, 0, from_0)
    of_1 = recorded()
    _, *fields = msgspec.msgpack.decode(of_1[b"h"])
    of_0 = {(b"U" + key[1:] if key[:1] == b"u" else key): value for key, value in of_1.items()}
    of_0 |= {b"h": msgspec.msgpack.encode([0, *fields[:-1]]), b"z": b"old"}
    before = dict(of_0)
    go_on(of_0)
    assert of_0 == before
    snapshot(Detector.restore(DAILY, of_0.items()), of_0)
    assert not {key[:1] for key in of_0} & {b"U", b"z"}
    go_on(of_0)


def test_every_older_format_has_its_upcaster() -> None:
    assert sorted(state.UPCASTERS) == list(range(1, state.FORMAT))


def test_what_made_the_rows_is_known_from_the_rows_and_kept() -> None:
    detector = started()
    detector.absorb(ScoredBlock([row("n", day(2.5), versions="w"), row("o", day(2.6), versions="other")]))
    again = Detector.restore(DAILY, snapshot(detector).items())
    assert {one.versions for one in again.absorb(watermark(3)).step_counts} == {"w"}
    run(again, [ScoredBlock([]), ScoredBlock([row("p", day(3.5), versions="v3")])])
    assert again.absorb(watermark(4)).step_counts[-1].versions == "v3"
    (severe,) = run(again, [ScoredBlock([row("q", day(4.5), "price", severity=4, versions="v4")])]).signals
    assert severe.versions == "v4"


LOTS = [CatalogueEntry("P", "p", [], "L1", 10.0, day(0), day(9))]


def test_control_records_of_the_version_in_force_change_nothing() -> None:
    once, detector = [PolicyUpdate("p1", DAILY), CatalogueUpdate("c1", LOTS)], Detector(DAILY)
    run(detector, [*once, ScoredBlock([row("m", day(1), "price")]), watermark(2)])
    detector.changes()
    header = detector.changes()
    other = replace(DAILY, minimum_voices=9)
    run(detector, [PolicyUpdate("p1", other), CatalogueUpdate("c1", []), CatalogueUpdate("c1", None)])
    assert detector.changes() == header
    restored = Detector.restore(DAILY, snapshot(run_again(once)).items())
    header = restored.changes()
    run(restored, once)
    assert restored.changes() == header


def run_again(records: list) -> Detector:
    detector = Detector(DAILY)
    run(detector, [*records, ScoredBlock([row("m", day(1), "price")]), watermark(2)])
    return detector


def test_what_has_no_version_always_takes_effect() -> None:
    detector = Detector(DAILY)
    run(detector, [CatalogueUpdate("", []), PolicyUpdate("", DAILY)])
    run(detector, [CatalogueUpdate("", LOTS), PolicyUpdate("", replace(DAILY, minimum_voices=9))])
    run(detector, [ScoredBlock([row("m", day(1), "price")])])
    assert {one.exposure_kind for one in detector.absorb(watermark(2)).step_counts} == {"units"}
    assert msgspec.msgpack.decode(dict(detector.changes())[b"h"])[1]["minimum_voices"] == 9


def test_a_new_catalogue_without_its_entries_is_refused() -> None:
    with pytest.raises(TerminalError, match=r"catalogue c2.*looked up"):
        started().absorb(CatalogueUpdate("c2"))
