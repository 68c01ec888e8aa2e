"""A server that speaks as Ollama does, with a made-up mind in place of a model.

What it says on the wire: https://docs.ollama.com/api, as Ollama 0.12 does. Its clients are real.
"""

import csv
import hashlib
import io
import json
import math
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.agent.fake_http import FakeServer, Handler

MODEL = "qwen3:8b"
EMBEDDING_MODEL = "nomic-embed-text:latest"
DIMENSIONS = 64
VERSION = "0.12.6"
CREATED = datetime(2026, 1, 31, 12, tzinfo=UTC)
NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class ChatRequest:
    """What a client asks for, as it came.

    Attributes:
        messages: Each with "role" and "content", and whatever else the protocol has.
        options: Of Ollama, or all other fields of OpenAI's protocol.
        headers: Their names in small letters.
    """

    model: str
    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]]
    options: Mapping[str, Any]
    stream: bool
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """What a mind says, and how its server misbehaves.

    Attributes:
        pieces: Of the text, one a chunk.
        tool_calls: Name and arguments; a text instead of them is sent as it is where the protocol can.
        thinking: Pieces that come before the text.
        input_tokens: None: not said.
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
    thinking: tuple[str, ...] = ()
    input_tokens: int | None = 26
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
    """Answers questions about flights by asking the tool `query_flights` once.

    Attributes:
        queries: What a question contains, and the SQL that answers it; None: nothing does.
    """

    queries: Mapping[str, str | None]

    def __call__(self, request: ChatRequest) -> Reply:
        last = request.messages[-1]
        if last["role"] == "tool":
            return _answered(_first_cell(last.get("content", "")))
        sql = next((sql for text, sql in self.queries.items() if text in last.get("content", "")), None)
        if sql is None:
            return _answered("unknown")
        return Reply(tool_calls=(("query_flights", {"sql": sql}),))


def _answered(value: str) -> Reply:
    return Reply(pieces=("This is what the flights say.\n", "Answer: ", value))


def _first_cell(text: str) -> str:
    rows = list(csv.reader(io.StringIO(text)))
    return rows[1][0] if len(rows) > 1 and rows[1] else "unknown"


class FakeOllama(FakeServer):
    """Ollama's HTTP interface: version, tags, show, chat, embed.

    Attributes:
        requests: The chats that were asked for, in the order they came.
        embedded: The texts that were.
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
        super().__init__()

    def named(self, name: str) -> str | None:
        """The whole name of a model it has."""
        return next((whole for whole in (name, f"{name}:latest") if whole in self.models), None)


class _OllamaHandler(Handler):
    server: Any

    @property
    def fake(self) -> FakeOllama:
        return self.server.fake

    def do_GET(self) -> None:  # noqa: N802 (its name in the library)
        match self.path:
            case "/":
                self.send(b"Ollama is running", headers={"Content-Type": "text/plain; charset=utf-8"})
            case "/api/version":
                self.send_json({"version": VERSION})
            case "/api/tags":
                self.send_json({"models": [_listed(name) for name in self.fake.models]})
            case _:
                self._not_found()

    def do_POST(self) -> None:  # noqa: N802 (its name in the library)
        body = self.body()
        answers = {"/api/show": self._show, "/api/chat": self._chat, "/api/embed": self._embed}
        answer = answers.get(self.path)
        if answer is None:
            return self._not_found()
        name = self.fake.named(body["model"])
        if name is None:
            return self.send_json({"error": f"model '{body['model']}' not found"}, 404)
        return answer(name, body)

    def _not_found(self) -> None:
        self.send(b"404 page not found", 404, {"Content-Type": "text/plain"})

    def _show(self, name: str, _: Mapping[str, Any]) -> None:
        shown = {
            "modelfile": f"FROM {name}",
            "details": _DETAILS,
            "model_info": {"general.architecture": "qwen3", "qwen3.context_length": 40_960},
            "modified_at": _time(),
        }
        capabilities = self.fake.models[name]
        self.send_json(shown if capabilities is None else {**shown, "capabilities": list(capabilities)})

    def _embed(self, name: str, body: Mapping[str, Any]) -> None:
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        self.fake.embedded.extend(texts)
        self.send_json(
            {
                "model": name,
                "embeddings": [embedding(text) for text in texts],
                "total_duration": 14_143_917,
                "load_duration": 1_019_500,
                "prompt_eval_count": sum(len(text.split()) for text in texts),
            }
        )

    def _chat(self, name: str, body: Mapping[str, Any]) -> None:
        request = ChatRequest(
            body["model"],
            body["messages"],
            body.get("tools") or (),
            body.get("options") or {},
            body.get("stream", True),
            {name.lower(): value for name, value in self.headers.items()},
        )
        self.fake.requests.append(request)
        capabilities = self.fake.models[name]
        if request.tools and capabilities is not None and "tools" not in capabilities:
            error = f"registry.ollama.ai/library/{name} does not support tools"
            return self.send_json({"error": error}, 400)
        reply = self.fake.mind(request)
        if misbehaves(self, self.fake, reply):
            return None
        if reply.status != 200:
            content = json.dumps({"error": reply.error}).encode()
            return self.send(content, reply.status, reply.headers)
        return self._stream(name, reply) if request.stream else self._whole(name, reply)

    def _whole(self, name: str, reply: Reply) -> None:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(reply.pieces)}
        if reply.thinking:
            message["thinking"] = "".join(reply.thinking)
        if reply.tool_calls:
            message["tool_calls"] = _calls(reply)
        self.send_json({"model": name, "created_at": _time(), "message": message, **_ending(reply)})

    def _stream(self, name: str, reply: Reply) -> None:
        def line(**fields: Any) -> bytes:
            content = {"model": name, "created_at": _time(), **fields}
            return json.dumps(content, separators=(",", ":")).encode() + b"\n"

        def said(**message: Any) -> bytes:
            return line(message={"role": "assistant", "content": "", **message}, done=False)

        lines = [said(thinking=text) for text in reply.thinking]
        lines += [said(content=text) for text in reply.pieces]
        if reply.tool_calls:
            lines.append(said(tool_calls=_calls(reply)))
        error = json.dumps({"error": reply.error}).encode() + b"\n" if reply.error else b""
        end = line(message={"role": "assistant", "content": ""}, **_ending(reply))
        self.begin("application/x-ndjson")
        stream(self, self.fake, reply, lines, error or end)


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


def _calls(reply: Reply) -> list[dict[str, Any]]:
    return [
        {"function": {"index": index, "name": name, "arguments": arguments}}
        for index, (name, arguments) in enumerate(reply.tool_calls)
    ]


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
    return {name: value for name, value in ending.items() if value is not None}


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


def _time() -> str:
    """Always the same, with nanoseconds, as Go writes it."""
    return CREATED.strftime("%Y-%m-%dT%H:%M:%S.123456789Z")
