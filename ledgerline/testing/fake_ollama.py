"""A server that speaks as Ollama does, with a made-up mind in place of a model.

What it says on the wire is what Ollama 0.17.4 says: test_ollama_wire.py asks both. Its clients are real.

Example:
    >>> from ledgerline.agent.messages import Message, Role
    >>> from ledgerline.agent.ollama_provider import OllamaModel
    >>> with FakeOllama(scripted(Reply(pieces=("Answer: ", "3")))) as fake:
    ...     model = OllamaModel(fake.url, MODEL)
    ...     model.complete([Message(Role.USER, "How many?")], (), 10.0, lambda piece: None).message.content
    'Answer: 3'
"""

import csv
import hashlib
import io
import json
import math
import random
import re
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from ledgerline.testing.fake_http import FakeServer, Handler

MODEL = "qwen3:8b"
EMBEDDING_MODEL = "nomic-embed-text:latest"
DIMENSIONS = 64
VERSION = "0.17.4"
CONTEXT_TOKENS = 40_960  # that the models were made for
DEFAULT_CONTEXT_TOKENS = 4096  # that a server gives without being asked
CREATED = datetime(2026, 1, 31, 12, tzinfo=UTC)
NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class ChatRequest:
    """What a client asks for, as it came.

    Attributes:
        messages: Each with "role" and "content", and whatever else the protocol has.
        options: Of Ollama, or all other fields of OpenAI's protocol.
        headers: Their names in small letters.
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
        """The names of the tools."""
        return [tool["function"]["name"] for tool in self.tools]


@dataclass(frozen=True)
class Reply:
    """What a mind says, and how its server misbehaves.

    Attributes:
        pieces: Of the text, one a chunk.
        tool_calls: Name and arguments as the model writes them, which may be a text that is no JSON.
        raw_calls: Calls as some servers send them, which are sent as they are.
        thinking: Pieces that come before the text.
        input_tokens: At least, where they are counted; None: not said.
        read_tokens: What a server says that it has read of a longer conversation.
        output_tokens: None: not said.
        output_seconds: What Ollama says it took.
        done_reason: None: not said.
        status: Of the HTTP answer; another than 200 is answered with the error alone.
        error: With status 200: within the stream, after the pieces.
        headers: Of an answer with another status.
        seconds_before: Until the answer begins.
        seconds_between: From piece to piece.
        seconds_between_bytes: From byte to byte of the first piece.
        hangs_up: End the connection without an answer.
        breaks_after: End the connection after so many pieces.
        is_endless: Leave out that it is done.
        garbage: Sent after the pieces, in place of the end.
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


Mind = Callable[[ChatRequest], Reply]


def scripted(*replies: Reply) -> Mind:
    """One reply after the other; there may be no more requests than replies."""
    remaining = iter(replies)
    lock = threading.Lock()

    def reply(request: ChatRequest) -> Reply:
        with lock:
            following = next(remaining, None)
        if following is None:
            return Reply(status=500, error=f"The script has only {len(replies)} replies.")
        return following

    return reply


@dataclass(frozen=True)
class Analyst:
    """A mind that answers questions by one call of a tool that takes SQL.

    Attributes:
        queries: What a question contains, and the SQL that answers it; None: nothing does.
        tool: The name of the tool.
    """

    queries: Mapping[str, str | None]
    tool: str = "query"

    def __call__(self, request: ChatRequest) -> Reply:
        """Call the tool, or answer with what it returned."""
        last = request.messages[-1]
        if last["role"] == "tool":
            return _answered(_first_cell(last.get("content", "")))
        sql = next((sql for text, sql in self.queries.items() if text in last.get("content", "")), None)
        if sql is None:
            return _answered("unknown")
        return Reply(tool_calls=((self.tool, {"sql": sql}),))


def _answered(value: str) -> Reply:
    return Reply(pieces=("This is what the tables say.\n", "Answer: ", value))


def _first_cell(text: str) -> str:
    rows = list(csv.reader(io.StringIO(text)))
    return rows[1][0] if len(rows) > 1 and rows[1] else "unknown"


