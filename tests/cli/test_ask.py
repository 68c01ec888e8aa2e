"""Tests `ledgerline ask` with a fake language model behind a real client."""

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner, Result

from ledgerline.cli.main import app
from ledgerline.mlflow_store import store
from ledgerline.testing.fake_http import FakeServer, Handler
from ledgerline.testing.fake_ollama import (
    EMBEDDING_MODEL,
    MODEL,
    Analyst,
    ChatRequest,
    FakeOllama,
    Reply,
    Responder,
)
from ledgerline.testing.ports import HOST
from pipelines.ask_analyst import EXPERIMENT

if TYPE_CHECKING:
    from mlflow.entities import Span, Trace

QUESTION = "How many flights were cancelled?"
SQL = "SELECT count(*) FROM flights WHERE dep_time IS NULL"
CANCELLED = "865"
KNOWING = Analyst({QUESTION: SQL}, tool="query_flights")

# An answer takes a tenth of a second, and a missing server must not delay it.

Ask = Callable[..., Result]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def home(tmp_path: Path, mlflow_template: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    shutil.copyfile(mlflow_template, home / "mlflow.db")
    return home


@pytest.fixture
def ask(home: Path, two_days: Path) -> Ask:
    """The command, on the flights of two days."""

    def run(*arguments: str, fake: FakeOllama | None = None, **variables: str) -> Result:
        environment = {
            "COLUMNS": "200",
            "LEDGERLINE_HOME": str(home),
            "LEDGERLINE_DATA": str(two_days),
            "MLFLOW_TRACKING_URI": "",
            "LEDGERLINE_ARTIFACTS": "",
            "OLLAMA_HOST": fake.url if fake is not None else f"http://{HOST}:9",
        }
        return CliRunner().invoke(app, ["ask", *arguments], env=environment | variables)

    return run


@pytest.fixture
def fake(stack: ExitStack) -> FakeOllama:
    return stack.enter_context(FakeOllama(KNOWING))


@pytest.fixture
def speaking(stack: ExitStack) -> Callable[[Responder], FakeOllama]:
    return lambda responder: stack.enter_context(FakeOllama(responder))


def traces(home: Path) -> "list[Trace]":
    client = store.connect(f"sqlite:///{home}/mlflow.db")
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        return []
    return [
        client.get_trace(trace.info.trace_id)
        for trace in client.search_traces(locations=[found.experiment_id])
    ]


def tree(spans: "list[Span]", parent: str | None = None) -> dict[str, Any]:
    below = sorted((span for span in spans if span.parent_id == parent), key=lambda span: span.start_time_ns)
    return {f"{span.name}{number or ''}": tree(spans, span.span_id) for number, span in _numbered(below)}


def _numbered(spans: "list[Span]") -> "Iterator[tuple[int, Span]]":
    seen: dict[str, int] = {}
    for span in spans:
        yield seen.get(span.name, 0), span
        seen[span.name] = seen.get(span.name, 0) + 1


# Output on the terminal


def test_the_answer_is_printed_with_its_tool_calls(ask: Ask, fake: FakeOllama) -> None:
    result = ask(QUESTION, fake=fake)
    assert result.exit_code == 0, result.output
    assert f"query_flights  {SQL}" in result.stdout
    assert f"    {CANCELLED}" in result.stdout
    assert f"Answer: {CANCELLED}" in result.stdout
    assert f"2 turns, 1 tool calls, 52 tokens in, 20 out, {MODEL}, prompt analyst version 1" in result.stdout
    assert "trace: http://127.0.0.1:5000/#/experiments/" in result.stdout
    assert result.stderr == ""


def test_json_is_all_that_programs_get(ask: Ask, fake: FakeOllama) -> None:
    result = ask(QUESTION, "--json", fake=fake)
    assert result.exit_code == 0
    execution = json.loads(result.stdout)
    assert execution["question"] == QUESTION
    assert execution["answer"].endswith(f"Answer: {CANCELLED}")
    assert (execution["total_tokens"], execution["turns"]) == (72, 2)
    assert execution["tools"][0]["call"]["arguments"] == {"sql": SQL}
    assert (execution["prompt"], execution["prompt_version"]) == ("analyst", 1)
    assert result.stderr == ""


def test_another_model_can_be_chosen(ask: Ask, stack: ExitStack) -> None:
    fake = stack.enter_context(FakeOllama(KNOWING, {"llama3.2:3b": ("completion", "tools")}))
    result = ask(QUESTION, "--model", "llama3.2:3b", fake=fake)
    assert result.exit_code == 0, result.output
    assert "llama3.2:3b, prompt" in result.stdout
    assert {request.model for request in fake.requests} == {"llama3.2:3b"}


# Memory


def test_an_earlier_answer_is_recalled_the_second_time(ask: Ask, fake: FakeOllama) -> None:
    first = ask(QUESTION, fake=fake)
    assert "relevant entries" not in first.stdout
    again = ask(QUESTION, fake=fake)
    assert again.exit_code == 0
    assert "memory  relevant entries: 1" in again.stdout
    assert f"Question: {QUESTION}" in again.stdout
    sent = [request.messages[0]["content"] for request in fake.requests]
    assert CANCELLED not in sent[0]
    assert f"Answer: {CANCELLED}" in sent[-1]


def test_an_answer_replaces_an_older_one(ask: Ask, fake: FakeOllama) -> None:
    for question in (QUESTION, f"  {QUESTION.upper()} ", QUESTION):
        assert ask(question, "--json", fake=fake).exit_code == 0
    execution = json.loads(ask(QUESTION, "--json", fake=fake).stdout)
    assert len(execution["recalled"]) == 1


def test_without_memory_nothing_is_recalled_or_remembered(ask: Ask, fake: FakeOllama, home: Path) -> None:
    assert ask(QUESTION, "--no-memory", fake=fake).exit_code == 0
    assert not (home / "agent").exists()
    assert ask(QUESTION, fake=fake, LEDGERLINE_MEMORY="off").exit_code == 0
    assert not (home / "agent").exists()


def test_a_refusal_is_not_remembered(ask: Ask, fake: FakeOllama, home: Path) -> None:
    result = ask("What did a ticket cost?", fake=fake)
    assert result.exit_code == 0
    assert "Answer: unknown" in result.stdout
    assert not (home / "agent").exists()


@pytest.mark.parametrize(
    ("reply_text", "outcome"),
    [("There were 848, I think.", "no_finding"), ("Answer:", "no_finding"), ("", "empty")],
)
def test_an_answer_without_a_statement_is_not_a_success_and_not_remembered(
    ask: Ask, speaking: Callable[[Responder], FakeOllama], home: Path, reply_text: str, outcome: str
) -> None:
    def calls_the_tool(request: ChatRequest) -> Reply:
        asked = any(message["role"] == "tool" for message in request.messages)
        return Reply(pieces=(reply_text,)) if asked else Reply(tool_calls=(("query_flights", {"sql": SQL}),))

    fake = speaking(calls_the_tool)
    result = ask(QUESTION, fake=fake)
    assert result.exit_code == 1
    assert {"empty": "There is no answer.", "no_finding": "The answer does not state a finding"}[
        outcome
    ] in result.stdout
    assert not (home / "agent").exists()
    execution = json.loads(ask(QUESTION, "--json", fake=fake).stdout)
    assert (execution["outcome"], execution["finding"]) == (outcome, None)
    assert {trace.info.state for trace in traces(home)} == {"ERROR"}


def test_an_answer_without_a_tool_call_is_not_remembered(
    ask: Ask, speaking: Callable[[Responder], FakeOllama], home: Path
) -> None:
    result = ask(QUESTION, fake=speaking(lambda _: Reply(pieces=("Answer: 848",))))
    assert result.exit_code == 0
    assert "Answer: 848" in result.stdout
    assert not (home / "agent").exists()


def test_an_embedding_model_that_is_not_there_costs_memory_and_not_the_answer(
    ask: Ask, fake: FakeOllama
) -> None:
    known = ask(QUESTION, fake=fake, LEDGERLINE_EMBEDDING_MODEL=EMBEDDING_MODEL)
    assert known.stderr == ""
    assert fake.embedded
    result = ask(QUESTION, fake=fake, LEDGERLINE_EMBEDDING_MODEL="nobody:1b")
    assert result.exit_code == 0
    assert f"Answer: {CANCELLED}" in result.stdout
    assert "The answer is not remembered: " in result.stderr


# Failures


def test_without_ollama_the_message_names_what_to_start(ask: Ask) -> None:
    result = ask(QUESTION)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"No Ollama responds at http://{HOST}:9")
    assert "Start it with `ollama serve`, or set OLLAMA_HOST" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        (["", "--no-memory"], {}, "The question is empty."),
        ([QUESTION, "--model", "nobody:1b"], {}, "Get it with `ollama pull nobody:1b`"),
        ([QUESTION], {"LEDGERLINE_PROMPT": "prompts:/nobody/1"}, "no prompts:/nobody/1"),
        (
            [QUESTION],
            {"LEDGERLINE_DATA": "/nowhere"},
            "No flights are stored, so the analyst has no data",
        ),
        ([QUESTION], {"OLLAMA_HOST": "http://127.0.0.1:99999"}, "Set OLLAMA_HOST to the address"),
        ([QUESTION], {"LEDGERLINE_AGENT_TURNS": "0"}, "LEDGERLINE_AGENT_TURNS is '0'; set it to"),
    ],
)
def test_the_reason_for_a_missing_answer_is_printed(
    arguments: list[str], variables: dict[str, str], message: str, ask: Ask, fake: FakeOllama
) -> None:
    result = ask(*arguments, fake=fake, **variables)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.output


