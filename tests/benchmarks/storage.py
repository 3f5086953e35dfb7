"""How many mentions a second storage takes: columns, bytes, and rows on disk.

Run: ``python tests/benchmarks/storage.py [rows of a block] [blocks]``. Prints rates of one core in one run, so that ratios
between its lines hold wherever it runs; the last lines are ratios.
"""

import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from pipeline.storage import native
from pipeline.storage.embedded import EmbeddedEngine
from pipeline.storage.migrations import migrate
from pipeline.storage.rows import MENTIONS, columns_of
from schemas.identity import mention_id
from schemas.scored import Objection, ScoredRow

TEXT = "充电时突然发烫，客服说是正常现象，等了三天没人处理，希望尽快解决问题。快递包装也破了。"


def make_row(number: int, chance: random.Random) -> ScoredRow:
    """One in three objects; texts of 20 to 40 characters; 50 products, 500 lots, random signatures and sentiments."""
    objects = number % 3 == 0
    product = f"p{number % 50}"
    return ScoredRow(
        mention_id=mention_id("shop", str(number)),
        revision=0,
        deleted=False,
        subject_kind="product",
        subject_id=product,
        primary=True,
        product_id=product,
        product_batch_id=f"L{number % 500}",
        attribution_confidence=0.9,
        version="1.0",
        carrier="SF",
        region="GD",
        channel="review",
        source_id="shop",
        event_time=1_735_700_000_000 + number * 1000,
        ingest_time=1_735_700_000_500 + number * 1000,
        sentiment=chance.uniform(-1, 1),
        sentiment_probability=chance.random(),
        objections=[Objection("product_quality", "defect", (0, 7), "negative")] if objects else [],
        speech_act="complaint" if objects else "other",
        emotion="anger",
        intensity=0.4,
        severity=1,
        author=f"a{number % 20_000}",
        near_duplicate_signature=chance.getrandbits(64),
        flags=[],
        versions="v1",
        text=TEXT[: 20 + number % 20] + str(number),
        native_id=str(number),
        rating=float(number % 5),
    )


def main() -> None:
    """Encode and insert, and print what a reader needs to judge it."""
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    blocks = int(sys.argv[2]) if len(sys.argv) > 2 else 6
    chance = random.Random(1)
    data = [[make_row(block * size + i, chance) for i in range(size)] for block in range(blocks)]
    seconds = {"columns": 0.0, "bytes": 0.0, "insert": 0.0}
    written = 0
    with tempfile.TemporaryDirectory() as folder:
        engine = EmbeddedEngine(Path(folder))
        migrate(engine)
        for rows in data:
            began = time.perf_counter()
            columns = columns_of(MENTIONS, rows)
            seconds["columns"] += time.perf_counter() - began
            began = time.perf_counter()
            written += len(native.encode(MENTIONS, columns))
            seconds["bytes"] += time.perf_counter() - began
        for rows in data:
            began = time.perf_counter()
            engine.insert("mentions", rows)
            seconds["insert"] += time.perf_counter() - began
        queries = {}
        wanted = data[0][7].mention_id
        for name, sql in {
            "count of the view": "SELECT count() FROM v_mentions",
            "one mention by id": f"SELECT text FROM v_mentions WHERE mention_id = '{wanted}'",
            "types per lot": "SELECT product_batch_id, objection_type, count() FROM v_objections GROUP BY ALL",
            "word in texts": "SELECT count() FROM v_mentions WHERE text LIKE '%发烫%'",
        }.items():
            began = time.perf_counter()
            engine.query(sql)
            queries[name] = time.perf_counter() - began
        engine.close()
    total = size * blocks
    print(
        f"{total} mentions of {len(MENTIONS.columns)} columns in {blocks} blocks, {written / total:.0f} native bytes each"
    )
    print(f"columns        {total / seconds['columns']:>10,.0f} rows/s")
    print(f"bytes          {total / seconds['bytes']:>10,.0f} rows/s")
    print(f"insert, synced {total / seconds['insert']:>10,.0f} rows/s, columns and bytes included")
    print(f"share of the encoder in an insert {(seconds['columns'] + seconds['bytes']) / seconds['insert']:.2f}")
    for name, taken in queries.items():
        print(f"{name:<18} {taken * 1000:8.1f} ms over {total} mentions")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB, test data included")


if __name__ == "__main__":
    main()