class FakeOllama(FakeServer):
    """Ollama's HTTP interface: version, tags, ps, show, chat, embed.

    Attributes:
        requests: The chats that were asked for, in the order they came.
        embedded: The texts that were.
        version: None: it has none, like something else with this interface.
        context_tokens: That its models were made for.
        vectors: Makes the embeddings of texts.
        untagged: Models whose template has no tag before a tool call: what is no call to them is text.
    """

    def __init__(self, mind: Mind, models: Mapping[str, Sequence[str] | None] | None = None) -> None:
        """Begin to listen when it is entered.

        Args:
            mind: Decides what is said.
            models: Names, and what each can do; None: it does not say, like an old version.
        """
        self.handler = _OllamaHandler
        self.mind = mind
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
        """The whole name of a model it has, in its own letters."""
        asked = name.lower().removeprefix("library/")
        wanted = {asked, f"{asked}:latest", asked.removesuffix(":latest")}
        return next((whole for whole in self.models if whole.lower() in wanted), None)

    def can(self, name: str, capability: str) -> bool:
        """Return whether a model has a capability; True if the model lists no capabilities."""
        capabilities = self.models[name]
        return capabilities is None or capability in capabilities


class _OllamaHandler(Handler):
    server: Any

    @property
    def fake(self) -> FakeOllama:
        return self.server.fake

    def do_GET(self) -> None:  # noqa: N802 (its name in the library)
        match self.path:
            case "/":
                self.send(b"Ollama is running", headers={"Content-Type": "text/plain; charset=utf-8"})
            case "/api/version" if self.fake.version is not None:
                self.send_json({"version": self.fake.version})
            case "/api/tags":
                self.send_json({"models": [_listed(_whole(name)) for name in self.fake.models]})
            case "/api/ps":
                self.send_json({"models": [_running(*pair) for pair in self.fake.loaded.items()]})
            case _:
                self._not_found()

    def do_POST(self) -> None:  # noqa: N802 (its name in the library)
        body = self.body()
        answers = {"/api/show": self._show, "/api/chat": self._chat, "/api/embed": self._embed}
        answer = answers.get(self.path)
        if answer is None:
            return self._not_found()
        asked = body.get("model") or ""
        if not re.fullmatch(r"[^:]+(:[^:]+)?", asked):
            return self._no_name(asked)
        name = self.fake.named(asked)
        if name is None:
            missing = f"model '{asked}' not found"
            if self.path == "/api/embed":
                missing = f'model "{asked}" not found, try pulling it first'
            return self.send_json({"error": missing}, 404)
        return answer(name, body)

    def _no_name(self, asked: str) -> None:
        if self.path == "/api/chat" or (self.path == "/api/show" and not asked):
            return self.send_json({"error": "model is required"}, 400)
        whole = f"registry.ollama.ai/library/{asked or '!MISSING!:latest'}"
        return self.send_json({"error": f"unqualified name: {whole}"}, 500)

    def _not_found(self) -> None:
        self.send(b"404 page not found", 404, {"Content-Type": "text/plain"})

    def _show(self, name: str, _: Mapping[str, Any]) -> None:
        shown = {
            "modelfile": f"FROM {name}",
            "details": _DETAILS,
            "model_info": {"general.architecture": "qwen3", "qwen3.context_length": self.fake.context_tokens},
            "modified_at": _time(),
        }
        capabilities = self.fake.models[name]
        self.send_json(shown if capabilities is None else {**shown, "capabilities": list(capabilities)})

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
        self.fake.loaded[_whole(name)] = limit
        kept = _kept(request.messages, limit)
        if len(kept) < len(request.messages) or tokens_of(kept) > limit:
            if request.more.get("truncate") is False:
                return self.send_json({"error": "the input length exceeds the context length"}, 400)
            request = replace(request, messages=kept)
        reply = self.fake.mind(request)
        if misbehaves(self, self.fake, reply):
            return None
        if reply.status != 200:
            content = json.dumps({"error": reply.error}).encode()
            return self.send(content, reply.status, reply.headers)
        reply = _parsed(reply, request, is_tagged=name not in self.fake.untagged)
        return self._stream(request, reply) if request.stream else self._answer(request, reply)

    def _load(self, name: str, request: ChatRequest) -> None:
        is_over = request.more.get("keep_alive") == 0
        if is_over:
            self.fake.loaded.pop(_whole(name), None)
        ending = {"done": True, "done_reason": "unload" if is_over else "load"}
        message = {"role": "assistant", "content": ""}
        self.send_json({"model": request.model, "created_at": _time(), "message": message, **ending})

    def _refusal(self, name: str, request: ChatRequest) -> str | None:
        think = request.more.get("think")
        if request.tools and not self.fake.can(name, "tools"):
            return f"registry.ollama.ai/library/{_whole(name)} does not support tools"
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

        def said(**message: Any) -> bytes:
            return line(message={"role": "assistant", "content": "", **message}, done=False)

        lines = [said(thinking=text) for text in reply.thinking]
        lines += [said(content=text) for text in reply.pieces]
        if calls := _calls(reply):
            lines.append(said(tool_calls=calls))
        error = json.dumps({"error": reply.error}).encode() + b"\n" if reply.error else b""
        end = line(message={"role": "assistant", "content": ""}, **_ending(reply))
        self.begin("application/x-ndjson")
        stream(self, self.fake, reply, lines, error or end)