def test_a_stream_that_breaks_ends_it_with_a_message_and_a_failed_trace(
    ask: Ask, speaking: Callable[[Responder], FakeOllama], home: Path
) -> None:
    broken = speaking(lambda _: Reply(pieces=("This is", " what"), breaks_after=1))
    result = ask(QUESTION, fake=broken)
    assert result.exit_code == 2
    assert "ended the response before it was complete" in result.stderr
    assert "Traceback" not in result.output
    (trace,) = traces(home)
    assert trace.info.state == "ERROR"


def test_a_limit_ends_it_with_one(ask: Ask, fake: FakeOllama, home: Path) -> None:
    result = ask(QUESTION, fake=fake, LEDGERLINE_AGENT_TURNS="1")
    assert result.exit_code == 1
    assert "The limit of turns ended the execution (LEDGERLINE_AGENT_*)." in result.stdout
    assert not (home / "agent").exists()


def test_the_answer_does_not_need_mlflow(ask: Ask, fake: FakeOllama, free_port: int) -> None:
    result = ask(QUESTION, fake=fake, MLFLOW_TRACKING_URI=f"http://user:s3cret@{HOST}:{free_port}")
    assert result.exit_code == 0, result.output
    assert f"Answer: {CANCELLED}" in result.stdout
    assert "prompt analyst\n" in result.stdout
    assert "trace: " not in result.stdout
    assert "The prompt has no version: The MLflow server at" in result.stderr
    assert "s3cret" not in result.output


