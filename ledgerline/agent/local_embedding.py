"""An embedder that needs no language model: latent semantic analysis, learned from the entries themselves.

What it is used for: memory.py. Embedders with a language model: *_provider.py.
"""

import hashlib
import re
import zipfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import numpy as np

PREFIX = "local:"

FEATURES = 2**15  # what words are hashed to
TOPICS = 191
REST = 64
DIMENSIONS = TOPICS + REST + 1
REST_WEIGHT = 0.5
# Of more texts, as many are learned from: it takes seconds, and more change little.
MAX_TEXTS = 20_000
POWER_ITERATIONS = 4
SEED = 0

WORD = re.compile(r"[^\W_]+")  # names are words joined by underscores
STEM = 5  # letters: "orders", "ordered" and "order" begin the same
# Those of questions; what else is frequent gets little weight anyway.
STOP_WORDS = re.compile(
    "a|an|and|are|as|at|be|but|by|can|did|do|does|for|from|had|has|have|how|i|if|in|is|it|its|me|my|of|on|or|our|"
    "shall|should|so|than|that|the|their|them|then|there|these|they|this|to|us|was|we|were|what|when|where|"
    "which|who|whom|whose|why|will|with|would|you|your"
)


class UnreadableEmbedderError(Exception):
    """A file does not hold what an embedder learned."""


class LocalEmbedder:
    """Compares texts by their words, with what it learned of which words occur together.

    Latent semantic analysis (Deerwester et al. 1990): it knows words, not meaning. It finds a question that
    was asked in other words only if these occur together in the texts that it learned from, of which there
    must be more than TOPICS; with fewer, it compares words and no more. It knows no other language, no
    negation and no order beyond two neighbouring words. A language model's embedder is better wherever there
    is one.

    A text is a weighted set of words, pairs of words and beginnings of words. The part of it that is in the
    topics of the texts learned from becomes the first TOPICS dimensions. The rest, words that were never seen
    included, is projected at random on the next REST, with less weight; so what has nothing in common with
    those texts is like none of them. The last dimension is for texts without words alone.

    Any number of threads may use it.

    Args:
        learned: SHA-256 of the texts learned from, in hexadecimal.
        texts: How many there were, also those that it did not look at.
        weights: Of each feature: the rarer among the texts, the higher.
        topics: A column for each, of length 1 and at right angles to the others; a row for each feature.
    """

    def __init__(self, learned: str, texts: int, weights: "np.ndarray", topics: "np.ndarray") -> None:
        import numpy as np

        self.texts = texts
        self._learned = learned
        self._weights = weights
        self._topics = topics
        # At right angles to the topics, so that it tells only what they do not.
        scattering = _scattering()
        rest = scattering - topics @ (topics.T @ scattering)
        self._directions = np.hstack([topics, rest])

    @property
    def name(self) -> str:
        """Of what it learned: vectors of another one cannot be compared with these."""
        return f"{PREFIX}{self._learned[:8]}"

    @classmethod
    def fitted(cls, texts: Sequence[str]) -> Self:
        """Learn from texts; their order makes no difference."""
        import numpy as np
        from sklearn.utils.extmath import randomized_svd

        # By their digests, the first are any of them, and the same ones whatever order they come in.
        ordered = sorted(texts, key=_digest)
        learned = _digest("".join(map(_digest, ordered)))
        counts = _counts(ordered[:MAX_TEXTS] or [""])
        occurrences = np.bincount(counts.indices, minlength=FEATURES)
        weights = (1 + np.log((1 + counts.shape[0]) / (1 + occurrences))).astype(np.float32)
        rows = _weighted(counts, weights)
        if not rows.nnz:
            return cls(learned, len(texts), weights, np.zeros((FEATURES, 0), np.float32))
        wanted = min(TOPICS, rows.shape[0])
        # TruncatedSVD is this, and divides by the variance, too: of one text, 0.
        decompose: Any = randomized_svd  # which says of its own parameters that they are text
        _, strengths, topics = decompose(rows, wanted, n_iter=POWER_ITERATIONS, random_state=SEED)
        is_topic = strengths > 1e-3 * strengths[0]  # a text that repeats others adds none
        return cls(learned, len(texts), weights, np.ascontiguousarray(topics[is_topic].T, dtype=np.float32))

    def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """A vector of length 1 for each text: a row of an array of numpy."""
        import numpy as np

        vectors: Any = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
        if not texts:
            return vectors
        rows = _weighted(_counts(texts), self._weights)
        projected = rows @ self._directions
        inside, outside = projected[:, :-REST], projected[:, -REST:]
        # As long as what it stands for, whatever the projection made of it.
        left = np.sqrt(np.clip(1 - np.square(inside).sum(axis=1, keepdims=True), 0, 1))
        outside = outside * (left / np.maximum(np.linalg.norm(outside, axis=1, keepdims=True), 1e-6))
        vectors[:, : inside.shape[1]] = inside
        vectors[:, TOPICS : TOPICS + REST] = REST_WEIGHT * outside
        is_empty = np.diff(rows.indptr) == 0
        vectors[is_empty] = 0
        vectors[is_empty, -1] = 1
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    def save(self, file: Path) -> None:
        """Write what it learned: numbers, no texts."""
        import numpy as np

        seen = np.flatnonzero(self._topics.any(axis=1))
        about = np.array([str(self.texts), self._learned])
        with file.open("wb") as opened:
            np.savez(opened, about=about, weights=self._weights, seen=seen, topics=self._topics[seen])

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read what one learned.

        Raises:
            UnreadableEmbedderError: It is not there, or damaged.
        """
        import numpy as np

        try:
            with file.open("rb") as opened, np.load(opened, allow_pickle=False) as saved:
                texts, learned = saved["about"].tolist()
                topics = np.zeros((FEATURES, saved["topics"].shape[1]), np.float32)
                topics[saved["seen"]] = saved["topics"]
                return cls(learned, int(texts), saved["weights"], topics)
        except (OSError, EOFError, ValueError, LookupError, zipfile.BadZipFile) as error:
            raise UnreadableEmbedderError(f"{file} cannot be read: {error}") from error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def _features(text: str) -> list[str]:
    words = [word for word in WORD.findall(text.casefold()) if not STOP_WORDS.fullmatch(word)]
    pairs = [f"{first} {second}" for first, second in pairwise(words)]
    stems = [f"{word[:STEM]}…" for word in words if len(word) >= STEM]
    return words + pairs + stems


def _counts(texts: Sequence[str]) -> Any:
    """How often each feature is in each text: a sparse matrix."""
    import numpy as np
    from sklearn.feature_extraction.text import HashingVectorizer

    options: Any = {"analyzer": _features, "norm": None, "alternate_sign": False, "dtype": np.float32}
    vectorizer = HashingVectorizer(n_features=FEATURES, **options)
    return vectorizer.transform(texts)


def _weighted(counts: Any, weights: "np.ndarray") -> Any:
    """Rows of length 1: a feature's tenth occurrence says little more than its first."""
    import numpy as np
    from sklearn.preprocessing import normalize

    rows = counts.copy()
    rows.data = (1 + np.log(rows.data)) * weights[rows.indices]
    return normalize(rows, copy=False)


def _scattering() -> "np.ndarray":
    """A direction for each feature, the same everywhere and always."""
    import numpy as np

    signs = np.random.default_rng(SEED).integers(0, 2, (FEATURES, REST), dtype=np.int8)
    return (2 * signs - 1).astype(np.float32) / np.float32(REST**0.5)
