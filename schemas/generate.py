"""Writes the JSON Schemas of every message: ``python -m schemas.generate FOLDER``."""

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from schemas.action import Action
from schemas.catalogue import CatalogueChunk, CatalogueEntry
from schemas.codec import RawRecord, ScoredRecord
from schemas.dead_letter import DeadLetter
from schemas.policy import DetectionPolicy
from schemas.signal import Signal
from schemas.step_count import StepCount

MESSAGES: dict[str, Any] = {
    "raw_record": RawRecord,
    "scored_record": ScoredRecord,
    "step_count": StepCount,
    "signal": Signal,
    "dead_letter": DeadLetter,
    "catalogue_entry": CatalogueEntry,
    "catalogue_chunk": CatalogueChunk,
    "detection_policy": DetectionPolicy,
    "action": Action,
}


def schema_text(message: Any) -> str:
    """The JSON Schema (draft 2020-12) of a message, as text that ends in a line feed."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(message)}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def main(folder: Path) -> None:
    """Write one file a message into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, message in MESSAGES.items():
        (folder / f"{name}.json").write_text(schema_text(message), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
