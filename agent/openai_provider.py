"""Language models of servers with OpenAI's protocol: vLLM, llama.cpp, OpenAI. Ollama: ollama_provider.py."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from agent.failures import ModelServer
from agent.language_model import Listener
from agent.messages import Completion, Message, ToolCall, ToolDescription, Usage
from agent.retrying import Answer, Ending, Retries, complete, ending_within
from agent.tool_calls import parsed_arguments, unused_ids, used_ids

if TYPE_CHECKING:
    from openai import OpenAI, Stream
    from openai.types.chat.chat_completion_chunk import ChatCompletionChunk, ChoiceDeltaToolCall

REQUIRE_SECONDS = 10
NAMED_MODELS = 5
NO_KEY = "none"  # the client insists on one; servers of one's own ask for none


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
    connect_seconds: float = 5.0
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    retries: Retries = field(default_factory=Retries)

    def __post_init__(self) -> None:
        _ = self._server  # refuses what is no address

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
                names = [model.id for model in client.models.list().data]
            except NotFoundError:
                return
        if names and self.model not in names:
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
        client = self._client  # the first time, importing it takes a second, which is none of the server's
        return complete(lambda: self._answer(client, messages, tools), listener, seconds, self.retries)

    def _answer(
        self, client: "OpenAI", messages: Sequence[Message], tools: Sequence[ToolDescription]
    ) -> Answer:
        calls = _Calls()
        usage, model, reason, response = Usage(), self.model, None, None
        request: dict[str, Any] = {
            "model": self.model,
            "messages": [_sent(message) for message in messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            **self.settings,
        }
        if tools:  # some servers refuse an empty list
            request["tools"] = [_described(tool) for tool in tools]
        with (
            _failures(self._server),
            cast("Stream[ChatCompletionChunk]", client.chat.completions.create(**request)) as chunks,
        ):
            for chunk in chunks:
                model, response = chunk.model or model, chunk.id or response
                if chunk.usage:
                    usage = Usage(chunk.usage.prompt_tokens or 0, chunk.usage.completion_tokens or 0)
                for choice in chunk.choices[:1]:
                    delta = choice.delta
                    calls.add(delta.tool_calls or ())
                    text = delta.content or delta.refusal or ""
                    # vLLM and llama.cpp tell what a model thinks before it answers, in a field of their own.
                    if text or delta.tool_calls or getattr(delta, "reasoning_content", None):
                        yield text
                    reason = choice.finish_reason or reason
        if reason is None:
            raise self._server.broke_off("it ended before the model had finished.")
        return Ending(calls.calls(messages), usage, model, reason, response_id=response)

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
        import httpx
        from openai import OpenAI

        from agent.transport import client_options

        return OpenAI(
            base_url=self.address,
            api_key=self.api_key or NO_KEY,
            max_retries=0,  # it would try again without regard to the time that is left
            default_headers=dict(self.headers),
            http_client=httpx.Client(**client_options(self.connect_seconds, self._server.login)),  # pyright: ignore[reportArgumentType] (it takes both kinds of httpx)
        )


@dataclass
class _Call:
    id: str = ""
    name: str = ""
    arguments: str = ""


class _Calls:
    """Tool calls that come in parts."""

    def __init__(self) -> None:
        self._by_index: dict[int, _Call] = {}

    def add(self, parts: "Sequence[ChoiceDeltaToolCall]") -> None:
        """Put parts to what came before of the same calls."""
        for part in parts:
            call = self._by_index.setdefault(part.index, _Call())
            call.id = call.id or part.id or ""
            if part.function:
                call.name = call.name or part.function.name or ""
                call.arguments += part.function.arguments or ""

    def calls(self, messages: Sequence[Message]) -> tuple[ToolCall, ...]:
        """All of them, each with an id that nothing else in the conversation has."""
        used, ids = used_ids(messages), unused_ids(messages)
        calls: list[ToolCall] = []
        for _, call in sorted(self._by_index.items()):
            name = call.id if call.id and call.id not in used else next(new for new in ids if new not in used)
            used.add(name)
            calls.append(ToolCall(name, call.name, parsed_arguments(call.arguments)))
        return tuple(calls)


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
