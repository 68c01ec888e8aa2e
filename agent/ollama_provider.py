"""Language models and embeddings of an Ollama server, by its own client. Other servers: openai_provider.py.

Ollama cuts a conversation that is longer than the model's context without saying so; that is looked for here,
before and after it is sent. Its client knows no ids of tool calls; they are made up here.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from agent.failures import TOOLLESS, ModelServer
from agent.language_model import Listener, MalformedAnswerError, UnknownModelError
from agent.messages import Completion, Message, ToolCall, ToolDescription, Usage
from agent.retrying import Answer, Ending, Retries, complete, ending_within
from agent.tool_calls import unused_ids

if TYPE_CHECKING:
    from ollama import ChatResponse, Client

PORT = 11434
REQUIRE_SECONDS = 10
# More than the tokens of any language have on average: what is too long by this is too long.
CHARACTERS_PER_TOKEN = 6
# A context that is as full as this has been cut, or has no room for an answer.
SLACK_TOKENS = 8
NANOSECONDS = 1e9


@dataclass(frozen=True, eq=False)
class OllamaModel:
    """A language model of an Ollama server. Any number of threads may use it.

    Attributes:
        host: URL of the server, or what OLLAMA_HOST may be; user and password are for basic authentication.
        model: As `ollama list` names it.
        context_tokens: How many tokens of a conversation, its answer included, the model keeps in mind.
        temperature: How much chance there is in the answers; 0: as little as possible.
        seed: Of chance; None: another one each time.
        max_output_tokens: How long an answer may be; None: as long as there is room.
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
    connect_seconds: float = 5.0
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    retries: Retries = field(default_factory=Retries)

    def __post_init__(self) -> None:
        _ = self._server  # refuses what is no address

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
        with ending_within(REQUIRE_SECONDS), _failures(self._server):
            capabilities = client.show(self.model).capabilities
        # Versions before 0.6.4 say nothing of what a model can do.
        if capabilities is not None and "tools" not in capabilities:
            able = ", ".join(capabilities) or "nothing"
            raise UnknownModelError(
                f"{self.model} of Ollama at {self.address} cannot call tools, only: {able}.", TOOLLESS
            )

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
        self._require_room(messages, tools)
        client = self._client  # the first time, importing it takes a second, which is none of the server's
        return complete(lambda: self._answer(client, messages, tools), listener, seconds, self.retries)

    def _answer(
        self, client: "Client", messages: Sequence[Message], tools: Sequence[ToolDescription]
    ) -> Answer:
        calls: list[ToolCall] = []
        ids = unused_ids(messages)
        with _failures(self._server):
            parts = client.chat(
                self.model,
                [_sent(message) for message in messages],
                tools=[_described(tool) for tool in tools] or None,
                stream=True,
                options=self._options,
            )
            # A generator, whatever it is declared as: closing it gives the connection back.
            with closing(cast("Any", parts)):
                for part in parts:
                    message = part.message
                    asked = message.tool_calls or ()
                    calls += [
                        ToolCall(next(ids), call.function.name, dict(call.function.arguments))
                        for call in asked
                    ]
                    if message.content or message.thinking or asked:
                        yield message.content or ""
                    if part.done:
                        return self._ending(part, calls)
        raise self._server.broke_off("it ended before the model had finished.")

    def _ending(self, part: "ChatResponse", calls: Sequence[ToolCall]) -> Ending:
        # Older versions leave out the tokens of a prompt that they still know.
        usage = Usage(part.prompt_eval_count or 0, part.eval_count or 0)
        full = self.context_tokens - SLACK_TOKENS
        if usage.input_tokens >= full or (part.done_reason == "length" and usage.total >= full):
            raise self._server.too_long(
                f"it has {usage.input_tokens:,} tokens or more, and {self.context_tokens:,} are kept, "
                "the answer included"
            )
        seconds = (part.eval_duration or 0) / NANOSECONDS
        return Ending(
            tool_calls=tuple(calls),
            usage=usage,
            model=part.model or self.model,
            reason=part.done_reason or "",
            tokens_per_second=usage.output_tokens / seconds if usage.output_tokens and seconds > 0 else None,
        )

    def _require_room(self, messages: Sequence[Message], tools: Sequence[ToolDescription]) -> None:
        said = sum(
            len(message.content) + sum(len(str(call.arguments)) for call in message.tool_calls)
            for message in messages
        )
        described = sum(len(json.dumps(_described(tool))) for tool in tools)
        tokens = (said + described) // CHARACTERS_PER_TOKEN
        room = self.context_tokens - (self.max_output_tokens or 0)
        if tokens > room:
            raise self._server.too_long(
                f"its {said + described:,} characters are {tokens:,} tokens at the very least, "
                f"and there is room for {room:,}"
            )

    @property
    def _options(self) -> dict[str, Any]:
        options = {
            "num_ctx": self.context_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
            "num_predict": self.max_output_tokens,
        }
        return {name: value for name, value in options.items() if value is not None}

    @cached_property
    def _server(self) -> ModelServer:
        return _server(self.host, self.model, self.headers)

    @cached_property
    def _client(self) -> "Client":
        return _client(self._server, self.connect_seconds, self.headers)


