"""Messages of a conversation with a language model. The providers translate them for each server."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    """The author of a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class Thinking(StrEnum):
    """The amount of thinking before a response: on or off, or a level for models that have levels."""

    OFF = "off"
    ON = "on"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


@dataclass(frozen=True)
class ToolCall:
    """A request of the model to call a tool, which the tool's result refers to by its id.

    Attributes:
        name: Name of the tool; the tool may not exist.
        arguments: Arguments by name, or the text that the model wrote if that is not a JSON object.
    """

    id: str
    name: str
    arguments: Mapping[str, Any] | str


@dataclass(frozen=True)
class Message:
    """One message of a conversation.

    Attributes:
        tool_calls: Calls that a message of the assistant requests.
        responds_to: Call that a message of a tool responds to.
    """

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    responds_to: ToolCall | None = None


@dataclass(frozen=True)
class Usage:
    """Numbers of tokens, as the provider counts them."""

    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def total(self) -> int:
        """The sum of input and output tokens."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens)


@dataclass(frozen=True)
class Completion:
    """The response of a language model to a conversation.

    Attributes:
        model: Name of the model, as the provider reports it.
        finish_reason: "stop", "length" or "tool_calls", as in OpenTelemetry and OpenAI's protocol.
        seconds_to_first_token: Seconds from the request to the first piece; None if no piece was received.
        tokens_per_second: Output tokens per second, as the provider reports or from the first piece to the
            last; None if there are too few tokens to compute it.
        response_id: Identifier that the provider gives to the response, if it gives one.
    """

    message: Message
    usage: Usage
    model: str
    finish_reason: str
    seconds_to_first_token: float | None = None
    tokens_per_second: float | None = None
    response_id: str | None = None


@dataclass(frozen=True)
class ToolDescription:
    """A tool as it is described to the model; the parameters are a JSON schema of an object."""

    name: str
    description: str
    parameters: Mapping[str, Any]
