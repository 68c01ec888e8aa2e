"""Language models of servers with OpenAI's protocol: vLLM, llama.cpp, OpenAI. Ollama: ollama_provider.py.

OpenAI's client takes whatever comes with status 200 for an answer; what came is looked at here. Most servers
refuse a conversation that is too long. Ollama cuts it, and in this protocol cannot be told not to: that is
seen here as far as the tokens that it counts, or an answer that ends too early, give it away.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ledgerline.agent import openai_answers
from ledgerline.agent.failures import ModelServer
from ledgerline.agent.language_model import Listener
from ledgerline.agent.messages import Completion, Message, ToolCall, ToolDescription, Usage
from ledgerline.agent.prompt_size import characters, least_tokens
from ledgerline.agent.retrying import Answer, Ending, Retries, complete, ending_within
from ledgerline.agent.streamed_calls import StreamedCalls
from ledgerline.agent.thinking import Thinking
from ledgerline.settings.extras import require

if TYPE_CHECKING:
    from openai import OpenAI, Stream
    from openai.types.chat.chat_completion_chunk import ChatCompletionChunk

REQUIRE_SECONDS = 10
NAMED_MODELS = 5
NO_KEY = "none"  # the client insists on one; servers of one's own ask for none
MAX_TOKENS, MAX_COMPLETION_TOKENS = "max_tokens", "max_completion_tokens"
OF_OLLAMA = "library"  # whom its list of models says they belong to
# These finish reasons of vLLM, OpenRouter and DeepSeek mean that the answer was cut off before its end.
BROKEN_REASONS = frozenset({"abort", "error", "network_error", "insufficient_system_resource"})

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class OpenAIModel:
    """A language model of an OpenAI-compatible server. Any number of threads may use it.

    Attributes:
        base_url: URL of its API, which mostly ends in /v1.
        model: As the server's list of models names it.
        api_key: None for a server that asks for none.
        temperature: How much chance there is in the answers; None: as the server has it, since some models of
            OpenAI let nobody choose.
        seed: Of chance; None: another one each time.
        max_output_tokens: How long an answer may be; None: as the server has it.
        think: Whether, or how much, it thinks before it answers; None: as the server has it.
        connect_seconds: How long to wait for a connection.
        headers: Sent with each request.
        retries: How often a busy server is asked.
    """

    base_url: str = field(repr=False)
    model: str
    _: KW_ONLY
    api_key: str | None = field(default=None, repr=False)
    temperature: float | None = 0.0
    seed: int | None = None
    max_output_tokens: int | None = None
    think: Thinking | None = None
    connect_seconds: float = 5.0
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    retries: Retries = field(default_factory=Retries)
    _refuses_max_tokens: list[bool] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        _ = self._server  # refuses a text that is not an address

    @property
    def provider(self) -> str:
        """As OpenTelemetry names it."""
        return "openai"

    @property
    def address(self) -> str:
        """URL of the server, without credentials."""
        return self._server.address

    @property
    def settings(self) -> Mapping[str, float]:
        """What is asked for, as OpenTelemetry, and OpenAI's protocol, call it."""
        settings = {
            "temperature": self.temperature,
            "seed": self.seed,
            "max_tokens": self.max_output_tokens,
        }
        return {name: value for name, value in settings.items() if value is not None}

    def require(self) -> None:
        """Ask the server whether it is there and lists the model; one without a list is taken at its word.

        Raises:
            LanguageModelError: It is not, or does not.
        """
        from openai import NotFoundError

        client = self._client
        with ending_within(REQUIRE_SECONDS), _failures(self._server):
            try:
                text = client.models.with_raw_response.list().text
            except NotFoundError:
                return
            listed = openai_answers.listed_models(text)
            if listed is None:
                raise self._server.unreadable(text)
        if any(owner == OF_OLLAMA for owner in listed.values()):
            logger.warning(
                "The server at %s is an Ollama, which by OpenAI's protocol cuts a conversation that is too "
                "long without saying so. Set LEDGERLINE_LLM_PROVIDER=ollama, and OLLAMA_HOST to its address.",
                self.address,
            )
        names = set(listed)
        # Ollama reads a name without a tag as the latest.
        if names and names.isdisjoint(
            {self.model, f"{self.model}:latest", self.model.removesuffix(":latest")}
        ):
            more = ", ..." if len(names) > NAMED_MODELS else ""
            raise self._server.lacks_model(f"; it has {', '.join(sorted(names)[:NAMED_MODELS])}{more}")

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
        self, client: "OpenAI", messages: Sequence[Message], tools: Sequence[ToolDescription]
    ) -> Answer:
        calls = StreamedCalls()
        usage, model, reason, response = Usage(), self.model, None, None
        with _failures(self._server), self._stream(client, messages, tools) as chunks:
            openai_answers.require_events(self._server, chunks.response)
            for chunk in chunks:
                if not isinstance(getattr(chunk, "choices", None), list):
                    raise self._server.unreadable(f"a piece without choices: {chunk!r}")
                model, response = chunk.model or model, chunk.id or response
                if chunk.usage:
                    usage = Usage(chunk.usage.prompt_tokens or 0, chunk.usage.completion_tokens or 0)
                for choice in chunk.choices[:1]:
                    reason = choice.finish_reason or reason
                    delta = choice.delta
                    if delta is None:  # some have none at the end
                        continue
                    calls.add(delta.tool_calls or ())
                    text = delta.content or delta.refusal or ""
                    # vLLM and llama.cpp stream a model's thoughts in the first field, Ollama in the second.
                    thought = getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None)
                    if text or delta.tool_calls or thought:
                        yield text
        if reason is None:
            raise self._server.broke_off("it ended before the model had finished.")
        if reason in BROKEN_REASONS:
            raise self._server.broke_off(f"it says that it ended for {reason!r}.")
        self._require_whole(messages, usage, reason)
        return Ending(calls.calls(messages), usage, model, reason, response_id=response)

    def _stream(
        self, client: "OpenAI", messages: Sequence[Message], tools: Sequence[ToolDescription]
    ) -> "Stream[ChatCompletionChunk]":
        from openai import BadRequestError

        request: dict[str, Any] = {
            "model": self.model,
            "messages": [_sent(message) for message in messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            **self.settings,
        }
        if tools:  # some servers refuse an empty list
            request["tools"] = [_described(tool) for tool in tools]
        if self.think not in (None, Thinking.ON):  # models that can think do so by themselves
            request["reasoning_effort"] = "none" if self.think is Thinking.OFF else self.think.value
        if not self._refuses_max_tokens:
            try:
                return client.chat.completions.create(**request)
            except BadRequestError as error:
                if MAX_TOKENS not in request or MAX_COMPLETION_TOKENS not in _said(error):
                    raise
                # OpenAI's newer models. To others, Ollama among them, only the older name is a limit.
                self._refuses_max_tokens.append(True)
        if MAX_TOKENS in request:
            request[MAX_COMPLETION_TOKENS] = request.pop(MAX_TOKENS)
        return client.chat.completions.create(**request)

    def _require_whole(self, messages: Sequence[Message], usage: Usage, reason: str) -> None:
        """Refuse an answer to a conversation of which the server has left something out."""
        least = least_tokens(messages)
        if 0 < usage.input_tokens < least:
            raise self._server.too_long(
                f"its {characters(messages):,} characters are {least:,} tokens at the very least, and the "
                f"server has read {usage.input_tokens:,}"
            )
        allowed = self.max_output_tokens
        if reason == "length" and allowed and 0 < usage.output_tokens < allowed:
            raise self._server.too_long(
                f"the answer ended after {usage.output_tokens:,} of the {allowed:,} tokens that it may have, "
                f"with {usage.input_tokens:,} before it"
            )

    @cached_property
    def _server(self) -> ModelServer:
        return ModelServer(
            kind="OpenAI-compatible server",
            url=self.base_url,
            model=self.model,
            start="Start it, or name the address of its API, which mostly ends in /v1.",
            fetch="Choose one that it has.",
            secrets=(self.api_key, *(value.rpartition(" ")[2] for value in self.headers.values())),
        )

    @cached_property
    def _client(self) -> "OpenAI":
        require("agent", "A language model")
        import httpx
        from openai import OpenAI

        from ledgerline.agent.transport import client_options

        return OpenAI(
            base_url=self.address,
            api_key=self.api_key or NO_KEY,
            max_retries=0,  # it would try again without regard to the time that is left
            default_headers=dict(self.headers),
            http_client=httpx.Client(**client_options(self.connect_seconds, self._server.login)),  # pyright: ignore[reportArgumentType] (it takes both kinds of httpx)
        )


@contextmanager
def _failures(server: ModelServer) -> Iterator[None]:
    from openai import APIConnectionError, APIError, APIStatusError

    with server.failures():
        try:
            yield
        except APIConnectionError as error:
            # What it wraps says more; failures() knows it.
            raise error.__cause__ or ConnectionError("no connection") from None
        except APIStatusError as error:
            raise server.says(error.status_code, _said(error)) from None
        except APIError as error:
            # Within the stream. vLLM puts a status where OpenAI has a word.
            status = int(error.code) if error.code in ("429", "503") else None
            raise server.says(status, _said(error)) from None


def _said(error: Any) -> str:
    """What the server says, with its code, which is more reliable than its words."""
    message = error.body.get("message") if isinstance(error.body, dict) else error.body
    return f"{message or error.message} ({error.code})" if error.code else str(message or error.message)


def _sent(message: Message) -> dict[str, Any]:
    sent: dict[str, Any] = {"role": message.role.value, "content": message.content}
    if message.tool_calls:
        sent["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": _arguments(call)},
            }
            for call in message.tool_calls
        ]
    if message.answers:
        sent["tool_call_id"] = message.answers.id
    return sent


def _arguments(call: ToolCall) -> str:
    # Servers parse them again; what was no JSON is told in the tool's answer.
    return "{}" if isinstance(call.arguments, str) else json.dumps(dict(call.arguments))


def _described(tool: ToolDescription) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)},
    }
