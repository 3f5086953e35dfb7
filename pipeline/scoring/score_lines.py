"""Lines of JSON in, lines of JSON out, in order: the pure part of ``complaint-radar score``."""

from collections.abc import Iterable, Iterator
from itertools import islice

import msgspec
from msgspec import UNSET, UnsetType

from pipeline.scoring.scorer import Scorer
from schemas.mention import Mention, Turn
from schemas.scored import Objection, ScoredRow
from schemas.vocabulary import Channel, Emotion, Severity, Share, SpeechAct

BLOCK_LINES = 1_000

Identity = str | int | float | bool | None


class InputLine(msgspec.Struct, frozen=True):
    """One input line: a text with its id, or any Mention; fields that scoring does not need are passed over."""

    id: Identity | UnsetType = UNSET
    mention_id: str | UnsetType = UNSET
    text: str | UnsetType = UNSET
    channel: Channel = "review"
    turns: list[Turn] | None = None
    deleted: bool = False
    default_review: bool = False
    product: str | None = None
    product_batch: str | None = None
    version: str | None = None
    carrier: str | None = None
    region: str | None = None


class EmotionOut(msgspec.Struct, frozen=True):
    """The strongest emotion and its intensity 0..1."""

    label: Emotion
    intensity: Share


class OutputLine(msgspec.Struct, frozen=True):
    """What is said of one line; spans are characters of its text (of turns: joined by line feeds)."""

    id: Identity | UnsetType
    sentiment: float
    sentiment_probability: Share
    objections: list[Objection]
    speech_act: SpeechAct
    emotion: EmotionOut
    severity: Severity
    product_id: str
    product_batch_id: str
    attribution_confidence: Share
    versions: str


class RefusedLine(msgspec.Struct, frozen=True):
    """What stands in the place of a line that could not be read."""

    error: str
    id: Identity | UnsetType = UNSET


class _IdentityOnly(msgspec.Struct, frozen=True):
    id: msgspec.Raw | UnsetType = UNSET
    mention_id: msgspec.Raw | UnsetType = UNSET


_line_decoder = msgspec.json.Decoder(InputLine)
_identity_decoder = msgspec.json.Decoder(_IdentityOnly)
_encoder = msgspec.json.Encoder()


def score_lines(scorer: Scorer, lines: Iterable[bytes], *, block_lines: int = BLOCK_LINES) -> Iterator[bytes]:
    """Score lines of JSON; as many lines come out, in the same order, without line ends.

    Args:
        scorer: scores them, a block at a time.
        lines: each an ``InputLine`` or a ``Mention`` as UTF-8 JSON, with or without line end.
        block_lines: how many lines are read before the first answer.

    A line that is no such JSON, an empty one included, gives ``{"error": …}`` in its place, with its id where that can
    be read. Raises nothing of its own.
    """
    source = iter(lines)
    while block := list(islice(source, block_lines)):
        yield from _score_block(scorer, block)


def _score_block(scorer: Scorer, block: list[bytes]) -> list[bytes]:
    read = [_read(line) for line in block]
    mentions = [_mention(line) for line in read if isinstance(line, InputLine)]
    primary = (row for row in scorer.score(mentions) if row.primary)
    return [_encoder.encode(_answer(line, next(primary)) if isinstance(line, InputLine) else line) for line in read]


def _read(line: bytes) -> InputLine | RefusedLine:
    try:
        # A byte order mark is what some editors put before the first line.
        found = _line_decoder.decode(line.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return RefusedLine(f"unreadable line: {error}", _identity(line))
    if found.text is UNSET and found.turns is None:
        return RefusedLine("unreadable line: Object missing required field `text`", _known_id(found))
    return found


def _identity(line: bytes) -> Identity | UnsetType:
    """The id of a line that is JSON, though not the JSON we want."""
    try:
        found = _identity_decoder.decode(line)
        raw = found.id if found.id is not UNSET else found.mention_id
        return msgspec.json.decode(raw, type=Identity) if raw is not UNSET else UNSET
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return UNSET


def _known_id(line: InputLine) -> Identity | UnsetType:
    return line.id if line.id is not UNSET else line.mention_id


def _mention(line: InputLine) -> Mention:
    text = line.text
    if text is UNSET:
        text = "\n".join(turn.text for turn in line.turns or ())
    return Mention(
        mention_id="",
        source_id="",
        native_id=None,
        channel=line.channel,
        text=text,
        event_time=0,
        ingest_time=0,
        deleted=line.deleted,
        turns=line.turns,
        default_review=line.default_review,
        product=line.product,
        product_batch=line.product_batch,
        version=line.version,
        carrier=line.carrier,
        region=line.region,
    )


def _answer(line: InputLine, row: ScoredRow) -> OutputLine:
    return OutputLine(
        id=_known_id(line),
        sentiment=row.sentiment,
        sentiment_probability=row.sentiment_probability,
        objections=row.objections,
        speech_act=row.speech_act,
        emotion=EmotionOut(row.emotion, row.intensity),
        severity=row.severity,
        product_id=row.product_id,
        product_batch_id=row.product_batch_id,
        attribution_confidence=row.attribution_confidence,
        versions=row.versions,
    )
