"""What an agent gets of an Ollama server, and is told when the server fails. The client is the real one."""

import math
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
from ledgerline.agent.ollama_embedder import OllamaEmbedder
from ledgerline.agent.ollama_provider import OllamaModel
from ledgerline.agent.retrying import Retries
from ledgerline.agent.thinking import Thinking
from ledgerline.testing.fake_http import SameToAll
from ledgerline.testing.fake_ollama import EMBEDDING_MODEL, MODEL, ChatRequest, FakeOllama, Reply, scripted
from ledgerline.testing.ports import HOST

SECONDS = 20.0
QUESTION = (Message(Role.SYSTEM, "You know flights."), Message(Role.USER, "How many?"))
TOOL = ToolDescription(
    "query_flights",
    "Answers SQL.",
    {
        "type": "object",
        "properties": {
            "sql": {"type": "string", "description": "One SELECT."},
            "limit": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
        },
        "required": ["sql"],
    },
)
IMPATIENT = Retries(first_wait_seconds=0.001)
SECRET = "correct-horse"

Asked = Callable[..., Completion]
Started = Callable[..., FakeOllama]


@pytest.fixture
def started() -> Iterator[Started]:
    """Starts fakes that end with the test."""
    with ExitStack() as stack:
        yield lambda mind, models=None: stack.enter_context(FakeOllama(mind, models))


@pytest.fixture
def same_to_all() -> Iterator[SameToAll]:
    with SameToAll() as server:
        yield server


def model_of(fake: FakeOllama, **settings: object) -> OllamaModel:
    return OllamaModel(fake.url, MODEL, **{"retries": IMPATIENT, **settings})


