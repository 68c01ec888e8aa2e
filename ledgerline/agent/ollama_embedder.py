"""Embeddings of an Ollama server, by its own client. Its language models: ollama_provider.py."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

from ledgerline.agent import ollama_server
from ledgerline.agent.failures import ModelServer
from ledgerline.agent.language_model import MalformedAnswerError, UnknownModelError
from ledgerline.agent.ollama_server import ShownModel
from ledgerline.agent.retrying import Retries, ending_within

if TYPE_CHECKING:
    from ollama import Client

EMBEDDING = "Choose a model that is made for embeddings, like nomic-embed-text."


@dataclass(frozen=True, eq=False)
class OllamaEmbedder:
    """An embedding model of an Ollama server. Any number of threads may use it.

    A text that is longer than what the model takes in is represented by its beginning.

    Attributes:
        host: URL of the server, or what OLLAMA_HOST may be; user and password are for basic authentication.
        model: As `ollama list` names it; without a tag it is `latest`.
        seconds: How long it may take altogether.
        batch: How many texts are sent at once.
        connect_seconds: How long to wait for a connection.
        headers: Sent with each request.
        retries: How often a busy server is asked.
    """

    host: str = field(repr=False)
    model: str
    _: KW_ONLY
    seconds: float = 60.0
    batch: int = 64
    connect_seconds: float = 5.0
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    retries: Retries = field(default_factory=Retries)
    _known: list[ShownModel] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        _ = self._server  # refuses a text that is not an address

    @property
    def name(self) -> str:
        """The provider and the model that make the vectors."""
        return f"ollama:{self.model}"

    def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Return a vector for each text, all of the same length.

        Raises:
            LanguageModelError: It could not.
        """
        client = self._client  # the first import takes a second, which must not count as the server's
        vectors: list[Sequence[float]] = []
        remaining = iter(texts)
        with ending_within(self.seconds):
            while batch := list(islice(remaining, self.batch)):
                vectors += self.retries.run(lambda batch=batch: self._vectors(client, batch))
        if len({len(vector) for vector in vectors}) > 1:
            raise self._malformed("vectors of different lengths")
        return vectors

    def _vectors(self, client: "Client", texts: Sequence[str]) -> Sequence[Sequence[float]]:
        self._require(client)
        with ollama_server.failures(self._server):
            vectors = client.embed(self.model, texts).embeddings
        if len(vectors) != len(texts):
            raise self._malformed(f"{len(vectors)} vectors for {len(texts)} texts")
        if not all(vector and all(map(math.isfinite, vector)) for vector in vectors):
            raise self._malformed("a vector that is empty or not finite")
        return vectors

    def _require(self, client: "Client") -> None:
        """Refuse a model that is not made for this: it answers all the same, with numbers of no meaning."""
        if self._known:
            return
        shown = ollama_server.show(self._server, client)
        if not shown.can("embedding"):
            raise UnknownModelError(
                f"{self.model} of Ollama at {self._server.address} makes no embeddings, only: "
                f"{shown.abilities}.",
                EMBEDDING,
            )
        self._known.append(shown)

    def _malformed(self, what: str) -> MalformedAnswerError:
        return MalformedAnswerError(
            f"Ollama at {self._server.address} makes {what} with {self.model}.", EMBEDDING
        )

    @cached_property
    def _server(self) -> ModelServer:
        return ollama_server.server_of(self.host, self.model, self.headers)

    @cached_property
    def _client(self) -> "Client":
        return ollama_server.client_of(self._server, self.connect_seconds, self.headers)
