"""The configuration: ``radar.yaml`` and ``RADAR_*`` in the environment, validated once, then frozen.

The environment wins over the file; levels are parted by two underscores (``RADAR_ADMIN__PORT=9500``). The reference in
the README is made from the descriptions below.
"""

import datetime as dt
import difflib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args
from zoneinfo import ZoneInfo

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    YamlConfigSettingsSource,
)

from pipeline.errors import ConfigurationError
from schemas.mention import MAPPED_FIELDS, MappedField
from schemas.policy import DetectionPolicy, ProductPolicy, QuietPeriod
from schemas.vocabulary import Channel

_FROZEN = ConfigDict(frozen=True, extra="forbid")
_DURATIONS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

Duration = Annotated[str, Field(pattern=r"^\d{1,5}(s|m|h|d)$")]


def duration_ms(text: str) -> int:
    """Milliseconds of a duration such as ``90s``, ``15m``, ``24h``, ``7d``."""
    return int(text[:-1]) * _DURATIONS[text[-1]]


_FORMS: dict[str, Literal["csv", "jsonl"]] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}


def _ending(path: Path) -> str:
    name = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return name.suffix.lower()


def _midnight(day: dt.date, zone: str) -> int:
    """The first millisecond of a local day, UTC."""
    return int(dt.datetime.combine(day, dt.time(), ZoneInfo(zone)).timestamp() * 1000)


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        raise ValueError("an IANA time zone such as Asia/Shanghai or Europe/Berlin is needed") from None
    return value


class FilesSourceSettings(BaseModel):
    """A file that grows at its end."""

    model_config = _FROZEN

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$", description="immutable name; part of every mention's identity"
    )
    type: Literal["files"] = Field(description="kind of source")
    channel: Channel = Field(description="what its records are: review, social, call, chat, email or survey")
    path: Path = Field(description="the file; .gz is read decompressed; relative to the configuration file")
    format: Literal["csv", "jsonl"] | None = Field(None, description="by default told from the file's name")
    mode: Literal["append"] = Field(
        "append", description="append: the file only grows; a changed beginning is an error"
    )
    fields: dict[MappedField, str] = Field(description="our field: the file's column (or JSON key)")
    time_zone: str | None = Field(None, description="of times that name none; by default the time_zone above")
    time_format: str | None = Field(
        None, description="strptime pattern; ISO 8601, 2020/6/5 and epoch numbers need none"
    )
    max_lateness: Duration = Field(
        "10m", description="how far out of order appended records may come (90s, 15m, 24h, 7d)"
    )

    @property
    def form(self) -> Literal["csv", "jsonl"]:
        """The format, told from the name where it is not given."""
        return self.format or _FORMS[_ending(self.path)]

    def over(self, path: Path) -> "FilesSourceSettings":
        """The same records in another file."""
        return self.model_copy(update={"path": path, "format": None if _ending(path) in _FORMS else self.form})

    @model_validator(mode="after")
    def _known_form(self) -> "FilesSourceSettings":
        if self.format is None and _ending(self.path) not in _FORMS:
            raise ValueError(
                f"the name {self.path.name!r} does not tell its format; write `format: csv` or `format: jsonl`"
            )
        return self

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        return value if value is None else _zone(value)


class ScoringSettings(BaseModel):
    """How mentions are scored."""

    model_config = _FROZEN

    sentiment: Literal["builtin", "snownlp"] = Field(
        "builtin", description="builtin, or SnowNLP itself (thousands of times slower)"
    )


class ProductSettings(BaseModel):
    """What holds for one product instead."""

    model_config = _FROZEN

    product: str = Field(min_length=1, description="product_id")
    minimum_voices: int | None = Field(None, ge=1, description="in place of `detection.minimum_voices`")
    minimum_history: int | None = Field(None, ge=0, description="in place of `detection.minimum_history`")


class QuietPeriodSettings(BaseModel):
    """Local days on which no spike and no ramp opens: a sale, a recall that everybody knows of."""

    model_config = _FROZEN

    since: dt.date = Field(description="first day")
    until: dt.date = Field(description="last day")
    products: tuple[str, ...] = Field((), description="product_ids; by default all, and carriers, regions, channels")
    reason: str = Field("", description="why, for those who read the policy")

    @model_validator(mode="after")
    def _in_order(self) -> "QuietPeriodSettings":
        if self.until < self.since:
            raise ValueError("until lies before since")
        return self


