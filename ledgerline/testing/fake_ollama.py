"""A fake Ollama server, in which a function replies instead of a model.

Its HTTP responses are those of Ollama 0.17.4: test_ollama_wire.py sends the same requests to both. The
clients in tests are real.

Example:
    >>> from ledgerline.agent.messages import Message, Role
    >>> from ledgerline.agent.ollama_provider import OllamaModel
    >>> with FakeOllama(scripted(Reply(pieces=("Answer: ", "3")))) as server:
    ...     model = OllamaModel(server.url, MODEL)
    ...     completion = model.complete([Message(Role.USER, "How many?")], [], 10, lambda piece: None)
    >>> completion.message.content
    'Answer: 3'
    >>> server.requests[0].messages[-1]["content"]
    'How many?'
"""

import csv
import hashlib
import io
import json
import math
import random
import re
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from ledgerline.testing.fake_http import FakeServer, Handler

MODEL = "qwen3:8b"
EMBEDDING_MODEL = "nomic-embed-text:latest"
DIMENSIONS = 64
VERSION = "0.17.4"
CONTEXT_TOKENS = 40_960  # context that the models were made for
DEFAULT_CONTEXT_TOKENS = 4096  # context if a request does not set it
CREATED = datetime(2026, 1, 31, 12, tzinfo=UTC)
NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class ChatRequest:
    """A chat request, as it was received.

    Attributes:
        messages: Messages with "role", "content" and the other fields of the protocol.
        options: Options of Ollama, or all other fields of OpenAI's protocol.
        stream: True for a streamed response.
        headers: HTTP headers by their names in lower case.
        more: All other fields of Ollama's protocol.
    """

    model: str
    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]]
    options: Mapping[str, Any]
    stream: bool
    headers: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def offered(self) -> list[str]:
        """The names of the tools that are offered."""
        return [tool["function"]["name"] for tool in self.tools]


@dataclass(frozen=True)
class Reply:
    """The reply of a model, and the faults of its server.

    Attributes:
        pieces: Pieces of the text, one for each chunk.
        tool_calls: Names and arguments as the model writes them; the arguments may be a text that is not
            JSON.
        raw_calls: Calls that are sent unchanged, as some servers send them.
        thinking: Pieces of thoughts, which are sent before the text.
        input_tokens: Minimum number of tokens of the request that is reported; None to omit it.
        read_tokens: Number that is reported instead by a server that has truncated the conversation.
        output_tokens: Number of tokens of the response that is reported; None to omit it.
        output_seconds: Duration of the response that Ollama reports.
        done_reason: Finish reason; None to omit it.
        status: HTTP status; if it is not 200, only the error is sent.
        error: Error message; with status 200, it is sent within the stream, after the pieces.
        headers: Headers of a response with another status.
        seconds_before: Delay before the response.
        seconds_between: Delay between pieces.
        seconds_between_bytes: Delay between the bytes of the first piece.
        hangs_up: Close the connection without a response.
        breaks_after: Number of pieces after which the connection is closed.
        is_endless: Omit the end of the stream.
        garbage: Bytes that are sent after the pieces, instead of the end.
    """

    pieces: tuple[str, ...] = ()
    tool_calls: tuple[tuple[str, Mapping[str, Any] | str], ...] = ()
    raw_calls: tuple[Mapping[str, Any], ...] = ()
    thinking: tuple[str, ...] = ()
    input_tokens: int | None = 26
    read_tokens: int | None = None
    output_tokens: int | None = 10
    output_seconds: float | None = 0.5
    done_reason: str | None = "stop"
    status: int = 200
    error: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds_before: float = 0.0
    seconds_between: float = 0.0
    seconds_between_bytes: float = 0.0
    hangs_up: bool = False
    breaks_after: int | None = None
    is_endless: bool = False
    garbage: bytes = b""


# A responder replies to requests in place of a model.
Responder = Callable[[ChatRequest], Reply]


def scripted(*replies: Reply) -> Responder:
    """Return a responder that returns the replies in their order; further requests get an error."""
    remaining = iter(replies)
    lock = threading.Lock()

    def reply(request: ChatRequest) -> Reply:
        with lock:
            following = next(remaining, None)
        return following or Reply(status=500, error=f"The script has only {len(replies)} replies.")

    return reply


