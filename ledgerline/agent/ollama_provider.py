"""Language models of an Ollama server. Its embeddings are in ollama_embedder.py.

By default, Ollama silently drops the oldest messages of a conversation that exceeds the context, and shifts
the context if a response grows beyond it. Requests turn both off, so that Ollama returns an error instead.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, cast

from pydantic import BaseModel

from ledgerline.agent.failures import CHOOSE_WITH_THINKING, CHOOSE_WITH_TOOLS
from ledgerline.agent.messages import Completion, Message, Thinking, ToolCall, ToolDescription, Usage
from ledgerline.agent.ollama_server import ModelDescription, OllamaServed
from ledgerline.agent.prompt_size import characters, min_tokens
from ledgerline.agent.retrying import time_limit
from ledgerline.agent.served_model import ResponseStream, ServedLanguageModel, completion
from ledgerline.agent.tool_calls import parsed_arguments, sent_message, sent_tool, with_unique_ids

REQUIRE_SECONDS = 10
# A context that is as full as this has no room for a response.
SLACK_TOKENS = 8
NANOSECONDS = 1e9

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class OllamaModel(OllamaServed, ServedLanguageModel[Any]):
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

    @property
    def provider(self) -> str:
        """The name of the provider in OpenTelemetry's conventions."""
        return "ollama"

    def require(self) -> None:
        """Check that the server responds and has the model, and that the model can call tools.

        Raises:
            LanguageModelError: One of these checks failed.
        """
        _ = self._client  # creating it is not part of the time limit
        with time_limit(REQUIRE_SECONDS):
            description = self._description()
        self._require_capability(description, "tools", "call tools", CHOOSE_WITH_TOOLS)
        if self.think not in (None, Thinking.OFF):
            self._require_capability(description, "thinking", "think", CHOOSE_WITH_THINKING)

    def _stream(self, messages: Sequence[Message], tools: Sequence[ToolDescription]) -> ResponseStream:
        context = self._context_of(self._description())
        self._require_room(messages, tools, context)
        calls: list[_Call] = []
        with self._translated_errors():
            # The client's own method has no arguments for `truncate` and `shift`, and drops the ids of tool
            # calls.
            parts = self._client._request(
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
    ) -> Completion:
        # Ollama omits counts that are 0.
        usage = Usage(part.prompt_eval_count or 0, part.eval_count or 0)
        full = context - SLACK_TOKENS
        if usage.input_tokens >= full or (part.done_reason == "length" and usage.total >= full):
            raise self._server.context_too_long(
                f"it has at least {usage.input_tokens:,} tokens, and the context holds {context:,} together "
                "with the response"
            )
        seconds = (part.eval_duration or 0) / NANOSECONDS
        new_calls = (
            ToolCall(call.id or "", call.function.name, parsed_arguments(call.function.arguments))
            for call in calls
        )
        return replace(
            completion(
                with_unique_ids(new_calls, messages), usage, part.model or self.model, part.done_reason
            ),
            tokens_per_second=usage.output_tokens / seconds if usage.output_tokens and seconds > 0 else None,
        )

    def _description(self) -> ModelDescription:
        """Return the server's description of the model, which is requested once."""
        if not self._known:
            self._require_supported_version()
            description = self._describe()
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
        described = [replace(tool, parameters=_with_lists_of_types(tool.parameters)) for tool in tools]
        request = {
            "model": self.model,
            "messages": [_sent(message) for message in messages],
            "tools": [sent_tool(tool) for tool in described] or None,
            "stream": True,
            "truncate": False,
            "shift": False,
            "think": None if self.think is None else _THINK.get(self.think, self.think.value),
            "options": {name: value for name, value in options.items() if value is not None},
        }
        return {name: value for name, value in request.items() if value is not None}


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


def _sent(message: Message) -> dict[str, Any]:
    sent = sent_message(message, dict)
    return sent | {"tool_name": message.responds_to.name} if message.responds_to else sent


def _with_lists_of_types(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a tool's parameters with lists of types; the templates of models ignore anyOf."""
    properties = {name: _plain(schema) for name, schema in parameters.get("properties", {}).items()}
    return {**parameters, "properties": properties}


def _plain(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = schema.get("anyOf", ())
    types = [choice.get("type") for choice in choices]
    if not choices or not all(isinstance(kind, str) for kind in types):
        return schema
    merged = {name: value for choice in choices for name, value in choice.items()}
    return {**merged, **{name: value for name, value in schema.items() if name != "anyOf"}, "type": types}
