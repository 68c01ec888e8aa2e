"""What is said between an agent and its language model. How it travels: ollama_provider, openai_provider."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    """Who says a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True)
class ToolCall:
    """A tool that the model asks for.

    Attributes:
        id: Names the call, for the answer to refer to.
        name: The tool's; whether there is such a tool is not known here.
        arguments: By name; a text is what the model wrote where that is no JSON object.
    """

    id: str
    name: str
    arguments: Mapping[str, Any] | str


@dataclass(frozen=True)
class Message:
    """One message of a conversation.

    Attributes:
        tool_calls: Of the assistant: what it asks for.
        answers: Of a tool: the call that this answers.
    """

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    answers: ToolCall | None = None


@dataclass(frozen=True)
class Usage:
    """Tokens, as the provider counts them."""

    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def total(self) -> int:
        """Both together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens)


@dataclass(frozen=True)
class Completion:
    """What the model says to a conversation.

    Attributes:
        message: Of the assistant.
        model: Which model says so, as the provider names it.
        finish_reason: "stop", "length" or "tool_calls", as OpenTelemetry and OpenAI have it.
        seconds_to_first_token: From the request until the first piece came; None: none came.
        tokens_per_second: Of the output, from its first piece to its last, or as the provider says; None:
            too little was said to tell.
        response_id: The provider's, if it has any.
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
    """A tool as the model is told of it.

    Attributes:
        parameters: JSON schema of the arguments, an object.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
