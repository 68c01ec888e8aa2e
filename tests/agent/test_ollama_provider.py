"""Tests language models and embedders of Ollama with the real client and a fake server."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from ledgerline.agent.language_model import (
    ContextTooLongError,
    MalformedResponseError,
    RefusedError,
    ServerAbsentError,
    ServerAddressError,
    ServerBusyError,
    TooSlowError,
    UnknownModelError,
)
from ledgerline.agent.messages import Message, Role, Thinking, ToolCall, Usage
from ledgerline.agent.ollama_embedder import OllamaEmbedder
from ledgerline.agent.ollama_provider import OllamaModel
from ledgerline.testing.fake_ollama import EMBEDDING_MODEL, MODEL, FakeOllama, Reply, scripted
from ledgerline.testing.ports import HOST
from tests.agent.fixed_responses import FixedResponseServer
from tests.agent.providers import IMPATIENT, QUESTION, SECONDS, SECRET, ask, failure
from tests.agent.test_providers import BAD_CALL

Started = Callable[..., FakeOllama]


@pytest.fixture
def started() -> Iterator[Started]:
    """Starts fakes that end with the test."""
    with ExitStack() as stack:
        yield lambda responder, models=None: stack.enter_context(FakeOllama(responder, models))


def model_of(fake: FakeOllama, **settings: object) -> OllamaModel:
    return OllamaModel(fake.url, MODEL, **{"retries": IMPATIENT, **settings})


# Responses


def test_text_is_received_in_pieces_and_returned_whole(started: Started) -> None:
    received: list[str] = []
    fake = started(scripted(Reply(pieces=("Two ", "flights", "."))))
    completion = ask(model_of(fake), received=received)
    assert received == ["Two ", "flights", "."]
    assert completion.message == Message(Role.ASSISTANT, "Two flights.")
    assert completion.usage == Usage(26, 10)
    assert (completion.model, completion.finish_reason) == (MODEL, "stop")
    assert completion.tokens_per_second == 20
    assert completion.seconds_to_first_token is not None
    assert 0 < completion.seconds_to_first_token < SECONDS


def test_pieces_are_received_when_they_arrive(started: Started) -> None:
    fake = started(scripted(Reply(pieces=("first", "second"), seconds_between=3600)))

    def listen(_: str) -> None:
        fake.stopping.set()  # the second arrives at once: the first was received before

    assert model_of(fake).complete(QUESTION, (), SECONDS, listen).message.content == "firstsecond"


def test_tools_are_described_and_calls_are_answered_by_their_ids(started: Started) -> None:
    first = Reply(tool_calls=(("query_flights", {"sql": "select 1"}), ("query_flights", {"sql": "select 2"})))
    fake = started(scripted(first, Reply(pieces=("Two.",))))
    model = model_of(fake)
    completion = ask(model)
    calls = completion.message.tool_calls
    assert [(call.name, call.arguments) for call in calls] == [
        ("query_flights", {"sql": "select 1"}),
        ("query_flights", {"sql": "select 2"}),
    ]
    assert completion.finish_reason == "tool_calls"
    answers = [Message(Role.TOOL, f"n\n{number}", responds_to=call) for number, call in enumerate(calls)]
    ask(model, (*QUESTION, completion.message, *answers))
    described = fake.requests[0].tools[0]["function"]
    assert (described["name"], described["description"]) == ("query_flights", "Answers SQL.")
    assert described["parameters"]["properties"]["limit"]["type"] == ["integer", "null"]
    sent = fake.requests[1].messages
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "tool", "tool"]
    assert sent[2]["tool_calls"][1] == {
        "id": calls[1].id,
        "function": {"name": "query_flights", "arguments": {"sql": "select 2"}},
    }
    assert sent[3] == {
        "role": "tool",
        "content": "n\n0",
        "tool_name": "query_flights",
        "tool_call_id": calls[0].id,
    }


def raw(**function: object) -> Reply:
    return Reply(raw_calls=({"function": {"name": "query_flights", **function}},) * 2)


def test_calls_without_ids_receive_ids(started: Started) -> None:
    fake = started(scripted(raw(arguments={"sql": "select 1"})))
    call = ToolCall("call_2", "query_flights", "no object")  # call_1 was cut out of the conversation
    asked = Message(Role.ASSISTANT, "", (call,))
    completion = ask(model_of(fake), (*QUESTION, asked, Message(Role.TOOL, "Wrong.", responds_to=call)))
    assert [call.id for call in completion.message.tool_calls] == ["call_3", "call_4"]
    assert fake.requests[0].messages[2]["tool_calls"][0]["function"]["arguments"] == {}


@pytest.mark.parametrize(
    ("written", "arguments"),
    [
        ('{"sql": "select 1"}', {"sql": "select 1"}),
        ('{"sql": "sel', '{"sql": "sel'),
        ("", {}),
        (None, {}),
        ({"sql": "select 1"}, {"sql": "select 1"}),
    ],
)
def test_arguments_may_be_an_object_or_its_text(started: Started, written: object, arguments: object) -> None:
    calls = ask(model_of(started(scripted(raw(arguments=written))))).message.tool_calls
    assert [call.arguments for call in calls] == [arguments] * 2


def test_requested_options_are_sent_and_recorded(started: Started) -> None:
    fake = started(scripted(Reply(pieces=("Yes.",)), Reply(pieces=("Yes.",))))
    model = model_of(fake, context_tokens=2048, temperature=0.5, seed=7, max_output_tokens=100)
    ask(model)
    ask(model_of(fake), tools=())
    sent = {"num_ctx": 2048, "temperature": 0.5, "seed": 7, "num_predict": 100}
    assert fake.requests[0].options == sent
    assert fake.requests[1].options == {"num_ctx": 8192, "temperature": 0.0}
    assert not fake.requests[1].tools
    assert all(request.stream for request in fake.requests)
    assert model.settings == {"temperature": 0.5, "seed": 7, "max_tokens": 100}
    assert (model.provider, model.model, model.address) == ("ollama", MODEL, fake.url)


def test_thoughts_are_not_a_part_of_the_answer(started: Started) -> None:
    received: list[str] = []
    fake = started(scripted(Reply(thinking=("Hm, ", "flights."), pieces=("Two.",))))
    assert ask(model_of(fake), received=received).message.content == "Two."
    assert received == ["Two."]


def test_missing_counts_of_ollama_stay_missing(started: Started) -> None:
    quiet = Reply(pieces=("a", "b"), input_tokens=None, output_tokens=None, output_seconds=None)
    completion = ask(model_of(started(scripted(quiet))))
    assert completion.usage == Usage(0, 0)
    assert completion.tokens_per_second is None


def test_speed_is_measured_if_ollama_does_not_report_it(started: Started) -> None:
    reply = Reply(pieces=("a", "b"), seconds_between=0.02, output_seconds=None)
    speed = ask(model_of(started(scripted(reply)))).tokens_per_second
    assert speed is not None
    assert speed > 0


def test_an_answer_without_anything_has_no_first_token(started: Started) -> None:
    completion = ask(model_of(started(scripted(Reply()))))
    assert completion.message.content == ""
    assert completion.seconds_to_first_token is None


# Checks before use


def test_a_server_with_the_model_is_all_that_is_required(started: Started) -> None:
    model_of(started(scripted())).require()


def test_an_old_server_that_reports_no_capabilities_is_accepted(started: Started) -> None:
    model_of(started(scripted(), {MODEL: None})).require()


@pytest.mark.parametrize("version", ["0.6.4", "0.11.10", "0.12.5"])
def test_a_version_that_always_drops_messages_must_be_updated(started: Started, version: str) -> None:
    fake = started(scripted())
    fake.version = version
    model = model_of(fake)
    for act in (model.require, lambda: ask(model)):
        error = failure(RefusedError, act)
        assert f"Ollama {version} at {fake.url} silently drops messages" in error.problem
        assert "Update it to 0.12.6 or later" in error.remedy
    assert not fake.requests


@pytest.mark.parametrize("version", ["0.12.6", "0.13.0-rc1", "0.17.4", "1.0.0", "0.0.0", None])
def test_other_versions_are_accepted(started: Started, version: str | None) -> None:
    fake = started(scripted(Reply(pieces=("Two.",))))
    fake.version = version
    assert ask(model_of(fake)).message.content == "Two."


def test_the_request_forbids_the_server_to_drop_messages(started: Started) -> None:
    fake = started(lambda _: Reply(pieces=("Two.",)))
    ask(model_of(fake))
    assert fake.requests[0].more == {"truncate": False, "shift": False}


@pytest.mark.parametrize(
    ("think", "sent"), [(Thinking.OFF, False), (Thinking.ON, True), (Thinking.LOW, "low")]
)
def test_the_effort_of_thinking_is_sent(started: Started, think: Thinking, sent: object) -> None:
    fake = started(lambda _: Reply(pieces=("Two.",)), {MODEL: ("completion", "tools", "thinking")})
    model = model_of(fake, think=think)
    model.require()
    if isinstance(sent, str):  # the server does not report which models have levels
        failure(UnknownModelError, lambda: ask(model))
    else:
        ask(model)
    assert fake.requests[0].more["think"] == sent


@pytest.mark.parametrize("asked", [2048, 1_000_000])
def test_the_shorter_context_counts(started: Started, asked: int, caplog: pytest.LogCaptureFixture) -> None:
    fake = started(lambda _: Reply(pieces=("Two.",)))
    model = model_of(fake, context_tokens=asked)
    for _ in range(2):
        ask(model)
    counts = min(asked, 40_960)
    assert [request.options["num_ctx"] for request in fake.requests] == [counts] * 2
    assert fake.loaded == {MODEL: counts}
    assert len(caplog.records) == (asked > counts)  # reported once


def test_a_model_of_a_short_context_is_not_refused_for_the_longest_answer_it_may_give(
    started: Started,
) -> None:
    fake = started(scripted(Reply(pieces=("Two.",))))
    fake.context_tokens = 2048
    assert ask(model_of(fake, context_tokens=16_384, max_output_tokens=4096)).message.content == "Two."


@pytest.mark.parametrize(
    "page",
    [b"<html>Log in</html>", b"{}", b"[]", b"5", b'{"version": 5}', b'{"version": "0.17.4"}', b"null", b""],
)
def test_a_page_with_status_200_is_not_an_ollama(fixed_response: FixedResponseServer, page: bytes) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(page)}\r\n\r\n".encode()
    model = OllamaModel(fixed_response(head + page), MODEL)
    for act in (model.require, lambda: ask(model)):
        failure(MalformedResponseError, act)


def test_a_model_that_is_not_there_is_to_be_pulled(started: Started) -> None:
    model = OllamaModel(started(scripted()).url, "other:1b")
    for act in (model.require, lambda: ask(model)):
        error = failure(UnknownModelError, act)
        assert "other:1b" in error.problem
        assert "`ollama pull other:1b`" in error.remedy


def test_a_model_without_tools_is_refused_for_an_agent(started: Started) -> None:
    model = model_of(started(scripted(), {MODEL: ("completion",)}))
    for act in (model.require, lambda: ask(model)):
        error = failure(UnknownModelError, act)
        assert f"{MODEL} of Ollama at" in error.problem
        assert "cannot call tools" in error.problem


def test_an_absent_server_is_to_be_started(free_port: int) -> None:
    address = f"http://{HOST}:{free_port}"
    model = OllamaModel(address, MODEL)
    embedder = OllamaEmbedder(address, EMBEDDING_MODEL)
    for act in (model.require, lambda: ask(model), lambda: embedder.embed(["text"])):
        error = failure(ServerAbsentError, act)
        assert error.problem.startswith(f"No Ollama responds at {address}")
        assert error.remedy == "Start it with `ollama serve`, or set OLLAMA_HOST to its address."


def test_a_host_that_does_not_exist_is_an_absent_server() -> None:
    failure(ServerAbsentError, OllamaModel("http://nobody.invalid:11434", MODEL).require)


def test_another_program_at_the_address_is_not_an_ollama(fixed_response: FixedResponseServer) -> None:
    url = fixed_response(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
    error = failure(MalformedResponseError, OllamaModel(url, MODEL).require)
    assert "Ollama runs at this address" in error.remedy


def test_a_web_server_without_this_interface_is_not_an_ollama(fixed_response: FixedResponseServer) -> None:
    url = fixed_response(b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nNot Found")
    failure(RefusedError, OllamaModel(url, MODEL).require)


@pytest.mark.parametrize(
    "host", ["", "http://", "gpu:port", "http://gpu:port", "http://[::1", "http://user:secret@"]
)
def test_an_invalid_address_is_refused_at_once(host: str) -> None:
    for make in (OllamaModel, OllamaEmbedder):
        with pytest.raises(ServerAddressError, match="is not the address of a server") as error:
            make(host, MODEL)
        assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("http://127.0.0.1:11434/", "http://127.0.0.1:11434"),
        ("gpu:80", "http://gpu:80"),
        ("gpu", "http://gpu:11434"),
        ("[::1]", "http://[::1]:11434"),
        (":99", "http://127.0.0.1:99"),
        (f"ann:{SECRET}@gpu/ollama", "http://gpu:11434/ollama"),
        ("http://gpu", "http://gpu"),
        (f"https://ann:{SECRET}@gpu/ollama?x=1", "https://gpu/ollama"),
        (f"https://ann:{SECRET}/@{SECRET}@gpu", "https://gpu"),
    ],
)
def test_an_address_has_no_credentials(host: str, address: str) -> None:
    model = OllamaModel(host, MODEL, headers={"X-Key": SECRET})
    assert model.address == address
    assert SECRET not in repr(model)


# Failures


def test_a_malformed_call_within_the_stream_is_understood(started: Started) -> None:
    fake = started(scripted(Reply(error=BAD_CALL)))
    failure(MalformedResponseError, lambda: ask(model_of(fake)))
    assert len(fake.requests) == 1


def test_without_remaining_time_no_request_is_sent(started: Started) -> None:
    fake = started(scripted())
    failure(TooSlowError, lambda: ask(model_of(fake), seconds=0))
    assert not fake.requests


def test_a_conversation_that_cannot_fit_is_not_sent(started: Started) -> None:
    fake = started(scripted())
    long = (*QUESTION, Message(Role.USER, "x" * 6 * 1000))
    model = model_of(fake, context_tokens=1200, max_output_tokens=300)
    error = failure(ContextTooLongError, lambda: ask(model, long))
    assert "there is room for 900" in error.problem
    calls = (ToolCall("call_1", "query_flights", {"sql": "x" * 6000}),)
    failure(ContextTooLongError, lambda: ask(model, (*QUESTION, Message(Role.ASSISTANT, "", calls))))
    assert not fake.requests


@pytest.mark.parametrize(
    "cut",
    [
        Reply(pieces=("Two.",), input_tokens=2048),
        Reply(pieces=("Two.",), input_tokens=2045),
        Reply(pieces=("Two",), input_tokens=2000, output_tokens=48, done_reason="length"),
        Reply(pieces=("Two",), input_tokens=None, output_tokens=2048, done_reason="length"),
    ],
)
def test_a_conversation_that_ollama_has_cut_is_too_long(started: Started, cut: Reply) -> None:
    fake = started(scripted(cut))
    failure(ContextTooLongError, lambda: ask(model_of(fake, context_tokens=2048)))


# Embeddings


def embedder_of(fake: FakeOllama, **settings: object) -> OllamaEmbedder:
    return OllamaEmbedder(fake.url, EMBEDDING_MODEL, **{"retries": IMPATIENT, **settings})


def test_each_text_has_a_vector_in_its_order(started: Started) -> None:
    fake = started(scripted())
    embedder = embedder_of(fake, batch=3)
    texts = [f"flight {number}" for number in range(8)]
    vectors = embedder.embed(texts)
    assert fake.embedded == texts
    assert vectors == [embedder.embed([text])[0] for text in texts]
    assert {len(vector) for vector in vectors} == {64}
    assert embedder.name == f"ollama:{EMBEDDING_MODEL}"


def test_no_text_has_no_vector(started: Started) -> None:
    fake = started(scripted())
    assert embedder_of(fake).embed([]) == []
    assert not fake.embedded


def test_an_unknown_embedding_model_is_to_be_pulled(started: Started) -> None:
    embedder = OllamaEmbedder(started(scripted()).url, "other")
    assert "`ollama pull other`" in failure(UnknownModelError, lambda: embedder.embed(["text"])).remedy


@pytest.mark.parametrize(
    "vectors",
    [
        [[1, 0], [1]],
        [[1, 0]],
        [[], []],
        [[1, math.nan], [1, 0]],
        [[1, math.inf], [1, 0]],
        [[1], None],
        5,
        None,
    ],
    ids=str,
)
def test_vectors_that_cannot_be_compared_are_malformed(started: Started, vectors: object) -> None:
    fake = started(scripted())
    fake.vectors = lambda _: vectors
    failure(MalformedResponseError, lambda: embedder_of(fake).embed(["one", "two"]))


@pytest.mark.parametrize("name", [EMBEDDING_MODEL, EMBEDDING_MODEL.removesuffix(":latest")])
def test_an_embedding_model_has_its_name_with_a_tag_and_without(started: Started, name: str) -> None:
    assert OllamaEmbedder(started(scripted()).url, name).embed(["text"])


def test_a_model_for_conversations_makes_no_embeddings(started: Started) -> None:
    fake = started(scripted())
    error = failure(UnknownModelError, lambda: OllamaEmbedder(fake.url, MODEL).embed(["text"]))
    assert (
        f"{MODEL} of Ollama at {fake.url} cannot create embeddings; its capabilities are: completion, tools."
        in error.problem
    )
    assert "nomic-embed-text" in error.remedy
    assert not fake.embedded


def test_an_old_server_that_reports_no_capabilities_embeds(started: Started) -> None:
    fake = started(scripted(), {EMBEDDING_MODEL: None})
    assert embedder_of(fake).embed(["text"])


def test_embeddings_of_a_busy_server_are_requested_again(fixed_response: FixedResponseServer) -> None:
    url = fixed_response(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy")
    embedder = OllamaEmbedder(url, EMBEDDING_MODEL, retries=IMPATIENT)
    failure(ServerBusyError, lambda: embedder.embed(["text"]))
    assert len(fixed_response.connections) == IMPATIENT.attempts


def test_embeddings_that_take_too_long_are_given_up(fixed_response: FixedResponseServer) -> None:
    embedder = OllamaEmbedder(fixed_response(b""), EMBEDDING_MODEL, seconds=0.2)
    failure(TooSlowError, lambda: embedder.embed(["text"]))
