"""Language models of servers with OpenAI's protocol, such as vLLM, llama.cpp and OpenAI itself.

OpenAI's client accepts every response with status 200, so responses are checked here. Most servers refuse a
conversation that exceeds the context. Ollama truncates it, and this protocol has no option to prevent that; a
truncated conversation is detected here by the number of tokens that the server reports, or by a response that
ends early.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ledgerline.agent.failures import ModelServer
from ledgerline.agent.messages import Message, Thinking, ToolDescription, Usage
from ledgerline.agent.prompt_size import characters, min_tokens
from ledgerline.agent.retrying import time_limit
from ledgerline.agent.served_model import ResponseStream, ServedLanguageModel, completion
from ledgerline.agent.streamed_calls import StreamedCalls
from ledgerline.agent.tool_calls import sent_message, sent_tool
from ledgerline.settings.extras import require

if TYPE_CHECKING:
    from openai import OpenAI, Stream
    from openai.types.chat.chat_completion_chunk import ChatCompletionChunk

REQUIRE_SECONDS = 10
MAX_NAMED_MODELS = 5
NO_KEY = "none"  # the client requires a key, and many self-hosted servers do not
MAX_TOKENS, MAX_COMPLETION_TOKENS = "max_tokens", "max_completion_tokens"
OWNER_OLLAMA = "library"  # the owner of models in Ollama's list
# These finish reasons of vLLM, OpenRouter and DeepSeek mean that the response was cut off before its end.
BROKEN_REASONS = frozenset({"abort", "error", "network_error", "insufficient_system_resource"})

QUOTED_BYTES = 2000
EVENTS = "text/event-stream"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class OpenAIModel(ServedLanguageModel["OpenAI"]):
    """A language model of a server with OpenAI's protocol. Safe to use from several threads at once.

    The URL is that of the API, which usually ends in /v1. The name of the model is the one in the server's
    list.

    Attributes:
        api_key: API key; None if the server requires none.
    """

    _: KW_ONLY
    api_key: str | None = field(default=None, repr=False)
    _refuses_max_tokens: list[bool] = field(default_factory=list, init=False, repr=False)

    @property
    def provider(self) -> str:
        """The name of the provider in OpenTelemetry's conventions."""
        return "openai"

    def require(self) -> None:
        """Check that the server responds and lists the model; a server without a list passes.

        Raises:
            LanguageModelError: The server does not respond, or does not list the model.
        """
        client = self._client  # creating it is not part of the time limit
        from openai import NotFoundError

        with time_limit(REQUIRE_SECONDS), _translated_errors(self._server):
            try:
                text = client.models.with_raw_response.list().text
            except NotFoundError:
                return
            listed = _listed_models(text)
            if listed is None:
                raise self._server.malformed(text)
        if any(owner == OWNER_OLLAMA for owner in listed.values()):
            logger.warning(
                "The server at %s is Ollama, which silently cuts a conversation that is too long if it is "
                "used with OpenAI's protocol. Set LEDGERLINE_LLM_PROVIDER=ollama and OLLAMA_HOST to its "
                "address.",
                self.address,
            )
        names = set(listed)
        # In Ollama, a name without a tag means the tag `latest`.
        if names and names.isdisjoint(
            {self.model, f"{self.model}:latest", self.model.removesuffix(":latest")}
        ):
            more = ", ..." if len(names) > MAX_NAMED_MODELS else ""
            raise self._server.unknown_model(f"; it has {', '.join(sorted(names)[:MAX_NAMED_MODELS])}{more}")

    def _stream(self, messages: Sequence[Message], tools: Sequence[ToolDescription]) -> ResponseStream:
        calls = StreamedCalls()
        usage, model, reason, response = Usage(), self.model, None, None
        with _translated_errors(self._server), self._chunks(messages, tools) as chunks:
            _require_events(self._server, chunks.response)
            for chunk in chunks:
                if not isinstance(getattr(chunk, "choices", None), list):
                    raise self._server.malformed(f"a piece has no choices: {chunk!r}")
                model, response = chunk.model or model, chunk.id or response
                if chunk.usage:
                    usage = Usage(chunk.usage.prompt_tokens or 0, chunk.usage.completion_tokens or 0)
                for choice in chunk.choices[:1]:
                    reason = choice.finish_reason or reason
                    delta = choice.delta
                    if delta is None:  # some servers send none at the end
                        continue
                    calls.add(delta.tool_calls or ())
                    text = delta.content or delta.refusal or ""
                    # vLLM and llama.cpp stream thoughts in the first field, Ollama in the second.
                    thought = getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None)
                    if text or delta.tool_calls or thought:
                        yield text
        if reason is None:
            raise self._server.stream_broken("the stream ended before the response was complete.")
        if reason in BROKEN_REASONS:
            raise self._server.stream_broken(f"its finish reason is {reason!r}.")
        self._require_whole(messages, usage, reason)
        return replace(completion(calls.calls(messages), usage, model, reason), response_id=response)

    def _chunks(
        self, messages: Sequence[Message], tools: Sequence[ToolDescription]
    ) -> "Stream[ChatCompletionChunk]":
        from openai import BadRequestError

        create = self._client.chat.completions.create
        request: dict[str, Any] = {
            "model": self.model,
            "messages": [sent_message(message, json.dumps, type="function") for message in messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            **self.settings,
        }
        if tools:  # some servers refuse an empty list
            request["tools"] = [sent_tool(tool) for tool in tools]
        if self.think not in (None, Thinking.ON):  # models that can think do so by default
            request["reasoning_effort"] = "none" if self.think is Thinking.OFF else self.think.value
        if not self._refuses_max_tokens:
            try:
                return create(**request)
            except BadRequestError as error:
                if MAX_TOKENS not in request or MAX_COMPLETION_TOKENS not in _error_text(error):
                    raise
                # Newer models of OpenAI accept only the newer name; other servers, such as Ollama, only the
                # older.
                self._refuses_max_tokens.append(True)
        if MAX_TOKENS in request:
            request[MAX_COMPLETION_TOKENS] = request.pop(MAX_TOKENS)
        return create(**request)

    def _require_whole(self, messages: Sequence[Message], usage: Usage, reason: str) -> None:
        """Refuse a response to a conversation that the server has truncated."""
        least = min_tokens(messages)
        if 0 < usage.input_tokens < least:
            raise self._server.context_too_long(
                f"its {characters(messages):,} characters are at least {least:,} tokens, and the server has "
                f"read {usage.input_tokens:,}"
            )
        allowed = self.max_output_tokens
        if reason == "length" and allowed and 0 < usage.output_tokens < allowed:
            raise self._server.context_too_long(
                f"the response ended after {usage.output_tokens:,} of at most {allowed:,} tokens, with "
                f"{usage.input_tokens:,} before it"
            )

    @cached_property
    def _server(self) -> ModelServer:
        return ModelServer(
            kind="OpenAI-compatible server",
            url=self.url,
            model=self.model,
            start="Start it, or set OPENAI_BASE_URL to the address of its API, which usually ends in /v1.",
            fetch="Set LEDGERLINE_LLM_MODEL to one that it has.",
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
            max_retries=0,  # its retries ignore the time limit
            default_headers=dict(self.headers),
            http_client=httpx.Client(**client_options(self.connect_seconds, self._server.login)),  # pyright: ignore[reportArgumentType] (it accepts both kinds of httpx)
        )


@contextmanager
def _translated_errors(server: ModelServer) -> Iterator[None]:
    from openai import APIConnectionError, APIError, APIStatusError

    with server.translated_errors():
        try:
            yield
        except APIConnectionError as error:
            # translated_errors() of the server translates the cause, which is more specific.
            raise error.__cause__ or ConnectionError("no connection") from None
        except APIStatusError as error:
            raise server.error_for(error.status_code, _error_text(error)) from None
        except APIError as error:
            # The error is within the stream. vLLM sends a status where OpenAI sends a word.
            status = int(error.code) if error.code in ("429", "503") else None
            raise server.error_for(status, _error_text(error)) from None


def _error_text(error: Any) -> str:
    """Return the server's message with its code, which is more reliable than the wording."""
    message = error.body.get("message") if isinstance(error.body, dict) else error.body
    return f"{message or error.message} ({error.code})" if error.code else str(message or error.message)


def _require_events(server: ModelServer, response: Any) -> None:
    """Refuse a response that is not a stream of events, such as a login page or a proxy's error."""
    kind = response.headers.get("content-type", EVENTS).partition(";")[0].strip().lower()
    if kind == EVENTS:
        return
    received = b""
    for piece in response.iter_bytes():
        received += piece
        if len(received) > QUOTED_BYTES:
            break
    text = received.decode("utf-8", "replace")
    error = _error_in(text)
    if error is not None:
        raise server.error_for(response.status_code, error)
    raise server.malformed(
        f"it is not a stream of events but {kind or 'something else'}: {text or 'nothing'}"
    )


def _listed_models(text: str) -> Mapping[str, str | None] | None:
    """Read the names and owners in a list of models; None if the text is not such a list."""
    listing = json.loads(text)
    models = (listing.get("data") or []) if isinstance(listing, dict) and "data" in listing else None
    if not isinstance(models, list) or not all(isinstance(model, dict) and "id" in model for model in models):
        return None
    return {str(model["id"]): model.get("owned_by") for model in models}


def _error_in(text: str) -> str | None:
    """Return the error that a JSON text reports; None if it reports no error."""
    try:
        error = json.loads(text)["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return str(error.get("message") or error) if isinstance(error, dict) else str(error)
