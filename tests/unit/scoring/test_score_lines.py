"""Lines in, lines out."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from pipeline.scoring.score_lines import score_lines
from pipeline.scoring.scorer import Scorer
from schemas.mention import Mention


def run(scorer: Scorer, *lines: object, **options: int) -> list[dict[str, Any]]:
    data = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    return [json.loads(line) for line in score_lines(scorer, iter(data), **options)]


def test_answer(plain_scorer: Scorer) -> None:
    (answer,) = run(
        plain_scorer, {"id": 7, "text": "物流太慢", "channel": "social", "product": "P", "product_batch": "L"}
    )
    assert answer["id"] == 7
    assert answer["objections"] == [{"type": "delivery", "subtype": "late", "span": [0, 4], "polarity": "negative"}]
    assert set(answer) == {
        "id", "sentiment", "sentiment_probability", "objections", "speech_act", "emotion", "severity", "product_id",
        "product_batch_id", "attribution_confidence", "versions",
    }  # fmt: skip
    assert set(answer["emotion"]) == {"label", "intensity"}
    assert (answer["product_id"], answer["product_batch_id"]) == ("P", "L")


def test_any_mention_will_do(plain_scorer: Scorer, mention: Callable[..., Mention]) -> None:
    (answer,) = run(plain_scorer, msgspec.json.encode(mention("漏水", mention_id="abc")))
    assert answer["id"] == "abc"
    assert answer["severity"] == 1


def test_turns_without_text(plain_scorer: Scorer) -> None:
    turns = [{"role": "agent", "text": "起火了?"}, {"role": "customer", "text": "漏水"}]
    (answer,) = run(plain_scorer, {"id": "c", "channel": "call", "turns": turns})
    assert [one["span"] for one in answer["objections"]] == [[5, 7]]


@pytest.mark.parametrize(
    ("line", "identity"),
    [
        (b"", None),
        (b"nonsense", None),
        (b'{"id": 3, "text": 5}', 3),
        (b'{"id": "x"}', "x"),
        (b'{"id": "x", "text": "a", "channel": "fax"}', "x"),
        (b'{"mention_id": "m", "text": null}', "m"),
        (b'{"id": {"a": 1}, "text": 5}', None),
        (b"[1]", None),
        (b'{"id": 1, "text": "\xff"}', 1),
        (b"[" * 5_000, None),
        (b'{"text": "\\ud800"}', None),
    ],
)
def test_unreadable_line_keeps_its_place(plain_scorer: Scorer, line: bytes, identity: object) -> None:
    first, answer, last = run(plain_scorer, {"id": 1, "text": "好"}, line, {"id": 2, "text": "好"})
    assert (first["id"], last["id"]) == (1, 2)
    assert answer["error"]
    assert answer.get("id") == identity


def test_order_and_number_over_blocks(plain_scorer: Scorer) -> None:
    lines = [{"id": number, "text": "漏水" * (number % 3)} if number % 5 else b"?" for number in range(57)]
    answers = run(plain_scorer, *lines, block_lines=10)
    assert [answer.get("id") for answer in answers] == [number if number % 5 else None for number in range(57)]


def test_byte_order_mark_and_line_ends(plain_scorer: Scorer) -> None:
    (answer,) = run(plain_scorer, b'\xef\xbb\xbf{"id": 1, "text": "x"}\r\n')
    assert answer["id"] == 1


def test_lines_are_read_a_block_at_a_time(plain_scorer: Scorer) -> None:
    taken = 0

    def lines() -> Any:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield b'{"id": 1, "text": "x"}\n'

    answers = score_lines(plain_scorer, lines(), block_lines=10)
    next(answers)
    assert taken == 10
