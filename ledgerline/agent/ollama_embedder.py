"""Embeddings of an Ollama server, through its own client. Its language models are in ollama_provider.py."""

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import islice

from ledgerline.agent.language_model import MalformedResponseError
from ledgerline.agent.ollama_server import OllamaServed
from ledgerline.agent.retrying import time_limit

CHOOSE_EMBEDDING_MODEL = "Choose a model that is made for embeddings, like nomic-embed-text."


@dataclass(frozen=True, eq=False)
class OllamaEmbedder(OllamaServed):
    """An embedding model of an Ollama server. Safe to use from several threads at once.

    The vector of a text that exceeds the model's context represents the beginning of the text.

    Attributes:
        seconds: Time limit of one call of embed().
        batch: Number of texts in one request.
    """

    _: KW_ONLY
    seconds: float = 60.0
    batch: int = 64

    @property
    def name(self) -> str:
        """The provider and the model that create the vectors."""
        return f"ollama:{self.model}"

    def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Return a vector for each text, all of the same length.

        Raises:
            LanguageModelError: The texts cannot be embedded.
        """
        _ = self._client  # creating it is not part of the time limit
        vectors: list[Sequence[float]] = []
        remaining = iter(texts)
        with time_limit(self.seconds):
            while batch := list(islice(remaining, self.batch)):
                vectors += self.retries.run(lambda batch=batch: self._vectors(batch))
        if len({len(vector) for vector in vectors}) > 1:
            raise self._malformed("vectors of different lengths")
        return vectors

    def _vectors(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        if not self._known:
            # Vectors of a model without the capability would be meaningless.
            description = self._describe()
            self._require_capability(description, "embedding", "create embeddings", CHOOSE_EMBEDDING_MODEL)
            self._known.append(description)
        with self._translated_errors():
            vectors = self._client.embed(self.model, texts).embeddings
        if len(vectors) != len(texts):
            raise self._malformed(f"{len(vectors)} vectors for {len(texts)} texts")
        if not all(vector and all(map(math.isfinite, vector)) for vector in vectors):
            raise self._malformed("a vector that is empty or not finite")
        return vectors

    def _malformed(self, what: str) -> MalformedResponseError:
        return MalformedResponseError(
            f"Ollama at {self.address} returned {what} for {self.model}.", CHOOSE_EMBEDDING_MODEL
        )
