"""Versions of messages: the current one, older ones brought up step by step, newer ones refused."""

import json
from importlib import resources
from typing import Any

import msgspec
import pytest
import yaml

from schemas import codec
from schemas.action import Action
from schemas.catalogue import CatalogueChunk
from schemas.codec import NewerVersion, RawRecord, ScoredRecord, decode, encode
from schemas.control import ControlRecord
from schemas.dead_letter import DeadLetter
from schemas.signal import Signal
from schemas.step_count import StepCount

EXAMPLES = resources.files("schemas") / "examples"
KINDS = [
    pytest.param(kind, example, field, id=example)
    for kind, example, field in (
        (RawRecord, "raw_record.mention", "text"),
        (RawRecord, "raw_record.gap", "reason"),
        (ScoredRecord, "scored_record.block", "rows"),
        (ControlRecord, "raw_record.policy", "policy"),
        (StepCount, "step_count", "count"),
        (Signal, "signal", "observed"),
        (DeadLetter, "dead_letter", "detail"),
        (CatalogueChunk, "catalogue_chunk", "entries"),
        (Action, "action", "by"),
    )
]


def example(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((EXAMPLES / f"{name}.json").read_bytes())
    return found


def renaming(old: str, new: str) -> codec.Upcaster:
    def upcast(value: dict[str, Any]) -> dict[str, Any]:
        value = dict(value)
        value[new] = value.pop(old)
        return value

    return upcast


@pytest.fixture
def current(monkeypatch):
    """Pretends that a kind is at version 3: 1 called its field ``a``, 2 called it ``b``."""

    def raise_to_3(kind: Any, field: str) -> None:
        monkeypatch.setitem(codec.VERSIONS, kind, 3)
        monkeypatch.setitem(codec.UPCASTERS, (kind, 1), renaming("a", "b"))
        monkeypatch.setitem(codec.UPCASTERS, (kind, 2), renaming("b", field))

    return raise_to_3


@pytest.mark.parametrize(("kind", "name", "field"), KINDS)
def test_older_versions_are_brought_up(current, kind: Any, name: str, field: str) -> None:
    value = example(name)
    message = decode(json.dumps(value).encode(), kind)
    current(kind, field)
    for version, old in ((1, "a"), (2, "b"), (3, field)):
        written = json.dumps({old if key == field else key: one for key, one in value.items()}).encode()
        assert decode(written, kind, version) == message
        assert json.loads(encode(decode(written, kind, version))) == value


@pytest.mark.parametrize(("kind", "name", "field"), KINDS)
def test_a_newer_version_is_an_error_of_its_own(kind: Any, name: str, field: str) -> None:
    with pytest.raises(
        NewerVersion, match=r"written by a newer version: .* of version 2, this reader knows 1"
    ) as caught:
        decode(json.dumps(example(name) | {field: {"some": "thing"}}).encode(), kind, 2)
    assert (caught.value.found, caught.value.known) == (2, 1)
    assert not issubclass(NewerVersion, msgspec.MsgspecError), "or it would be taken for bad input"
    with pytest.raises(NewerVersion):
        decode(b"not even JSON", kind, 7)


@pytest.mark.parametrize(("kind", "name", "field"), KINDS)
def test_an_older_message_that_is_none_is_bad_input(current, kind: Any, name: str, field: str) -> None:
    current(kind, field)
    value = example(name)
    for wrong in ({}, [], "text", None, value, {**value, "b": None}):
        with pytest.raises(msgspec.ValidationError):
            decode(json.dumps(wrong).encode(), kind, 1)
    with pytest.raises(msgspec.DecodeError):
        decode(b"{", kind, 1)
    for forgotten in (0, -1):
        with pytest.raises(msgspec.ValidationError, match="can no longer be read"):
            decode(json.dumps(value).encode(), kind, forgotten)


def test_the_current_version_takes_no_detour(monkeypatch) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(codec, "_brought_up", forbidden)
    data = json.dumps(example("signal")).encode()
    assert decode(data, Signal, 1) == decode(data, Signal)


def test_every_kind_can_be_read_in_all_of_its_versions() -> None:
    readable = {(kind, number) for kind, version in codec.VERSIONS.items() for number in range(1, version)}
    assert codec.UPCASTERS.keys() == readable


def test_topics_and_their_values_are_those_of_the_contract() -> None:
    topics = yaml.safe_load((resources.files("schemas") / "topics.yaml").read_text(encoding="utf-8"))
    assert codec.TOPICS.keys() == topics.keys()
    for name, topic in topics.items():
        module, _, attribute = topic["value"].split(" ")[0].rpartition(".")
        expected = getattr(__import__(module, fromlist=[attribute]), attribute) if module else bytes
        assert codec.TOPICS[name] == expected, name
        assert codec.version_of_topic(name) == b"1"
    assert {one for one in codec.TOPICS.values() if one is not bytes} == codec.VERSIONS.keys() - {bytes}


def test_the_header_names_the_version_that_is_written(current) -> None:
    current(Signal, "observed")
    assert codec.version_of_topic("signals.v1") == b"3"
    assert codec.version_of_topic("step_counts.v1") == b"1"