@dataclass(frozen=True)
class Analyst:
    """A responder that answers each question with one call of a tool for SQL.

    Attributes:
        queries: SQL by a part of the question; None if no table has the answer.
    """

    queries: Mapping[str, str | None]
    tool: str = "query"

    def __call__(self, request: ChatRequest) -> Reply:
        """Call the tool, or answer with the first cell of its result."""
        last = request.messages[-1]
        content = last.get("content", "")
        rows: list[list[str]] = []
        if last["role"] == "tool":
            rows = list(csv.reader(io.StringIO(content)))
        elif sql := next((sql for text, sql in self.queries.items() if text in content), None):
            return Reply(tool_calls=((self.tool, {"sql": sql}),))
        value = rows[1][0] if len(rows) > 1 and rows[1] else "unknown"
        return Reply(pieces=("This is what the tables say.\n", "Answer: ", value))


class FakeOllama(FakeServer):
    """A fake of Ollama's HTTP API: version, tags, ps, show, chat, embed.

    Attributes:
        models: Capabilities of each model by its name; None for an old version that does not list them.
        version: Version of the server; None for another server with this API.
        context_tokens: Context that its models were made for.
        vectors: Function that returns the vectors of texts.
        untagged: Models whose template has no tag before a tool call; their invalid calls become text.
        loaded: Context length of each loaded model.
    """

    def __init__(
        self, responder: Responder, models: Mapping[str, Sequence[str] | None] | None = None
    ) -> None:
        """Prepare the server, which listens from the beginning of its `with` block."""
        self.handler = _OllamaHandler
        self.responder = responder
        self.models = models or {MODEL: ("completion", "tools"), EMBEDDING_MODEL: ("embedding",)}
        self.requests: list[ChatRequest] = []
        self.embedded: list[str] = []
        self.version: str | None = VERSION
        self.context_tokens = CONTEXT_TOKENS
        self.vectors: Callable[[Sequence[str]], Any] = lambda texts: [embedding(text) for text in texts]
        self.untagged: Collection[str] = ()
        self.loaded: dict[str, int] = {}
        super().__init__()

    def named(self, name: str) -> str | None:
        """Return the full name of a model, in its own spelling; None if the server does not have it."""
        short = name.lower().removeprefix("library/")
        names = {short, f"{short}:latest", short.removesuffix(":latest")}
        return next((known for known in self.models if known.lower() in names), None)

    def can(self, name: str, capability: str) -> bool:
        """Return whether a model has a capability; True if the model lists no capabilities."""
        capabilities = self.models[name]
        return capabilities is None or capability in capabilities


