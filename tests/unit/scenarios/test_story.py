"""Scenario files: strictly read, and replayed the same each time."""

import datetime as dt

import pytest

from connectors.base import SourceItem
from pipeline.errors import ConfigurationError
from pipeline.scenarios.story import Lot, Scenario, Talk, load, names, read
from pipeline.scenarios.wording import themes
from pipeline.scenarios.world import World
from schemas.control import Gap, Watermark
from schemas.mention import Mention
from schemas.policy import DAY_MS

STORY = """
name: try
title: {zh: 试, en: try}
story: {zh: 试, en: try}
days: 12
products:
  - {id: fan, name: 小风扇, mentions: 20, complaints: {fan_faults: 0.3}, lots: [{id: F1, units: 100}, {id: F2}]}
phases:
"""


def story(*phases: str, more: str = "") -> Scenario:
    listed = "".join(f"  - {{{phase}}}\n" for phase in phases) or "  []\n"
    return read(f"{STORY}{listed}{more}".encode(), "try.yaml")


def items(scenario: Scenario) -> list[SourceItem]:
    return list(World(scenario, b"key").read(None))


def mentions(scenario: Scenario) -> list[Mention]:
    return [item for item in items(scenario) if isinstance(item, Mention)]


def days(scenario: Scenario, said: list[Mention]) -> list[int]:
    return [scenario.day_of(one.event_time) for one in said]


