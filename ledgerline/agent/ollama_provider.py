"""Language models of an Ollama server. Its embeddings are in ollama_embedder.py.

By default, Ollama silently drops the oldest messages of a conversation that exceeds the context, and shifts
the context if a response grows beyond it. Requests turn both off, so that Ollama returns an error instead.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel

from ledgerline.agent import ollama_server
from ledgerline.agent.failures import CHOOSE_WITH_THINKING, CHOOSE_WITH_TOOLS, ModelServer
from ledgerline.agent.language_model import UnknownModelError
from ledgerline.agent.messages import Message, ToolCall, ToolDescription, Usage
from ledgerline.agent.ollama_server import ModelDescription
from ledgerline.agent.prompt_size import characters, min_tokens
from ledgerline.agent.retrying import ResponseStream, StreamEnd, time_limit
from ledgerline.agent.served_model import ServedLanguageModel
from ledgerline.agent.thinking import Thinking
from ledgerline.agent.tool_calls import parsed_arguments, unique_ids

if TYPE_CHECKING:
    from ollama import Client

REQUIRE_SECONDS = 10
# A context that is as full as this has no room for a response.
SLACK_TOKENS = 8
NANOSECONDS = 1e9

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class OllamaModel(ServedLanguageModel["Client"]):
    """A language model of an Ollama server. Safe to use from several threads at once.

    The URL may have any form that OLLAMA_HOST accepts. The name of the model is the one that `ollama list`
    prints; without a tag it means `latest`.

    Attributes:
        context_tokens: Length of the context, which holds the conversation and the response; at most the
            length that the model was made for.

    Example:
        >>> from ledgerline.agent.messages import Message, Role
        >>> from ledgerline.testing.fake_ollama import FakeOllama, Reply, scripted
        >>> with FakeOllama(scripted(Reply(pieces=("Three", " loaves.")))) as server:
        ...     model = OllamaModel(server.url, "qwen3:8b")
        ...     completion = model.complete([Message(Role.USER, "How many?")], [], 10, listener=print)
        Three
         loaves.
        >>> completion.usage.output_tokens
        10
    """

    _: KW_ONLY
    context_tokens: int = 8192
    _known: list[ModelDescription] = field(default_factory=list, init=False, repr=False)

    @property
    def provider(self) -> str:
        """The name of the provider in OpenTelemetry's conventions."""
        return "ollama"

    def require(self) -> None:
        """Check that the server responds and has the model, and that the model can call tools.

        Raises:
            LanguageModelError: One of these checks failed.
        """
        client = self._client
        with time_limit(REQUIRE_SECONDS):
            description = self._description(client)
        named = f"{self.model} of Ollama at {self.address}"
        if not description.can("tools"):
            raise UnknownModelError(
                f"{named} cannot call tools; its capabilities are: {description.abilities}.",
                CHOOSE_WITH_TOOLS,
            )
        if self.think not in (None, Thinking.OFF) and not description.can("thinking"):
            raise UnknownModelError(
                f"{named} cannot think; its capabilities are: {description.abilities}.", CHOOSE_WITH_THINKING
            )

    def _stream(
        self, client: "Client", messages: Sequence[Message], tools: Sequence[ToolDescription]
    ) -> ResponseStream:
        context = self._context_of(self._description(client))
        self._require_room(messages, tools, context)
        calls: list[_Call] = []
        with ollama_server.translated_errors(self._server):
            # The client's own method has no arguments for `truncate` and `shift`, and drops the ids of tool
            # calls.
            parts = client._request(
                _Part, "POST", "/api/chat", json=self._request(messages, tools, context), stream=True
            )
            # It is a generator, although it is declared otherwise: closing it releases the connection.
            with closing(cast("Any", parts)):
                for part in parts:
                    part_calls = part.message.tool_calls or ()
                    calls += part_calls
                    if part.message.content or part.message.thinking or part_calls:
                        yield part.message.content or ""
                    if part.done:
                        return self._end(part, calls, messages, context)
        raise self._server.stream_broken("the stream ended before the response was complete.")

    def _end(
        self, part: "_Part", calls: Sequence["_Call"], messages: Sequence[Message], context: int
    ) -> StreamEnd:
        # Ollama omits counts that are 0.
        usage = Usage(part.prompt_eval_count or 0, part.eval_count or 0)
        full = context - SLACK_TOKENS
        if usage.input_tokens >= full or (part.done_reason == "length" and usage.total >= full):
            raise self._server.context_too_long(
                f"it has at least {usage.input_tokens:,} tokens, and the context holds {context:,} together "
                "with the response"
            )
        seconds = (part.eval_duration or 0) / NANOSECONDS
        ids = unique_ids([call.id for call in calls], messages)
        return StreamEnd(
            tool_calls=tuple(
                ToolCall(call_id, call.function.name, _parsed(call.function.arguments))
                for call_id, call in zip(ids, calls, strict=True)
            ),
            usage=usage,
            model=part.model or self.model,
            reason=part.done_reason or "",
            tokens_per_second=usage.output_tokens / seconds if usage.output_tokens and seconds > 0 else None,
        )

    def _description(self, client: "Client") -> ModelDescription:
        """Return the server's description of the model, which is requested once."""
        if not self._known:
            ollama_server.require_supported_version(self._server, client)
            description = ollama_server.describe(self._server, client)
            if not self._known and self._context_of(description) < self.context_tokens:
                logger.warning(
                    "%s of Ollama at %s was made for a context of %s tokens, which is used instead of the %s "
                    "tokens of LEDGERLINE_LLM_CONTEXT_TOKENS.",
                    self.model,
                    self.address,
                    f"{description.context_tokens:,}",
                    f"{self.context_tokens:,}",
                )
            self._known.append(description)
        return self._known[0]

    def _context_of(self, description: ModelDescription) -> int:
        # The server itself would lower a longer context, and mention it only in its log.
        return min(self.context_tokens, description.context_tokens or self.context_tokens)

    def _require_room(
        self, messages: Sequence[Message], tools: Sequence[ToolDescription], context: int
    ) -> None:
        tokens = min_tokens(messages, tools)
        # If the context is short, a response may get fewer tokens than its limit.
        room = context - min(self.max_output_tokens or 0, context // 2)
        if tokens > room:
            raise self._server.context_too_long(
                f"its {characters(messages, tools):,} characters are at least {tokens:,} tokens, and there "
                f"is room for {room:,}"
            )

    def _request(
        self, messages: Sequence[Message], tools: Sequence[ToolDescription], context: int
    ) -> Mapping[str, Any]:
        options = {
            "num_ctx": context,
            "temperature": self.temperature,
            "seed": self.seed,
            "num_predict": self.max_output_tokens,
        }
        request = {
            "model": self.model,
            "messages": [_sent(message) for message in messages],
            "tools": [_described(tool) for tool in tools] or None,
            "stream": True,
            "truncate": False,
            "shift": False,
            "think": None if self.think is None else _THINK.get(self.think, self.think.value),
            "options": {name: value for name, value in options.items() if value is not None},
        }
        return {name: value for name, value in request.items() if value is not None}

    def _new_server(self) -> ModelServer:
        return ollama_server.server_of(self.url, self.model, self.headers)

    def _new_client(self) -> "Client":
        return ollama_server.client_of(self._server, self.connect_seconds, self.headers)


_THINK = {Thinking.OFF: False, Thinking.ON: True}


class _Function(BaseModel):
    name: str
    arguments: dict[str, Any] | str | None = None


class _Call(BaseModel):
    id: str | None = None  # versions before 0.13 send no ids
    function: _Function


class _AssistantMessage(BaseModel):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[_Call] | None = None


class _Part(BaseModel):
    """One line of the stream."""

    model: str | None = None
    message: _AssistantMessage
    done: bool = False
    done_reason: str | None = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None


def _parsed(arguments: Mapping[str, Any] | str | None) -> Mapping[str, Any] | str:
    return parsed_arguments(arguments) if isinstance(arguments, str) else arguments or {}


def _sent(message: Message) -> dict[str, Any]:
    sent: dict[str, Any] = {"role": message.role.value, "content": message.content}
    if message.tool_calls:
        sent["tool_calls"] = [
            {"id": call.id, "function": {"name": call.name, "arguments": _arguments(call)}}
            for call in message.tool_calls
        ]
    if message.responds_to:
        sent |= {"tool_name": message.responds_to.name, "tool_call_id": message.responds_to.id}
    return sent


def _arguments(call: ToolCall) -> Mapping[str, Any]:
    # A text that is not an object cannot be sent as one; the tool's error quotes it.
    return {} if isinstance(call.arguments, str) else call.arguments


def _described(tool: ToolDescription) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": ollama_server.described(tool.parameters),
        },
    }