class _OllamaHandler(Handler):
    @property
    def fake(self) -> FakeOllama:
        return self.server.owner

    def do_GET(self) -> None:  # noqa: N802 (its name in the library)
        match self.path:
            case "/":
                self.send(b"Ollama is running", headers={"Content-Type": "text/plain; charset=utf-8"})
            case "/api/version" if self.fake.version is not None:
                self.send_json({"version": self.fake.version})
            case "/api/tags":
                self.send_json({"models": [_listed(_full_name(name)) for name in self.fake.models]})
            case "/api/ps":
                self.send_json({"models": [_running(*pair) for pair in self.fake.loaded.items()]})
            case _:
                self._page_not_found()

    def do_POST(self) -> None:  # noqa: N802 (its name in the library)
        body = self.body()
        handlers = {"/api/show": self._show, "/api/chat": self._chat, "/api/embed": self._embed}
        handler = handlers.get(self.path)
        if handler is None:
            return self._page_not_found()
        requested = body.get("model") or ""
        if not re.fullmatch(r"[^:]+(:[^:]+)?", requested):
            return self._invalid_name(requested)
        name = self.fake.named(requested)
        if name is None:
            missing = f"model '{requested}' not found"
            if self.path == "/api/embed":
                missing = f'model "{requested}" not found, try pulling it first'
            return self.send_json({"error": missing}, 404)
        return handler(name, body)

    def _invalid_name(self, requested: str) -> None:
        if self.path == "/api/chat" or (self.path == "/api/show" and not requested):
            return self.send_json({"error": "model is required"}, 400)
        full_name = f"registry.ollama.ai/library/{requested or '!MISSING!:latest'}"
        return self.send_json({"error": f"unqualified name: {full_name}"}, 500)

    def _page_not_found(self) -> None:
        self.send(b"404 page not found", 404, {"Content-Type": "text/plain"})

    def _show(self, name: str, _: Mapping[str, Any]) -> None:
        description: dict[str, Any] = {
            "modelfile": f"FROM {name}",
            "details": _DETAILS,
            "model_info": {"general.architecture": "qwen3", "qwen3.context_length": self.fake.context_tokens},
            "modified_at": _time(),
        }
        if (capabilities := self.fake.models[name]) is not None:
            description["capabilities"] = list(capabilities)
        self.send_json(description)

    def _embed(self, name: str, body: Mapping[str, Any]) -> None:
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        self.fake.embedded.extend(texts)
        self.send_json(
            {
                "model": body["model"],
                "embeddings": self.fake.vectors(texts),
                "total_duration": 14_143_917,
                "load_duration": 1_019_500,
                "prompt_eval_count": sum(len(text.split()) for text in texts),
            }
        )

    def _chat(self, name: str, body: Mapping[str, Any]) -> None:
        options = body.get("options") or {}
        known = {"model", "messages", "tools", "options", "stream"}
        request = ChatRequest(
            body["model"],
            body["messages"],
            body.get("tools") or (),
            options,
            body.get("stream", True),
            {name.lower(): value for name, value in self.headers.items()},
            {name: value for name, value in body.items() if name not in known},
        )
        self.fake.requests.append(request)
        if not request.messages:
            return self._load(name, request)
        if (refusal := self._refusal(name, request)) is not None:
            return self.send_json({"error": refusal}, 400)
        limit = min(options.get("num_ctx") or DEFAULT_CONTEXT_TOKENS, self.fake.context_tokens)
        self.fake.loaded[_full_name(name)] = limit
        kept = _kept(request.messages, limit)
        if len(kept) < len(request.messages) or tokens_of(kept) > limit:
            if request.more.get("truncate") is False:
                return self.send_json({"error": "the input length exceeds the context length"}, 400)
            request = replace(request, messages=kept)
        reply = self.fake.responder(request)
        if not is_ended_by_fault(self, reply, {"error": reply.error}):
            reply = _parsed(reply, request, is_tagged=name not in self.fake.untagged)
            respond = self._stream if request.stream else self._answer
            respond(request, reply)
        return None

    def _load(self, name: str, request: ChatRequest) -> None:
        is_over = request.more.get("keep_alive") == 0
        if is_over:
            self.fake.loaded.pop(_full_name(name), None)
        ending = {"done": True, "done_reason": "unload" if is_over else "load"}
        message = {"role": "assistant", "content": ""}
        self.send_json({"model": request.model, "created_at": _time(), "message": message, **ending})

    def _refusal(self, name: str, request: ChatRequest) -> str | None:
        think = request.more.get("think")
        if request.tools and not self.fake.can(name, "tools"):
            return f"registry.ollama.ai/library/{_full_name(name)} does not support tools"
        if not self.fake.can(name, "completion"):
            return f'"{request.model}" does not support chat'
        if think and not self.fake.can(name, "thinking"):
            return f'"{request.model}" does not support thinking'
        if isinstance(think, str):
            return f'think value "{think}" is not supported for this model'
        return None

    def _answer(self, request: ChatRequest, reply: Reply) -> None:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(reply.pieces)}
        if reply.thinking:
            message["thinking"] = "".join(reply.thinking)
        if calls := _calls(reply):
            message["tool_calls"] = calls
        self.send_json({"model": request.model, "created_at": _time(), "message": message, **_ending(reply)})

    def _stream(self, request: ChatRequest, reply: Reply) -> None:
        def line(**fields: Any) -> bytes:
            content = {"model": request.model, "created_at": _time(), **fields}
            return json.dumps(content, separators=(",", ":")).encode() + b"\n"

        def piece(**message: Any) -> bytes:
            return line(message={"role": "assistant", "content": "", **message}, done=False)

        lines = [piece(thinking=text) for text in reply.thinking]
        lines += [piece(content=text) for text in reply.pieces]
        if calls := _calls(reply):
            lines.append(piece(tool_calls=calls))
        error = json.dumps({"error": reply.error}).encode() + b"\n" if reply.error else b""
        end = line(message={"role": "assistant", "content": ""}, **_ending(reply))
        self.begin("application/x-ndjson")
        stream(self, reply, lines, error or end)


def tokens_of(messages: Sequence[Mapping[str, Any]]) -> int:
    """Return the number of tokens of a conversation, as this server counts them."""
    texts = [f"{message.get('content', '')} {message.get('tool_calls', '')}" for message in messages]
    return sum(4 + len(re.findall(r"\w+|[^\w\s]", text)) for text in texts)


def _kept(messages: Sequence[Mapping[str, Any]], limit: int) -> list[Mapping[str, Any]]:
    """Return the messages that fit: the oldest are dropped, except system messages and the last one."""
    for start in range(len(messages)):
        kept = [message for message in messages[:start] if message["role"] == "system"]
        kept += messages[start:]
        if tokens_of(kept) <= limit:
            return kept
    return list(messages[-1:])