def tokens_of(messages: Sequence[Mapping[str, Any]]) -> int:
    """Tokens of a conversation, as this server counts them."""
    texts = [f"{message.get('content', '')} {message.get('tool_calls', '')}" for message in messages]
    return sum(4 + len(re.findall(r"\w+|[^\w\s]", text)) for text in texts)


def _kept(messages: Sequence[Mapping[str, Any]], limit: int) -> list[Mapping[str, Any]]:
    """Those that a prompt is made of: the oldest are dropped, but for the system's and the last."""
    for start in range(len(messages)):
        kept = [message for message in messages[:start] if message["role"] == "system"]
        kept += messages[start:]
        if tokens_of(kept) <= limit:
            return kept
    return list(messages[-1:])


def _parsed(reply: Reply, request: ChatRequest, *, is_tagged: bool) -> Reply:
    """A reply as Ollama reads tool calls in what a model wrote.

    Without tools there is nothing to read. A call that names no tool that was offered, or is cut off, is left
    out, or text where no tag says that it is a call; but if the name of a tool is anywhere in it, then that
    one is called.
    """
    read: list[tuple[str, Mapping[str, Any] | str]] = []
    texts: list[str] = []
    for name, arguments in reply.tool_calls:
        written = _written(name, arguments)
        found = [offered for offered in request.offered if offered in written]
        if found and not isinstance(arguments, str):
            read.append((name if name in request.offered else min(found, key=written.index), arguments))
        elif not (request.tools and is_tagged):
            texts.append(written)
    return replace(reply, pieces=(*reply.pieces, *texts), tool_calls=tuple(read))


def _written(name: str, arguments: Mapping[str, Any] | str) -> str:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, separators=(",", ":"))
    return f'{{"name":"{name}","arguments":{text}}}'


def misbehaves(handler: Handler, fake: FakeServer, reply: Reply) -> bool:
    """Do what comes before an answer; says whether there will be none."""
    if reply.seconds_before:
        fake.stopping.wait(reply.seconds_before)
    if reply.hangs_up or fake.stopping.is_set():
        handler.hang_up()
        return True
    return False


def stream(handler: Handler, fake: FakeServer, reply: Reply, chunks: Sequence[bytes], end: bytes) -> None:
    """Send chunks, and misbehave meanwhile."""
    for number, chunk in enumerate(chunks):
        if number == reply.breaks_after:
            return handler.hang_up()
        if number and reply.seconds_between:
            fake.stopping.wait(reply.seconds_between)
        for part in _bytes_of(chunk) if number == 0 and reply.seconds_between_bytes else (chunk,):
            if reply.seconds_between_bytes and fake.stopping.wait(reply.seconds_between_bytes):
                return handler.hang_up()
            handler.chunk(part)
    if reply.breaks_after is not None:
        return handler.hang_up()
    if last := reply.garbage or (b"" if reply.is_endless else end):
        handler.chunk(last)
    return handler.end()


def _bytes_of(content: bytes) -> Iterator[bytes]:
    return (content[at : at + 1] for at in range(len(content)))


def embedding(text: str) -> list[float]:
    """A vector of length 1 for the words of a text; who shares words is near."""
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
    return {name: value for name, value in ending.items() if value}  # what is 0 is left out


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
    return {
        **_listed(name),
        "expires_at": _time(),
        "size_vram": 0,
        "context_length": context_tokens,
    }


def _whole(name: str) -> str:
    return name if ":" in name else f"{name}:latest"


def _time() -> str:
    """Always the same, with nanoseconds, as Go writes it."""
    return CREATED.strftime("%Y-%m-%dT%H:%M:%S.123456789Z")
