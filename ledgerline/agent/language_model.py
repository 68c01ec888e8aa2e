"""Protocols of language models and embedders, and their errors. The providers are in *_provider.py."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from ledgerline.agent.messages import Completion, Message, ToolDescription
from ledgerline.errors import LedgerlineError

# A listener is called with each piece of text that the model generates.
Listener = Callable[[str], None]


class ServerAddressError(LedgerlineError):
    """A text is not the address of a server."""


class LanguageModelError(LedgerlineError):
    """The language model cannot be used."""

    is_transient = True


class ServerAbsentError(LanguageModelError):
    """No server responds at the address."""


class UnknownModelError(LanguageModelError):
    """The server does not have the model, or the model lacks a capability."""

    is_transient = False


class ContextTooLongError(LanguageModelError):
    """The conversation exceeds the model's context."""

    is_transient = False


class StreamBrokenError(LanguageModelError):
    """The response ended before it was complete."""


class TooSlowError(LanguageModelError):
    """The response was not complete within the time limit."""


class ServerBusyError(LanguageModelError):
    """The server is overloaded, and was so at each attempt."""


class ServerFailedError(LanguageModelError):
    """The server failed; the same request may succeed later."""


class MalformedResponseError(LanguageModelError):
    """The response does not follow the protocol, or the server could not parse what its model generated."""


class RefusedError(LanguageModelError):
    """The server refuses the request for another reason, such as its credentials or options."""

    is_transient = False


class LanguageModel(Protocol):
    """Completes conversations. Safe to use from several threads at once."""

    @property
    def provider(self) -> str:
        """The name of the provider in OpenTelemetry's conventions: "ollama", "openai"."""
        ...

    @property
    def model(self) -> str:
        """The name of the model on the server."""
        ...

    @property
    def address(self) -> str:
        """The URL of the server, without credentials."""
        ...

    @property
    def settings(self) -> Mapping[str, float]:
        """The settings of requests by their names after gen_ai.request: temperature, seed, max_tokens."""
        ...

    def require(self) -> None:
        """Check within seconds that the server responds and has the model.

        Raises:
            LanguageModelError: The server does not respond, or does not have the model.
        """
        ...

    def complete(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolDescription],
        seconds: float,
        listener: Listener,
    ) -> Completion:
        """Request the model's next message of a conversation.

        A request is repeated within the time limit if the server is busy or closes the connection, but
        never after a part of the response was received.

        Args:
            messages: Conversation so far.
            tools: Tools that the model may call.
            seconds: Time limit of all attempts together.
            listener: Function that is called with each piece of text.

        Raises:
            LanguageModelError: There is no complete response.
        """
        ...


class Embedder(Protocol):
    """Turns texts into vectors; texts of similar meaning have vectors that are close together."""

    @property
    def name(self) -> str:
        """The name of the embedder; vectors of embedders with different names cannot be compared."""
        ...

    def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Return a vector for each text, all of the same length.

        Raises:
            LanguageModelError: The texts cannot be embedded.
        """
        ...
