"""Embeddings of an Ollama server, through its own client. Its language models are in ollama_provider.py."""

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from ledgerline.agent import ollama_server
from ledgerline.agent.failures import ModelServer
from ledgerline.agent.language_model import MalformedResponseError, UnknownModelError
from ledgerline.agent.ollama_server import ModelDescription
from ledgerline.agent.retrying import time_limit
from ledgerline.agent.served_model import ServedModel

if TYPE_CHECKING:
    from ollama import Client

CHOOSE_EMBEDDING_MODEL = "Choose a model that is made for embeddings, like nomic-embed-text."


@dataclass(frozen=True, eq=False)
class OllamaEmbedder(ServedModel["Client"]):
    """An embedding model of an Ollama server. Safe to use from several threads at once.

    The vector of a text that exceeds the model's context represents the beginning of the text.

    Attributes:
        seconds: Time limit of one call of embed().
        batch: Number of texts in one request.
    """

    _: KW_ONLY
    seconds: float = 60.0
    batch: int = 64
    _known: list[ModelDescription] = field(default_factory=list, init=False, repr=False)

    @property
    def name(self) -> str:
        """The provider and the model that create the vectors."""
        return f"ollama:{self.model}"

    def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Return a vector for each text, all of the same length.

        Raises:
            LanguageModelError: The texts cannot be embedded.
        """
        client = self._client  # importing its library takes a second, which is not part of the time limit
        vectors: list[Sequence[float]] = []
        remaining = iter(texts)
        with time_limit(self.seconds):
            while batch := list(islice(remaining, self.batch)):
                vectors += self.retries.run(lambda batch=batch: self._vectors(client, batch))
        if len({len(vector) for vector in vectors}) > 1:
            raise self._malformed("vectors of different lengths")
        return vectors

    def _vectors(self, client: "Client", texts: Sequence[str]) -> Sequence[Sequence[float]]:
        self._require(client)
        with ollama_server.translated_errors(self._server):
            vectors = client.embed(self.model, texts).embeddings
        if len(vectors) != len(texts):
            raise self._malformed(f"{len(vectors)} vectors for {len(texts)} texts")
        if not all(vector and all(map(math.isfinite, vector)) for vector in vectors):
            raise self._malformed("a vector that is empty or not finite")
        return vectors

    def _require(self, client: "Client") -> None:
        """Refuse a model without the capability to embed, because its vectors would be meaningless."""
        if self._known:
            return
        description = ollama_server.describe(self._server, client)
        if not description.can("embedding"):
            raise UnknownModelError(
                f"{self.model} of Ollama at {self.address} cannot create embeddings; its capabilities are: "
                f"{description.abilities}.",
                CHOOSE_EMBEDDING_MODEL,
            )
        self._known.append(description)

    def _malformed(self, what: str) -> MalformedResponseError:
        return MalformedResponseError(
            f"Ollama at {self.address} returned {what} for {self.model}.", CHOOSE_EMBEDDING_MODEL
        )

    def _new_server(self) -> ModelServer:
        return ollama_server.server_of(self.url, self.model, self.headers)

    def _new_client(self) -> "Client":
        return ollama_server.client_of(self._server, self.connect_seconds, self.headers)
