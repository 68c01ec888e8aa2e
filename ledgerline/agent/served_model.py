"""Base classes of the models that a server provides. The servers are in *_provider.py, ollama_embedder.py."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import Generic, TypeVar

from ledgerline.agent.failures import ModelServer
from ledgerline.agent.language_model import Listener
from ledgerline.agent.messages import Completion, Message, ToolDescription
from ledgerline.agent.retrying import ResponseStream, Retries, complete
from ledgerline.agent.thinking import Thinking

Client = TypeVar("Client")


@dataclass(frozen=True, eq=False)
class ServedModel(ABC, Generic[Client]):
    """A model of a server. Safe to use from several threads at once.

    Attributes:
        url: URL of the server; a user and a password in it are sent as basic authentication.
        model: Name of the model on the server.
        connect_seconds: Time limit of opening a connection.
        headers: Headers of each request.
        retries: Number of attempts and delays if the server is busy.
    """

    url: str = field(repr=False)
    model: str
    _: KW_ONLY
    connect_seconds: float = 5.0
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    retries: Retries = field(default_factory=Retries)

    def __post_init__(self) -> None:
        _ = self._server  # raises an error at once if the text is not an address

    @property
    def address(self) -> str:
        """The URL of the server, without credentials."""
        return self._server.address

    @cached_property
    def _server(self) -> ModelServer:
        return self._new_server()

    @cached_property
    def _client(self) -> Client:
        return self._new_client()

    @abstractmethod
    def _new_server(self) -> ModelServer:
        """Return the server at the URL.

        Raises:
            ServerAddressError: The text is not an address.
        """

    @abstractmethod
    def _new_client(self) -> Client:
        """Return a client of the server; its library is imported here."""


@dataclass(frozen=True, eq=False)
class ServedLanguageModel(ServedModel[Client]):
    """A language model of a server. Safe to use from several threads at once.

    Attributes:
        temperature: Randomness of the responses, from 0; None for the server's default, since some models of
            OpenAI have a fixed one.
        seed: Seed of the random numbers; None for a new one in each request.
        max_output_tokens: Maximum length of a response, including its thoughts; None for the server's
            default.
        think: Whether, or how much, the model thinks before it responds; None for the server's default.
    """

    _: KW_ONLY
    temperature: float | None = 0.0
    seed: int | None = None
    max_output_tokens: int | None = None
    think: Thinking | None = None

    @property
    def settings(self) -> Mapping[str, float]:
        """The settings of requests by their names in OpenTelemetry and OpenAI's protocol."""
        settings = {
            "temperature": self.temperature,
            "seed": self.seed,
            "max_tokens": self.max_output_tokens,
        }
        return {name: value for name, value in settings.items() if value is not None}

    def complete(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolDescription],
        seconds: float,
        listener: Listener,
    ) -> Completion:
        """Request the model's next message of a conversation; see LanguageModel.complete.

        Raises:
            LanguageModelError: There is no complete response.
        """
        client = self._client  # importing its library takes a second, which is not part of the time limit
        return complete(lambda: self._stream(client, messages, tools), listener, seconds, self.retries)

    @abstractmethod
    def _stream(
        self, client: Client, messages: Sequence[Message], tools: Sequence[ToolDescription]
    ) -> ResponseStream:
        """Send a request and yield the pieces of the response."""
