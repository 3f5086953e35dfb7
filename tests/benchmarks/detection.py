"""Speed and size of detection: rows a second, milliseconds a step close, bytes of state a series.

    python tests/benchmarks/detection.py

One core; synthetic rows (four a mention: product, carrier, region, channel), one mention in four objects. The rate
includes counting at the step closes. Step closes are timed with one mention a lot and step, every lot present.
"""

import random
import time

from pipeline.detection.detector import Detector
from schemas.catalogue import CatalogueEntry
from schemas.control import CatalogueUpdate, Watermark
from schemas.policy import HOUR_MS, DetectionPolicy
from schemas.scored import Objection, ScoredBlock, ScoredRow
from schemas.vocabulary import OBJECTION_TYPES, SubjectKind

START = 480_000 * HOUR_MS


def rows_of(number: int, product: str, lot: str, instant: int, rng: random.Random, kinds: tuple[SubjectKind, ...]):
    objects = rng.random() < 0.25
    objections = [Objection(rng.choice(OBJECTION_TYPES), "x", (2, 6), "negative")] if objects else []
    subjects = {"product": product, "carrier": f"C{number % 7}", "region": f"R{number % 30}", "channel": "review"}
    return [
        ScoredRow(
            mention_id=f"{number:032x}",
            revision=0,
            deleted=False,
            subject_kind=kind,
            subject_id=subjects[kind],
            primary=kind == "product",
            product_id=product,
            product_batch_id=lot,
            attribution_confidence=0.9,
            version="",
            carrier=subjects["carrier"],
            region=subjects["region"],
            channel="review",
            source_id="bench",
            event_time=instant,
            ingest_time=instant + 1000,
            sentiment=0.0,
            sentiment_probability=0.5,
            objections=objections,
            speech_act="complaint" if objects else "other",
            emotion="neutral",
            intensity=0.3,
            severity=2 if objects else 0,
            author=f"a{rng.randrange(10**9)}",
            near_duplicate_signature=rng.randrange(2**64),
            flags=[],
            versions="bench",
            text="洗衣机声音太大了,半夜都不敢开。" * 3 if kind == "product" else "",
        )
        for kind in kinds
    ]


def throughput(mentions: int = 40_000, lots: int = 200, hours: int = 24) -> float:
    rng = random.Random(1)
    kinds: tuple[SubjectKind, ...] = ("product", "carrier", "region", "channel")
    blocks, number = [], 0
    for hour in range(hours):
        rows = []
        for _ in range(mentions // hours):
            number += 1
            lot = rng.randrange(lots)
            instant = START + hour * HOUR_MS + rng.randrange(HOUR_MS)
            rows += rows_of(number, f"P{lot // 5}", f"L{lot}", instant, rng, kinds)
        blocks.append([ScoredBlock(rows[at : at + 2000]) for at in range(0, len(rows), 2000)])
    detector = Detector(DetectionPolicy())
    begin = time.perf_counter()
    for hour, part in enumerate(blocks):
        for block in part:
            detector.absorb(block)
        detector.absorb(Watermark("", START + (hour + 1) * HOUR_MS))
    return number * len(kinds) / (time.perf_counter() - begin)


def step_close(lots: int, steps: int = 12, measured: int = 6) -> tuple[float, float, float]:
    """Median ms of a close, median ms of ``changes``, bytes of state a series (without entries of open steps)."""
    rng = random.Random(2)
    detector = Detector(DetectionPolicy(allowed_lateness_ms=2 * HOUR_MS))
    entries = [CatalogueEntry(f"P{i // 5}", "p", [], f"L{i}", 1000.0, START, START + HOUR_MS) for i in range(lots)]
    detector.absorb(CatalogueUpdate("v", entries))
    closes, saves, number, sizes = [], [], 0, {}
    for hour in range(steps):
        rows = []
        for lot in range(lots):
            number += 1
            instant = START + hour * HOUR_MS + rng.randrange(HOUR_MS)
            rows += rows_of(number, f"P{lot // 5}", f"L{lot}", instant, rng, ("product",))
        detector.absorb(ScoredBlock(rows))
        begin = time.perf_counter()
        detector.absorb(Watermark("", START + (hour + 1) * HOUR_MS))
        middle = time.perf_counter()
        for key, value in detector.changes():
            sizes[key] = len(key) + len(value) if value is not None else 0
        closes.append(middle - begin)
        saves.append(time.perf_counter() - middle)
    half = measured // 2
    state = sum(size for key, size in sizes.items() if key[:1] != b"e")
    return sorted(closes[-measured:])[half] * 1e3, sorted(saves[-measured:])[half] * 1e3, state / (7 * lots)


def main() -> None:
    print(f"rows/s, counting included: {throughput():,.0f}")
    print("  lots   close ms   changes ms   state bytes/series")
    for lots in (100, 1_000, 10_000):
        close, save, size = step_close(lots)
        print(f"{lots:6d} {close:10.2f} {save:12.2f} {size:20.0f}")


if __name__ == "__main__":
    main()
