"""A fake server with OpenAI's protocol, in which a function replies instead of a model."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ledgerline.testing.fake_http import FakeServer, Handler
from ledgerline.testing.fake_ollama import (
    ChatRequest,
    Reply,
    Responder,
    is_ended_by_fault,
    stream,
    tokens_of,
)

MODEL = "Qwen/Qwen3-8B"
CREATED = 1_769_860_800
NOT_OPTIONS = {"model", "messages", "tools", "stream"}


class FakeOpenAI(FakeServer):
    """A fake of OpenAI's HTTP API: models and streamed chat completions.

    Attributes:
        models: Names of the models; None for a server without a list.
        owner: Owner of the models in its list, which is "library" for Ollama.
        thoughts: Name of the field for thoughts.
        refuses: Field that it refuses, and the error message for it.
    """

    def __init__(self, responder: Responder, models: Sequence[str] | None = (MODEL,)) -> None:
        """Prepare the server, which listens from the beginning of its `with` block."""
        self.handler = _OpenAIHandler
        self.responder = responder
        self.models = models
        self.requests: list[ChatRequest] = []
        self.owner = "vllm"
        self.thoughts = "reasoning_content"
        self.refuses: tuple[str, str] | None = None
        super().__init__()

    @property
    def api(self) -> str:
        """The URL of the API."""
        return f"{self.url}/v1"


class _OpenAIHandler(Handler):
    @property
    def fake(self) -> FakeOpenAI:
        return self.server.owner

    def do_GET(self) -> None:  # noqa: N802 (its name in the library)
        if self.path != "/v1/models" or self.fake.models is None:
            return self.send_json({"detail": "Not Found"}, 404)
        listed = [
            {"id": name, "object": "model", "created": CREATED, "owned_by": self.fake.owner}
            for name in self.fake.models
        ]
        return self.send_json({"object": "list", "data": listed})

    def do_POST(self) -> None:  # noqa: N802 (its name in the library)
        body = self.body()
        if self.path != "/v1/chat/completions":
            return self.send_json({"detail": "Not Found"}, 404)
        if self.fake.refuses is not None and self.fake.refuses[0] in body:
            field, message = self.fake.refuses
            return self.send_json(_error(message, "invalid_request_error", f"unsupported_{field}"), 400)
        if self.fake.models is not None and body["model"] not in self.fake.models:
            message = f"The model `{body['model']}` does not exist."
            return self.send_json(_error(message, "NotFoundError", 404), 404)
        request = ChatRequest(
            body["model"],
            body["messages"],
            body.get("tools") or (),
            {name: value for name, value in body.items() if name not in NOT_OPTIONS},
            body.get("stream", False),
            {name.lower(): value for name, value in self.headers.items()},
        )
        self.fake.requests.append(request)
        reply = self.fake.responder(request)
        if not is_ended_by_fault(self, reply, _error(reply.error, "error", reply.done_reason)):
            self._stream(body, reply)
        return None

    def _stream(self, body: Mapping[str, Any], reply: Reply) -> None:
        def event(choices: Sequence[Mapping[str, Any]], **fields: Any) -> bytes:
            chunk = {
                "id": "chatcmpl-1",
                "object": "chat.completion.chunk",
                "created": CREATED,
                "model": body["model"],
                "choices": choices,
                **fields,
            }
            return f"data: {json.dumps(chunk)}\n\n".encode()

        def piece(finish_reason: str | None = None, **delta: Any) -> bytes:
            return event([{"index": 0, "delta": delta, "finish_reason": finish_reason}])

        events = [piece(role="assistant", content="")]
        events += [piece(**{self.fake.thoughts: text}) for text in reply.thinking]
        events += [piece(content=text) for text in reply.pieces]
        events += [piece(tool_calls=[part]) for part in (*_call_parts(reply), *reply.raw_calls)]
        if reply.error:
            end = f"data: {json.dumps(_error(reply.error, 'error', reply.done_reason))}\n\n".encode()
        else:
            end = piece(
                finish_reason="tool_calls" if reply.tool_calls or reply.raw_calls else reply.done_reason
            )
            if body.get("stream_options", {}).get("include_usage") and reply.input_tokens is not None:
                counted = max(reply.input_tokens, tokens_of(body["messages"]))
                tokens = reply.read_tokens or counted, reply.output_tokens or 0
                usage = dict(zip(("prompt_tokens", "completion_tokens"), tokens, strict=True))
                end += event([], usage={**usage, "total_tokens": sum(tokens)})
            end += b"data: [DONE]\n\n"
        self.begin("text/event-stream; charset=utf-8")
        stream(self, reply, events, end)


def _call_parts(reply: Reply) -> list[dict[str, Any]]:
    """Return streamed tool calls: first the name, then the arguments in two parts."""
    parts: list[dict[str, Any]] = []
    for index, (name, arguments) in enumerate(reply.tool_calls):
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        half = len(text) // 2
        function = {"name": name, "arguments": ""}
        parts.append({"index": index, "id": f"chat-{index}", "type": "function", "function": function})
        parts += [{"index": index, "function": {"arguments": part}} for part in (text[:half], text[half:])]
    return parts


def _error(message: str, kind: str, code: str | int | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
