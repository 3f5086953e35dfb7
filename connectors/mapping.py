"""A source's own fields to a Mention: names, types, times, masking. The one place where a record is judged."""

import datetime as dt
import functools
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, get_args
from zoneinfo import ZoneInfo

import msgspec

from connectors.masking import Masker, Pseudonymiser
from pipeline.errors import ConfigurationError, InvalidMessage
from schemas import identity
from schemas.mention import MappedField, Mention, Turn
from schemas.vocabulary import AuthorRole, Channel

_LARGEST_RATING = 1e9
_TRUE = frozenset({"1", "true", "yes", "y", "是", "t"})
_FALSE = frozenset({"0", "false", "no", "n", "否", "f"})
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_DATE_ONLY = re.compile(r"\d{4}[-/.年]?\d{1,2}[-/.月]?\d{1,2}日?\Z")
_EARLIEST_MS = 631_152_000_000  # 1990-01-01: before this no customer wrote to anybody's feed
_DAY_MS = 86_400_000
_DEFAULT_REVIEWS = (
    "此用户未填写评价内容",
    "此用户没有填写评价",
    "系统默认好评",
    "系统默认评价",
    "默认好评",
    "评价方未及时做出评价",
)


def is_date_only(value: object) -> bool:
    """Whether a time, as the source writes it, names a day and no hour."""
    return isinstance(value, str) and _DATE_ONLY.match(value.strip()) is not None


def parse_time(value: str, zone: ZoneInfo, form: str | None) -> int:
    """Milliseconds since the epoch, UTC. Times without a zone are in ``zone``; a bare date is its local midnight.

    Understood without a ``form`` (a strptime pattern): ISO 8601, with / for -, and epoch seconds or milliseconds.

    Raises:
        ValueError: none of these.
    """
    value = value.strip()
    if form is not None:
        moment = dt.datetime.strptime(value, form)  # noqa: DTZ007 - a missing zone is the source's, set below
    elif value.isdigit() and len(value) in (10, 13):
        return int(value) * (1000 if len(value) == 10 else 1)
    else:
        moment = dt.datetime.fromisoformat(_iso(value))
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    return int(moment.timestamp() * 1000)


def _iso(value: str) -> str:
    if "/" not in value and "年" not in value:
        return value
    day, _, rest = value.replace("年", "/").replace("月", "/").replace("日", " ").partition(" ")
    year, month, number = day.split("/")
    return f"{year}-{month:0>2}-{number:0>2}T{rest.strip()}".rstrip("T")


