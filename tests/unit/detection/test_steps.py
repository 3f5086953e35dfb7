"""Steps: hours of UTC, local days with their clock changes."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.detection.steps import LocalDays, Steps
from pipeline.errors import ConfigurationError
from schemas.policy import HOUR_MS

EPOCH = datetime(1970, 1, 1, tzinfo=UTC).date()


def ms(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp() * 1000)


def test_hours() -> None:
    steps = Steps("1h", "Asia/Shanghai")
    assert steps.index(ms(2026, 1, 1, 5, 59)) == steps.index(ms(2026, 1, 1, 5))
    assert steps.start(steps.index(ms(2026, 1, 1, 5, 59))) == ms(2026, 1, 1, 5)
    assert steps.end(steps.index(ms(2026, 1, 1, 5, 59))) == ms(2026, 1, 1, 6)


def test_a_day_in_shanghai_starts_at_16_utc() -> None:
    days = LocalDays("Asia/Shanghai")
    index = days.index(ms(2026, 1, 1, 15, 59))
    assert (days.start(index), days.end(index)) == (ms(2025, 12, 31, 16), ms(2026, 1, 1, 16))
    assert days.index(ms(2026, 1, 1, 16)) == index + 1


@pytest.mark.parametrize(
    ("zone", "instant", "hours"),
    [
        ("Europe/Berlin", (2026, 3, 29, 12), 23),
        ("Europe/Berlin", (2026, 10, 25, 12), 25),
        ("America/Sao_Paulo", (2018, 11, 4, 12), 23),  # midnight itself was skipped
        ("America/Havana", (2026, 11, 1, 12), 25),  # midnight comes twice
        ("Asia/Kathmandu", (2026, 6, 1, 12), 24),
    ],
)
def test_length_of_days_where_clocks_change(zone: str, instant: tuple[int, ...], hours: int) -> None:
    days = LocalDays(zone)
    index = days.index(ms(*instant))
    assert days.end(index) - days.start(index) == hours * HOUR_MS


@given(
    st.sampled_from(
        ["UTC", "Asia/Shanghai", "Europe/Berlin", "America/Sao_Paulo", "Pacific/Apia", "Pacific/Kiritimati"]
    ),
    st.integers(ms(1975, 1, 1), ms(2100, 1, 1)),
)
def test_the_index_is_the_local_date(zone: str, instant: int) -> None:
    days = LocalDays(zone)
    index = days.index(instant)
    local = datetime.fromtimestamp(instant // 1000, ZoneInfo(zone)).date()
    assert index == (local - EPOCH).days
    assert days.start(index) <= instant < days.end(index)


def test_unknown_zone() -> None:
    with pytest.raises(ConfigurationError, match="time_zone"):
        LocalDays("Asia/Nowhere")
