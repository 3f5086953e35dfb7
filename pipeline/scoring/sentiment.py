"""The sentiment head: shipped weights, calibrated probabilities."""

import hashlib
import io
from collections.abc import Sequence
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from pipeline.scoring.characters import MAX_CHARACTERS, TextColumns, columns
from pipeline.scoring.features import running_sums, stretch_means

_PIECE = 256
"""Texts laid out at a time by ``probabilities``: memory stays flat, arrays small (see ``features``)."""


class SentimentHead:
    """How probable it is that a text is positive."""

    def __init__(self) -> None:
        data = (files("pipeline.scoring") / "weights" / "sentiment.npz").read_bytes()
        with np.load(io.BytesIO(data)) as arrays:
            self._weights: NDArray[np.int8] = arrays["weights"]
            self._slope = float(arrays["slope"])
            self._intercept = float(arrays["intercept"])
        parts = [self._weights.tobytes(), repr((self._slope, self._intercept)).encode()]
        self.version = hashlib.blake2b(b"".join(parts), digest_size=4).hexdigest()
        """Hash of weights and calibration."""

    def column_probabilities(self, laid: TextColumns) -> NDArray[np.float64]:
        """Probability in 0..1 for each text, shape (n,); 0.5 for a text without any n-gram."""
        sums = running_sums(laid.codes, self._weights)
        value, number = stretch_means(sums, 0, laid.starts, laid.ends)
        return np.where(number > 0, 0.5 + 0.5 * np.tanh(0.5 * (value * self._slope + self._intercept)), 0.5)

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """As ``column_probabilities``, for texts of any length (the first ``MAX_CHARACTERS`` count)."""
        found = [np.empty(0)]
        for begin in range(0, len(texts), _PIECE):
            cut = [text[:MAX_CHARACTERS] for text in texts[begin : begin + _PIECE]]
            found.append(self.column_probabilities(columns(cut)))
        return np.concatenate(found)