class Mapper:
    """Makes Mentions of one source's records.

    Args:
        source_id: the source's immutable name.
        channel: of every record, unless a field ``channel`` is mapped.
        fields: our field to the source's.
        time_zone: of times that name none.
        time_format: a strptime pattern, where the times are in no form that is understood by itself.
        masker, pseudonymise: what takes personal data out.
    """

    def __init__(
        self,
        source_id: str,
        channel: Channel,
        fields: Mapping[MappedField, str],
        time_zone: str,
        time_format: str | None,
        masker: Masker,
        pseudonymise: Pseudonymiser,
    ) -> None:
        self._source_id = source_id
        self._channel = channel
        self._fields = dict(sorted(fields.items()))  # identities must not follow the order of the keys in a file
        zone = ZoneInfo(time_zone)
        # Exports repeat their dates thousands of times.
        self._time: Callable[[str], int] = functools.lru_cache(65_536)(lambda text: parse_time(text, zone, time_format))
        self._mask = masker.mask
        # Products, lots, carriers and regions come again and again, too.
        self._masked: Callable[[str], str | None] = functools.lru_cache(65_536)(
            lambda value: masker.mask(value.strip()) or None
        )
        self._pseudonymise: Callable[[str], str] = pseudonymise
        readers: dict[str, Callable[[str, Any], Any]] = {
            "author": self._author,
            "rating": _number,
            "incentivised": _flag,
            "deleted": _flag,
            "turns": self._turns,
            "channel": functools.partial(_choice, get_args(Channel)),
            "author_role": functools.partial(_choice, get_args(AuthorRole)),
        }
        self._others: list[tuple[MappedField, str, Callable[[str, Any], Any]]] = [
            (name, field, readers.get(name, self._short))
            for name, field in self._fields.items()
            if name not in ("native_id", "text", "event_time")
        ]

    def missing(self, available: Mapping[str, Any] | list[str]) -> list[str]:
        """The source's fields that the mapping names and that are not among ``available``."""
        return [name for name in self._fields.values() if name not in available]

    def mention(self, record: Mapping[str, Any], now: int) -> tuple[Mention, str]:
        """The masked mention of a record and the hash of its mapped fields.

        Without a native id the ``mention_id`` is left empty: it takes the number of equal records, which the source
        knows.

        Args:
            record: the source's fields.
            now: time of reading, ms UTC.

        Raises:
            InvalidMessage: a field is missing, of the wrong type, or its time cannot be.
        """
        get = record.get
        native = self._native_id(get(self._fields["native_id"])) if "native_id" in self._fields else ""
        event_time, observed = self._event_time(get, now)
        others: dict[str, Any] = {"channel": self._channel}
        for name, field, read in self._others:
            value = get(field)
            if value is not None and value != "":
                others[name] = read(name, value)
        text = self._words(get(self._fields.get("text", "")), others)
        make: Any = Mention  # a checker cannot follow the names of the other fields
        mention = make(
            mention_id=identity.mention_id(self._source_id, native) if native else "",
            source_id=self._source_id,
            native_id=self._mask(native) if native else None,
            text=self._mask(text),
            event_time=event_time,
            ingest_time=now,
            default_review=len(text) < 40 and text.strip(" .。!！[]【】(（)）").startswith(_DEFAULT_REVIEWS),
            observed=observed,
            **others,
        )
        return mention, identity.content_hash(*map(str, map(get, self._fields.values())))

    def _words(self, value: Any, others: Mapping[str, Any]) -> str:
        if others.get("deleted"):
            return ""
        if turns := others.get("turns"):
            return "\n".join(turn.text for turn in turns)
        if value is None:
            raise InvalidMessage("missing_field", f"text (field {self._fields.get('text')!r} of the source) is missing")
        if not isinstance(value, str):
            raise InvalidMessage("wrong_type", f"text is a {type(value).__name__}; text is needed")
        return _clean(value)

    def _author(self, name: str, value: Any) -> str:
        return self._pseudonymise(_text(name, value))

    def _turns(self, name: str, value: Any) -> list[Turn]:
        try:
            turns = msgspec.convert(value, list[Turn])
        except msgspec.ValidationError as error:
            raise InvalidMessage("wrong_type", f"{name} must be a list of {{role, text}}: {error}") from None
        return [Turn(turn.role, self._mask(_clean(turn.text))) for turn in turns]

    def shown(self, record: Mapping[str, Any]) -> str:
        """The mapped fields of a record that was refused, masked, as JSON: what a person may see of it."""
        seen = {}
        for name, field in self._fields.items():
            value = record.get(field)
            if value is not None:
                text = _clean(str(value))
                seen[name] = self._pseudonymise(text) if name == "author" and text else self._mask(text)
        return msgspec.json.encode(seen).decode()

    def _short(self, name: str, value: Any) -> str | None:
        return self._masked(_text(name, value))

    def _native_id(self, value: Any) -> str:
        if isinstance(value, float):
            raise InvalidMessage(
                "wrong_type", "native_id is a number with a fraction: such ids lose digits; give it as text"
            )
        return "" if value is None else _text("native_id", value).strip()

    def _event_time(self, get: Callable[[str], Any], now: int) -> tuple[int, bool]:
        if "event_time" not in self._fields:
            return now, True
        value = get(self._fields["event_time"])
        if value is None or value == "":
            raise InvalidMessage(
                "missing_field", f"event_time (field {self._fields['event_time']!r} of the source) is missing"
            )
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise InvalidMessage("wrong_type", f"event_time is a {type(value).__name__}; text or an integer is needed")
        try:
            moment = self._time(str(value))
        except (ValueError, OverflowError):
            raise InvalidMessage("wrong_type", f"event_time {self._mask(str(value)[:40])!r} is no time") from None
        if not _EARLIEST_MS <= moment <= now + _DAY_MS:
            raise InvalidMessage(
                "absurd_time", f"event_time {self._mask(str(value)[:40])!r} lies before 1990 or more than a day ahead"
            )
        return moment, False


def _clean(value: str) -> str:
    return value if value.isprintable() or not _CONTROL.search(value) else _CONTROL.sub(" ", value)


def _text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise InvalidMessage("wrong_type", f"{name} is a {type(value).__name__}; text is needed")


def _number(name: str, value: Any) -> float:
    try:
        number = float(unicodedata.normalize("NFKC", value) if isinstance(value, str) else value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidMessage("wrong_type", f"{name} is no number") from None
    if not abs(number) <= _LARGEST_RATING:
        raise InvalidMessage("wrong_type", f"{name} is no number that can be meant")
    return number


def _flag(name: str, value: Any) -> bool:
    word = str(value).strip().lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise InvalidMessage("wrong_type", f"{name} is neither true nor false")


def _choice(allowed: tuple[str, ...], name: str, value: Any) -> str:
    if value not in allowed:
        raise InvalidMessage("wrong_type", f"{name} must be one of {', '.join(allowed)}")
    return str(value)


def check_mapping(fields: Mapping[MappedField, str], where: str) -> None:
    """Refuse a mapping that cannot work.

    Raises:
        ConfigurationError: no text is mapped.
    """
    if "text" not in fields and "turns" not in fields:
        raise ConfigurationError(f"{where}.fields: 'text' is missing; it says which field holds the customer's words")