class DetectionSettings(BaseModel):
    """When a rise becomes a signal; the defaults are meant to be kept."""

    model_config = _FROZEN

    step: Literal["1h", "1d"] = Field(
        "1h", description="base step: an hour, or a local calendar day (sources that give dates only)"
    )
    false_signals_per_week: float = Field(
        1.0, gt=0, allow_inf_nan=False, description="the promise: false signals a week over all live series"
    )
    series: int | None = Field(
        None, ge=1, description="series the promise is shared among; by default 7 types x lots of the catalogue"
    )
    minimum_voices: int = Field(3, ge=1, description="distinct voices below which no spike opens")
    minimum_history: int = Field(7, ge=0, description="closed steps of a product before its first spike")
    close_after: int = Field(3, ge=1, description="calm steps after which a signal closes")
    allowed_lateness: Duration = Field("2d", description="how long a closed step still takes corrections")
    severity_pair: Duration = Field("7d", description="two severity-3 voices within this time open a signal")
    alerting_horizon: Duration = Field(
        "24h", description="what was ingested later than this after it happened is historic"
    )
    products: tuple[ProductSettings, ...] = Field((), description="what holds for single products instead")
    quiet_periods: tuple[QuietPeriodSettings, ...] = Field(
        (), description="local days on which no spike and no ramp opens; harm is told all the same"
    )

    @field_validator("products")
    @classmethod
    def _distinct_products(cls, value: tuple[ProductSettings, ...]) -> tuple[ProductSettings, ...]:
        names = [one.product for one in value]
        if len(set(names)) != len(names):
            raise ValueError(f"these stand twice: {sorted({n for n in names if names.count(n) > 1})}")
        return value


