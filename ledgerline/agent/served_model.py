"""Base classes of the models that a server provides. The servers are in *_provider.py, ollama_embedder.py."""

import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from typing import Generic, TypeVar

from ledgerline.agent.failures import ModelServer
from ledgerline.agent.language_model import Listener
from ledgerline.agent.messages import Completion, Message, Role, Thinking, ToolCall, ToolDescription, Usage
from ledgerline.agent.retrying import Retries, time_limit

Client = TypeVar("Client")

# Yields the pieces of a response, an empty text for each piece that is not text, and returns its completion,
# without the text and the times.
ResponseStream = Generator[str, None, Completion]


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
    @abstractmethod
    def _server(self) -> ModelServer:
        """Return the server at the URL; raise ServerAddressError if the text is not an address."""

    @cached_property
    @abstractmethod
    def _client(self) -> Client:
        """Return a client of the server; its library is imported here, which takes a second."""


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
        settings = {"temperature": self.temperature, "seed": self.seed, "max_tokens": self.max_output_tokens}
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
        _ = self._client  # creating it is not part of the time limit
        started = time.monotonic()
        reader = _StreamReader(listener)
        with time_limit(seconds):
            # Part of a response would be repeated if the request were retried.
            end = self.retries.run(
                lambda: reader.read(self._stream(messages, tools)), lambda: reader.first is None
            )
        return replace(
            end,
            message=replace(end.message, content="".join(reader.texts)),
            seconds_to_first_token=None if reader.first is None else reader.first - started,
            tokens_per_second=end.tokens_per_second or reader.tokens_per_second(end.usage.output_tokens),
        )

    @abstractmethod
    def _stream(self, messages: Sequence[Message], tools: Sequence[ToolDescription]) -> ResponseStream:
        """Send a request and yield the pieces of the response."""


def completion(calls: tuple[ToolCall, ...], usage: Usage, model: str, reason: str | None) -> Completion:
    """Return the completion of a stream; the reason is the one that the provider reports."""
    finish_reason = "length" if reason == "length" else "tool_calls" if calls else "stop"
    return Completion(Message(Role.ASSISTANT, "", calls), usage, model, finish_reason)


@dataclass
class _StreamReader:
    listener: Listener
    texts: list[str] = field(default_factory=list)
    first: float | None = None
    last: float = 0.0

    def read(self, stream: ResponseStream) -> Completion:
        with closing(stream):
            while True:
                try:
                    piece = next(stream)
                except StopIteration as end:
                    return end.value
                self.last = time.monotonic()
                if self.first is None:
                    self.first = self.last
                if piece:
                    self.texts.append(piece)
                    self.listener(piece)

    def tokens_per_second(self, tokens: int) -> float | None:
        if self.first is None or self.last <= self.first or tokens < 2:
            return None
        return (tokens - 1) / (self.last - self.first)