@dataclass(frozen=True, eq=False)
class OllamaEmbedder:
    """An embedding model of an Ollama server. Any number of threads may use it.

    A text that is longer than what the model takes in is represented by its beginning.

    Attributes:
        host: URL of the server, or what OLLAMA_HOST may be; user and password are for basic authentication.
        model: As `ollama list` names it.
        seconds: How long it may take altogether.
        batch: How many texts are sent at once.
        connect_seconds: How long to wait for a connection.
        headers: Sent with each request.
        retries: How often a busy server is asked.
    """

    host: str = field(repr=False)
    model: str
    _: KW_ONLY
    seconds: float = 60.0
    batch: int = 64
    connect_seconds: float = 5.0
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    retries: Retries = field(default_factory=Retries)

    def __post_init__(self) -> None:
        _ = self._server  # refuses what is no address

    @property
    def name(self) -> str:
        """What made the vectors."""
        return f"ollama:{self.model}"

    def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """A vector for each text, all of the same length.

        Raises:
            LanguageModelError: It could not.
        """
        client = self._client  # the first time, importing it takes a second, which is none of the server's
        vectors: list[Sequence[float]] = []
        remaining = iter(texts)
        with ending_within(self.seconds):
            while batch := list(islice(remaining, self.batch)):
                vectors += self.retries.run(lambda batch=batch: self._vectors(client, batch))
        if len({len(vector) for vector in vectors}) > 1:
            raise self._malformed("vectors of different lengths")
        return vectors

    def _vectors(self, client: "Client", texts: Sequence[str]) -> Sequence[Sequence[float]]:
        with _failures(self._server):
            vectors = client.embed(self.model, texts).embeddings
        if len(vectors) != len(texts):
            raise self._malformed(f"{len(vectors)} vectors for {len(texts)} texts")
        if not all(vector and all(map(math.isfinite, vector)) for vector in vectors):
            raise self._malformed("a vector that is empty or not finite")
        return vectors

    def _malformed(self, what: str) -> MalformedAnswerError:
        return MalformedAnswerError(
            f"Ollama at {self._server.address} makes {what} with {self.model}.",
            "Choose a model that is made for embeddings, like nomic-embed-text.",
        )

    @cached_property
    def _server(self) -> ModelServer:
        return _server(self.host, self.model, self.headers)

    @cached_property
    def _client(self) -> "Client":
        return _client(self._server, self.connect_seconds, self.headers)


def _server(host: str, model: str, headers: Mapping[str, str]) -> ModelServer:
    return ModelServer(
        kind="Ollama",
        url=_url(host),
        model=model,
        start="Start it with `ollama serve`, or set OLLAMA_HOST to where it runs.",
        fetch=f"Get it with `ollama pull {model}`, or choose one that `ollama list` names.",
        secrets=tuple(value.rpartition(" ")[2] for value in headers.values()),
    )


def _url(host: str) -> str:
    """An address as Ollama reads OLLAMA_HOST: without a scheme, the port is Ollama's own unless it says."""
    if not host or "://" in host:
        return host
    place, slash, path = host.partition("/")
    login, at, name = place.rpartition("@")
    if not re.search(r":\d+$", name):
        name += f":{PORT}"
    if name.startswith(":"):
        name = f"127.0.0.1{name}"
    return f"http://{login}{at}{name}{slash}{path}"


def _client(server: ModelServer, connect_seconds: float, headers: Mapping[str, str]) -> "Client":
    from ollama import Client

    from agent.transport import client_options

    # The client drops user and password of an address, so they are told apart from it.
    return Client(server.address, headers=dict(headers), **client_options(connect_seconds, server.login))


@contextmanager
def _failures(server: ModelServer) -> Iterator[None]:
    from ollama import ResponseError

    with server.failures():
        try:
            yield
        except ResponseError as error:
            # The client has no status for an error within the stream.
            status = error.status_code if error.status_code > 0 else None
            raise server.says(status, str(error.error)) from None


def _sent(message: Message) -> dict[str, Any]:
    sent: dict[str, Any] = {"role": message.role.value, "content": message.content}
    if message.tool_calls:
        sent["tool_calls"] = [
            {"function": {"name": call.name, "arguments": _arguments(call)}} for call in message.tool_calls
        ]
    if message.answers:
        sent["tool_name"] = message.answers.name
    return sent


def _arguments(call: ToolCall) -> Mapping[str, Any]:
    # What was no object cannot be sent back as one; the tool's answer says what it was.
    return {} if isinstance(call.arguments, str) else call.arguments


def _described(tool: ToolDescription) -> dict[str, Any]:
    parameters = dict(tool.parameters)
    parameters["properties"] = {
        name: _plain(schema) for name, schema in parameters.get("properties", {}).items()
    }
    return {
        "type": "function",
        "function": {"name": tool.name, "description": tool.description, "parameters": parameters},
    }


def _plain(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same without anyOf, which the client leaves out; a list of types says as much."""
    choices = schema.get("anyOf", ())
    types = [choice.get("type") for choice in choices]
    if not choices or not all(isinstance(kind, str) for kind in types):
        return schema
    merged = {name: value for choice in choices for name, value in choice.items()}
    return {**merged, **{name: value for name, value in schema.items() if name != "anyOf"}, "type": types}
