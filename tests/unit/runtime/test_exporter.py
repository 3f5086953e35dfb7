"""What the exporter tells of signals and sources, without brokers."""

import threading
import time
import urllib.error
import urllib.request
from typing import Any, NamedTuple

import msgspec
import pytest

from pipeline import metrics
from pipeline.errors import TerminalError
from pipeline.runtime.exporter import (
    OLD_SECONDS,
    SIGNALS,
    SOURCES,
    ZERO_SECONDS,
    Follower,
    HeardSources,
    LiveSignals,
    StageState,
    View,
)
from pipeline.runtime.health import AdminServer, Health
from schemas.codec import decode, encode
from schemas.control import Gap, Idle, Retired
from schemas.signal import Signal

NOW = 1_800_000_000.0


@pytest.fixture
def example(request: pytest.FixtureRequest) -> Signal:
    return decode((request.config.rootpath / "schemas/examples/signal.json").read_bytes(), Signal)


def _series(signals: LiveSignals, now: float = NOW) -> dict[tuple[str, str], float]:
    """(signal, tier) → value."""
    return {(one.labels[0], one.labels[2]): one.value for one in signals.readings(now) if one.family is metrics.SIGNAL}


def _values(signals: LiveSignals) -> dict[str, float]:
    return {one.family.name: one.value for one in signals.readings(NOW) if one.family is not metrics.SIGNAL}


def test_open_close(example: Signal) -> None:
    signals = LiveSignals()
    signals.take(example, NOW, NOW)
    assert _series(signals) == {(example.signal_id, "ticket"): 1}
    assert _values(signals) == {
        "radar_signal_voices": 9,
        "radar_signal_expected": 1.8,
        "radar_signal_severity": 1,
        "radar_signal_opened_timestamp_seconds": example.opened_step / 1000,
    }
    signals.take(msgspec.structs.replace(example, event="updated", voices=12), NOW, NOW)
    assert _values(signals)["radar_signal_voices"] == 12
    signals.take(msgspec.structs.replace(example, event="closed"), NOW, NOW)
    assert _series(signals) == {(example.signal_id, "ticket"): 0}
    assert _values(signals) == {}
    assert _series(signals, NOW + ZERO_SECONDS - 1) != {}
    assert _series(signals, NOW + ZERO_SECONDS) == {}


def test_new_tier_is_a_new_series(example: Signal) -> None:
    signals = LiveSignals()
    for tier in ("ticket", "page", "ticket"):
        signals.take(msgspec.structs.replace(example, tier=tier), NOW, NOW)
    assert _series(signals) == {(example.signal_id, "page"): 0, (example.signal_id, "ticket"): 1}


def test_closed_while_nobody_looked(example: Signal) -> None:
    """Begun anew, it tells 0 of what closed lately, even if the opening is compacted away; not of what closed long ago."""
    closed = msgspec.structs.replace(example, event="closed")
    signals = LiveSignals()
    signals.take(closed, NOW - 60, NOW)
    signals.take(msgspec.structs.replace(closed, signal_id="old"), NOW - ZERO_SECONDS, NOW)
    assert _series(signals) == {(example.signal_id, "ticket"): 0}
    assert _series(signals, NOW + ZERO_SECONDS - 60) == {}


def test_clock_of_the_writer_is_ahead(example: Signal) -> None:
    signals = LiveSignals()
    signals.take(msgspec.structs.replace(example, event="closed"), NOW + 3600, NOW)
    assert _series(signals, NOW + ZERO_SECONDS) == {}


def test_historic_is_not_told(example: Signal) -> None:
    signals = LiveSignals()
    for event in ("opened", "closed"):
        signals.take(msgspec.structs.replace(example, historic=True, event=event), NOW, NOW)
        assert _series(signals) == {}


def test_deleted_is_over(example: Signal) -> None:
    signals = LiveSignals()
    signals.take(example, NOW, NOW)
    signals.drop("unknown", NOW, NOW)
    signals.drop(example.signal_id, NOW, NOW)
    assert _series(signals) == {(example.signal_id, "ticket"): 0}


def test_cap(example: Signal) -> None:
    """The oldest goes first, a severe one never."""
    signals = LiveSignals(cap=2)
    for number in range(4):
        signals.take(msgspec.structs.replace(example, signal_id=str(number), opened_step=number), NOW, NOW)
    for name, change in (("page", {"tier": "page"}), ("severe", {"kind": "severe"})):
        signals.take(msgspec.structs.replace(example, signal_id=name, opened_step=-1, **change), NOW, NOW)
    assert signals.trim() == 4
    assert {name for name, _ in _series(signals)} == {"page", "severe"}
    signals.take(msgspec.structs.replace(example, signal_id="third severe", tier="page"), NOW, NOW)
    assert signals.trim() == 0
    assert len(_series(signals)) == 3


def test_newest_stay(example: Signal) -> None:
    signals = LiveSignals(cap=2)
    for number in range(4):
        signals.take(msgspec.structs.replace(example, signal_id=str(number), opened_step=number), NOW, NOW)
    assert signals.trim() == 2
    assert {name for name, _ in _series(signals)} == {"2", "3"}


