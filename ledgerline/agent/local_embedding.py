"""An embedder that needs no language model: latent semantic analysis of the entries themselves.

It is used in memory.py. The embedder of an Ollama server is in ollama_embedder.py.
"""

import hashlib
import re
import zipfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ledgerline.errors import LedgerlineError

if TYPE_CHECKING:
    import numpy as np

PREFIX = "local:"

FEATURES = 2**15  # number of hash values of words
TOPICS = 191
REST = 64
DIMENSIONS = TOPICS + REST + 1
REST_WEIGHT = 0.5
# Fitting uses at most as many texts: that takes seconds, and more texts change little.
MAX_TEXTS = 20_000
POWER_ITERATIONS = 4
SEED = 0

WORD = re.compile(r"[^\W_]+")  # names are words joined by underscores
STEM = 5  # letters: "orders", "ordered" and "order" have the same stem
# These are the stop words of questions; other frequent words get little weight anyway.
STOP_WORDS = re.compile(
    "a|an|and|are|as|at|be|but|by|can|did|do|does|for|from|had|has|have|how|i|if|in|is|it|its|me|my|of|on|or|our|"
    "shall|should|so|than|that|the|their|them|then|there|these|they|this|to|us|was|we|were|what|when|where|"
    "which|who|whom|whose|why|will|with|would|you|your"
)


class UnreadableEmbedderError(LedgerlineError):
    """The file of a local embedder is missing or damaged."""


class LocalEmbedder:
    """Embeds texts by their words, and by which words occur together in the texts that it was fitted to.

    It is a latent semantic analysis (Deerwester et al. 1990), which compares words and not meanings. It
    recognises a question in other words only if those words occur together in the fitted texts, of which
    there must be more than TOPICS; with fewer texts, it only compares words. It does not handle other
    languages, negation, or the order of more than two neighbouring words. A language model's embedder is
    better if one is available.

    A text is a weighted set of words, pairs of words and stems. Its projection on the topics of the fitted
    texts becomes the first TOPICS dimensions. The rest, including unknown words, is projected at random on
    the next REST dimensions, with less weight; therefore a text without common words is similar to none of
    them. The last dimension is only for texts without words.

    Safe to use from several threads at once.

    Args:
        fitted_sha256: SHA-256 of the fitted texts, in hexadecimal.
        texts: Number of these texts, including those beyond MAX_TEXTS.
        weights: Weight of each feature; rare features have higher weights.
        topics: Orthonormal columns, one for each topic; a row for each feature.
    """

    def __init__(self, fitted_sha256: str, texts: int, weights: "np.ndarray", topics: "np.ndarray") -> None:
        import numpy as np

        self.texts = texts
        self._fitted_sha256 = fitted_sha256
        self._weights = weights
        self._topics = topics
        # Each feature has a random direction, which is always the same, and is made orthogonal to the topics.
        signs = np.random.default_rng(SEED).integers(0, 2, (FEATURES, REST), dtype=np.int8)
        directions = (2 * signs - 1).astype(np.float32) / np.float32(REST**0.5)
        rest = directions - topics @ (topics.T @ directions)
        self._directions = np.hstack([topics, rest])

    @property
    def name(self) -> str:
        """The name, which depends on the fitted texts; only vectors of the same name can be compared."""
        return f"{PREFIX}{self._fitted_sha256[:8]}"

    @classmethod
    def fitted(cls, texts: Sequence[str]) -> Self:
        """Fit an embedder to texts; their order makes no difference."""
        import numpy as np
        from sklearn.utils.extmath import randomized_svd

        # Sorting by digest selects a random sample that does not depend on the order of the texts.
        ordered = sorted(texts, key=_digest)
        sha256 = _digest("".join(map(_digest, ordered)))
        counts = _counts(ordered[:MAX_TEXTS] or [""])
        occurrences = np.bincount(counts.indices, minlength=FEATURES)
        weights = (1 + np.log((1 + counts.shape[0]) / (1 + occurrences))).astype(np.float32)
        rows = _weighted(counts, weights)
        if not rows.nnz:
            return cls(sha256, len(texts), weights, np.zeros((FEATURES, 0), np.float32))
        topic_count = min(TOPICS, rows.shape[0])
        # TruncatedSVD calls this function, too, but divides by the variance, which is 0 for one text.
        decompose: Any = randomized_svd  # its annotations are wrong
        _, strengths, topics = decompose(rows, topic_count, n_iter=POWER_ITERATIONS, random_state=SEED)
        is_topic = strengths > 1e-3 * strengths[0]  # a text that repeats others adds no topic
        return cls(sha256, len(texts), weights, np.ascontiguousarray(topics[is_topic].T, dtype=np.float32))

    def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Return a vector of length 1 for each text, as the rows of a numpy array."""
        import numpy as np

        vectors: Any = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
        if not texts:
            return vectors
        rows = _weighted(_counts(texts), self._weights)
        projected = rows @ self._directions
        inside, outside = projected[:, :-REST], projected[:, -REST:]
        # The projection at random changes lengths, so the length of the rest is restored.
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
        """Save the weights and topics, which are numbers and contain no texts."""
        import numpy as np

        seen = np.flatnonzero(self._topics.any(axis=1))
        about = np.array([str(self.texts), self._fitted_sha256])
        with file.open("wb") as opened:
            np.savez(opened, about=about, weights=self._weights, seen=seen, topics=self._topics[seen])

    @classmethod
    def load(cls, file: Path) -> Self:
        """Load an embedder that was saved.

        Raises:
            UnreadableEmbedderError: The file is missing or damaged.
        """
        import numpy as np

        try:
            with file.open("rb") as opened, np.load(opened, allow_pickle=False) as saved:
                texts, sha256 = saved["about"].tolist()
                topics = np.zeros((FEATURES, saved["topics"].shape[1]), np.float32)
                topics[saved["seen"]] = saved["topics"]
                return cls(sha256, int(texts), saved["weights"], topics)
        except (OSError, EOFError, ValueError, LookupError, zipfile.BadZipFile) as error:
            raise UnreadableEmbedderError(
                f"The embedder in {file} cannot be read: {error}.",
                "It is fitted again when the next entry is remembered.",
            ) from error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def _features(text: str) -> list[str]:
    words = [word for word in WORD.findall(text.casefold()) if not STOP_WORDS.fullmatch(word)]
    pairs = [f"{first} {second}" for first, second in pairwise(words)]
    stems = [f"{word[:STEM]}…" for word in words if len(word) >= STEM]
    return words + pairs + stems


def _counts(texts: Sequence[str]) -> Any:
    """Return the counts of features in texts as a sparse matrix."""
    import numpy as np
    from sklearn.feature_extraction.text import HashingVectorizer

    options: Any = {"analyzer": _features, "norm": None, "alternate_sign": False, "dtype": np.float32}
    vectorizer = HashingVectorizer(n_features=FEATURES, **options)
    return vectorizer.transform(texts)


def _weighted(counts: Any, weights: "np.ndarray") -> Any:
    """Return weighted rows of length 1; the logarithm dampens repeated occurrences of a feature."""
    import numpy as np
    from sklearn.preprocessing import normalize

    rows = counts.copy()
    rows.data = (1 + np.log(rows.data)) * weights[rows.indices]
    return normalize(rows, copy=False)
