"""Tests the behaviour that both protocols share: concurrency, retries, failures and time limits."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from ledgerline.agent.language_model import (
    ContextTooLongError,
    LanguageModelError,
    MalformedResponseError,
    RefusedError,
    ServerAbsentError,
    ServerBusyError,
    ServerFailedError,
    StreamBrokenError,
    TooSlowError,
    UnknownModelError,
)
from ledgerline.agent.messages import Completion, Message, Role
from ledgerline.agent.retrying import Retries
from ledgerline.testing.fake_ollama import ChatRequest, FakeOllama, Reply, Responder, scripted
from ledgerline.testing.fake_openai import FakeOpenAI
from ledgerline.testing.ports import HOST
from tests.agent.fixed_responses import FixedResponseServer
from tests.agent.providers import IMPATIENT, OLLAMA, OPENAI, QUESTION, SECONDS, SECRET, Provider, ask, failure

Started = Callable[[Responder], FakeOllama | FakeOpenAI]

BAD_CALL = "error parsing tool call: raw='{\"sql\": ', err=unexpected end of JSON input"


@pytest.fixture(params=[OLLAMA, OPENAI], ids=["ollama", "openai"])
def provider(request: pytest.FixtureRequest) -> Provider:
    return request.param


@pytest.fixture
def started(provider: Provider) -> Iterator[Started]:
    """Starts fakes that end with the test."""
    with ExitStack() as stack:
        yield lambda responder: stack.enter_context(provider.fake(responder))


def for_both(name: str, ollama: dict[str, object], openai: dict[str, object]) -> pytest.MarkDecorator:
    """Parametrize a test with cases of each protocol, by their ids."""
    cases = [
        pytest.param(provider, case, id=f"{kind} {case_id}")
        for kind, provider, by_id in (("ollama", OLLAMA, ollama), ("openai", OPENAI, openai))
        for case_id, case in by_id.items()
    ]
    return pytest.mark.parametrize(("provider", name), cases, indirect=["provider"])


@pytest.mark.parametrize(
    ("reason", "expected"),
    [("stop", "stop"), ("length", "length"), ("load", "stop"), ("content_filter", "stop")],
)
def test_finish_reasons_are_those_of_opentelemetry(
    provider: Provider, started: Started, reason: str, expected: str
) -> None:
    fake = started(scripted(Reply(pieces=("Two.",), done_reason=reason)))
    assert ask(provider.model_at(fake.url)).finish_reason == expected


def test_fifty_at_once_do_not_mix(provider: Provider, started: Started) -> None:
    at_once = 50
    all_here = threading.Barrier(at_once)

    def responder(request: ChatRequest) -> Reply:
        all_here.wait(SECONDS)  # all requests are open at the same time
        number = request.messages[-1]["content"]
        return Reply(pieces=tuple(f"{number}-{part} " for part in range(20)), input_tokens=int(number) + 100)

    model = provider.model_at(started(responder).url)

    def one(number: int) -> tuple[list[str], Completion]:
        received: list[str] = []
        return received, ask(model, (Message(Role.USER, str(number)),), received=received)

    with ThreadPoolExecutor(at_once) as pool:
        results = list(pool.map(one, range(at_once)))
    for number, (received, completion) in enumerate(results):
        assert received == [f"{number}-{part} " for part in range(20)]
        assert completion.message.content == "".join(received)
        assert completion.usage.input_tokens == number + 100


def test_an_error_of_the_listener_is_passed_on(provider: Provider, started: Started) -> None:
    def listen(_: str) -> None:
        raise ValueError("the screen is full")

    model = provider.model_at(started(scripted(Reply(pieces=("one", "two")))).url)
    with pytest.raises(ValueError, match="the screen is full"):
        model.complete(QUESTION, (), SECONDS, listen)


def test_an_absent_server_is_named_without_secrets(provider: Provider, free_port: int) -> None:
    address = f"http://{HOST}:{free_port}"
    model = provider.model_at(address, headers={"X-Key": SECRET})
    for act in (model.require, lambda: ask(model)):
        error = failure(ServerAbsentError, act)
        assert error.problem.startswith(f"No {provider.kind} responds at {address}{provider.path}")
        assert SECRET not in f"{error} {model!r}"


def test_user_and_password_of_the_address_are_sent_and_never_printed(
    provider: Provider, started: Started
) -> None:
    refused = Reply(status=401, error=f"no, {SECRET} is wrong")
    fake = started(scripted(Reply(pieces=("Yes.",)), refused))
    model = provider.model_at(fake.url.replace("//", f"//ann:{SECRET}@"), headers={"X-Team": "flights"})
    ask(model)
    assert fake.requests[0].headers["authorization"] == "Basic YW5uOmNvcnJlY3QtaG9yc2U="
    assert fake.requests[0].headers["x-team"] == "flights"
    error = failure(RefusedError, lambda: ask(model))
    assert SECRET not in f"{error} {model!r} {model.address}"


def errors(*cases: tuple[int, str, type[LanguageModelError]]) -> dict[str, object]:
    return {f"{status} {message[:40]}": (status, message, kind) for status, message, kind in cases}


@for_both(
    "case",
    errors(
        (500, BAD_CALL, MalformedResponseError),
        (400, BAD_CALL, MalformedResponseError),
        (400, "the input length exceeds the context length", ContextTooLongError),
        (400, "the request exceeds the available context size (4096 tokens)", ContextTooLongError),
        (400, "prompt too long; exceeded max context length by 12 tokens", ContextTooLongError),
        (400, "invalid options: num_ctx", RefusedError),
        (401, "unauthorized", RefusedError),
        (403, "forbidden", RefusedError),
        (500, "model requires more system memory (12 GiB) than is available", ServerFailedError),
    ),
    errors(
        (400, "This model's maximum context length is 4096 tokens. However, you", ContextTooLongError),
        (
            400,
            "The decoder prompt (5000) is longer than the maximum model length of 4096",
            ContextTooLongError,
        ),
        (400, "the request exceeds the available context size, try increasing it", ContextTooLongError),
        (400, '"auto" tool choice requires --enable-auto-tool-choice', UnknownModelError),
        (500, "tools param requires --jinja flag", UnknownModelError),
        (500, "Failed to parse tool call arguments as JSON", MalformedResponseError),
        (422, "unsupported parameter", RefusedError),
        (401, f"Incorrect API key provided: {SECRET}", RefusedError),
        (403, "forbidden", RefusedError),
        (429, "You exceeded your current quota, please check your plan", RefusedError),
        (500, "internal error", ServerFailedError),
    ),
)
def test_errors_of_the_server_are_translated_and_not_repeated(
    provider: Provider, started: Started, case: tuple[int, str, type[LanguageModelError]]
) -> None:
    status, message, kind = case
    fake = started(scripted(Reply(status=status, error=message)))
    model = provider.model_at(fake.url, headers={"X-Key": SECRET})
    assert message.replace(SECRET, "[redacted]") in failure(kind, lambda: ask(model)).problem
    assert len(fake.requests) == 1


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_request_to_a_busy_server_is_repeated(provider: Provider, started: Started, status: int) -> None:
    busy = Reply(status=status, error="server busy, please try again")
    fake = started(scripted(busy, Reply(hangs_up=True), Reply(breaks_after=0), Reply(pieces=("Two.",))))
    assert ask(provider.model_at(fake.url)).message.content == "Two."
    assert len(fake.requests) == 4


def test_attempts_end_if_a_server_stays_busy(provider: Provider, started: Started) -> None:
    waits: list[float] = []
    fake = started(lambda _: Reply(status=503, error="maximum pending requests exceeded"))
    model = provider.model_at(fake.url, retries=Retries(attempts=4, wait=waits.append))
    assert "maximum pending requests exceeded" in failure(ServerBusyError, lambda: ask(model)).problem
    assert len(fake.requests) == 4
    assert 0.1 < waits[0] < waits[2] < 1.6


def test_a_retry_does_not_exceed_the_time_limit(provider: Provider, started: Started) -> None:
    fake = started(lambda _: Reply(status=503, error="busy"))
    model = provider.model_at(fake.url, retries=Retries(first_wait_seconds=1000))
    failure(ServerBusyError, lambda: ask(model))
    assert len(fake.requests) == 1


def test_attempts_end_if_a_server_always_hangs_up(provider: Provider, started: Started) -> None:
    fake = started(lambda _: Reply(hangs_up=True))
    failure(StreamBrokenError, lambda: ask(provider.model_at(fake.url)))
    assert len(fake.requests) == IMPATIENT.attempts


@for_both(
    "broken",
    {
        "in the middle": Reply(pieces=("Two ", "flights"), breaks_after=1),
        "before the end": Reply(pieces=("Two ",), breaks_after=1),
        "without an end": Reply(pieces=("Two ",), is_endless=True),
        "half": Reply(pieces=("Two ",), garbage=b'{"model":"qwen3:8b","message":{"role":"assist'),
        "almost": Reply(pieces=("Two ",), garbage=b'{"model":"qwen3:8b","message":{"role":"assistant"}'),
        "error": Reply(
            pieces=("Two ",), error="an error was encountered while running the model: unexpected EOF"
        ),
        "thinking": Reply(thinking=("Hm.",), is_endless=True),
    },
    {
        "in the middle": Reply(pieces=("Two ", "flights"), breaks_after=2),
        "without an end": Reply(pieces=("Two ",), is_endless=True),
        "without a reason": Reply(pieces=("Two ",), done_reason=None),
        "half": Reply(pieces=("Two ",), garbage=b'data: {"id": "chatcmpl-1", "choi\n\n'),
        "error": Reply(pieces=("Two ",), error="EngineDeadError", done_reason="500"),
        "word": Reply(pieces=("Two ",), error="something happened"),
    },
)
def test_a_request_is_not_repeated_after_a_part_of_the_response(
    provider: Provider, started: Started, broken: Reply
) -> None:
    received: list[str] = []
    fake = started(scripted(broken))
    failure(StreamBrokenError, lambda: ask(provider.model_at(fake.url), received=received))
    assert received == ["Two "] * bool(broken.pieces)
    assert len(fake.requests) == 1


@for_both(
    "garbage",
    {
        "html": b"<html>\n",
        "list": b"[1, 2]\n",
        "number": b"5\n",
        "null": b"null\n",
        "bytes": b"\xff\xfe\n",
        "empty": b"{}\n",
        "message": b'{"message": 5, "done": true}\n',
        "arguments": b'{"message": {"tool_calls": [{"function": {"name": "x", "arguments": 5}}]}}\n',
        "deep": b"[" * 100_000 + b"\n",
    },
    {
        "html": b"data: <html>\n\n",
        "number": b"data: 5\n\n",
        "list": b"data: [1]\n\n",
        "choices": b'data: {"choices": 5}\n\n',
        "delta": b'data: {"choices": [{"delta": 5}]}\n\n',
        "calls": b'data: {"choices": [{"delta": {"tool_calls": [5]}}]}\n\n',
    },
)
def test_pieces_outside_the_protocol_are_malformed(
    provider: Provider, started: Started, garbage: bytes
) -> None:
    fake = started(scripted(Reply(pieces=("Two ",), garbage=garbage)))
    error = failure(MalformedResponseError, lambda: ask(provider.model_at(fake.url)))
    assert len(str(error)) < 1000


def test_a_redirect_is_not_followed(provider: Provider, started: Started) -> None:
    other = started(scripted())
    moved = Reply(status=307, headers={"Location": f"{other.url}/api/chat"})
    error = failure(RefusedError, lambda: ask(provider.model_at(started(scripted(moved)).url)))
    assert "another address" in error.problem
    assert not other.requests


@pytest.mark.parametrize(
    "slow",
    [
        Reply(seconds_before=3600, pieces=("Two.",)),
        Reply(pieces=("Two ", "flights"), seconds_between=3600),
        Reply(pieces=("Two ",) * 10_000, seconds_between=0.1),
        Reply(pieces=("x" * 10_000,), seconds_between_bytes=0.01),
    ],
    ids=["silent", "falls silent", "trickles pieces", "trickles bytes"],
)
def test_a_slow_response_ends_at_the_time_limit(provider: Provider, started: Started, slow: Reply) -> None:
    model = provider.model_at(started(scripted(slow)).url)
    model.require()  # creates the client, which is not to be measured
    start = time.monotonic()
    assert "0.3 seconds" in failure(TooSlowError, lambda: ask(model, seconds=0.3)).problem
    assert time.monotonic() - start > 0.25


def test_headers_that_trickle_end_at_the_time_limit(
    provider: Provider, fixed_response: FixedResponseServer
) -> None:
    model = provider.model_at(fixed_response(b"HTTP/1.1 200 OK\r\nX-Padding: ", b"x"))
    failure(TooSlowError, lambda: ask(model, seconds=0.3))