def ask(
    model: OllamaModel,
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
    fake = started(scripted(Reply(pieces=("Two ", "flights", "."))))
    completion = ask(model_of(fake), heard=heard)
    assert heard == ["Two ", "flights", "."]
    assert completion.message == Message(Role.ASSISTANT, "Two flights.")
    assert completion.usage == Usage(26, 10)
    assert (completion.model, completion.finish_reason) == (MODEL, "stop")
    assert completion.tokens_per_second == 20
    assert completion.seconds_to_first_token is not None
    assert 0 < completion.seconds_to_first_token < SECONDS


def test_pieces_are_heard_when_they_come(started: Started) -> None:
    fake = started(scripted(Reply(pieces=("first", "second"), seconds_between=3600)))

    def listen(_: str) -> None:
        fake.stopping.set()  # the second comes at once: the first was heard before

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
    answers = [Message(Role.TOOL, f"n\n{number}", answers=call) for number, call in enumerate(calls)]
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


def test_calls_without_ids_have_ids_of_our_own(started: Started) -> None:
    fake = started(scripted(raw(arguments={"sql": "select 1"})))
    call = ToolCall("call_2", "query_flights", "no object")  # call_1 was cut out of the conversation
    asked = Message(Role.ASSISTANT, "", (call,))
    completion = ask(model_of(fake), (*QUESTION, asked, Message(Role.TOOL, "Wrong.", answers=call)))
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


def test_what_is_asked_for_is_sent_and_told(started: Started) -> None:
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


def test_thoughts_are_no_part_of_the_answer(started: Started) -> None:
    heard: list[str] = []
    fake = started(scripted(Reply(thinking=("Hm, ", "flights."), pieces=("Two.",))))
    assert ask(model_of(fake), heard=heard).message.content == "Two."
    assert heard == ["Two."]


def test_what_ollama_does_not_count_is_not_made_up(started: Started) -> None:
    quiet = Reply(pieces=("a", "b"), input_tokens=None, output_tokens=None, output_seconds=None)
    completion = ask(model_of(started(scripted(quiet))))
    assert completion.usage == Usage(0, 0)
    assert completion.tokens_per_second is None


def test_speed_is_measured_if_ollama_does_not_tell_it(started: Started) -> None:
    reply = Reply(pieces=("a", "b"), seconds_between=0.02, output_seconds=None)
    speed = ask(model_of(started(scripted(reply)))).tokens_per_second
    assert speed is not None
    assert speed > 0


def test_an_answer_without_anything_has_no_first_token(started: Started) -> None:
    completion = ask(model_of(started(scripted(Reply()))))
    assert completion.message.content == ""
    assert completion.seconds_to_first_token is None


@pytest.mark.parametrize(
    ("reason", "told"), [("stop", "stop"), ("length", "length"), ("load", "stop"), (None, "stop")]
)
def test_why_it_ended_is_told_as_opentelemetry_has_it(
    started: Started, reason: str | None, told: str
) -> None:
    fake = started(scripted(Reply(pieces=("Two.",), done_reason=reason)))
    assert ask(model_of(fake)).finish_reason == told


def test_fifty_at_once_do_not_mix(started: Started) -> None:
    at_once = 50
    all_here = threading.Barrier(at_once)

    def mind(request: ChatRequest) -> Reply:
        all_here.wait(SECONDS)  # they really are there at the same time
        number = request.messages[-1]["content"]
        return Reply(pieces=tuple(f"{number}-{part} " for part in range(20)), input_tokens=int(number) + 1)

    model = model_of(started(mind))

    def one(number: int) -> tuple[list[str], Completion]:
        heard: list[str] = []
        return heard, ask(model, (Message(Role.USER, str(number)),), heard=heard)

    with ThreadPoolExecutor(at_once) as pool:
        results = list(pool.map(one, range(at_once)))
    for number, (heard, completion) in enumerate(results):
        assert heard == [f"{number}-{part} " for part in range(20)]
        assert completion.message.content == "".join(heard)
        assert completion.usage.input_tokens == number + 1


def test_an_error_of_the_listener_is_its_own(started: Started) -> None:
    def listen(_: str) -> None:
        raise ValueError("the screen is full")

    fake = started(scripted(Reply(pieces=("one", "two"))))
    with pytest.raises(ValueError, match="the screen is full"):
        model_of(fake).complete(QUESTION, (), SECONDS, listen)


# Whether it can be used


def test_a_server_with_the_model_is_all_that_is_required(started: Started) -> None:
    model_of(started(scripted())).require()


def test_an_old_server_that_does_not_say_what_its_models_can_is_accepted(started: Started) -> None:
    model_of(started(scripted(), {MODEL: None})).require()


@pytest.mark.parametrize("version", ["0.6.4", "0.11.10", "0.12.5"])
def test_a_version_that_drops_messages_whatever_it_is_told_is_to_be_updated(
    started: Started, version: str
) -> None:
    fake = started(scripted())
    fake.version = version
    model = model_of(fake)
    for act in (model.require, lambda: ask(model)):
        error = failure(RefusedError, act)
        assert f"Ollama {version} at {fake.url} drops messages" in error.problem
        assert "Update it to 0.12.6 or later" in error.remedy
    assert not fake.requests


@pytest.mark.parametrize("version", ["0.12.6", "0.13.0-rc1", "0.17.4", "1.0.0", "0.0.0", None])
def test_other_versions_are_accepted(started: Started, version: str | None) -> None:
    fake = started(scripted(Reply(pieces=("Two.",))))
    fake.version = version
    assert ask(model_of(fake)).message.content == "Two."


def test_the_server_is_told_to_drop_nothing(started: Started) -> None:
    fake = started(lambda _: Reply(pieces=("Two.",)))
    ask(model_of(fake))
    assert fake.requests[0].more == {"truncate": False, "shift": False}


@pytest.mark.parametrize(
    ("think", "sent"), [(Thinking.OFF, False), (Thinking.ON, True), (Thinking.LOW, "low")]
)
def test_how_much_to_think_is_sent(started: Started, think: Thinking, sent: object) -> None:
    fake = started(lambda _: Reply(pieces=("Two.",)), {MODEL: ("completion", "tools", "thinking")})
    model = model_of(fake, think=think)
    model.require()
    if isinstance(sent, str):  # the server does not say beforehand which models have levels
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
    assert len(caplog.records) == (asked > counts)  # said once


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
def test_a_page_with_status_200_is_no_ollama(same_to_all: SameToAll, page: bytes) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(page)}\r\n\r\n".encode()
    model = OllamaModel(same_to_all(head + page), MODEL)
    for act in (model.require, lambda: ask(model)):
        failure(MalformedAnswerError, act)


def test_a_model_that_is_not_there_is_to_be_pulled(started: Started) -> None:
    model = OllamaModel(started(scripted()).url, "other:1b")
    for act in (model.require, lambda: ask(model)):
        error = failure(UnknownModelError, act)
        assert "other:1b" in error.problem
        assert "`ollama pull other:1b`" in error.remedy


def test_a_model_without_tools_is_none_for_an_agent(started: Started) -> None:
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
        assert error.problem.startswith(f"No Ollama answers at {address}")
        assert error.remedy == "Start it with `ollama serve`, or set OLLAMA_HOST to where it runs."


def test_a_name_that_nobody_has_is_an_absent_server() -> None:
    failure(ServerAbsentError, OllamaModel("http://nobody.invalid:11434", MODEL).require)


