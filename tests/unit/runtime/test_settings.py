import datetime as dt
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from pipeline.errors import ConfigurationError
from pipeline.settings import Settings, duration_ms, load, password, read_secret
from schemas.policy import DAY_MS, ProductPolicy

GOOD = """
data_dir: ./radar-data
sources:
  - {name: shop, type: files, channel: review, path: a.csv, fields: {text: words}}
catalogue: catalogue.csv
detection: {step: 1d}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "radar.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    settings = load(write(tmp_path, GOOD))
    assert settings.data_dir == tmp_path / "radar-data"
    assert settings.catalogue == tmp_path / "catalogue.csv"
    assert settings.sources[0].path == tmp_path / "a.csv"
    assert settings.sources[0].form == "csv"
    assert settings.policy().step == "1d"


def test_single_products_and_quiet_days_are_in_the_policy(tmp_path: Path) -> None:
    text = """
time_zone: Asia/Shanghai
detection:
  products: [{product: w7, minimum_voices: 5}]
  quiet_periods: [{since: 2026-11-11, until: 2026-11-12, products: [w7], reason: 双十一}]
"""
    policy = load(write(tmp_path, text)).policy()
    assert policy.products == (ProductPolicy("w7", minimum_voices=5),)
    (period,) = policy.quiet_periods
    assert (period.products, period.reason) == (("w7",), "双十一")
    begin = dt.datetime(2026, 11, 11, tzinfo=ZoneInfo("Asia/Shanghai")).timestamp() * 1000
    assert (period.since, period.until) == (begin, begin + 2 * DAY_MS)


def test_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RADAR_ADMIN__PORT", "9999")
    monkeypatch.setenv("RADAR_DETECTION__STEP", "1h")
    settings = load(write(tmp_path, GOOD))
    assert settings.admin.port == 9999
    assert settings.detection.step == "1h"


def test_the_key_of_pseudonyms_does_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RADAR_PSEUDONYM_KEY", "very secret")
    assert "very secret" not in repr(load(write(tmp_path, GOOD)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data_dirr: x", "data_dirr: no such key; did you mean data_dir?"),
        ("time_zone: Mars", "time_zone: 'Mars' does not do: an IANA time zone"),
        ("detection: {step: 5m}", "detection.step: '5m' does not do: Input should be '1h' or '1d'"),
        ("admin: {port: 70000}", "admin.port: 70000 does not do"),
        ("poll_interval: soon", "poll_interval: 'soon' does not do"),
        (
            "sources: [{name: a, type: files, channel: review, path: x.csv, fields: {txt: a}}]",
            "sources[0].fields.txt: 'txt'",
        ),
        (
            "sources: [{type: files, channel: review, path: x.csv, fields: {text: a}}]",
            "sources[0].name: is missing; immutable name",
        ),
        (
            "sources: [{name: a, type: files, channel: review, path: x.csv, fields: {text: a}},"
            " {name: a, type: files, channel: review, path: y.csv, fields: {text: a}}]",
            "every source needs a name of its own",
        ),
        ("sources: {", "not readable as YAML"),
        (
            "sources: [{name: a, type: files, channel: review, path: x.xls, fields: {text: a}}]",
            "does not tell its format",
        ),
        (
            "sources: [{name: a, type: files, channel: review, path: x.csv, time_zone: Mars, fields: {text: a}}]",
            "sources[0].time_zone: 'Mars' does not do",
        ),
        ("detection: {false_signals_per_week: .inf}", "detection.false_signals_per_week"),
        (
            "detection: {products: [{product: a}, {product: a}]}",
            "detection.products",
        ),
        (
            "detection: {quiet_periods: [{since: 2026-11-12, until: 2026-11-11}]}",
            "until lies before since",
        ),
        ("detection: {allowed_lateness: 99999999d}", "detection.allowed_lateness: '99999999d' does not do"),
    ],
)
def test_errors_name_the_key_the_value_and_what_is_allowed(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(write(tmp_path, text))
    assert said in str(caught.value)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        load(tmp_path / "no.yaml")


def test_a_misspelt_name_in_the_environment_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RADAR_TIMEZONE", "Europe/Berlin")
    with pytest.raises(ConfigurationError, match=r"RADAR_TIMEZONE: no such setting; did you mean RADAR_TIME_ZONE\?"):
        load(write(tmp_path, GOOD))


def test_a_secret_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(write(tmp_path, "pseudonym_key: 1234567890"))
    assert "1234567890" not in str(caught.value)
    assert "pseudonym_key" in str(caught.value)


@pytest.mark.parametrize(
    ("section", "key", "remedy"),
    [
        ("kafka", "password", "kafka.password_file, or set RADAR_KAFKA__PASSWORD"),
        ("clickhouse", "password", "clickhouse.password_file, or set RADAR_CLICKHOUSE__PASSWORD"),
        ("", "pseudonym_key", "RADAR_PSEUDONYM_KEY"),
    ],
)
@pytest.mark.parametrize("value", ["hush-31415", "314159265", "[hush-31415]", "{hush-31415: 1}"])
def test_a_secret_in_the_file_is_refused_unrepeated(
    tmp_path: Path, section: str, key: str, remedy: str, value: str
) -> None:
    entry = f"{key}: {value}"
    with pytest.raises(ConfigurationError) as caught:
        load(write(tmp_path, f"{section}: {{{entry}}}" if section else entry))
    said = str(caught.value)
    assert "a secret does not belong in this file" in said
    assert remedy in said
    assert "31415" not in said


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("sasl_mechanism: SCRAM", "kafka.sasl_mechanism: 'SCRAM' does not do"),
        ("username: ''", "needs username, and password_file"),
        ("sasl_mechanism: OAUTHBEARER", "OAUTHBEARER needs token_file"),
        ("certificate_file: a.pem", "certificate_file and key_file go together"),
        ("min_insync_replicas: 9", "min_insync_replicas cannot be above"),
    ],
)
def test_a_wrong_value_beside_a_secret_does_not_show_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str, said: str
) -> None:
    monkeypatch.setenv("RADAR_KAFKA__PASSWORD", "hush-31415")
    section = "bootstrap_servers: 'b:1', security_protocol: SASL_SSL" + ("" if "username" in more else ", username: u")
    with pytest.raises(ConfigurationError) as caught:
        load(write(tmp_path, f"kafka: {{{section}, {more}}}"))
    assert said in str(caught.value)
    assert "hush" not in str(caught.value)


def test_a_password_shows_in_no_form_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RADAR_KAFKA__PASSWORD", "hush-31415")
    monkeypatch.setenv("RADAR_CLICKHOUSE__PASSWORD", "hush-31415")
    text = "kafka: {bootstrap_servers: 'b:1', security_protocol: SASL_SSL, username: u}\nclickhouse: {hosts: h}"
    settings = load(write(tmp_path, text))
    assert settings.kafka is not None
    assert password(settings.kafka) == "hush-31415"
    for form in (repr(settings), str(settings), settings.model_dump_json(), str(settings.model_dump())):
        assert "hush" not in form


def test_a_secret_file_is_read_each_time_and_a_missing_one_is_said(tmp_path: Path) -> None:
    kept = tmp_path / "secret"
    with pytest.raises(ConfigurationError, match="the secret cannot be read"):
        read_secret(kept)
    for value in ("one", "two"):
        kept.write_text(value + "\n", encoding="utf-8")
        assert read_secret(kept) == value


def test_upper_case_endings_are_known(tmp_path: Path) -> None:
    assert load(write(tmp_path, GOOD.replace("a.csv", "A.CSV.GZ"))).sources[0].form == "csv"


@pytest.mark.parametrize(("text", "ms"), [("90s", 90_000), ("15m", 900_000), ("24h", 86_400_000), ("7d", 604_800_000)])
def test_durations(text: str, ms: int) -> None:
    assert duration_ms(text) == ms


def test_every_setting_is_described() -> None:
    def check(model: type) -> None:
        for name, field in model.model_fields.items():  # type: ignore[attr-defined]
            assert field.description, f"{model.__name__}.{name}"

    check(Settings)
