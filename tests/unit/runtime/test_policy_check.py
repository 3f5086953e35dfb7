"""``complaint-radar policy check``: values in words, values against each other, and those that cannot be."""

from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from simulated import DAILY, day, days, mentions, run

from pipeline.detection.detector import Detector
from pipeline.errors import ConfigurationError
from pipeline.runtime import stored_backtest
from pipeline.runtime.policy_check import Context, explain, refuse, voices_needed, warnings
from pipeline.runtime.stored_backtest import Counted
from pipeline.runtime.trial import compare
from pipeline.runtime.trial_words import summary, told
from pipeline.settings import FilesSourceSettings, Settings, load_policy
from schemas.policy import DAY_MS, HOUR_MS, DetectionPolicy, ProductPolicy, QuietPeriod

DEFAULT = DetectionPolicy()
LOTS = Context(lots=120)


def lines(policy: DetectionPolicy, context: Context = LOTS) -> str:
    return "\n".join(explain(policy, context))


def warned(context: Context = LOTS, **values: object) -> str:
    return "\n".join(warnings(replace(DEFAULT, **values), context))


def test_the_defaults_are_a_promise_and_no_warning() -> None:
    first, second, *values = lines(DEFAULT).splitlines()
    assert first == (
        "promise: 1 false signals a week over 7 x 120 = 840 live series: a spike opens below a mid-p-value of 7.1e-06 a series and hour"
    )
    assert second.startswith("  that takes")
    assert len(values) == len(DEFAULT.__struct_fields__)
    assert all(" (the default): " in one for one in values)
    assert warned() == ""
    assert "700 series are assumed" in lines(DEFAULT, Context())


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (
            "step",
            "1d",
            "step 1d (default 1h): voices are counted, and spikes decided, once a local day of Asia/Shanghai",
        ),
        ("time_zone", "UTC", "time_zone UTC (default Asia/Shanghai): a day begins at midnight of UTC"),
        ("step", "1h", "step 1h (the default): voices are counted, and spikes decided, once an hour"),
        (
            "false_signals_per_week",
            5.0,
            "false_signals_per_week 5 (default 1): the promise; more: more spikes, earlier",
        ),
        ("series", 840, "series 840 (default 7 x lots): the promise is shared among 840 series"),
        ("minimum_voices", 20, "no spike opens on fewer than 20 distinct voices"),
        ("minimum_history", 168, "followed for 168 hours"),
        ("windows", (1, 24), "the last 1, 24 steps"),
        ("close_after", 1, "after 1 hour of calm"),
        (
            "allowed_lateness_ms",
            36 * HOUR_MS,
            "allowed_lateness 36h (default 2d): a closed step takes corrections for 36h",
        ),
        ("severity_pair_ms", 90_000, "severity_pair 90s (default 7d): two customers"),
        ("alerting_horizon_ms", 3 * DAY_MS, "alerting_horizon 3d (default 1d): a signal whose newest words"),
        ("products", (), "products 0 (the default): all products are judged alike"),
        (
            "products",
            (ProductPolicy("w7", 5, 14), ProductPolicy("p9")),
            "products 2 (default 0): w7 takes 5 voices at least and 14 steps of history; p9 takes what all take",
        ),
        (
            "quiet_periods",
            (QuietPeriod(0, DAY_MS, ("w7",), "a sale"),),
            "quiet_periods 1 (default 0): no spike and no ramp of w7 opens from 1970-01-01 08:00 until 1970-01-02 08:00 (a sale)",
        ),
    ],
)
def test_each_value_has_words(name: str, value: object, words: str) -> None:
    assert words in lines(replace(DEFAULT, **{name: value}))


