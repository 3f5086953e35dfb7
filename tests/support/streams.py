"""Recorded streams as files: the demo's world, and a hard one with everything that goes wrong at a source."""

import csv
import datetime as dt
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.scenarios.story import load
from pipeline.scenarios.world import World
from schemas.mention import Mention

FIELDS = {
    "native_id": "id",
    "text": "text",
    "event_time": "time",
    "author": "author",
    "product": "product",
    "product_batch": "lot",
    "carrier": "carrier",
    "region": "region",
    "repost_of": "repost_of",
    "deleted": "deleted",
    "channel": "channel",
}
_DEMO = load("demo")
_DAY_MS = 86_400_000
_HARM = "，使用时爆炸，手被炸伤住院"
_HARM_EVERY = 97
_START = 1_767_600_000_000
_TEXTS = (
    "洗衣机脱水噪音特别大", "快递太慢，等了一个星期", "客服态度恶劣，一直推诿", "很好用，推荐", "价格虚高，不值", "漏水了，地板都湿了",
    "屏幕有坏点", "声音大得像拖拉机", "包装破损，送货员态度差", "退款一直不到账", "味道太淡", "收到，还没用",
)  # fmt: skip


def source(name: str, file: str, **more: object) -> dict[str, object]:
    """An entry of ``sources`` for a file of these streams."""
    return {"name": name, "type": "files", "channel": "review", "path": file, "fields": FIELDS, **more}


NEW_LOT = ["washer-w7", "云净W7洗衣机", "云净W7", "L2605", 5000, "2026-01-20", "2026-04-20"]


def write_catalogue(path: Path, *more: list[object]) -> None:
    """The demo's products and lots as a catalogue file, and more lines."""

    def day(time_ms: int | None) -> str:
        return "" if time_ms is None else dt.datetime.fromtimestamp(time_ms / 1000, dt.UTC).strftime("%Y-%m-%d")

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["product_id", "name", "aliases", "product_batch_id", "units", "from", "until"])
        for entry in _DEMO.catalogue():
            lot = [entry.product_batch_id, entry.units, day(entry.sold_from), day(entry.sold_until)]
            writer.writerow([entry.product_id, entry.name, "|".join(entry.aliases), *lot])
        writer.writerows(more)


def write_demo(path: Path) -> int:
    """The demo's mentions; how many."""
    mentions = [item for item in World(_DEMO, b"key").read(None) if isinstance(item, Mention)]
    _write(path, (_record(mention, number) for number, mention in enumerate(mentions)))
    return len(mentions)


def _record(mention: Mention, number: int) -> dict[str, Any]:
    return {
        "id": f"d{number}",
        "text": mention.text,
        "time": mention.event_time,
        "author": mention.author,
        "product": mention.product,
        "lot": mention.product_batch,
        "carrier": mention.carrier,
        "region": mention.region,
        "repost_of": mention.repost_of,
        "channel": mention.channel,
    }


def write_hard(path: Path, part: int, rows: int = 600, seed: int = 7) -> None:
    """Twenty days, unsorted, with edits, deletions, copies and records that are none.

    Part 0 makes the file; part 1 appends what comes later: new days, late records, edits and deletions of the first part.
    """
    dice = random.Random(seed + part)
    records: list[dict[str, Any]] = []
    for number in range(rows):
        records.append(_hard(dice, f"h{part}-{number}", dice.uniform(0, 20) + 20 * part))
    # Harm that is edited before its day is over may be told or not: it depends on how the stream is cut into blocks.
    harmless = [record for record in records if _HARM not in record["text"]]
    for record in dice.sample(harmless, rows // 10):
        records.append({**record, "text": dice.choice(_TEXTS)})
    for record in dice.sample(harmless, rows // 20):
        records.append({**record, "text": "", "deleted": True})
    records += [dict(record) for record in dice.sample(records, rows // 10)]
    if part:
        records += (_hard(dice, f"late-{number}", dice.uniform(10, 20)) for number in range(rows // 10))
        later = [number for number in range(rows) if number % _HARM_EVERY]
        records += ({**_hard(dice, f"h0-{number}", 19.5), "text": "改一下：" + _TEXTS[0]} for number in later[::9])
        records += ({**_hard(dice, f"h0-{number}", 19.5), "deleted": True} for number in later[::31])
    dice.shuffle(records)
    malformed = ["{not json", '{"id": 5}', '{"id": "x", "text": "好", "time": "gestern"}', '["a list"]', ""]
    with path.open("a" if part else "w", encoding="utf-8") as file:
        for number, record in enumerate(records):
            if number % (len(records) // 10) == 0:
                file.write(malformed[number % len(malformed)] + "\n")
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _hard(dice: random.Random, native_id: str, day: float) -> dict[str, Any]:
    product = dice.choice(_DEMO.products)
    severe = _HARM if not int(native_id.rpartition("-")[2]) % _HARM_EVERY else ""
    return {
        "id": native_id,
        "text": dice.choice(_TEXTS) + severe + f" {native_id}",
        "time": _START + int(day * _DAY_MS),
        "author": f"a{dice.randrange(400)}",
        "product": product.name,
        "lot": dice.choice(product.lots).id,
        "carrier": dice.choice(("顺丰", "中通", None)),
        "region": dice.choice(("广东", "四川", None)),
        "channel": dice.choice(("review", "social", "chat")),
    }


def write_poison(path: Path, rows: int = 300) -> None:
    """A file of which no record can be taken in."""
    path.write_text("".join(f'{{"id": "p{number}", "text": 5}}\n' for number in range(rows)), encoding="utf-8")


def _write(path: Path, records: Iterator[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
