"""Tests the spans of an execution: their tree, attributes and status, without secrets."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from pydantic import BaseModel

from ledgerline.agent.agent import Agent
from ledgerline.agent.language_model import LanguageModelError, StreamBrokenError, UnknownModelError
from ledgerline.agent.memory import Memory
from ledgerline.agent.ollama_provider import OllamaModel
from ledgerline.agent.prompt import Prompt
from ledgerline.agent.recording import Recorder
from ledgerline.agent.retrying import Retries
from ledgerline.agent.tools import ToolError, ToolResult
from ledgerline.agent.vector_store import Entry
from ledgerline.cleaning.texts import REDACTED, Cleaner
from ledgerline.testing.fake_ollama import MODEL, FakeOllama, Reply, Responder, scripted
from ledgerline.testing.fake_openai import MODEL as OPENAI_MODEL
from ledgerline.testing.fake_searxng import FakeSearXNG, page
from ledgerline.testing.fake_searxng import Reply as Page
from tests.agent.spans import Spans, attributes_of, content_of

AgentOf = Callable[[Responder], Agent]

QUESTION = "How many flights were cancelled in the storm?"
COUNT = "SELECT count(*) AS n FROM flights"
CHAT = (f"chat {MODEL}", [("prompt construction", []), ("model completion", [])])
QUERY = Reply(tool_calls=(("query_flights", {"sql": COUNT}),), input_tokens=100, output_tokens=11)
SEARCH = Reply(
    tool_calls=(("web_search", {"queries": ["storm", "snow"]}),), input_tokens=150, output_tokens=12
)
ANSWER = Reply(pieces=("Answer:", " 3"), input_tokens=200, output_tokens=13)

# A password with what JSON and addresses write in another way, a key of a known form, and a token of none.
PASSWORD = 'p@ss "wörd"/7\\x'
KEY = "sk-proj-abcDEF1234567890abcDEF"
TOKEN = "correct-horse-battery"
SECRETS = (PASSWORD, TOKEN)
FORMS = (KEY, "hunter22", "ghp_abcdefghijklmnopqrstuvwxyz0123456789", "AKIAABCDEFGHIJKLMNOP")


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    memory = Memory(tmp_path / "memory")
    created = datetime(2026, 1, 31, tzinfo=UTC)
    memory.remember(
        [
            Entry("one", "answer", "How many flights were cancelled? 3", "test", created),
            Entry("two", "report", "A report of the weather", "test", created),
        ]
    )
    return memory


@pytest.fixture
def agent_with_tools(agent_of: AgentOf, searxng: FakeSearXNG, memory: Memory) -> Agent:
    """Uses everything that there is."""
    searxng.reply = lambda query: Page([page(f"https://a.example/{query}", query, f"About {query}.")])
    return replace(agent_of(scripted(QUERY, SEARCH, ANSWER)), memory=memory)


def test_an_execution_is_a_tree_of_spans(agent_with_tools: Agent, spans: Spans) -> None:
    execution = agent_with_tools.ask(QUESTION)
    assert spans.tree == (
        "invoke_agent analyst",
        [
            ("retrieve_memory", [("vector search", []), ("ranking", [])]),
            CHAT,
            ("execute_tool query_flights", []),
            CHAT,
            ("execute_tool web_search", [("query planning", []), ("result processing", [])]),
            CHAT,
        ],
    )
    assert len(spans.traces()) == 1
    assert list(spans.traces()) == [int(execution.trace_id or "", 16)]


def test_the_root_sums_up_what_the_execution_did(agent_with_tools: Agent, spans: Spans) -> None:
    execution = agent_with_tools.ask(QUESTION)
    root = spans.root
    attributes = dict(attributes_of(root))
    assert len(attributes.pop("gen_ai.conversation.id")) == 36
    assert attributes == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "analyst",
        "gen_ai.provider.name": "ollama",
        "gen_ai.request.model": MODEL,
        "gen_ai.response.model": MODEL,
        "gen_ai.prompt.name": "analyst",
        "gen_ai.usage.input_tokens": 450,
        "gen_ai.usage.output_tokens": 36,
        "ledgerline.prompt.version": 3,
        "ledgerline.prompt.sha256": agent_with_tools.prompt.sha256,
        "ledgerline.agent.outcome": "answered",
        "ledgerline.agent.turns": 3,
        "ledgerline.agent.tool_calls": 2,
        "mlflow.spanType": "AGENT",
        "server.address": "127.0.0.1",
        "server.port": int(agent_with_tools.model.address.rpartition(":")[2]),
    }
    assert (execution.usage.input_tokens, execution.usage.output_tokens) == (450, 36)
    assert root.status.status_code is StatusCode.OK
    assert root.kind is SpanKind.INTERNAL


def test_the_span_of_a_chat_has_the_request_and_the_response(agent_with_tools: Agent, spans: Spans) -> None:
    settings = replace(agent_with_tools.model, temperature=0.5, seed=7, max_output_tokens=500)  # pyright: ignore[reportArgumentType] (it is one)
    replace(agent_with_tools, model=settings).ask(QUESTION)
    first, _, last = spans.named(f"chat {MODEL}")
    attributes = dict(attributes_of(first))
    assert 0 < attributes.pop("gen_ai.response.time_to_first_chunk") < 60
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "ollama",
        "gen_ai.request.model": MODEL,
        "gen_ai.request.stream": True,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.seed": 7,
        "gen_ai.request.max_tokens": 500,
        "gen_ai.response.model": MODEL,
        "gen_ai.response.finish_reasons": ("tool_calls",),
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 11,
        "mlflow.spanType": "CHAT_MODEL",
        "server.address": "127.0.0.1",
        "server.port": int(agent_with_tools.model.address.rpartition(":")[2]),
    }
    assert first.kind is SpanKind.CLIENT
    assert attributes_of(last)["gen_ai.response.finish_reasons"] == ("stop",)


def test_parts_of_a_chat_are_measured(agent_with_tools: Agent, spans: Spans) -> None:
    agent_with_tools.ask(QUESTION)
    constructed = [attributes_of(span) for span in spans.named("prompt construction")]
    assert [one["ledgerline.prompt.messages"] for one in constructed] == [2, 4, 6]
    assert [one["ledgerline.prompt.tools"] for one in constructed] == [2, 2, 2]
    assert [one["ledgerline.prompt.memories"] for one in constructed] == [1, 1, 1]
    assert constructed[0]["ledgerline.prompt.characters"] < constructed[1]["ledgerline.prompt.characters"]
    for completion in spans.named("model completion"):
        assert set(attributes_of(completion)) == {
            "gen_ai.response.time_to_first_chunk",
            "ledgerline.tokens_per_second",
        }
    assert attributes_of(spans.named("model completion")[2])["ledgerline.tokens_per_second"] == 26


def test_spans_of_tools_and_memory_have_counts(agent_with_tools: Agent, spans: Spans) -> None:
    execution = agent_with_tools.ask(QUESTION)
    assert attributes_of(spans.one("execute_tool query_flights")) == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "query_flights",
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.id": execution.tools[0].call.id,
        "ledgerline.tool.rows": 1,
        "ledgerline.tool.bytes": len("n\n3\n"),
        "ledgerline.tool.is_cut": False,
        "mlflow.spanType": "TOOL",
    }
    assert attributes_of(spans.one("query planning")) == {"ledgerline.tool.queries": 2}
    assert attributes_of(spans.one("result processing"))["ledgerline.tool.results"] == 2
    retrieval = attributes_of(spans.one("retrieve_memory"))
    assert retrieval["gen_ai.operation.name"] == "retrieval"
    assert retrieval["mlflow.spanType"] == "RETRIEVER"
    assert retrieval["ledgerline.memory.recalled"] == 1
    distances = attributes_of(spans.one("vector search"))["ledgerline.memory.distances"]
    assert len(distances) == 2
    assert distances[0] < distances[1]


# Failures


def test_a_tool_that_fails_is_an_error_of_its_span_alone(openai_agent_of: AgentOf, spans: Spans) -> None:
    wrong = Reply(tool_calls=(("query_flights", {"sql": "SELECT x FROM flights"}), ("drop", {})))
    openai_agent_of(scripted(wrong, ANSWER)).ask(QUESTION)
    failed = spans.one("execute_tool query_flights")
    assert failed.status.status_code is StatusCode.ERROR
    assert '"x" not found' in (failed.status.description or "")
    assert attributes_of(failed)["error.type"] == "QueryError"
    unknown = spans.one("execute_tool drop")
    assert attributes_of(unknown)["error.type"] == "ToolError"
    assert spans.root.status.status_code is StatusCode.OK
    chats = spans.named(f"chat {OPENAI_MODEL}")
    assert [span.status.status_code for span in chats] == [StatusCode.UNSET] * 2


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(status=404, error="model 'x' not found"), UnknownModelError),
        (Reply(pieces=("one", "two"), breaks_after=1), StreamBrokenError),
    ],
)
def test_a_model_that_fails_is_an_error_up_to_the_root(
    agent_of: AgentOf, spans: Spans, reply: Reply, error: type[LanguageModelError]
) -> None:
    with pytest.raises(error) as raised:
        agent_of(scripted(QUERY, reply)).ask(QUESTION)
    completion, chat = spans.named("model completion")[1], spans.named(f"chat {MODEL}")[1]
    for span in (completion, chat, spans.root):
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description == str(raised.value)
        assert attributes_of(span)["error.type"] == error.__name__
        assert not span.events
    # The usage until the failure is recorded.
    assert attributes_of(spans.root)["gen_ai.usage.input_tokens"] == 100
    assert attributes_of(spans.root)["ledgerline.agent.turns"] == 2
    assert attributes_of(spans.root)["ledgerline.agent.tool_calls"] == 1


def test_an_interruption_is_an_error_of_all_that_was_open(agent_of: AgentOf, spans: Spans) -> None:
    agent = replace(
        agent_of(scripted(Reply(tool_calls=(("leaky", {}),)))), tools=(Leaky(KeyboardInterrupt()),)
    )
    with pytest.raises(KeyboardInterrupt):
        agent.ask(QUESTION)
    for span in (spans.one("execute_tool leaky"), spans.root):
        assert attributes_of(span)["error.type"] == "KeyboardInterrupt"
        assert span.status.status_code is StatusCode.ERROR


# Content that is not recorded


def test_without_a_tracer_there_is_an_answer_and_no_trace(agent_of: AgentOf, spans: Spans) -> None:
    execution = replace(agent_of(scripted(QUERY, ANSWER)), recorder=Recorder(captures=True)).ask(QUESTION)
    assert execution.answer == "Answer: 3"
    assert (execution.trace_id, execution.span_id) == (None, None)
    assert spans.finished == ()


def test_an_execution_that_is_not_sampled_has_no_trace(agent_of: AgentOf) -> None:
    unsampled = Spans(ALWAYS_OFF)
    agent = replace(agent_of(scripted(QUERY, ANSWER)), recorder=Recorder(unsampled.tracer, captures=True))
    execution = agent.ask(QUESTION)
    assert execution.answer == "Answer: 3"
    assert (execution.trace_id, execution.span_id) == (None, None)
    assert unsampled.finished == ()
    unsampled.shutdown()


CONTENT = {
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.system_instructions",
    "gen_ai.tool.definitions",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result",
    "gen_ai.retrieval.query.text",
    "gen_ai.retrieval.documents",
    "ledgerline.search.queries",
    "mlflow.spanInputs",
    "mlflow.spanOutputs",
}


def test_messages_are_recorded_only_if_the_switch_is_on(agent_with_tools: Agent, spans: Spans) -> None:
    agent_with_tools.ask(QUESTION)
    assert not any(CONTENT & set(attributes_of(span)) for span in spans.finished)
    for part in (QUESTION, "storm", COUNT, "Answer: 3", "Answer questions", "cancelled? 3", "About snow"):
        assert part not in spans.text


def test_messages_are_recorded_as_the_conventions_define(agent_with_tools: Agent, spans: Spans) -> None:
    execution = replace(agent_with_tools, recorder=Recorder(spans.tracer, captures=True)).ask(QUESTION)
    assert content_of(spans.root, "gen_ai.input.messages") == [
        {"role": "user", "parts": [{"type": "text", "content": QUESTION}]}
    ]
    assert attributes_of(spans.root)["mlflow.spanInputs"] == QUESTION
    assert attributes_of(spans.root)["mlflow.spanOutputs"] == "Answer: 3"
    first, second, last = spans.named(f"chat {MODEL}")
    name = execution.tools[0].call.id
    call = {"type": "tool_call", "id": name, "name": "query_flights", "arguments": {"sql": COUNT}}
    assert content_of(first, "gen_ai.output.messages") == [
        {"role": "assistant", "parts": [call], "finish_reason": "tool_calls"}
    ]
    asked = content_of(second, "gen_ai.input.messages")
    assert [message["role"] for message in asked] == ["system", "user", "assistant", "tool"]
    assert asked[0]["parts"][0]["content"].endswith("Known: How many flights were cancelled? 3")
    assert asked[3]["parts"] == [{"type": "tool_call_response", "id": name, "response": "n\n3\n"}]
    assert [tool["name"] for tool in content_of(first, "gen_ai.tool.definitions")] == [
        "query_flights",
        "web_search",
    ]
    assert content_of(last, "gen_ai.output.messages")[0]["finish_reason"] == "stop"
    query = spans.one("execute_tool query_flights")
    assert content_of(query, "gen_ai.tool.call.arguments") == {"sql": COUNT}
    assert attributes_of(query)["gen_ai.tool.call.result"] == "n\n3\n"
    assert content_of(spans.one("query planning"), "ledgerline.search.queries") == ["storm", "snow"]
    (document,) = content_of(spans.one("retrieve_memory"), "gen_ai.retrieval.documents")
    assert document["page_content"] == "How many flights were cancelled? 3"


class Anything(BaseModel, extra="allow"):
    """Any arguments."""


@dataclass(frozen=True)
class Leaky:
    """A tool whose result has a secret."""

    outcome: BaseException | ToolResult
    name: str = "leaky"
    description: str = "Tells secrets."
    arguments: type[BaseModel] = Anything

    def call(self, arguments: Anything, recorder: Recorder, seconds: float) -> ToolResult:
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


def leaks(secret: str) -> dict[str, Any]:
    """Arguments with a secret wherever there can be one."""
    return {
        "sql": f"SELECT '{secret}' AS password",
        "password": secret,
        "deep": [{"api_key": secret, "headers": [f"Authorization: Bearer {secret}"]}],
        secret: "as a name",
        "url": f"https://user:{secret}@example.org/",
    }


@pytest.mark.parametrize(
    ("outcome", "captures"),
    [(outcome, captures) for outcome in ("answers", "fails", "breaks") for captures in (True, False)],
)
@pytest.mark.parametrize("secret", [*SECRETS, *FORMS])
def test_a_secret_is_nowhere_in_the_spans(
    openai_agent_of: AgentOf, spans: Spans, secret: str, captures: bool, outcome: str
) -> None:
    # A password is recognised by its name next to it, and other secrets by their form anywhere.
    part = f'password="{secret}"' if secret == "hunter22" else secret
    as_arguments = {"password": secret} if secret == "hunter22" else leaks(secret)
    outcomes = {
        "answers": ToolResult(f'{{"api_key": "{secret}"}}\n{part}', {"ledgerline.note": part}),
        "fails": ToolError(f"No connection with {part}."),
        "breaks": RuntimeError(f"No connection with {part}."),
    }
    queries = (f"SELECT '{part}' AS x", f'SELECT "{part}" FROM flights')  # noqa: S608 (ours)
    responder = scripted(
        Reply(
            pieces=(f"I use {part}",),
            tool_calls=(
                ("leaky", as_arguments),
                *(("query_flights", {"sql": sql}) for sql in queries),
                ("web_search", {"queries": [part]}),
                (part, {}),
            ),
        ),
        Reply(pieces=(f"Answer: {part}",)),
    )
    agent = openai_agent_of(responder)
    agent = replace(
        agent,
        tools=(*agent.tools, Leaky(outcomes[outcome])),
        prompt=Prompt("analyst", f"The key is {part}."),
        recorder=Recorder(spans.tracer, captures, Cleaner.of(SECRETS)),
    )
    execution = agent.ask(f"What is {part}?")
    assert part in execution.answer
    assert len(execution.tools) == 5
    written = spans.text
    for form in Cleaner.of([secret]).known:
        assert form not in written
        assert form not in written.replace("\\", "")
    assert REDACTED in written


@pytest.mark.parametrize("secret", [TOKEN, KEY])
def test_a_secret_that_the_server_repeats_is_nowhere_in_the_spans(
    agent_of: AgentOf, spans: Spans, secret: str
) -> None:
    agent = agent_of(scripted(Reply(status=400, error=f"bad header {secret} for password={secret}")))
    agent = replace(agent, recorder=Recorder(spans.tracer, False, Cleaner.of([TOKEN])))
    with pytest.raises(LanguageModelError):
        agent.ask(QUESTION)
    assert secret not in spans.text
    assert REDACTED in (spans.root.status.description or "")


def test_the_password_of_the_servers_address_is_nowhere_in_the_spans(
    ollama: Callable[[Responder], FakeOllama], agent_of: AgentOf, spans: Spans
) -> None:
    server = ollama(scripted(QUERY, Reply(status=401, error=f"no such user: {TOKEN}")))
    model = OllamaModel(server.url.replace("//", f"//me:{TOKEN}@"), MODEL, retries=Retries(attempts=1))
    agent = replace(agent_of(scripted()), model=model, recorder=Recorder(spans.tracer, captures=True))
    with pytest.raises(LanguageModelError) as raised:
        agent.ask(QUESTION)
    assert TOKEN not in str(raised.value)
    assert TOKEN not in spans.text
    assert attributes_of(spans.root)["server.address"] == "127.0.0.1"


def test_spans_with_broken_text_can_be_sent(agent_of: AgentOf, spans: Spans) -> None:
    broken = "half a pair: \ud83d, a null: \x00, an emoji: \N{AIRPLANE}"
    agent = agent_of(scripted(Reply(tool_calls=(("leaky", {"x": broken}), (broken, {}))), ANSWER))
    agent = replace(
        agent,
        name=broken,
        tools=(Leaky(ToolError(f"It said {broken}")),),
        recorder=Recorder(spans.tracer, captures=True),
    )
    execution = agent.ask(f"What is {broken}?")
    assert execution.answer == "Answer: 3"
    assert "\N{AIRPLANE}".encode() in spans.encoded()
