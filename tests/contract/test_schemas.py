"""The contracts: generated schemas are current, examples are valid and whole, topics name what exists."""

import importlib
import json
from importlib import resources
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml

from schemas.codec import decode, encode
from schemas.generate import MESSAGES, schema_text

ROOT = resources.files("schemas")
EXAMPLES = sorted(
    (one for one in (ROOT / "examples").iterdir() if one.name.endswith(".json")), key=lambda one: one.name
)


def message_name(example: str) -> str:
    """``raw_record.mention.json`` is an example of ``raw_record``."""
    return example.split(".")[0]


@pytest.mark.parametrize("name", MESSAGES)
def test_generated_schemas_are_current(name: str) -> None:
    written = (ROOT / "json" / f"{name}.json").read_text(encoding="utf-8")
    assert written == schema_text(MESSAGES[name]), "run `make schemas`"


@pytest.mark.parametrize("name", MESSAGES)
def test_every_message_has_an_example(name: str) -> None:
    assert any(message_name(example.name) == name for example in EXAMPLES)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: one.name)
def test_examples_are_valid_and_survive_the_codec(example: Any) -> None:
    data = example.read_bytes()
    kind = MESSAGES[message_name(example.name)]
    jsonschema.Draft202012Validator(json.loads(schema_text(kind))).validate(json.loads(data))
    message = decode(data, kind)
    assert json.loads(encode(message)) == json.loads(data), "an example writes out every field, defaults too"


def test_every_kind_of_control_record_has_an_example() -> None:
    kinds = {json.loads(example.read_bytes()).get("record") for example in EXAMPLES}
    assert kinds >= {"mention", "watermark", "gap", "idle", "retired", "catalogue", "policy", "scored", "dead_letter"}


@pytest.mark.parametrize(
    "change", [{"channel": "telex"}, {"event_time": "yesterday"}, {"revision": -1}, {"text": None}]
)
def test_a_wrong_mention_is_refused_by_schema_and_codec(change: dict[str, Any]) -> None:
    value = json.loads((ROOT / "examples" / "raw_record.mention.json").read_bytes()) | change
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(value, json.loads(schema_text(MESSAGES["raw_record"])))
    with pytest.raises(msgspec.ValidationError):
        decode(json.dumps(value).encode(), MESSAGES["raw_record"])


def test_topics_name_values_tables_and_stages_that_exist() -> None:
    topics = yaml.safe_load((ROOT / "topics.yaml").read_text(encoding="utf-8"))
    ddl = "".join(
        one.read_text(encoding="utf-8") for one in (ROOT / "clickhouse").iterdir() if one.name.endswith(".sql")
    )
    for name, topic in topics.items():
        assert name.endswith(".v1")
        assert topic["partitions"] >= 1
        assert topic["cleanup"] in ("delete", "compact")
        if not topic["value"].startswith("bytes"):
            module, _, attribute = topic["value"].rpartition(".")
            assert hasattr(importlib.import_module(module), attribute)
        if "table" in topic:
            assert f"TABLE IF NOT EXISTS {topic['table']}" in ddl or f"TABLE {topic['table']}" in ddl