class KafkaSettings(BaseModel):
    """The brokers, and how to speak to them. Everything but the addresses has a sound default."""

    model_config = _FROZEN

    bootstrap_servers: str = Field(
        pattern=r"^[^\s,]+(,[^\s,]+)*$", description="brokers to begin with: host:port,host:port"
    )
    prefix: str = Field(
        "",
        pattern=r"^[a-zA-Z0-9._-]{0,60}$",
        description="stands before the name of every topic, consumer group and transactional id",
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = Field(
        "SCRAM-SHA-512", description="with a SASL protocol: SCRAM-SHA-512, SCRAM-SHA-256, PLAIN or OAUTHBEARER"
    )
    username: str | None = Field(None, description="SASL user")
    password: SecretStr | None = Field(None, description="only in the environment (RADAR_KAFKA__PASSWORD)")
    password_file: Path | None = Field(None, description="file that holds the password; read at each connection")
    token_file: Path | None = Field(
        None, description="OAUTHBEARER: file that holds the current token; read again for each connection"
    )
    ca_file: Path | None = Field(None, description="certificates of the authority, PEM; by default the system's")
    certificate_file: Path | None = Field(None, description="mutual TLS: our certificate, PEM")
    key_file: Path | None = Field(None, description="mutual TLS: key of our certificate, PEM")
    replication_factor: int = Field(3, ge=1, description="copies of every topic that `topics` makes")
    min_insync_replicas: int = Field(2, ge=1, description="copies that must have a record before it counts as written")
    session_timeout: Duration = Field("10s", description="silence after which a worker's partitions go to others")

    @model_validator(mode="after")
    def _complete(self) -> "KafkaSettings":
        if self.security_protocol.startswith("SASL"):
            if self.sasl_mechanism == "OAUTHBEARER":
                if self.token_file is None:
                    raise ValueError("OAUTHBEARER needs token_file")
            elif not self.username or not (self.password or self.password_file):
                raise ValueError(
                    f"{self.sasl_mechanism} needs username, and password_file or RADAR_KAFKA__PASSWORD in the environment"
                )
        if self.min_insync_replicas > self.replication_factor:
            raise ValueError("min_insync_replicas cannot be above replication_factor")
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file go together")
        return self


class ClickHouseSettings(BaseModel):
    """The ClickHouse server."""

    model_config = _FROZEN

    hosts: str = Field(
        pattern=r"^[^\s,]+(,[^\s,]+)*$",
        description="host:port,host:port; native protocol; the next is tried when one fails",
    )
    database: str = Field("default", pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$", description="database of the tables")
    user: str = Field("default", description="its user")
    password: SecretStr | None = Field(None, description="only in the environment (RADAR_CLICKHOUSE__PASSWORD)")
    password_file: Path | None = Field(None, description="file that holds the password; read at each connection")
    secure: bool = Field(False, description="TLS")
    ca_file: Path | None = Field(None, description="certificates of the authority, PEM; by default the system's")
    compression: Literal["lz4", "zstd", "none"] = Field("lz4", description="of what goes over the wire")
    allow_older: bool = Field(
        False,
        description="go on with a server older than the stated minimum: its tables are then yours to make, and a block that is "
        "sent again is told by the tables' keys alone",
    )


class AdminSettings(BaseModel):
    """The port for /metrics, /healthz and /readyz."""

    model_config = _FROZEN

    host: str = Field("127.0.0.1", description="address it listens on; loopback unless you open it")
    port: int = Field(9464, ge=0, le=65535, description="0: any free port, told in the log")


class Settings(BaseSettings):
    """Everything a process needs to know; read once, never changed."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="RADAR_", env_nested_delimiter="__", env_ignore_empty=True
    )

    data_dir: Path = Field(
        Path("radar-data"), description="where the database, cursors and state live; relative to the configuration file"
    )
    time_zone: str = Field("Asia/Shanghai", description="IANA name; the zone of local days and of times that name none")
    sources: tuple[FilesSourceSettings, ...] = Field((), description="what is read")
    catalogue: Path | None = Field(
        None, description="CSV: product_id, name, aliases, product_batch_id, units, from, until"
    )
    scoring: ScoringSettings = Field(ScoringSettings(), description="how mentions are scored")
    detection: DetectionSettings = Field(DetectionSettings(), description="when a rise becomes a signal")
    kafka: KafkaSettings | None = Field(None, description="the brokers; only for connect, worker, exporter, topics")
    clickhouse: ClickHouseSettings | None = Field(
        None, description="the ClickHouse server; `run` does without, it has a database in data_dir"
    )
    admin: AdminSettings = Field(AdminSettings(), description="the port for metrics and health")
    poll_interval: Duration = Field("1s", description="how often sources are asked for more")
    pseudonym_key: SecretStr | None = Field(
        None, description="key of the authors' pseudonyms; by default made once and kept in data_dir"
    )

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        return _zone(value)

    @field_validator("sources")
    @classmethod
    def _distinct_names(cls, value: tuple[FilesSourceSettings, ...]) -> tuple[FilesSourceSettings, ...]:
        names = [source.name for source in value]
        if len(set(names)) != len(names):
            raise ValueError(
                f"every source needs a name of its own; these stand twice: {sorted({n for n in names if names.count(n) > 1})}"
            )
        return value

    def policy(self) -> DetectionPolicy:
        """The detection policy, as it travels in band."""
        chosen = self.detection
        return DetectionPolicy(
            step=chosen.step,
            time_zone=self.time_zone,
            false_signals_per_week=chosen.false_signals_per_week,
            series=chosen.series,
            minimum_voices=chosen.minimum_voices,
            minimum_history=chosen.minimum_history,
            close_after=chosen.close_after,
            allowed_lateness_ms=duration_ms(chosen.allowed_lateness),
            severity_pair_ms=duration_ms(chosen.severity_pair),
            alerting_horizon_ms=duration_ms(chosen.alerting_horizon),
            products=tuple(
                ProductPolicy(one.product, one.minimum_voices, one.minimum_history) for one in chosen.products
            ),
            quiet_periods=tuple(
                QuietPeriod(
                    _midnight(one.since, self.time_zone),
                    _midnight(one.until + dt.timedelta(days=1), self.time_zone),
                    one.products,
                    one.reason,
                )
                for one in chosen.quiet_periods
            ),
        )


def load(path: Path) -> Settings:
    """The settings of a configuration file, overridden by the environment; relative paths are relative to the file.

    Raises:
        ConfigurationError: names the key, the value, and what is allowed.
    """
    if not path.is_file():
        raise ConfigurationError(f"--config: {path} does not exist")

    class _FromFile(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return env_settings, YamlConfigSettingsSource(settings_cls, yaml_file=path)

    _check_environment()
    try:
        _refuse_secrets(path)
        settings = _FromFile()
    except ValidationError as error:
        raise ConfigurationError(_in_words(error, path)) from None
    except SettingsError as error:
        raise ConfigurationError(f"environment: {error}") from None
    except (yaml.YAMLError, UnicodeDecodeError, TypeError) as error:
        raise ConfigurationError(f"{path}: not readable as YAML: {error}") from None
    return _resolved(settings, path.parent)


def load_policy(path: Path, base: Settings) -> Settings:
    """The settings with the detection of another file: a configuration, or a file of the keys of ``detection`` alone.

    Args:
        path: the file; beside the keys of ``detection`` it may have ``time_zone``.
        base: what holds for all that the file does not say; values of the environment do not replace those of the file.

    Raises:
        ConfigurationError: as `load`.
    """
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(read, dict):
        raise ConfigurationError(f"{path}: keys and values are needed, such as `minimum_voices: 3`")
    zone = read.pop("time_zone", base.time_zone)
    if Settings.model_fields.keys() & read.keys():
        return load(path)
    try:
        return base.model_copy(update=dict(_Policy.model_validate({"detection": read, "time_zone": zone})))
    except ValidationError as error:
        raise ConfigurationError(_in_words(error, path)) from None


class _Policy(BaseModel):
    detection: DetectionSettings
    time_zone: str

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        return _zone(value)


def _check_environment() -> None:
    """Refuse a misspelt name: it would be passed over, and the file's value or the default would hold in silence."""
    for name in os.environ:
        if name.startswith("RADAR_"):
            key = name.removeprefix("RADAR_").lower().split("__")[0]
            if key not in Settings.model_fields:
                near = difflib.get_close_matches(key, Settings.model_fields, 1)
                hint = f"did you mean RADAR_{near[0].upper()}? " if near else ""
                allowed = ", ".join(f"RADAR_{field.upper()}" for field in Settings.model_fields)
                raise ConfigurationError(f"environment: {name}: no such setting; {hint}Allowed: {allowed}")


def _refuse_secrets(path: Path) -> None:
    """A configuration file is copied, mounted and committed: what must stay secret has other places."""
    read = yaml.safe_load(path.read_text(encoding="utf-8"))
    for section, remedy in _SECRETS.items():
        part, _, key = section.rpartition(".")
        values = (read.get(part) if part else read) if isinstance(read, dict) else None
        if isinstance(values, dict) and values.get(key) is not None:
            raise ConfigurationError(f"{path}: {section}: a secret does not belong in this file: {remedy}")


_SECRETS = {
    "pseudonym_key": "set RADAR_PSEUDONYM_KEY in the environment",
    "kafka.password": "name a file in kafka.password_file, or set RADAR_KAFKA__PASSWORD in the environment",
    "clickhouse.password": "name a file in clickhouse.password_file, or set RADAR_CLICKHOUSE__PASSWORD in the environment",
}


def _resolved(settings: Settings, folder: Path) -> Settings:
    return settings.model_copy(
        update={
            "data_dir": folder / settings.data_dir,
            "catalogue": folder / settings.catalogue if settings.catalogue else None,
            "sources": tuple(s.model_copy(update={"path": folder / s.path}) for s in settings.sources),
            "kafka": _located(settings.kafka, folder),
            "clickhouse": _located(settings.clickhouse, folder),
        }
    )


_Section = TypeVar("_Section", KafkaSettings, ClickHouseSettings)


def _located(section: _Section | None, folder: Path) -> _Section | None:
    if section is None:
        return None
    paths = {name: folder / value for name, value in section if isinstance(value, Path)}
    return section.model_copy(update=paths)


def password(section: KafkaSettings | ClickHouseSettings) -> str | None:
    """The password as it stands now: that of the file, which may have been changed since the last call, or of the environment.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    if section.password_file is not None:
        return read_secret(section.password_file)
    return section.password.get_secret_value() if section.password else None


def read_secret(path: Path) -> str:
    """What a file of one secret holds, without the line feed at its end.

    Raises:
        ConfigurationError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: the secret cannot be read: {error}") from None


def _in_words(error: ValidationError, path: Path) -> str:
    lines = []
    for problem in error.errors():
        key = _key(problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"{path}: {key}: no such key; {_allowed(problem['loc'])}")
        elif problem["type"] == "missing":
            lines.append(f"{path}: {key}: is missing; {_description(problem['loc'])}")
        else:
            # A secret is not repeated, nor a whole section.
            unsaid = key.endswith(("pseudonym_key", "password")) or isinstance(problem["input"], dict)
            value = "this" if unsaid else repr(problem["input"])
            lines.append(f"{path}: {key}: {value} does not do: {problem['msg'].removeprefix('Value error, ')}")
    return "\n".join(lines)


def _key(location: Iterable[int | str]) -> str:
    location = [part for part in location if part != "[key]"]
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


def _model_at(location: tuple[int | str, ...]) -> type[BaseModel] | None:
    model: type[BaseModel] = Settings
    for part in location:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        if field is None:
            return None
        inner = field.annotation
        candidates = [inner, *get_args(inner)]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), model)
    return model


def _allowed(location: tuple[int | str, ...]) -> str:
    names = MAPPED_FIELDS if "fields" in location else tuple((_model_at(location[:-1]) or Settings).model_fields)
    near = difflib.get_close_matches(str(location[-1]), names, 1)
    return (f"did you mean {near[0]}? " if near else "") + f"Allowed here: {', '.join(names)}"


def _description(location: tuple[int | str, ...]) -> str:
    model = _model_at(location[:-1])
    field: Any = model.model_fields.get(str(location[-1])) if model else None
    return field.description if field else "it is needed"