def test_something_else_at_the_address_is_no_ollama(same_to_all: SameToAll) -> None:
    url = same_to_all(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
    error = failure(MalformedAnswerError, OllamaModel(url, MODEL).require)
    assert "Ollama at this address" in error.remedy


def test_a_web_server_without_this_interface_is_no_ollama(same_to_all: SameToAll) -> None:
    url = same_to_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nNot Found")
    failure(RefusedError, OllamaModel(url, MODEL).require)


@pytest.mark.parametrize(
    "host", ["", "http://", "gpu:port", "http://gpu:port", "http://[::1", "http://user:secret@"]
)
def test_what_is_no_address_is_refused_at_once(host: str) -> None:
    for make in (OllamaModel, OllamaEmbedder):
        with pytest.raises(ValueError, match="is no address") as error:
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


def test_user_and_password_of_the_address_are_sent_and_never_told(started: Started) -> None:
    said = f"no, {SECRET} is wrong"
    fake = started(scripted(Reply(pieces=("Yes.",)), Reply(status=401, error=said)))
    model = OllamaModel(fake.url.replace("//", f"//ann:{SECRET}@"), MODEL, headers={"X-Team": "flights"})
    ask(model)
    assert fake.requests[0].headers["authorization"] == "Basic YW5uOmNvcnJlY3QtaG9yc2U="
    assert fake.requests[0].headers["x-team"] == "flights"
    error = failure(RefusedError, lambda: ask(model))
    assert SECRET not in f"{error} {model!r} {model.address}"


# Failures


BAD_CALL = "error parsing tool call: raw='{\"sql\": ', err=unexpected end of JSON input"


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (500, BAD_CALL, MalformedAnswerError),
        (400, BAD_CALL, MalformedAnswerError),
        (400, "the input length exceeds the context length", ContextTooLongError),
        (400, "the request exceeds the available context size (4096 tokens)", ContextTooLongError),
        (400, "prompt too long; exceeded max context length by 12 tokens", ContextTooLongError),
        (400, "invalid options: num_ctx", RefusedError),
        (401, "unauthorized", RefusedError),
        (403, "forbidden", RefusedError),
        (500, "model requires more system memory (12 GiB) than is available", ServerFailedError),
    ],
)
def test_what_the_server_says_is_understood_and_said_once(
    started: Started, status: int, said: str, kind: type[LanguageModelError]
) -> None:
    fake = started(scripted(Reply(status=status, error=said)))
    error = failure(kind, lambda: ask(model_of(fake)))
    assert said in error.problem
    assert len(fake.requests) == 1


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_server_is_asked_again(started: Started, status: int) -> None:
    busy = Reply(status=status, error="server busy, please try again")
    fake = started(scripted(busy, busy, Reply(pieces=("Two.",))))
    assert ask(model_of(fake)).message.content == "Two."
    assert len(fake.requests) == 3


def test_a_server_that_stays_busy_is_left_alone(started: Started) -> None:
    waits: list[float] = []
    fake = started(lambda _: Reply(status=503, error="maximum pending requests exceeded"))
    model = model_of(fake, retries=Retries(attempts=4, wait=waits.append))
    assert "maximum pending requests exceeded" in failure(ServerBusyError, lambda: ask(model)).problem
    assert len(fake.requests) == 4
    assert 0.1 < waits[0] < waits[2] < 1.6


def test_a_busy_server_is_not_waited_for_longer_than_there_is_time(started: Started) -> None:
    fake = started(lambda _: Reply(status=503, error="busy"))
    model = model_of(fake, retries=Retries(first_wait_seconds=1000))
    failure(ServerBusyError, lambda: ask(model))
    assert len(fake.requests) == 1


def test_a_connection_that_ends_before_the_answer_begins_is_tried_again(started: Started) -> None:
    heard: list[str] = []
    fake = started(scripted(Reply(hangs_up=True), Reply(breaks_after=0), Reply(pieces=("Two.",))))
    assert ask(model_of(fake), heard=heard).message.content == "Two."
    assert heard == ["Two."]


def test_a_server_that_always_hangs_up_is_given_up(started: Started) -> None:
    fake = started(lambda _: Reply(hangs_up=True))
    failure(StreamBrokenError, lambda: ask(model_of(fake)))
    assert len(fake.requests) == IMPATIENT.attempts


