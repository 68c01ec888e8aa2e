"""What an agent gets of an OpenAI-compatible server, and is told when it fails, by the real client."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from agent.language_model import (
    ContextTooLongError,
    LanguageModelError,
    MalformedAnswerError,
    RefusedError,
    ServerAbsentError,
    ServerBusyError,
    ServerFailedError,
    StreamBrokenError,
    TooSlowError,
    UnknownModelError,
)
from agent.messages import Completion, Message, Role, ToolCall, ToolDescription, Usage
from agent.openai_provider import OpenAIModel
from agent.retrying import Retries
from tests.agent.fake_http import SameToAll
from tests.agent.fake_ollama import Analyst, ChatRequest, Reply, scripted
from tests.agent.fake_openai import MODEL, FakeOpenAI
from tests.ports import HOST

SECONDS = 20.0
QUESTION = (Message(Role.SYSTEM, "You know flights."), Message(Role.USER, "How many?"))
TOOL = ToolDescription(
    "query_flights", "Answers SQL.", {"type": "object", "properties": {"sql": {"type": "string"}}}
)
IMPATIENT = Retries(first_wait_seconds=0.001)
SECRET = "sk-of-these-tests"

Started = Callable[..., FakeOpenAI]


@pytest.fixture
def started() -> Iterator[Started]:
    """Starts fakes that end with the test."""
    with ExitStack() as stack:
        yield lambda mind, models=(MODEL,): stack.enter_context(FakeOpenAI(mind, models))


@pytest.fixture
def same_to_all() -> Iterator[SameToAll]:
    with SameToAll() as server:
        yield server


def model_of(fake: FakeOpenAI, **settings: object) -> OpenAIModel:
    return OpenAIModel(fake.api, MODEL, **{"retries": IMPATIENT, **settings})


def ask(
    model: OpenAIModel,
    messages: Sequence[Message] = QUESTION,
    tools: Sequence[ToolDescription] = (TOOL,),
    seconds: float = SECONDS,
    heard: list[str] | None = None,
) -> Completion:
    return model.complete(messages, tools, seconds, ([] if heard is None else heard).append)


def failure(kind: type[LanguageModelError], act: Callable[[], object]) -> LanguageModelError:
    """The error, which says a problem and a remedy in whole sentences and hides what led to it."""
    with pytest.raises(kind) as raised:
        act()
    error = raised.value
    assert type(error) is kind
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None
    assert error.remedy.endswith(".")
    return error


# Answers


def test_text_is_heard_piece_by_piece_and_told_whole(started: Started) -> None:
    heard: list[str] = []
    reply = Reply(thinking=("Hm.",), pieces=("Two ", "flights", "."), seconds_between=0.01)
    completion = ask(model_of(started(scripted(reply))), heard=heard)
    assert heard == ["Two ", "flights", "."]
    assert completion.message == Message(Role.ASSISTANT, "Two flights.")
    assert completion.usage == Usage(26, 10)
    assert (completion.model, completion.finish_reason) == (MODEL, "stop")
    assert completion.response_id == "chatcmpl-1"
    assert completion.seconds_to_first_token is not None
    assert completion.tokens_per_second is not None
    assert completion.tokens_per_second > 0


def test_tool_calls_are_put_together_and_answered(started: Started) -> None:
    question = Message(Role.USER, "How many flights were late?")
    fake = started(Analyst({"flights were late": "select count(*) from flights"}))
    model = model_of(fake)
    asked = ask(model, (question,))
    (call,) = asked.message.tool_calls
    assert call == ToolCall("chat-0", "query_flights", {"sql": "select count(*) from flights"})
    assert asked.finish_reason == "tool_calls"
    answer = Message(Role.TOOL, "n\n7", answers=call)
    assert ask(model, (question, asked.message, answer)).message.content.endswith("Answer: 7")
    sent = fake.requests[1].messages
    assert sent[1]["tool_calls"][0]["id"] == sent[2]["tool_call_id"] == "chat-0"
    assert json.loads(sent[1]["tool_calls"][0]["function"]["arguments"]) == call.arguments
    assert fake.requests[0].tools[0]["function"]["name"] == "query_flights"


def test_an_id_that_the_conversation_has_is_replaced(started: Started) -> None:
    fake = started(scripted(Reply(tool_calls=(("query_flights", {}), ("query_flights", {})))))
    call = ToolCall("chat-0", "query_flights", "no object")
    messages = (*QUESTION, Message(Role.ASSISTANT, "", (call,)), Message(Role.TOOL, "Wrong.", answers=call))
    assert [call.id for call in ask(model_of(fake), messages).message.tool_calls] == ["call_2", "chat-1"]
    assert fake.requests[0].messages[2]["tool_calls"][0]["function"]["arguments"] == "{}"


@pytest.mark.parametrize(
    ("written", "arguments"),
    [('{"sql": "select', '{"sql": "select'), ("[1]", "[1]"), ("", {}), ('{"n": 1}', {"n": 1})],
)
def test_arguments_that_are_no_object_are_kept_as_they_are(
    started: Started, written: str, arguments: object
) -> None:
    fake = started(scripted(Reply(tool_calls=(("query_flights", written),))))
    assert ask(model_of(fake)).message.tool_calls[0].arguments == arguments


def test_what_is_asked_for_is_sent_and_told(started: Started) -> None:
    fake = started(scripted(Reply(pieces=("Yes.",)), Reply(pieces=("Yes.",))))
    model = model_of(fake, temperature=0.5, seed=7, max_output_tokens=100, api_key=SECRET)
    ask(model)
    ask(model_of(fake, temperature=None), tools=())
    usage = {"stream_options": {"include_usage": True}}
    assert fake.requests[0].options == {"temperature": 0.5, "seed": 7, "max_tokens": 100, **usage}
    assert fake.requests[1].options == usage
    assert fake.requests[0].headers["authorization"] == f"Bearer {SECRET}"
    assert model.settings == {"temperature": 0.5, "seed": 7, "max_tokens": 100}
    assert (model.provider, model.model, model.address) == ("openai", MODEL, fake.api)


def test_user_and_password_of_the_address_are_sent_and_never_told(started: Started) -> None:
    fake = started(scripted(Reply(pieces=("Yes.",)), Reply(status=401, error=f"{SECRET} is wrong")))
    model = OpenAIModel(fake.api.replace("//", f"//ann:{SECRET}@"), MODEL)
    ask(model)
    assert fake.requests[0].headers["authorization"].startswith("Basic ")
    assert SECRET not in f"{failure(RefusedError, lambda: ask(model))} {model!r} {model.address}"


def test_without_usage_no_tokens_are_made_up(started: Started) -> None:
    completion = ask(model_of(started(scripted(Reply(pieces=("a", "b"), input_tokens=None)))))
    assert completion.usage == Usage(0, 0)
    assert completion.tokens_per_second is None


@pytest.mark.parametrize(
    ("reason", "told"), [("stop", "stop"), ("length", "length"), ("content_filter", "stop")]
)
def test_why_it_ended_is_told_as_opentelemetry_has_it(started: Started, reason: str, told: str) -> None:
    fake = started(scripted(Reply(pieces=("Two.",), done_reason=reason)))
    assert ask(model_of(fake)).finish_reason == told


def test_fifty_at_once_do_not_mix(started: Started) -> None:
    at_once = 50
    all_here = threading.Barrier(at_once)

    def mind(request: ChatRequest) -> Reply:
        all_here.wait(SECONDS)  # they really are there at the same time
        number = request.messages[-1]["content"]
        return Reply(pieces=tuple(f"{number}-{part} " for part in range(20)), input_tokens=int(number) + 100)

    model = model_of(started(mind))

    def one(number: int) -> tuple[list[str], Completion]:
        heard: list[str] = []
        return heard, ask(model, (Message(Role.USER, str(number)),), heard=heard)

    with ThreadPoolExecutor(at_once) as pool:
        results = list(pool.map(one, range(at_once)))
    for number, (heard, completion) in enumerate(results):
        assert heard == [f"{number}-{part} " for part in range(20)]
        assert completion.usage.input_tokens == number + 100


# Whether it can be used


@pytest.mark.parametrize("models", [(MODEL, "other"), None, ()])
def test_a_server_that_lists_the_model_or_nothing_is_accepted(
    started: Started, models: Sequence[str] | None
) -> None:
    model_of(started(scripted(), models)).require()


def test_a_model_that_is_not_listed_is_unknown(started: Started) -> None:
    names = [f"model-{number}" for number in range(8)]
    model = model_of(started(scripted(), names))
    error = failure(UnknownModelError, model.require)
    assert "it has model-0, model-1, model-2, model-3, model-4, ..." in error.problem
    assert MODEL in failure(UnknownModelError, lambda: ask(model)).problem


def test_an_absent_server_is_to_be_started(free_port: int) -> None:
    address = f"http://{HOST}:{free_port}/v1"
    model = OpenAIModel(address, MODEL, api_key=SECRET)
    for act in (model.require, lambda: ask(model)):
        error = failure(ServerAbsentError, act)
        assert error.problem.startswith(f"No OpenAI-compatible server answers at {address}")
        assert SECRET not in f"{error} {model!r}"


def test_a_key_that_cannot_be_sent_is_not_told(started: Started) -> None:
    model = model_of(started(scripted()), api_key=f"{SECRET}\nand a line", headers={})
    assert SECRET not in str(failure(RefusedError, lambda: ask(model)))


# Failures


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (400, "This model's maximum context length is 4096 tokens. However, you", ContextTooLongError),
        (
            400,
            "The decoder prompt (5000) is longer than the maximum model length of 4096",
            ContextTooLongError,
        ),
        (400, "the request exceeds the available context size, try increasing it", ContextTooLongError),
        (400, '"auto" tool choice requires --enable-auto-tool-choice', UnknownModelError),
        (500, "tools param requires --jinja flag", UnknownModelError),
        (500, "Failed to parse tool call arguments as JSON", MalformedAnswerError),
        (422, "unsupported parameter", RefusedError),
        (401, f"Incorrect API key provided: {SECRET}", RefusedError),
        (403, "forbidden", RefusedError),
        (429, "You exceeded your current quota, please check your plan", RefusedError),
        (500, "internal error", ServerFailedError),
    ],
)
def test_what_the_server_says_is_understood_and_said_once(
    started: Started, status: int, said: str, kind: type[LanguageModelError]
) -> None:
    fake = started(scripted(Reply(status=status, error=said)))
    error = failure(kind, lambda: ask(model_of(fake, api_key=SECRET)))
    assert said.replace(SECRET, "[redacted]") in error.problem
    assert len(fake.requests) == 1


def test_the_code_of_an_error_says_more_than_its_words(started: Started) -> None:
    fake = started(scripted(Reply(status=400, error="Too much.", done_reason="context_length_exceeded")))
    failure(ContextTooLongError, lambda: ask(model_of(fake)))


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_server_is_asked_again(started: Started, status: int) -> None:
    busy = Reply(status=status, error="slow down")
    fake = started(scripted(busy, Reply(hangs_up=True), busy, Reply(pieces=("Two.",))))
    assert ask(model_of(fake)).message.content == "Two."
    assert len(fake.requests) == 4


def test_a_server_that_stays_busy_is_left_alone(started: Started) -> None:
    fake = started(lambda _: Reply(status=503, error="busy"))
    failure(ServerBusyError, lambda: ask(model_of(fake)))
    assert len(fake.requests) == IMPATIENT.attempts


@pytest.mark.parametrize(
    "broken",
    [
        Reply(pieces=("Two ", "flights"), breaks_after=2),
        Reply(pieces=("Two ",), is_endless=True),
        Reply(pieces=("Two ",), done_reason=None),
        Reply(pieces=("Two ",), garbage=b'data: {"id": "chatcmpl-1", "choi\n\n'),
        Reply(pieces=("Two ",), error="EngineDeadError", done_reason="500"),
        Reply(pieces=("Two ",), error="something happened"),
    ],
    ids=["in the middle", "without an end", "without a reason", "half", "error", "word"],
)
def test_an_answer_that_breaks_off_is_not_begun_again(started: Started, broken: Reply) -> None:
    heard: list[str] = []
    fake = started(scripted(broken))
    failure(StreamBrokenError, lambda: ask(model_of(fake), heard=heard))
    assert heard == ["Two "]
    assert len(fake.requests) == 1


@pytest.mark.parametrize(
    "garbage",
    [
        b"data: <html>\n\n",
        b"data: 5\n\n",
        b"data: [1]\n\n",
        b'data: {"choices": 5}\n\n',
        b'data: {"choices": [{"delta": 5}]}\n\n',
        b'data: {"choices": [{"delta": {"tool_calls": [5]}}]}\n\n',
    ],
)
def test_what_is_not_in_the_protocol_is_malformed(started: Started, garbage: bytes) -> None:
    fake = started(scripted(Reply(pieces=("Two ",), garbage=garbage)))
    failure(MalformedAnswerError, lambda: ask(model_of(fake)))


def test_a_redirect_is_not_followed(started: Started) -> None:
    other = started(scripted())
    moved = Reply(status=307, headers={"Location": f"{other.api}/chat/completions"})
    assert "another address" in failure(RefusedError, lambda: ask(model_of(started(scripted(moved))))).problem
    assert not other.requests


@pytest.mark.parametrize(
    "slow",
    [
        Reply(seconds_before=60, pieces=("Two.",)),
        Reply(pieces=("Two ", "flights"), seconds_between=60),
        Reply(pieces=("Two ",) * 10_000, seconds_between=0.01),
        Reply(pieces=("Two.",), seconds_between_bytes=0.01),
    ],
    ids=["silent", "falls silent", "trickles pieces", "trickles bytes"],
)
def test_a_server_that_is_too_slow_is_waited_for_as_long_as_there_is_time(
    started: Started, slow: Reply
) -> None:
    model = model_of(started(scripted(slow)))
    model.require()  # so that making the client is not measured
    start = time.monotonic()
    assert "0.3 seconds" in failure(TooSlowError, lambda: ask(model, seconds=0.3)).problem
    assert 0.25 < time.monotonic() - start < 5


def test_a_server_that_trickles_headers_is_too_slow(same_to_all: SameToAll) -> None:
    url = same_to_all(b"HTTP/1.1 200 OK\r\nX-Padding: ", b"x")
    failure(TooSlowError, lambda: ask(OpenAIModel(url, MODEL), seconds=0.5))