def test_values_against_each_other() -> None:
    assert "minimum_voices 3 never decides: under a promise of 0.01" in warned(false_signals_per_week=0.01)
    assert "becomes 8.4" in warned(series=100)
    assert "counts as calm" in warned(false_signals_per_week=20_000)
    assert "shorter than the longest window of 16 days" in warned(step="1d")
    assert "minimum_history 3 never decides: a step becomes history 49 hours after it" in warned(minimum_history=3)
    assert "shorter than a step of 1d" in warned(step="1d", alerting_horizon_ms=DAY_MS // 2)
    assert "same millisecond" in warned(severity_pair_ms=0)
    late = FilesSourceSettings(
        name="late", type="files", channel="review", path="a.csv", fields={"text": "a"}, max_lateness="3d"
    )
    assert "sources.late.max_lateness 3d is longer than alerting_horizon 1d" in warned(Context(120, [late]))


def test_what_cannot_be() -> None:
    refuse(DEFAULT, LOTS)
    with pytest.raises(ConfigurationError, match=r"alerting_horizon: 0s does not do"):
        refuse(replace(DEFAULT, alerting_horizon_ms=0), LOTS)
    with pytest.raises(
        ConfigurationError, match=r"false_signals_per_week: 200000 does not do: no more than 141120 decisions"
    ):
        refuse(replace(DEFAULT, false_signals_per_week=2e5), LOTS)


def test_a_smaller_promise_takes_more_voices() -> None:
    policies = [replace(DEFAULT, false_signals_per_week=promise) for promise in (20.0, 1.0, 0.01)]
    for mean in (0.01, 1.0, 50.0):
        needed = [voices_needed(mean, policy, LOTS) for policy in policies]
        assert needed == sorted(needed)
        assert needed[0] > mean


def test_a_file_of_detection_alone_or_a_configuration(tmp_path: Path) -> None:
    base = Settings(time_zone="UTC", catalogue=Path("c.csv"))

    def of(text: str) -> Settings:
        (tmp_path / "p.yaml").write_text(text, encoding="utf-8")
        return load_policy(tmp_path / "p.yaml", base)

    assert of("minimum_voices: 9").policy() == replace(base.policy(), minimum_voices=9)
    assert of("{minimum_voices: 9, time_zone: Europe/Berlin}").policy().time_zone == "Europe/Berlin"
    assert of("minimum_voices: 9").catalogue == Path("c.csv")
    assert of("detection: {minimum_voices: 9}").policy() == DetectionPolicy(minimum_voices=9)
    assert of("").policy() == base.policy()
    for text, words in (
        ("minimum_voice: 9", r"detection.minimum_voice: no such key; did you mean minimum_voices\?"),
        ("minimum_voices: 0", "detection.minimum_voices: 0 does not do"),
        ("time_zone: Mars", "an IANA time zone"),
        ("- a", "keys and values are needed"),
        ("a: [", "not readable as YAML"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            of(text)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_policy(tmp_path / "none.yaml", base)


def stored(length: int = 60) -> Counted:
    """Sixty days of two lots; L1 is very noisy for a week from day 30 on, L2 a little from day 45 on."""
    rng = np.random.default_rng(11)
    parts = []
    for number in range(length):
        loud = 5 if 30 <= number < 37 else 1
        louder = 3 if 45 <= number < 48 else 1
        rows = [
            mentions(rng, number, lot=lot, talk=40, complaints=4 * by) for lot, by in (("L1", loud), ("L2", louder))
        ]
        parts.append([one for of_lot in rows for one in of_lot])
    counts = run(Detector(DAILY), days(parts)).step_counts
    latest = {(one.product_batch_id, one.objection_type, one.step_start): one for one in counts}
    return Counted(day(20), sorted(latest.values(), key=lambda one: one.step_start), [])


def test_a_policy_against_another_on_stored_counts() -> None:
    counted = stored()
    present = stored_backtest.run(counted, DAILY, [])
    tried_policy = replace(DAILY, false_signals_per_week=1e-4)
    tried = stored_backtest.run(counted, tried_policy, [])
    said = list(told(tried, present))
    assert (len(present.signals), len(tried.signals)) == (2, 1)
    assert said[0] == "opened under both: 1"
    assert "not opened any more: 1" in said
    assert " P L2  product_quality: 25 voices" in said[-2]
    assert " later" in said[1]
    assert round(present.weeks, 2) == 5.71
    assert summary(present, None) == "in 5.7 weeks: 2 signals, 0.35 a week"
    assert compare(present, present)[1:] == ([], [])


def test_counts_of_other_steps_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="1h cannot be tried on step counts of 1d; write `step: 1d`"):
        stored_backtest.run(stored(5), replace(DAILY, step="1h"), [])
    with pytest.raises(ConfigurationError, match="Asia/Shanghai cannot be tried"):
        stored_backtest.run(stored(5), replace(DAILY, time_zone="Asia/Shanghai"), [])
