"""What every source owes the runtimes, whatever it reads."""

import csv
import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from connectors.base import Checkpoint, Source, SourceItem
from connectors.files import FileSource
from connectors.masking import Masker, Pseudonymiser
from pipeline.scenarios.story import load
from pipeline.scenarios.world import World
from schemas.control import Idle, Watermark
from schemas.dead_letter import DeadLetter
from schemas.mention import Mention

BAD = {"id": "bad", "text": "电话13987654321", "time": "电话13987654322"}
ROWS = [
    BAD,
    *(
        {"id": f"r{n}", "text": f"第{n}条，电话139{n:08d}", "time": f"2026-03-{1 + (n * 7) % 28:02d}T08:00:00+08:00"}
        for n in range(1200)
    ),
]
FIELDS = {"native_id": "id", "text": "text", "event_time": "time"}


def file_source(path: Path, form: str) -> FileSource:
    return FileSource(
        "shop",
        path,
        form,
        "review",
        FIELDS,
        time_zone="Asia/Shanghai",
        masker=Masker(),
        pseudonymise=Pseudonymiser(b"k"),
        complete=True,
    )


def csv_source(folder: Path) -> Source:
    path = folder / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ROWS[0])
        writer.writeheader()
        writer.writerows(ROWS)
    return file_source(path, "csv")


def jsonl_gz_source(folder: Path) -> Source:
    path = folder / "a.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS).encode()))
    return file_source(path, "jsonl")


def world(folder: Path) -> Source:
    return World(load("demo"), b"k")


@pytest.fixture(params=[csv_source, jsonl_gz_source, world], ids=lambda make: make.__name__)
def make(request: pytest.FixtureRequest) -> Callable[[Path], Source]:
    return request.param


@pytest.fixture
def items(make: Callable[[Path], Source], tmp_path: Path) -> list[SourceItem]:
    return list(make(tmp_path).read(None))


def test_check_finds_it(make: Callable[[Path], Source], tmp_path: Path) -> None:
    assert make(tmp_path).check().summary


def test_every_mention_has_its_own_identity_and_the_sources_name(make, tmp_path: Path, items: list[SourceItem]) -> None:
    mentions = [item for item in items if isinstance(item, Mention)]
    assert len({one.mention_id for one in mentions}) == len(mentions) > 1000
    assert {one.source_id for one in mentions} == {make(tmp_path).source_id}


def test_nothing_personal_leaves_it(items: list[SourceItem]) -> None:
    number = re.compile(r"(?<![0-9a-f])1[3-9]\d{9}(?![0-9a-f])")
    for item in items:
        if isinstance(item, Mention | DeadLetter):
            for value in msgspec.structs.asdict(item).values():
                assert not (isinstance(value, str) and number.search(value)), item


def test_promises_are_kept_and_never_taken_back(items: list[SourceItem]) -> None:
    promised = 0
    for item in items:
        if isinstance(item, Watermark):
            assert item.time >= promised
            promised = item.time
        elif isinstance(item, Mention) and not item.backfill:
            assert item.event_time >= promised


def test_it_ends_idle_with_everything_behind_a_checkpoint(items: list[SourceItem]) -> None:
    assert isinstance(items[-1], Idle)
    assert isinstance(items[-2], Checkpoint)


def test_a_second_reading_gives_the_same(
    make: Callable[[Path], Source], tmp_path: Path, items: list[SourceItem]
) -> None:
    again = [(m.mention_id, m.revision, m.text) for m in make(tmp_path).read(None) if isinstance(m, Mention)]
    assert again == [(m.mention_id, m.revision, m.text) for m in items if isinstance(m, Mention)]