@pytest.mark.parametrize(
    "broken",
    [
        Reply(pieces=("Two ", "flights"), breaks_after=1),
        Reply(pieces=("Two ",), breaks_after=1),
        Reply(pieces=("Two ",), is_endless=True),
        Reply(pieces=("Two ",), garbage=b'{"model":"qwen3:8b","message":{"role":"assist'),
        Reply(pieces=("Two ",), garbage=b'{"model":"qwen3:8b","message":{"role":"assistant"}'),
        Reply(pieces=("Two ",), error="an error was encountered while running the model: unexpected EOF"),
        Reply(thinking=("Hm.",), is_endless=True),
    ],
    ids=["in the middle", "before the end", "without an end", "half", "almost", "error", "thinking"],
)
def test_an_answer_that_breaks_off_is_not_begun_again(started: Started, broken: Reply) -> None:
    heard: list[str] = []
    fake = started(scripted(broken))
    failure(StreamBrokenError, lambda: ask(model_of(fake), heard=heard))
    assert heard == ["Two "] * bool(broken.pieces)
    assert len(fake.requests) == 1


@pytest.mark.parametrize(
    "garbage",
    [
        b"<html>\n",
        b"[1, 2]\n",
        b"5\n",
        b"null\n",
        b"\xff\xfe\n",
        b"{}\n",
        b'{"message": 5, "done": true}\n',
        b'{"message": {"role": "x", "tool_calls": [{"function": {"name": "x", "arguments": 5}}]}}\n',
        b"[" * 100_000 + b"\n",
    ],
    ids=["html", "list", "number", "null", "bytes", "empty", "message", "arguments", "deep"],
)
def test_what_is_not_in_the_protocol_is_malformed(started: Started, garbage: bytes) -> None:
    fake = started(scripted(Reply(pieces=("Two ",), garbage=garbage)))
    error = failure(MalformedAnswerError, lambda: ask(model_of(fake)))
    assert len(str(error)) < 1000


def test_a_malformed_call_within_the_stream_is_understood(started: Started) -> None:
    fake = started(scripted(Reply(error=BAD_CALL)))
    failure(MalformedAnswerError, lambda: ask(model_of(fake)))
    assert len(fake.requests) == 1


def test_a_redirect_is_not_followed(started: Started) -> None:
    other = started(scripted())
    moved = Reply(status=307, headers={"Location": f"{other.url}/api/chat"})
    error = failure(RefusedError, lambda: ask(model_of(started(scripted(moved)))))
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
def test_a_server_that_is_too_slow_is_waited_for_as_long_as_there_is_time(
    started: Started, slow: Reply
) -> None:
    model = model_of(started(scripted(slow)))
    model.require()  # so that making the client is not measured
    start = time.monotonic()
    error = failure(TooSlowError, lambda: ask(model, seconds=0.3))
    assert time.monotonic() - start > 0.25
    assert "0.3 seconds" in error.problem


def test_a_server_that_trickles_headers_is_too_slow(same_to_all: SameToAll) -> None:
    url = same_to_all(b"HTTP/1.1 200 OK\r\nX-Padding: ", b"x")
    failure(TooSlowError, lambda: ask(OllamaModel(url, MODEL), seconds=0.3))


def test_without_time_nothing_is_asked(started: Started) -> None:
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
    failure(MalformedAnswerError, lambda: embedder_of(fake).embed(["one", "two"]))


@pytest.mark.parametrize("name", [EMBEDDING_MODEL, EMBEDDING_MODEL.removesuffix(":latest")])
def test_an_embedding_model_has_its_name_with_a_tag_and_without(started: Started, name: str) -> None:
    assert OllamaEmbedder(started(scripted()).url, name).embed(["text"])


def test_a_model_for_conversations_makes_no_embeddings(started: Started) -> None:
    fake = started(scripted())
    error = failure(UnknownModelError, lambda: OllamaEmbedder(fake.url, MODEL).embed(["text"]))
    assert f"{MODEL} of Ollama at {fake.url} makes no embeddings, only: completion, tools." in error.problem
    assert "nomic-embed-text" in error.remedy
    assert not fake.embedded


def test_an_old_server_that_does_not_say_what_its_models_can_embeds(started: Started) -> None:
    fake = started(scripted(), {EMBEDDING_MODEL: None})
    assert embedder_of(fake).embed(["text"])


def test_embeddings_of_a_busy_server_are_asked_for_again(same_to_all: SameToAll) -> None:
    url = same_to_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy")
    embedder = OllamaEmbedder(url, EMBEDDING_MODEL, retries=IMPATIENT)
    failure(ServerBusyError, lambda: embedder.embed(["text"]))
    assert len(same_to_all.connections) == IMPATIENT.attempts


def test_embeddings_that_take_too_long_are_given_up(same_to_all: SameToAll) -> None:
    embedder = OllamaEmbedder(same_to_all(b""), EMBEDDING_MODEL, seconds=0.2)
    failure(TooSlowError, lambda: embedder.embed(["text"]))
