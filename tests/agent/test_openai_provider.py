"""What an agent gets of an OpenAI-compatible server, and is told when it fails, by the real client."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from ledgerline.agent.language_model import (
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
from ledgerline.agent.messages import Completion, Message, Role, ToolCall, ToolDescription, Usage
from ledgerline.agent.openai_provider import OpenAIModel
from ledgerline.agent.retrying import Retries
from ledgerline.agent.thinking import Thinking
from ledgerline.testing.fake_http import SameToAll
from ledgerline.testing.fake_ollama import Analyst, ChatRequest, Reply, scripted
from ledgerline.testing.fake_openai import MODEL, FakeOpenAI
from ledgerline.testing.ports import HOST

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
    reply = Reply(thinking=("Hm.",), pieces=("Two ", "flights", "."), seconds_between=0.1)
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
    fake = started(Analyst({"flights were late": "select count(*) from flights"}, tool="query_flights"))
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


@pytest.mark.parametrize(
    ("think", "effort"), [(None, None), (Thinking.ON, None), (Thinking.OFF, "none"), (Thinking.HIGH, "high")]
)
def test_how_much_to_think_is_sent(started: Started, think: Thinking | None, effort: str | None) -> None:
    fake = started(scripted(Reply(pieces=("Yes.",))))
    ask(model_of(fake, think=think))
    assert fake.requests[0].options.get("reasoning_effort") == effort


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_a_thought_is_the_first_token_and_no_part_of_the_answer(started: Started, field: str) -> None:
    heard: list[str] = []
    fake = started(scripted(Reply(thinking=("Hm.", "Well."), pieces=("Two.",), breaks_after=2)))
    fake.thoughts = field
    # The request is not repeated, since a part of the response was received.
    failure(StreamBrokenError, lambda: ask(model_of(fake), heard=heard))
    assert heard == []
    assert len(fake.requests) == 1


OF_NEWER_MODELS = (
    "Unsupported parameter: 'max_tokens' is not supported with this model. "
    "Use 'max_completion_tokens' instead."
)


def test_the_limit_has_the_name_that_the_server_knows(started: Started) -> None:
    fake = started(lambda _: Reply(pieces=("Yes.",)))
    fake.refuses = "max_tokens", OF_NEWER_MODELS
    model = model_of(fake, max_output_tokens=100)
    for _ in range(2):
        assert ask(model).message.content == "Yes."
    assert [request.options["max_completion_tokens"] for request in fake.requests] == [100, 100]
    assert all("max_tokens" not in request.options for request in fake.requests)


def test_another_parameter_that_is_refused_is_not_asked_for_in_another_way(started: Started) -> None:
    fake = started(lambda _: Reply(pieces=("Yes.",)))
    fake.refuses = "seed", "Unsupported parameter: 'seed'"
    failure(RefusedError, lambda: ask(model_of(fake, seed=7, max_output_tokens=100)))


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


@pytest.mark.parametrize(
    ("listed", "name"),
    [
        ("smol:latest", "smol"),
        ("smol", "smol:latest"),
        ("smol:latest", "smol:latest"),
        ("smol:1b", "smol:1b"),
    ],
)
def test_a_name_without_a_tag_is_the_latest(started: Started, listed: str, name: str) -> None:
    OpenAIModel(started(scripted(), (listed,)).api, name).require()


@pytest.mark.parametrize("name", ["smol", "smol:2b"])
def test_another_tag_is_another_model(started: Started, name: str) -> None:
    failure(UnknownModelError, OpenAIModel(started(scripted(), ("smol:1b",)).api, name).require)


def test_of_an_ollama_it_is_said_that_this_protocol_cuts(
    started: Started, caplog: pytest.LogCaptureFixture
) -> None:
    fake = started(scripted())
    model_of(fake).require()
    assert not caplog.records
    fake.owner = "library"
    model_of(fake).require()
    (record,) = caplog.records
    assert "cuts a conversation that is too long without saying so" in record.getMessage()
    assert "LEDGERLINE_LLM_PROVIDER=ollama" in record.getMessage()


def answer(content: bytes, kind: str, status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"<html>Please log in</html>", "text/html"),
        (b"Please log in", "text/plain"),
        (b'{"status": "Please log in"}', "application/json"),
        (b'{"choices": "Please log in"}', "application/json"),
        (b'["Please log in"]', "application/json; charset=utf-8"),
        (b'"Please log in"', "application/json"),
    ],
)
def test_a_page_with_status_200_is_no_answer_and_is_quoted(
    same_to_all: SameToAll, content: bytes, kind: str
) -> None:
    model = OpenAIModel(same_to_all(answer(content, kind)), MODEL)
    for act in (model.require, lambda: ask(model)):
        error = failure(MalformedAnswerError, act)
        assert "Please log in" in error.problem
    assert len(same_to_all.connections) == 2  # each once


def test_an_error_with_status_200_is_what_it_says(same_to_all: SameToAll) -> None:
    error = b'{"error": {"message": "This model\'s maximum context length is 4096 tokens."}}'
    model = OpenAIModel(same_to_all(answer(error, "application/json")), MODEL)
    failure(ContextTooLongError, lambda: ask(model))


@pytest.mark.parametrize(
    "event",
    [b'{"id": "1"}', b'{"id": "1", "choices": null}', b'{"detail": "Not yours"}', b'"Not yours"'],
)
def test_a_piece_without_choices_is_malformed(same_to_all: SameToAll, event: bytes) -> None:
    stream = answer(b"data: " + event + b"\n\ndata: [DONE]\n\n", "text/event-stream")
    error = failure(MalformedAnswerError, lambda: ask(OpenAIModel(same_to_all(stream), MODEL)))
    assert event.decode().split('"')[1] in error.problem


@pytest.mark.parametrize("content", [b"", b"data: [DONE]\n\n", b": nothing\n\n"])
def test_a_stream_of_nothing_has_broken_off(same_to_all: SameToAll, content: bytes) -> None:
    url = same_to_all(answer(content, "text/event-stream"))
    failure(StreamBrokenError, lambda: ask(OpenAIModel(url, MODEL, retries=Retries(attempts=1))))


@pytest.mark.parametrize("reason", ["abort", "error", "network_error", "insufficient_system_resource"])
def test_an_answer_that_ended_for_a_failure_has_broken_off(started: Started, reason: str) -> None:
    fake = started(scripted(Reply(pieces=("Two ",), done_reason=reason)))
    assert reason in failure(StreamBrokenError, lambda: ask(model_of(fake))).problem


def test_the_last_piece_may_have_no_delta(same_to_all: SameToAll) -> None:
    events = [
        b'{"choices": [{"index": 0, "delta": {"content": "Two."}}]}',
        b'{"choices": [{"index": 0, "finish_reason": "stop"}]}',
    ]
    stream = b"".join(b"data: " + event + b"\n\n" for event in events)
    url = same_to_all(answer(stream, "text/event-stream"))
    assert ask(OpenAIModel(url, MODEL)).message.content == "Two."


# A conversation that was cut


WORDS = Message(Role.USER, "Which of the carriers had most delays? " * 100)  # 3,900 characters, 650 tokens


@pytest.mark.parametrize(("read", "is_whole"), [(512, False), (649, False), (650, True), (900, True)])
def test_fewer_tokens_than_there_can_be_are_a_conversation_that_was_cut(
    started: Started, read: int, is_whole: bool
) -> None:
    fake = started(scripted(Reply(pieces=("Two.",), read_tokens=read)))
    if is_whole:
        assert ask(model_of(fake), (WORDS,)).usage.input_tokens == read
        return
    error = failure(ContextTooLongError, lambda: ask(model_of(fake), (WORDS,)))
    assert f"are 650 tokens at the very least, and the server has read {read}" in error.problem


@pytest.mark.parametrize("text", [" " * 9000, "\n" * 9000, "-" * 9000, "=*" * 10 + "\t" * 5000, ". " * 10])
def test_what_may_be_a_single_token_is_not_counted_as_many(started: Started, text: str) -> None:
    fake = started(scripted(Reply(pieces=("Two.",), read_tokens=12)))
    assert ask(model_of(fake), (Message(Role.USER, text),)).message.content == "Two."


@pytest.mark.parametrize(
    ("allowed", "said", "is_cut"), [(100, 60, True), (100, 100, False), (None, 60, False), (100, 0, False)]
)
def test_an_answer_that_ends_before_its_limit_has_no_more_room(
    started: Started, allowed: int | None, said: int, is_cut: bool
) -> None:
    fake = started(scripted(Reply(pieces=("Two",), done_reason="length", output_tokens=said)))
    model = model_of(fake, max_output_tokens=allowed)
    if is_cut:
        error = failure(ContextTooLongError, lambda: ask(model))
        assert "the answer ended after 60 of the 100 tokens that it may have" in error.problem
    else:
        assert ask(model).finish_reason == "length"


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
        Reply(seconds_before=3600, pieces=("Two.",)),
        Reply(pieces=("Two ", "flights"), seconds_between=3600),
        Reply(pieces=("Two ",) * 10_000, seconds_between=0.1),
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
    assert time.monotonic() - start > 0.25


def test_a_server_that_trickles_headers_is_too_slow(same_to_all: SameToAll) -> None:
    url = same_to_all(b"HTTP/1.1 200 OK\r\nX-Padding: ", b"x")
    failure(TooSlowError, lambda: ask(OpenAIModel(url, MODEL), seconds=0.5))
