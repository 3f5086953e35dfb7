"""Speed and size of detection: rows a second, bytes a mention held, milliseconds a step close, bytes of state a series.

    python tests/benchmarks/detection.py

One core; synthetic rows (four a mention: product, carrier, region, channel), one mention in four objects. The rate
includes counting at the step closes; it and the bytes are also given for rows of a mention that come to as many detectors
as it has rows, as they do from a topic of many partitions. Step closes are timed with one mention a lot and step, every lot present.
"""

import gc
import random
import time
import tracemalloc

import msgspec

from pipeline.detection.detector import Detector
from schemas.catalogue import CatalogueEntry
from schemas.control import CatalogueUpdate, Watermark
from schemas.identity import mention_id
from schemas.policy import HOUR_MS, DetectionPolicy
from schemas.scored import Objection, ScoredBlock, ScoredRow
from schemas.vocabulary import OBJECTION_TYPES, SubjectKind

START = 480_000 * HOUR_MS


def rows_of(number: int, product: str, lot: str, instant: int, rng: random.Random, kinds: tuple[SubjectKind, ...]):
    objects = rng.random() < 0.25
    objections = [Objection(rng.choice(OBJECTION_TYPES), "x", (2, 6), "negative")] if objects else []
    author, signature = f"ab12:{rng.randbytes(10).hex()}", rng.randrange(2**64)
    subjects = {"product": product, "carrier": f"C{number % 7}", "region": f"R{number % 30}", "channel": "review"}
    return [
        ScoredRow(
            mention_id=mention_id("bench", str(number)),
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
            author=author,
            near_duplicate_signature=signature,
            flags=[],
            versions="bench",
            text="洗衣机声音太大了,半夜都不敢开。" * 3 if kind == "product" else "",
        )
        for kind in kinds
    ]


KINDS: tuple[SubjectKind, ...] = ("product", "carrier", "region", "channel")


def blocks_of(mentions: int, lots: int = 200, hours: int = 24) -> list[list[ScoredBlock]]:
    """Blocks of mentions, hour by hour."""
    rng = random.Random(1)
    blocks, number = [], 0
    for hour in range(hours):
        rows = []
        for _ in range(mentions // hours):
            number += 1
            lot = rng.randrange(lots)
            instant = START + hour * HOUR_MS + rng.randrange(HOUR_MS)
            rows += rows_of(number, f"P{lot // 5}", f"L{lot}", instant, rng, KINDS)
        blocks.append([ScoredBlock(rows[at : at + 2000]) for at in range(0, len(rows), 2000)])
    return blocks


def apart(block: ScoredBlock) -> list[ScoredBlock]:
    """The block as the partitions of the kinds of subjects see it."""
    return [ScoredBlock([row for row in block.rows if row.subject_kind == kind]) for kind in KINDS]


def throughput(mentions: int = 40_000, *, apart_too: bool = False) -> float:
    """Rows a second."""
    blocks = [[apart(block) if apart_too else [block] for block in part] for part in blocks_of(mentions)]
    detectors = [Detector(DetectionPolicy()) for _ in blocks[0][0]]
    begin = time.perf_counter()
    for hour, part in enumerate(blocks):
        for block in part:
            for detector, share in zip(detectors, block, strict=True):
                detector.absorb(share)
        for detector in detectors:
            detector.absorb(Watermark("", START + (hour + 1) * HOUR_MS))
    return mentions * len(KINDS) / (time.perf_counter() - begin)


def held(mentions: int = 40_000, *, apart_too: bool = False) -> float:
    """Bytes a mention of steps that still take corrections."""
    blocks = [
        share for part in blocks_of(mentions) for block in part for share in (apart(block) if apart_too else [block])
    ]
    detectors = [Detector(DetectionPolicy()) for _ in range(len(KINDS) if apart_too else 1)]
    encoded = [msgspec.msgpack.encode(share) for share in blocks]
    del blocks
    decoder = msgspec.msgpack.Decoder(ScoredBlock)
    tracemalloc.start()
    for number, share in enumerate(encoded):
        detector = detectors[number % len(detectors)]
        detector.absorb(decoder.decode(share))  # rows of their own, as they come from a topic
        detector.changes()
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size / mentions


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
    for name, apart_too in (("together", False), ("in partitions of their own", True)):
        rate, size = throughput(apart_too=apart_too), held(apart_too=apart_too)
        print(f"rows of a mention {name}: {rate:,.0f} rows/s, counting included; {size:,.0f} bytes a mention held")
    print("  lots   close ms   changes ms   state bytes/series")
    for lots in (100, 1_000, 10_000):
        close, save, size = step_close(lots)
        print(f"{lots:6d} {close:10.2f} {save:12.2f} {size:20.0f}")


if __name__ == "__main__":
    main()
