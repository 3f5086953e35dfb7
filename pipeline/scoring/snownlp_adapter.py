"""SnowNLP as the sentiment scorer, for comparison and for those who want it. The only file that knows the library.

Importing the library takes seconds and some 400 MB, so it happens when a scorer of this kind is made.
"""

from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray


class SnowNLPSentiment:
    """Probabilities by SnowNLP's own naive Bayes model, as shipped with it."""

    def __init__(self) -> None:
        from snownlp import SnowNLP

        self._analyse: Callable[[str], Any] = SnowNLP
        self.version = f"snownlp-{version('snownlp')}"

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Probability in 0..1 that each text is positive, shape (n,); 0.5 for a text without words.

        A text whose words SnowNLP's model cannot weigh (all unknown to it) is 0.5 as well.
        """
        return np.array([self._probability(text) for text in texts], dtype=np.float64)

    def _probability(self, text: str) -> float:
        # Lone surrogates cannot be written to its dictionaries' encoding; a blank stands in for each.
        clean = "".join(" " if "\ud800" <= character <= "\udfff" else character for character in text)
        if not clean.strip():
            return 0.5
        return min(1.0, max(0.0, float(self._analyse(clean).sentiments)))
