"""What an agent needs of a language model, and what can go wrong with one. Who provides it: *_provider.py."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from ledgerline.agent.messages import Completion, Message, ToolDescription
from ledgerline.errors import LedgerlineError

# A piece of text that has just come from the model.
Listener = Callable[[str], None]


class LanguageModelError(LedgerlineError):
    """The language model cannot be used.

    Args:
        problem: What is wrong, naming the thing.
        remedy: What the reader can do about it.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem} {remedy}")
        self.problem = problem
        self.remedy = remedy


class ServerAbsentError(LanguageModelError):
    """Nobody answers at the address."""


class UnknownModelError(LanguageModelError):
    """The server does not have the model, or the model cannot call tools."""


class ContextTooLongError(LanguageModelError):
    """The conversation is longer than what the model takes in."""


class StreamBrokenError(LanguageModelError):
    """The answer broke off before its end."""


class TooSlowError(LanguageModelError):
    """The answer did not come, or not to its end, in time."""


class ServerBusyError(LanguageModelError):
    """The server has too much to do, and still has after some attempts."""


class ServerFailedError(LanguageModelError):
    """The server could not do it, for reasons of its own; it may the next time."""


class MalformedAnswerError(LanguageModelError):
    """What the server says is not in its protocol, or it could not read what its model wrote."""


class RefusedError(LanguageModelError):
    """The server refuses the request for another reason: credentials, options."""


def is_lasting(error: LanguageModelError) -> bool:
    """Whether the same request would fail again, as long as nobody changes anything."""
    return isinstance(error, UnknownModelError | ContextTooLongError | RefusedError)


class LanguageModel(Protocol):
    """Completes conversations. Safe to use from several threads at once."""

    @property
    def provider(self) -> str:
        """Who provides it, as OpenTelemetry names them: "ollama", "openai"."""
        ...

    @property
    def model(self) -> str:
        """Which model is asked for."""
        ...

    @property
    def address(self) -> str:
        """URL of the server, without credentials."""
        ...

    @property
    def settings(self) -> Mapping[str, float]:
        """What is asked for, as OpenTelemetry calls it in gen_ai.request.*: temperature, seed ..."""
        ...

    def require(self) -> None:
        """Ask the server, within seconds, whether it is there and has the model.

        Raises:
            LanguageModelError: It is not, or has not.
        """
        ...

    def complete(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolDescription],
        seconds: float,
        listener: Listener,
    ) -> Completion:
        """Let the model continue a conversation.

        Tried again, within the time, only while nothing has come: a server that is busy, a connection that
        ends before the answer begins.

        Args:
            messages: What was said so far.
            tools: What the model may ask for.
            seconds: How long it may take altogether.
            listener: Told of each piece of text when it comes.

        Raises:
            LanguageModelError: It could not.
        """
        ...


class Embedder(Protocol):
    """Turns texts into vectors: what means the same is close together."""

    @property
    def name(self) -> str:
        """What made the vectors: those of another name cannot be compared with these."""
        ...

    def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """A vector for each text, all of the same length.

        Raises:
            LanguageModelError: It could not.
        """
        ...