@pytest.mark.parametrize(
    ("phase", "says"),
    [
        ("do: talk, days: [1, 2], theme: fan_faults, mentions: 1, lott: F1", r"unknown field `lott` - at `\$.phases\[0\]`"),
        ("do: shout, days: [1, 2]", "Invalid value 'shout'"),
        ("do: talk, days: [1, 2], mentions: 1", "missing required field `theme`"),
        ("do: talk, days: [1], theme: fan_faults, mentions: 1", "length 2, got 1"),
        ("do: talk, days: [1, 2], theme: fan_faults, mentions: -1", ">= 0"),
        ("do: talk, days: [1, 2], theme: moon, mentions: 1", "no theme 'moon'"),
        ("do: talk, days: [1, 12], theme: fan_faults, mentions: 1", r"phases\[0\]: days \[1, 12\] are not within 0 to 11"),
        ("do: multiply, days: [1, 2], products: [car], by: 2", r"phases\[0\]: no product 'car'"),
        ("do: multiply, days: [1, 2], lot: F9, by: 2", r"phases\[0\]: no lot 'F9'"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place(phase: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"try\.yaml: .*{says}"):
        story(phase)


def test_a_signal_cannot_be_expected_of_a_lot_that_is_not_there() -> None:
    expected = "expected: [{kind: spike, subject: fan, lot: F3, type: delivery, days: [1, 2]}]"
    with pytest.raises(ConfigurationError, match=r"expected\[0\]: no lot 'F3' of 'fan'"):
        story(more=expected)


def test_sentences_of_its_own_have_blanks_that_can_be_filled_in() -> None:
    phase = "do: talk, days: [1, 1], theme: mine, mentions: 3, lot: F1"
    scenario = story(phase, more="sentences: {mine: {said: ['{product}的{lot}漏风']}}")
    assert sum(one.text == "小风扇的F1漏风" for one in mentions(scenario)) == 3
    with pytest.raises(ConfigurationError, match="sentences: mine: no blank 'colour'"):
        story(phase, more="sentences: {mine: {said: ['{colour}的不好看']}}")


def test_there_cannot_be_more_complaints_than_mentions() -> None:
    with pytest.raises(ConfigurationError, match="'fan': more complaints than mentions"):
        read(STORY.replace("0.3", "1.3").encode() + b"  []", "try.yaml")


def test_a_scenario_is_found_by_name_in_any_case_or_by_its_file(tmp_path) -> None:
    assert load("D") == load("d")
    (tmp_path / "mine.yaml").write_text(STORY + "  []\n", encoding="utf-8")
    assert load(str(tmp_path / "mine.yaml")).name == "try"
    with pytest.raises(ConfigurationError, match=f"there are {', '.join(names())}"):
        load("z")


def test_every_file_has_the_name_that_it_says() -> None:
    assert [load(name).name for name in names()] == names()


def test_themes_hold_enough_to_tell_voices_apart() -> None:
    for scenario in map(load, names()):
        for phase in scenario.phases:
            if isinstance(phase, Talk) and not phase.copies and phase.mentions > 3 and phase.theme != "fan_template":
                theme = themes()[phase.theme]
                assert len(theme.said) >= 10, phase.theme
                assert len(theme.starts) * len(theme.said) * len(theme.ends) > 500, phase.theme


def test_every_run_is_the_same() -> None:
    assert items(load("a")) == items(load("a"))


def test_units_come_into_the_field_evenly() -> None:
    lot = Lot(id="x", sold=(0, 9))
    assert [lot.in_field(day) for day in (-1, 0, 4, 9, 20)] == [0.0, 0.05, 0.45, 0.95, 1.0]


def test_talk_rises_evenly_and_comes_to_whole_mentions() -> None:
    scenario = story("do: talk, days: [2, 6], lot: F1, theme: fan_rant, mentions: 0, rising_to: 8")
    said = [one for one in mentions(scenario) if one.text in themes()["fan_rant"].said]
    assert [days(scenario, said).count(day) for day in range(12)] == [0, 0, 0, 2, 4, 6, 8, 0, 0, 0, 0, 0]


def test_what_is_read_comes_in_order_and_below_its_watermark() -> None:
    scenario = story("do: talk, days: [5, 5], theme: fan_faults, mentions: 30, said_before: [2, 9]")
    promised = 0
    for item in items(scenario):
        if isinstance(item, Mention):
            assert item.backfill == (item.event_time <= promised)
            assert item.event_time <= item.ingest_time
        elif isinstance(item, Watermark):
            assert item.time > promised
            promised = item.time
    assert promised == scenario.midnight(12) - 1


def test_copies_are_one_text_half_of_them_reposts() -> None:
    scenario = story("do: talk, days: [3, 3], theme: fan_rant, mentions: 20, copies: true")
    copied = [one for one in mentions(scenario) if one.text.startswith(themes()["fan_rant"].said[0])]
    assert len(copied) == 20
    assert len({one.repost_of for one in copied}) == 2
    assert sum(one.repost_of is not None for one in copied) == 10


def test_an_outage_withholds_its_channels_and_gives_them_back_as_back_fill() -> None:
    scenario = story("do: outage, days: [4, 6], channels: [review, chat]")
    given = items(scenario)
    late = [item for item in given if isinstance(item, Mention) and item.backfill]
    assert {one.channel for one in late} == {"review", "chat"}
    assert set(days(scenario, late)) == {4, 5, 6}
    assert {scenario.day_of(one.ingest_time) for one in late} == {7}
    gaps = [(item.start, item.end) for item in given if isinstance(item, Gap)]
    assert gaps == [(scenario.midnight(4), None), (scenario.midnight(4), scenario.midnight(7))]
    assert len(mentions(scenario)) == len(mentions(story()))


def test_a_history_is_read_at_once() -> None:
    scenario = story(more="read_on: 20")
    assert {one.ingest_time for one in mentions(scenario)} == {scenario.midnight(20)}


def test_a_text_that_names_its_lot_comes_without_one_beside_it() -> None:
    scenario = story("do: talk, days: [0, 11], lot: F1, theme: washer_noise, mentions: 20")
    naming = [one for one in mentions(scenario) if "F1" in one.text]
    assert naming
    assert {one.product_batch for one in naming} == {None}


def test_the_catalogue_says_when_a_lot_was_sold() -> None:
    first, second = story().catalogue()
    assert (first.product_batch_id, first.units, second.units) == ("F1", 100, None)
    midnight = dt.datetime(2026, 3, 1, tzinfo=dt.timezone(dt.timedelta(hours=8))).timestamp() * 1000
    assert (first.sold_from, first.sold_until) == (midnight - 180 * DAY_MS, midnight)
