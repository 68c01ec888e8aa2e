"""Language models of an Ollama server. Its embeddings: ollama_embedder.py. Other servers: openai_provider.py.

Ollama by itself drops the oldest messages of a conversation that is too long, and of an answer that grows too
long what came before it, without saying so. It is told not to, and then refuses.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel

from ledgerline.agent import ollama_server
from ledgerline.agent.failures import TOOLLESS, UNTHINKING, ModelServer
from ledgerline.agent.language_model import Listener, UnknownModelError
from ledgerline.agent.messages import Completion, Message, ToolCall, ToolDescription, Usage
from ledgerline.agent.ollama_server import ShownModel
from ledgerline.agent.prompt_size import characters, least_tokens
from ledgerline.agent.retrying import Answer, Ending, Retries, complete, ending_within
from ledgerline.agent.thinking import Thinking
from ledgerline.agent.tool_calls import own_ids, parsed_arguments

if TYPE_CHECKING:
    from ollama import Client

REQUIRE_SECONDS = 10
# A context that is as full as this has no room for an answer.
SLACK_TOKENS = 8
NANOSECONDS = 1e9

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class OllamaModel:
    """A language model of an Ollama server. Any number of threads may use it.

    Attributes:
        host: URL of the server, or what OLLAMA_HOST may be; user and password are for basic authentication.
        model: As `ollama list` names it; without a tag it is `latest`.
        context_tokens: How many tokens of a conversation, its answer included, the model keeps in mind; no
            more than it was made for are asked for.
        temperature: How much chance there is in the answers; 0: as little as possible.
        seed: Of chance; None: another one each time.
        max_output_tokens: How long an answer may be, what is thought before it included; None: as long as
            there is room.
        think: Whether, or how much, it thinks before it answers; None: as the model does by itself.
        connect_seconds: How long to wait for a connection.
        headers: Sent with each request.
        retries: How often a busy server is asked.
    """

    host: str = field(repr=False)
    model: str
    _: KW_ONLY
    context_tokens: int = 8192
    temperature: float = 0.0
    seed: int | None = None
    max_output_tokens: int | None = None
    think: Thinking | None = None
    connect_seconds: float = 5.0
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    retries: Retries = field(default_factory=Retries)
    _known: list[ShownModel] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        _ = self._server  # refuses a text that is not an address

    @property
    def provider(self) -> str:
        """As OpenTelemetry names it."""
        return "ollama"

    @property
    def address(self) -> str:
        """URL of the server, without credentials."""
        return self._server.address

    @property
    def settings(self) -> Mapping[str, float]:
        """What is asked for, as OpenTelemetry calls it."""
        settings = {
            "temperature": self.temperature,
            "seed": self.seed,
            "max_tokens": self.max_output_tokens,
        }
        return {name: value for name, value in settings.items() if value is not None}

    def require(self) -> None:
        """Ask the server whether it is there, and has the model, and whether that can call tools.

        Raises:
            LanguageModelError: It is not, or has not, or cannot.
        """
        client = self._client
        with ending_within(REQUIRE_SECONDS):
            shown = self._shown(client)
        named = f"{self.model} of Ollama at {self.address}"
        if not shown.can("tools"):
            raise UnknownModelError(f"{named} cannot call tools, only: {shown.abilities}.", TOOLLESS)
        if self.think not in (None, Thinking.OFF) and not shown.can("thinking"):
            raise UnknownModelError(f"{named} cannot think, only: {shown.abilities}.", UNTHINKING)

    def complete(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolDescription],
        seconds: float,
        listener: Listener,
    ) -> Completion:
        """Let the model continue a conversation; see LanguageModel.complete.

        Raises:
            LanguageModelError: It could not.
        """
        client = self._client  # the first import takes a second, which must not count as the server's
        return complete(lambda: self._answer(client, messages, tools), listener, seconds, self.retries)

    def _answer(
        self, client: "Client", messages: Sequence[Message], tools: Sequence[ToolDescription]
    ) -> Answer:
        context = self._context_of(self._shown(client))
        self._require_room(messages, tools, context)
        calls: list[_Call] = []
        with ollama_server.failures(self._server):
            # The client's method has no argument for `truncate` and `shift`, and drops the ids of tool calls.
            parts = client._request(
                _Part, "POST", "/api/chat", json=self._request(messages, tools, context), stream=True
            )
            # A generator, whatever it is declared as: closing it gives the connection back.
            with closing(cast("Any", parts)):
                for part in parts:
                    asked = part.message.tool_calls or ()
                    calls += asked
                    if part.message.content or part.message.thinking or asked:
                        yield part.message.content or ""
                    if part.done:
                        return self._ending(part, calls, messages, context)
        raise self._server.broke_off("it ended before the model had finished.")

    def _ending(
        self, part: "_Part", calls: Sequence["_Call"], messages: Sequence[Message], context: int
    ) -> Ending:
        # Ollama leaves out counts that are 0.
        usage = Usage(part.prompt_eval_count or 0, part.eval_count or 0)
        full = context - SLACK_TOKENS
        if usage.input_tokens >= full or (part.done_reason == "length" and usage.total >= full):
            raise self._server.too_long(
                f"it has {usage.input_tokens:,} tokens or more, and {context:,} are kept, the answer included"
            )
        seconds = (part.eval_duration or 0) / NANOSECONDS
        ids = own_ids([call.id for call in calls], messages)
        return Ending(
            tool_calls=tuple(
                ToolCall(new, call.function.name, _readable(call.function.arguments))
                for new, call in zip(ids, calls, strict=True)
            ),
            usage=usage,
            model=part.model or self.model,
            reason=part.done_reason or "",
            tokens_per_second=usage.output_tokens / seconds if usage.output_tokens and seconds > 0 else None,
        )

    def _shown(self, client: "Client") -> ShownModel:
        """Return the server's description of the model, which is requested once."""
        if not self._known:
            ollama_server.require_honest(self._server, client)
            shown = ollama_server.show(self._server, client)
            if not self._known and self._context_of(shown) < self.context_tokens:
                logger.warning(
                    "%s of Ollama at %s was made for %s tokens: its context is that long, and not %s as "
                    "LEDGERLINE_LLM_CONTEXT_TOKENS asks for.",
                    self.model,
                    self.address,
                    f"{shown.context_tokens:,}",
                    f"{self.context_tokens:,}",
                )
            self._known.append(shown)
        return self._known[0]

    def _context_of(self, shown: ShownModel) -> int:
        # More is lowered by the server, which says so in its log only.
        return min(self.context_tokens, shown.context_tokens or self.context_tokens)

    def _require_room(
        self, messages: Sequence[Message], tools: Sequence[ToolDescription], context: int
    ) -> None:
        tokens = least_tokens(messages, tools)
        # An answer may get fewer tokens than its limit if the context is short.
        room = context - min(self.max_output_tokens or 0, context // 2)
        if tokens > room:
            raise self._server.too_long(
                f"its {characters(messages, tools):,} characters are {tokens:,} tokens at the very least, "
                f"and there is room for {room:,}"
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

    @cached_property
    def _server(self) -> ModelServer:
        return ollama_server.server_of(self.host, self.model, self.headers)

    @cached_property
    def _client(self) -> "Client":
        return ollama_server.client_of(self._server, self.connect_seconds, self.headers)


_THINK = {Thinking.OFF: False, Thinking.ON: True}


class _Function(BaseModel):
    name: str
    arguments: dict[str, Any] | str | None = None


class _Call(BaseModel):
    id: str | None = None  # versions before 0.13 have none
    function: _Function


class _Said(BaseModel):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[_Call] | None = None


class _Part(BaseModel):
    """A line of the stream."""

    model: str | None = None
    message: _Said
    done: bool = False
    done_reason: str | None = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None


def _readable(arguments: Mapping[str, Any] | str | None) -> Mapping[str, Any] | str:
    return parsed_arguments(arguments) if isinstance(arguments, str) else arguments or {}


def _sent(message: Message) -> dict[str, Any]:
    sent: dict[str, Any] = {"role": message.role.value, "content": message.content}
    if message.tool_calls:
        sent["tool_calls"] = [
            {"id": call.id, "function": {"name": call.name, "arguments": _arguments(call)}}
            for call in message.tool_calls
        ]
    if message.answers:
        sent |= {"tool_name": message.answers.name, "tool_call_id": message.answers.id}
    return sent


def _arguments(call: ToolCall) -> Mapping[str, Any]:
    # What was no object cannot be sent back as one; the tool's answer says what it was.
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