class Forbidding(FakeServer):
    """An MLflow server that is healthy, and refuses every other request."""

    class handler(Handler):  # noqa: N801 (as the attribute is called)
        def do_GET(self) -> None:  # noqa: N802 (its name in the library)
            self.send(b"OK") if self.path == "/health" else self._forbid()

        def do_POST(self) -> None:  # noqa: N802 (its name in the library)
            self.content()
            self._forbid()

        def _forbid(self) -> None:
            self.send_json({"error_code": "PERMISSION_DENIED", "message": "not yours"}, 403)


def test_an_mlflow_that_forbids_everything_does_not_forbid_the_answer(
    ask: Ask, fake: FakeOllama, stack: ExitStack
) -> None:
    server = stack.enter_context(Forbidding())
    result = ask(QUESTION, fake=fake, MLFLOW_TRACKING_URI=server.url)
    assert result.exit_code == 0, result.output
    assert f"Answer: {CANCELLED}" in result.stdout
    assert "The prompt has no version: " in result.stderr
    assert "not yours" in result.stderr
    assert "trace: " not in result.stdout


# Traces


def test_an_execution_is_a_trace_in_mlflow_with_its_tokens(ask: Ask, fake: FakeOllama, home: Path) -> None:
    execution = json.loads(ask(QUESTION, "--json", fake=fake).stdout)
    (trace,) = traces(home)
    assert trace.info.trace_id == f"tr-{execution['trace_id']}"
    assert trace.info.state == "OK"
    usage = json.loads(trace.info.trace_metadata["mlflow.trace.tokenUsage"])
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (52, 20, 72)
    chat = {"prompt construction": {}, "model completion": {}}
    assert tree(trace.data.spans) == {
        "invoke_agent analyst": {
            "retrieve_memory": {},
            f"chat {MODEL}": chat,
            "execute_tool query_flights": {},
            f"chat {MODEL}1": chat,
        }
    }


def test_messages_are_in_the_trace_only_on_request(ask: Ask, fake: FakeOllama, home: Path) -> None:
    ask(QUESTION, "--no-memory", fake=fake)
    (silent,) = traces(home)
    assert SQL not in silent.to_json()
    assert QUESTION not in silent.to_json()

    sent = ask(QUESTION, "--json", fake=fake, OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT="span_only")
    trace_id = f"tr-{json.loads(sent.stdout)['trace_id']}"
    (content,) = [trace for trace in traces(home) if trace.info.trace_id == trace_id]
    assert SQL in content.to_json()
    assert QUESTION in content.to_json()


@pytest.mark.parametrize("variables", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_SAMPLER": "always_off"}])
def test_without_traces_there_is_an_answer_and_no_link(
    variables: dict[str, str], ask: Ask, fake: FakeOllama, home: Path
) -> None:
    result = ask(QUESTION, fake=fake, **variables)
    assert result.exit_code == 0
    assert f"Answer: {CANCELLED}" in result.stdout
    assert "trace: " not in result.stdout
    assert traces(home) == []


def test_an_unavailable_collector_does_not_delay_the_answer(
    ask: Ask, fake: FakeOllama, free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    result = ask(QUESTION, fake=fake, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{HOST}:{free_port}")
    assert result.exit_code == 0
    assert f"Answer: {CANCELLED}" in result.stdout
    assert "Traces cannot be sent" in caplog.text


def test_a_collector_that_does_not_respond_is_given_up(ask: Ask, fake: FakeOllama) -> None:
    with socket.create_server((HOST, 0)) as silent:
        endpoint = f"http://{HOST}:{silent.getsockname()[1]}"
        result = ask(
            QUESTION,
            fake=fake,
            OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
            OTEL_EXPORTER_OTLP_TIMEOUT="1",
        )
    assert result.exit_code == 0
