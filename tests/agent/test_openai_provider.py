"""Tests language models with OpenAI's protocol, with the real client and a fake server."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import pytest

from ledgerline.agent.language_model import (
    ContextTooLongError,
    MalformedResponseError,
    RefusedError,
    StreamBrokenError,
    UnknownModelError,
)
from ledgerline.agent.messages import Message, Role, Thinking, ToolCall, Usage
from ledgerline.agent.openai_provider import OpenAIModel
from ledgerline.agent.retrying import Retries
from ledgerline.testing.fake_ollama import Analyst, Reply, scripted
from ledgerline.testing.fake_openai import MODEL, FakeOpenAI
from tests.agent.fixed_responses import FixedResponseServer
from tests.agent.providers import IMPATIENT, QUESTION, SECRET, ask, failure

Started = Callable[..., FakeOpenAI]


@pytest.fixture
def started() -> Iterator[Started]:
    """Starts fakes that end with the test."""
    with ExitStack() as stack:
        yield lambda responder, models=(MODEL,): stack.enter_context(FakeOpenAI(responder, models))


def model_of(fake: FakeOpenAI, **settings: object) -> OpenAIModel:
    return OpenAIModel(fake.api, MODEL, **{"retries": IMPATIENT, **settings})


# Responses


def test_text_is_received_in_pieces_and_returned_whole(started: Started) -> None:
    received: list[str] = []
    reply = Reply(thinking=("Hm.",), pieces=("Two ", "flights", "."), seconds_between=0.1)
    completion = ask(model_of(started(scripted(reply))), received=received)
    assert received == ["Two ", "flights", "."]
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
    answer = Message(Role.TOOL, "n\n7", responds_to=call)
    assert ask(model, (question, asked.message, answer)).message.content.endswith("Answer: 7")
    sent = fake.requests[1].messages
    assert sent[1]["tool_calls"][0]["id"] == sent[2]["tool_call_id"] == "chat-0"
    assert json.loads(sent[1]["tool_calls"][0]["function"]["arguments"]) == call.arguments
    assert fake.requests[0].tools[0]["function"]["name"] == "query_flights"


def test_an_id_that_the_conversation_has_is_replaced(started: Started) -> None:
    fake = started(scripted(Reply(tool_calls=(("query_flights", {}), ("query_flights", {})))))
    call = ToolCall("chat-0", "query_flights", "no object")
    messages = (
        *QUESTION,
        Message(Role.ASSISTANT, "", (call,)),
        Message(Role.TOOL, "Wrong.", responds_to=call),
    )
    assert [call.id for call in ask(model_of(fake), messages).message.tool_calls] == ["call_2", "chat-1"]
    assert fake.requests[0].messages[2]["tool_calls"][0]["function"]["arguments"] == "{}"


@pytest.mark.parametrize(
    ("written", "arguments"),
    [('{"sql": "select', '{"sql": "select'), ("[1]", "[1]"), ("", {}), ('{"n": 1}', {"n": 1})],
)
def test_arguments_that_are_not_an_object_are_kept_unchanged(
    started: Started, written: str, arguments: object
) -> None:
    fake = started(scripted(Reply(tool_calls=(("query_flights", written),))))
    assert ask(model_of(fake)).message.tool_calls[0].arguments == arguments


def test_requested_options_are_sent_and_recorded(started: Started) -> None:
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
def test_the_effort_of_thinking_is_sent(started: Started, think: Thinking | None, effort: str | None) -> None:
    fake = started(scripted(Reply(pieces=("Yes.",))))
    ask(model_of(fake, think=think))
    assert fake.requests[0].options.get("reasoning_effort") == effort


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_a_thought_is_the_first_token_and_no_part_of_the_answer(started: Started, field: str) -> None:
    received: list[str] = []
    fake = started(scripted(Reply(thinking=("Hm.", "Well."), pieces=("Two.",), breaks_after=2)))
    fake.thoughts = field
    # The request is not repeated, since a part of the response was received.
    failure(StreamBrokenError, lambda: ask(model_of(fake), received=received))
    assert received == []
    assert len(fake.requests) == 1


OF_NEWER_MODELS = (
    "Unsupported parameter: 'max_tokens' is not supported with this model. "
    "Use 'max_completion_tokens' instead."
)


def test_the_limit_has_the_name_that_the_server_accepts(started: Started) -> None:
    fake = started(lambda _: Reply(pieces=("Yes.",)))
    fake.refuses = "max_tokens", OF_NEWER_MODELS
    model = model_of(fake, max_output_tokens=100)
    for _ in range(2):
        assert ask(model).message.content == "Yes."
    assert [request.options["max_completion_tokens"] for request in fake.requests] == [100, 100]
    assert all("max_tokens" not in request.options for request in fake.requests)


def test_a_refused_parameter_of_another_kind_is_not_sent_again(started: Started) -> None:
    fake = started(lambda _: Reply(pieces=("Yes.",)))
    fake.refuses = "seed", "Unsupported parameter: 'seed'"
    failure(RefusedError, lambda: ask(model_of(fake, seed=7, max_output_tokens=100)))


def test_without_usage_no_tokens_are_made_up(started: Started) -> None:
    completion = ask(model_of(started(scripted(Reply(pieces=("a", "b"), input_tokens=None)))))
    assert completion.usage == Usage(0, 0)
    assert completion.tokens_per_second is None


# Checks before use


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


def test_the_error_of_an_ollama_explains_that_this_protocol_cuts(
    started: Started, caplog: pytest.LogCaptureFixture
) -> None:
    fake = started(scripted())
    model_of(fake).require()
    assert not caplog.records
    fake.owner = "library"
    model_of(fake).require()
    (record,) = caplog.records
    assert "silently cuts a conversation that is too long" in record.getMessage()
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
def test_a_page_with_status_200_is_not_a_response_and_is_quoted(
    fixed_response: FixedResponseServer, content: bytes, kind: str
) -> None:
    model = OpenAIModel(fixed_response(answer(content, kind)), MODEL)
    for act in (model.require, lambda: ask(model)):
        error = failure(MalformedResponseError, act)
        assert "Please log in" in error.problem
    assert len(fixed_response.connections) == 2  # each once


def test_an_error_with_status_200_is_an_error(fixed_response: FixedResponseServer) -> None:
    error = b'{"error": {"message": "This model\'s maximum context length is 4096 tokens."}}'
    model = OpenAIModel(fixed_response(answer(error, "application/json")), MODEL)
    failure(ContextTooLongError, lambda: ask(model))


@pytest.mark.parametrize(
    "event",
    [b'{"id": "1"}', b'{"id": "1", "choices": null}', b'{"detail": "Not yours"}', b'"Not yours"'],
)
def test_a_piece_without_choices_is_malformed(fixed_response: FixedResponseServer, event: bytes) -> None:
    stream = answer(b"data: " + event + b"\n\ndata: [DONE]\n\n", "text/event-stream")
    error = failure(MalformedResponseError, lambda: ask(OpenAIModel(fixed_response(stream), MODEL)))
    assert event.decode().split('"')[1] in error.problem


@pytest.mark.parametrize("content", [b"", b"data: [DONE]\n\n", b": nothing\n\n"])
def test_a_stream_of_nothing_has_broken_off(fixed_response: FixedResponseServer, content: bytes) -> None:
    url = fixed_response(answer(content, "text/event-stream"))
    failure(StreamBrokenError, lambda: ask(OpenAIModel(url, MODEL, retries=Retries(attempts=1))))


@pytest.mark.parametrize("reason", ["abort", "error", "network_error", "insufficient_system_resource"])
def test_an_answer_that_ended_for_a_failure_has_broken_off(started: Started, reason: str) -> None:
    fake = started(scripted(Reply(pieces=("Two ",), done_reason=reason)))
    assert reason in failure(StreamBrokenError, lambda: ask(model_of(fake))).problem


def test_the_last_piece_may_have_no_delta(fixed_response: FixedResponseServer) -> None:
    events = [
        b'{"choices": [{"index": 0, "delta": {"content": "Two."}}]}',
        b'{"choices": [{"index": 0, "finish_reason": "stop"}]}',
    ]
    stream = b"".join(b"data: " + event + b"\n\n" for event in events)
    url = fixed_response(answer(stream, "text/event-stream"))
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
    assert f"are at least 650 tokens, and the server has read {read}" in error.problem


@pytest.mark.parametrize("text", [" " * 9000, "\n" * 9000, "-" * 9000, "=*" * 10 + "\t" * 5000, ". " * 10])
def test_a_text_that_may_be_a_single_token_counts_as_one(started: Started, text: str) -> None:
    fake = started(scripted(Reply(pieces=("Two.",), read_tokens=12)))
    assert ask(model_of(fake), (Message(Role.USER, text),)).message.content == "Two."


@pytest.mark.parametrize(
    ("allowed", "reported", "is_cut"),
    [(100, 60, True), (100, 100, False), (None, 60, False), (100, 0, False)],
)
def test_an_answer_that_ends_before_its_limit_has_no_more_room(
    started: Started, allowed: int | None, reported: int, is_cut: bool
) -> None:
    fake = started(scripted(Reply(pieces=("Two",), done_reason="length", output_tokens=reported)))
    model = model_of(fake, max_output_tokens=allowed)
    if is_cut:
        error = failure(ContextTooLongError, lambda: ask(model))
        assert "the response ended after 60 of at most 100 tokens" in error.problem
    else:
        assert ask(model).finish_reason == "length"


def test_a_key_that_cannot_be_sent_is_not_in_the_error(started: Started) -> None:
    model = model_of(started(scripted()), api_key=f"{SECRET}\nand a line", headers={})
    assert SECRET not in str(failure(RefusedError, lambda: ask(model)))


# Failures


def test_the_code_of_an_error_decides_and_not_its_message(started: Started) -> None:
    fake = started(scripted(Reply(status=400, error="Too much.", done_reason="context_length_exceeded")))
    failure(ContextTooLongError, lambda: ask(model_of(fake)))