def test_sources() -> None:
    sources = HeardSources()
    told = lambda: {(one.family.name, *one.labels): one.value for one in sources.readings()}  # noqa: E731
    heard, gap = "radar_source_heard_timestamp_seconds", "radar_source_gap"
    sources.take(Idle("a"), 1)
    sources.take(Gap("b", 5, None, "refused"), 2)
    assert told() == {(heard, "a"): 1, (gap, "a"): 0, (heard, "b"): 2, (gap, "b"): 1}
    sources.take(Gap("b", 5, 9, "refused"), 3)
    sources.take(Retired("a"), 4)
    assert told() == {(heard, "b"): 3, (gap, "b"): 0}


# -- records -----------------------------------------------------------------------------------------------------------


class Written(NamedTuple):
    """A record as kafka-python gives it."""

    value: bytes | None
    offset: int = 0
    key: bytes = b"k"
    topic: str = "prefix.signals.v1"
    partition: int = 0
    timestamp: int = int(NOW * 1000)
    headers: list[tuple[str, bytes]] = []  # noqa: RUF012 - never changed


@pytest.fixture
def follower() -> Any:
    made = Follower.__new__(Follower)
    made._view, made._signals, made._sources = View(), LiveSignals(), HeardSources()
    return made


def _told(view: View) -> dict[tuple[str, ...], float]:
    return {(one.family.name, *one.labels): one.value for one in view.readings()}


def test_unreadable_is_counted_once(follower: Any) -> None:
    records = [
        Written(b"no JSON"), Written(b"{}", 1), Written(b"", 2),
        Written(b"{}", 3, headers=[("schema-version", b"x")]), Written(b'{"signal_id": "\\ud800"}', 4),
    ]  # fmt: skip
    for _ in range(2):
        follower._take(SIGNALS, records)
    assert _told(follower._view)["radar_exporter_unreadable_records", SIGNALS] == 5


def test_newer_version_ends_it(follower: Any, example: Signal) -> None:
    record = Written(encode(example), 7, headers=[("schema-version", b"99")])
    with pytest.raises(TerminalError, match=r"signals\.v1-0-7: .*version 99.*bring this exporter to the version"):
        follower._take(SIGNALS, [record])


def test_deletions(follower: Any, example: Signal) -> None:
    key = example.signal_id.encode()
    follower._take(SIGNALS, [Written(encode(example), key=key), Written(None, 1, key)])
    follower._take(SOURCES, [Written(None)])
    assert follower._signals._open == {}


def test_labels_come_from_outside(example: Signal) -> None:
    """A product's name may be anything; the answer stays readable."""
    signals = LiveSignals()
    signals.take(msgspec.structs.replace(example, subject_id='W7"\n\\x' + "很" * 10_000), NOW, NOW)
    metrics.LIVE.read = lambda: list(signals.readings(NOW))
    try:
        lines = _scrape(Health())[1].splitlines()
    finally:
        metrics.LIVE.read = None
    (line,) = [one for one in lines if one.startswith("radar_signal{")]
    assert r'subject_id="W7\"\n\\x很' in line
    assert len(line) < 600


def _scrape(health: Health) -> tuple[int, str]:
    admin = AdminServer("127.0.0.1", 0, health)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{admin.port}/metrics") as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    finally:
        admin.stop()


def test_503_until_read() -> None:
    health = Health()
    health.complete = False
    assert _scrape(health) == (503, "the state is not read yet\n")
    health.complete = True
    assert _scrape(health)[0] == 200


def test_other_processes_tell_no_live_series() -> None:
    told = _scrape(Health())[1]
    assert "# TYPE radar_signal gauge" in told
    assert "\nradar_signal{" not in told
    assert "\nradar_exporter_up_to_date" not in told


def test_view() -> None:
    view = View()
    assert _told(view)["radar_exporter_up_to_date",] == 0
    view.caught_up = time.time()
    view.stages = {"score": StageState(True, 5, 1.5), "store": StageState(False, None, None)}
    told = _told(view)
    assert told["radar_exporter_up_to_date",] == 1
    assert {key: value for key, value in told.items() if len(key) == 2 and key[1] in ("score", "store")} == {
        ("radar_stage_running", "score"): 1,
        ("radar_lag_records", "score"): 5,
        ("radar_lag_seconds", "score"): 1.5,
        ("radar_stage_running", "store"): 0,
    }
    view.caught_up -= OLD_SECONDS
    assert _told(view)["radar_exporter_up_to_date",] == 0


def test_scrapes_meet_whole_blocks(follower: Any, example: Signal) -> None:
    """Whoever scrapes while a block is taken in sees all of it or nothing."""
    view = follower._view
    view.signals = follower._signals
    block = [Written(encode(msgspec.structs.replace(example, signal_id=str(n)))) for n in range(500)]
    thread = threading.Thread(target=follower._take, args=(SIGNALS, block))
    thread.start()
    seen = set()
    while thread.is_alive():
        seen.add(sum(one.family is metrics.SIGNAL for one in view.readings()))
    thread.join()
    assert seen <= {0, 500}
