"""Input of the server benchmarks: a catalogue, and mentions about its lots as JSON lines."""

import csv
import json
import random
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.scoring import texts

LOTS_A_PRODUCT = 10
SEVERE = "充电时爆炸，手被炸伤住院"
FIELDS = {
    "native_id": "id",
    "text": "text",
    "event_time": "time",
    "product": "product",
    "product_batch": "lot",
    "author": "author",
    "carrier": "carrier",
    "region": "region",
}


def source(file: str, max_lateness: str = "0s") -> dict[str, object]:
    """The entry of ``sources`` for such a file."""
    return {
        "name": "bench", "type": "files", "channel": "review", "path": file, "fields": FIELDS, "max_lateness": max_lateness,
    }  # fmt: skip


def product_of(lot: int) -> str:
    """Id and name of the product of a lot."""
    return f"机型{lot // LOTS_A_PRODUCT:04d}"


def lot_name(lot: int) -> str:
    """Id of a lot."""
    return f"LX{lot:05d}B8"


def write_catalogue(path: Path, lots: int) -> None:
    """Lots of a thousand units each, sold in the year before the mentions."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["product_id", "name", "product_batch_id", "units", "from", "until"])
        for lot in range(lots):
            writer.writerow([product_of(lot), product_of(lot), lot_name(lot), 1000, "2025-01-01", "2025-12-31"])


class Sayings:
    """What customers say, one line a mention: every third names its lot in the text, and a phone number to be masked.

    Args:
        lots: over which they are spread evenly.
        seed: of all that is drawn.
    """

    def __init__(self, lots: int, seed: int = 1) -> None:
        self._dice = random.Random(seed)
        self._lots = lots
        self._said = texts(None)

    def line(self, number: int, time_ms: int, *, lot: int | None = None, text: str | None = None) -> str:
        """One record; of a lot and in words that are drawn unless they are given."""
        dice = self._dice
        lot = dice.randrange(self._lots) if lot is None else lot
        if text is None:
            text = self._said[number % len(self._said)]
            if number % 3 == 0:
                text += f"，批号{lot_name(lot)}，电话139{number % 10**8:08d}"
        record = {
            "id": str(number),
            "text": text,
            "time": time_ms,
            "product": product_of(lot),
            "lot": lot_name(lot),
            "author": f"u{dice.randrange(10**7)}",
            "carrier": dice.choice(("顺丰", "中通", None)),
            "region": dice.choice(("广东", "浙江", "四川")),
        }
        return json.dumps(record, ensure_ascii=False) + "\n"

    def lines(self, count: int, start_ms: int, hours: float) -> Iterator[str]:
        """So many mentions, evenly over so many hours, in order."""
        for number in range(count):
            yield self.line(number, start_ms + int(number * hours * 3_600_000 / count))
