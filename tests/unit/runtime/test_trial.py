"""What a policy does with history: labelled events, what will do, pictures."""

from pathlib import Path

import pytest
from stored import EVENT_TIME, SIGNAL, a_signal

from pipeline.errors import ConfigurationError
from pipeline.runtime import trial_page
from pipeline.runtime.trial import Event, Trial, caught, compare, read_events, series_of
from pipeline.runtime.trial_words import failures, picture, sparkline, told, told_of_events
from schemas.policy import DAY_MS, DetectionPolicy
from schemas.signal import Signal

DAILY = DetectionPolicy(step="1d", time_zone="UTC")
START = EVENT_TIME // DAY_MS * DAY_MS
HEAD = "subject_kind,subject_id,product_batch_id,objection_type,start,end\n"


def at(number: int, **changes: object) -> Signal:
    """A spike that opens so many days after the start."""
    day = START + number * DAY_MS
    fields = {
        "signal_id": f"s{number}",
        "opened_step": day,
        "step_start": day,
        "window": 2,
        "expected": 3.0,
        "observed": 9,
    }
    return a_signal(**{**fields, **changes})


def trial(*signals: Signal) -> Trial:
    """Four weeks."""
    made = Trial(DAILY, START, START + 28 * DAY_MS)
    for one in signals:
        made.take(one)
        made.voices[series_of(one)] = {one.opened_step: 9, one.opened_step - DAY_MS: 4}
    return made


def an_event(first: int, last: int, **changes: object) -> Event:
    fields = {"subject_kind": "product", "subject_id": "kettle", "product_batch_id": "", "objection_type": ""}
    return Event(**{**fields, **changes}, start=START + first * DAY_MS, end=START + (last + 1) * DAY_MS)


def test_an_event_is_caught_by_the_first_signal_about_it_that_opens_while_it_lasts() -> None:
    one = trial(at(2), at(5), at(6, product_batch_id="L2"), at(3, objection_type="price"))
    cases = [
        (an_event(4, 9), 2.0),
        (an_event(5, 5), 1.0),
        (an_event(7, 9), None),
        (an_event(3, 9, product_batch_id="L2"), 4.0),
        (an_event(0, 9, objection_type="price"), 4.0),
        (an_event(0, 9, subject_id="other"), None),
        (an_event(0, 9, subject_kind="channel"), None),
    ]
    found = caught([event for event, _ in cases], one)
    assert [None if each.delay_ms is None else each.delay_ms / DAY_MS for each in found] == [days for _, days in cases]
    words = list(told_of_events(found, one))
    assert (words[0], words[-1]) == ("labelled events: 4 of 7 caught", "  signals of no labelled event: 1")
    assert words[3] == "  2025-01-08  kettle: missed"
    against = list(told_of_events(found, one, found))
    assert against[1] == "  2025-01-05  kettle: caught after 2.0 days; under the present policy caught after 2.0 days"
    with pytest.raises(ConfigurationError, match="the event of kettle of 2025-01-29 lies outside of the history"):
        caught([an_event(28, 30)], one)


def test_harm_is_told_at_once() -> None:
    told_at = SIGNAL.evidence[0].event_time
    severe = at(0, kind="severe", p_value=None)
    assert trial(severe).signals[0].told_at == told_at
    (found,) = caught([an_event(0, 1)._replace(start=told_at)], trial(severe))
    assert found.delay_ms == 0
    (found,) = caught([an_event(1, 1)], trial(at(0)))
    assert found.by is None
    assert trial(at(0)).signals[0].told_at == START + DAY_MS


def test_what_will_not_do() -> None:
    one = trial(at(2), at(5))
    assert list(failures(one, 0.5, [])) == []
    assert list(failures(one, None, caught([an_event(1, 2)], one))) == []
    assert list(failures(one, 0.4, caught([an_event(7, 9)], one))) == [
        "0.5 signals a week, and at most 0.4 are wanted",
        "1 labelled event missed",
    ]


def test_a_signal_that_opened_before_is_history_and_one_that_is_open_is_met() -> None:
    one, other = trial(at(-1), at(5)), trial(at(3), at(9, product_batch_id="L2"))
    other.take(at(4, signal_id="s3", event="closed", revision=1))
    assert [raised.opening.signal_id for raised in one.signals] == ["s5"]
    assert one.open_spikes == {series_of(SIGNAL)}
    assert compare(one, other).both == []
    other.signals[0].revisions[-1] = at(5, signal_id="s3", event="closed", revision=1)
    ((first, second),) = compare(one, other).both
    assert (first.opening.signal_id, second.opening.signal_id) == ("s5", "s3")
    words = "\n".join(told(one, other))
    assert "; 2d later" in words
    assert "not opened any more: 1\n  2025-01-10  kettle L2" in words


def test_the_picture_of_a_series() -> None:
    one = trial(at(40, revision=0))
    one.until = START + 43 * DAY_MS
    starts, voices, expected = picture(one.signals[0], one)
    assert (len(starts), starts[0], starts[-1]) == (33, START + 10 * DAY_MS, START + 42 * DAY_MS)
    assert (voices[29:], expected[28:]) == ([4, 9, 0, 0], [None, 1.5, 1.5, None, None])
    assert sparkline(voices[28:]) == "▁▄█▁▁"
    assert (sparkline([]), sparkline([0, 0])) == ("", "▁▁")
    assert "voices a day from 2025-01-11, at most 9" in list(told(one))[1]


def test_a_page_that_needs_nothing_else(tmp_path: Path) -> None:
    one, other = trial(at(2), at(9, product_batch_id="<L2>")), trial(at(3))
    out = tmp_path / "r.html"
    trial_page.write(out, one, other, ["head & all"])
    page = out.read_text(encoding="utf-8")
    assert page.count("<svg") == page.count("<section>") == 2
    assert "&lt;L2&gt;" in page
    assert "<L2>" not in page
    assert "src=" not in page
    assert 'href="http' not in page
    assert "<p>head &amp; all</p>" in page
    trial_page.write(out, one, None, [])
    assert "under both" not in out.read_text(encoding="utf-8")


def test_events_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text(HEAD + ",kettle,,,2026-03-01,2026-03-02\nchannel,a,b,price,2026-03-01T08:00,2026-03-01T08:00:00Z\n")
    first, second = read_events(path, "Asia/Shanghai")
    assert first == Event("product", "kettle", "", "", 1772294400000, 1772294400000 + 2 * DAY_MS)
    assert (second.subject_kind, second.end - second.start) == ("channel", DAY_MS // 3)
    for text, words in (
        ("a,b\n", "line 1 of e.csv: there is no column subject_kind, no subject_id"),
        (HEAD + "shop,a,,,2026-03-01,2026-03-02\n", "line 2 of e.csv, column subject_kind: 'shop' does not do"),
        (
            HEAD + ",a,,loud,2026-03-01,2026-03-02\n",
            "column objection_type: 'loud' does not do; allowed: product_quality",
        ),
        (HEAD + ",a,,,gestern,2026-03-02\n", "column start: 'gestern' does not do"),
        (HEAD + ",a,,,2026-03-02,2026-03-01\n", "column end: 2026-03-01 is not after 2026-03-02"),
        (HEAD + ",a\n", "column start: '' does not do"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigurationError, match=words):
            read_events(path, "Asia/Shanghai")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_events(tmp_path, "UTC")
    path.write_bytes(HEAD.encode() + b"\xff\xfe\n")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        read_events(path, "UTC")