def _parsed(reply: Reply, request: ChatRequest, *, is_tagged: bool) -> Reply:
    """Return a reply with the tool calls that Ollama parses in a model's text.

    Without tools, nothing is parsed. A call that is cut off, or names no offered tool, is dropped, or
    becomes text if the template has no tag for calls. If the name of an offered tool is anywhere in the
    text, that tool is called.
    """
    parsed: list[tuple[str, Mapping[str, Any] | str]] = []
    texts: list[str] = []
    for name, arguments in reply.tool_calls:
        written = _written(name, arguments)
        named = [offered for offered in request.offered if offered in written]
        if named and not isinstance(arguments, str):
            parsed.append((name if name in request.offered else min(named, key=written.index), arguments))
        elif not (request.tools and is_tagged):
            texts.append(written)
    return replace(reply, pieces=(*reply.pieces, *texts), tool_calls=tuple(parsed))


def _written(name: str, arguments: Mapping[str, Any] | str) -> str:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, separators=(",", ":"))
    return f'{{"name":"{name}","arguments":{text}}}'


def is_ended_by_fault(handler: Handler, reply: Reply, error: Mapping[str, Any]) -> bool:
    """Wait before a response; return True if the reply closes the connection, or is only an error."""
    stopping = handler.server.owner.stopping
    if reply.seconds_before:
        stopping.wait(reply.seconds_before)
    if reply.hangs_up or stopping.is_set():
        handler.hang_up()
        return True
    if reply.status != 200:
        handler.send(json.dumps(error).encode(), reply.status, reply.headers)
        return True
    return False


def stream(handler: Handler, reply: Reply, chunks: Sequence[bytes], end: bytes) -> None:
    """Send chunks with the faults of the reply."""
    wait = handler.server.owner.stopping.wait
    for number, chunk in enumerate(chunks):
        if number == reply.breaks_after:
            return handler.hang_up()
        if number and reply.seconds_between:
            wait(reply.seconds_between)
        is_slow = number == 0 and reply.seconds_between_bytes
        for part in [bytes([byte]) for byte in chunk] if is_slow else [chunk]:
            if reply.seconds_between_bytes and wait(reply.seconds_between_bytes):
                return handler.hang_up()
            handler.chunk(part)
    if reply.breaks_after is not None:
        return handler.hang_up()
    if last := reply.garbage or (b"" if reply.is_endless else end):
        handler.chunk(last)
    return handler.end()


def embedding(text: str) -> list[float]:
    """Return a vector of length 1 for a text; texts that share words have similar vectors."""
    vector = [0.0] * DIMENSIONS
    for word in re.findall(r"\w+", text.lower()) or [""]:
        digest = hashlib.sha256(word.encode()).digest()
        vector[digest[0] % DIMENSIONS] += 1.0 if digest[1] % 2 else -1.0
    length = math.hypot(*vector)
    return [value / length for value in vector] if length else [1.0, *vector[1:]]


def _calls(reply: Reply) -> list[Mapping[str, Any]]:
    calls = [
        {"id": _call_id(), "function": {"index": index, "name": name, "arguments": arguments}}
        for index, (name, arguments) in enumerate(reply.tool_calls)
    ]
    return [*calls, *reply.raw_calls]


def _call_id() -> str:
    return f"call_{''.join(random.choices('abcdefghijklmnopqrstuvwxyz0123456789', k=8))}"  # noqa: S311 (no secret)


def _ending(reply: Reply) -> dict[str, Any]:
    ending = {
        "done": True,
        "done_reason": reply.done_reason,
        "total_duration": 4_883_583_458,
        "load_duration": 1_334_875,
        "prompt_eval_count": reply.input_tokens,
        "prompt_eval_duration": 342_546_000,
        "eval_count": reply.output_tokens,
        "eval_duration": None if reply.output_seconds is None else int(reply.output_seconds * NANOSECONDS),
    }
    return {name: value for name, value in ending.items() if value}  # Ollama omits values that are 0


_DETAILS = {
    "parent_model": "",
    "format": "gguf",
    "family": "qwen3",
    "families": ["qwen3"],
    "parameter_size": "8.2B",
    "quantization_level": "Q4_K_M",
}


def _listed(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "model": name,
        "modified_at": _time(),
        "size": 5_225_388_164,
        "digest": hashlib.sha256(name.encode()).hexdigest(),
        "details": _DETAILS,
    }


def _running(name: str, context_tokens: int) -> dict[str, Any]:
    return {**_listed(name), "expires_at": _time(), "size_vram": 0, "context_length": context_tokens}


def _full_name(name: str) -> str:
    return name if ":" in name else f"{name}:latest"


def _time() -> str:
    """Return a fixed time with nanoseconds, as Go formats it."""
    return CREATED.strftime("%Y-%m-%dT%H:%M:%S.123456789Z")
