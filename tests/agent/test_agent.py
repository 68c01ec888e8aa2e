"""Tests the executions of an agent: turns, tools, answers, memory, and many executions at once."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.trace import StatusCode

from ledgerline.agent.execution import Budget, Limit, Outcome, ToolUse, Watcher
from ledgerline.agent.language_model import (
    MalformedResponseError,
    RefusedError,
    ServerAbsentError,
    UnknownModelError,
)
from ledgerline.agent.memory import Memory, Recalled
from ledgerline.agent.messages import ToolCall, Usage
from ledgerline.agent.ollama_embedder import OllamaEmbedder
from ledgerline.agent.ollama_provider import OllamaModel
from ledgerline.agent.prompt import Prompt, PromptError
from ledgerline.agent.recording import Recorder
from ledgerline.agent.vector_store import Entry
from ledgerline.testing.fake_ollama import MODEL, ChatRequest, FakeOllama, Reply, Responder, scripted
from ledgerline.testing.fake_searxng import FakeSearXNG, page
from ledgerline.testing.fake_searxng import Reply as Page
from ledgerline.testing.ports import unused_port
from tests.agent.scripts import ANSWER, COUNT, COUNTS, AgentOf, assert_stopped, queries, tool_results
from tests.agent.spans import Spans, attributes_of, content_of, context_of


class Seen(Watcher):
    """A watcher that records its calls."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    def recalled(self, memories: Sequence[Recalled]) -> None:
        self.events.append(("recalled", [found.entry.text for found in memories]))

    def recall_failed(self, why: str) -> None:
        self.events.append(("recall_failed", why))

    def turn_begins(self, number: int) -> None:
        self.events.append(("turn", number))

    def text_received(self, piece: str) -> None:
        self.events.append(("received", piece))

    def tool_called(self, call: ToolCall) -> None:
        self.events.append(("called", call.arguments))

    def tool_returned(self, use: ToolUse) -> None:
        self.events.append(("answered", use.result))


# Questions and answers


def test_an_answer_is_looked_up_with_a_tool(agent_of: AgentOf) -> None:
    execution = agent_of(COUNTS).ask("How many flights are there?")
    assert execution.answer == "This is what the tables say.\nAnswer: 3"
    assert execution.stopped_by is None
    assert execution.turns == 2
    assert [(use.call.name, use.result, use.failed) for use in execution.tools] == [
        ("query_flights", "count_star()\n3\n", False)
    ]
    assert execution.usage == Usage(52, 20)
    assert (execution.model, execution.prompt, execution.prompt_version) == (MODEL, "analyst", 3)
    assert execution.question == "How many flights are there?"
    assert execution.recalled == ()
    assert execution.seconds > 0


def test_the_model_receives_the_prompt_the_question_and_the_tools(
    agent_of: AgentOf, ollama: Callable[[Responder], FakeOllama]
) -> None:
    requests: list[ChatRequest] = []

    def responder(request: ChatRequest) -> Reply:
        requests.append(request)
        return COUNTS(request)

    agent_of(responder).ask("How many flights are there?")
    first, second = requests
    assert [(message["role"], message["content"]) for message in first.messages] == [
        ("system", "Answer questions about flights."),
        ("user", "How many flights are there?"),
    ]
    assert [tool["function"]["name"] for tool in first.tools] == ["query_flights", "web_search"]
    assert [message["role"] for message in second.messages] == ["system", "user", "assistant", "tool"]
    assert second.messages[3]["tool_name"] == "query_flights"
    assert second.messages[3]["content"] == "count_star()\n3\n"


def test_a_question_that_is_not_unicode_is_answered(agent_of: AgentOf) -> None:
    execution = agent_of(COUNTS).ask("How many flights\udcff?")
    assert execution.answer.endswith("Answer: 3")
    assert execution.question == "How many flights??"


def test_several_tools_of_one_turn_are_used_in_order(agent_of: AgentOf, searxng: FakeSearXNG) -> None:
    searxng.reply = lambda query: Page([page("https://a.example/", query, "It snowed.")])
    both = Reply(
        tool_calls=(
            ("query_flights", {"sql": COUNT}),
            ("web_search", {"queries": ["storm"]}),
            ("query_flights", {"sql": "SELECT max(delay) FROM flights"}),
        )
    )
    seen = Seen()
    execution = agent_of(scripted(both, ANSWER)).ask("How many?", seen)
    assert [use.call.name for use in execution.tools] == ["query_flights", "web_search", "query_flights"]
    assert len({use.call.id for use in execution.tools}) == 3
    assert "It snowed." in execution.tools[1].result
    assert [name for name, _ in seen.events] == [
        "turn", *["called", "answered"] * 3, "turn", "received", "received", "received",
    ]  # fmt: skip
    assert seen.events[1] == ("called", {"sql": COUNT})
    assert seen.events[2] == ("answered", "count_star()\n3\n")
    assert seen.events[-3:] == [("received", "Three"), ("received", " flights.\n"), ("received", "Answer: 3")]


def test_a_model_that_cannot_be_used_is_an_error_of_the_execution(agent_of: AgentOf, spans: Spans) -> None:
    agent = agent_of(COUNTS)
    for model, error in (
        (OllamaModel(f"http://127.0.0.1:{unused_port()}", MODEL), ServerAbsentError),
        (replace(agent.model, model="other"), UnknownModelError),  # pyright: ignore[reportArgumentType] (it is one)
    ):
        with pytest.raises(error):
            replace(agent, model=model).ask("How many flights are there?")
    for span in (*spans.named("invoke_agent analyst"), *spans.named("model completion")):
        assert span.status.status_code is StatusCode.ERROR


def test_a_prompt_that_cannot_be_filled_in_is_an_error_of_the_execution(agent_of: AgentOf) -> None:
    agent = replace(agent_of(COUNTS), prompt=Prompt("own", "{{ tables }}"))
    with pytest.raises(PromptError, match=r"own .*'tables' is undefined.*Use only these variables: memories"):
        agent.ask("How many flights are there?")


# Answers without a statement


def stated(answer: str) -> str | None:
    return answer.partition("Answer: ")[2] or None


LOST = Reply(tool_calls=(("weather", {"city": "Oslo"}),))  # Ollama leaves it out
TALK = Reply(pieces=("I will look it up.",))


def assert_no_answer(spans: Spans, outcome: Outcome) -> None:
    root = spans.root
    assert root.status.status_code is StatusCode.ERROR
    assert attributes_of(root)["error.type"] == outcome.value
    assert attributes_of(root)["ledgerline.agent.outcome"] == outcome.value


def test_an_answer_with_a_finding_is_a_success(agent_of: AgentOf, spans: Spans) -> None:
    execution = replace(agent_of(scripted(queries(COUNT), ANSWER)), finding=stated).ask("How many?")
    assert (execution.outcome, execution.finding) == (Outcome.ANSWERED, "3")
    assert execution.used_tools
    assert spans.root.status.status_code is StatusCode.OK
    assert attributes_of(spans.root)["ledgerline.agent.outcome"] == "answered"


@pytest.mark.parametrize("lost", [LOST, Reply(), Reply(pieces=(" \n",)), TALK])
def test_a_lost_tool_call_is_reported_to_the_model_once(agent_of: AgentOf, lost: Reply) -> None:
    requests: list[ChatRequest] = []
    script = scripted(lost, queries(COUNT), ANSWER)

    def responder(request: ChatRequest) -> Reply:
        requests.append(request)
        return script(request)

    execution = replace(agent_of(responder), finding=stated).ask("How many?")
    assert (execution.outcome, execution.finding, execution.turns) == (Outcome.ANSWERED, "3", 3)
    message = requests[1].messages[-1]
    assert message["role"] == "user"
    assert "it could not be parsed: call one of these tools (query_flights, web_search)" in message["content"]
    assert all(message["content"] or message.get("tool_calls") for message in requests[-1].messages)


@pytest.mark.parametrize("nothing", [LOST, Reply(), Reply(pieces=("\n",)), Reply(thinking=("Hm.",))])
def test_an_empty_answer_is_not_a_success(agent_of: AgentOf, spans: Spans, nothing: Reply) -> None:
    execution = agent_of(scripted(nothing, nothing)).ask("How many?")
    assert (execution.outcome, execution.answer, execution.stopped_by) == (Outcome.EMPTY, "", None)
    assert execution.turns == 2
    assert_no_answer(spans, Outcome.EMPTY)


def test_an_answer_without_a_finding_is_not_a_success(agent_of: AgentOf, spans: Spans) -> None:
    execution = replace(agent_of(scripted(queries(COUNT), TALK, TALK)), finding=stated).ask("How many?")
    assert (execution.outcome, execution.answer) == (Outcome.NO_FINDING, "I will look it up.")
    assert execution.finding is None
    assert_no_answer(spans, Outcome.NO_FINDING)


def test_without_a_turn_that_is_left_it_is_the_limit_that_stopped_it(agent_of: AgentOf, spans: Spans) -> None:
    agent = replace(agent_of(scripted(queries(COUNT), TALK)), finding=stated, budget=Budget(turns=2))
    execution = agent.ask("How many?")
    assert (execution.outcome, execution.stopped_by) == (Outcome.STOPPED, Limit.TURNS)
    assert_stopped(spans, Limit.TURNS)


def test_an_answer_is_looked_up_only_if_a_tool_returned_a_result(agent_of: AgentOf) -> None:
    assert not agent_of(scripted(ANSWER)).ask("How many?").used_tools
    assert not agent_of(scripted(queries("SELECT x FROM flights"), ANSWER)).ask("How many?").used_tools
    assert agent_of(scripted(queries("SELECT x FROM flights", COUNT), ANSWER)).ask("How many?").used_tools


# Memory


def remembered(*texts: str) -> list[Entry]:
    return [
        Entry(f"entry-{number}", "answer", text, "test", datetime(2026, 1, 31, tzinfo=UTC))
        for number, text in enumerate(texts)
    ]


def test_recalled_entries_are_in_the_prompt(agent_of: AgentOf, tmp_path: Path) -> None:
    memory = Memory(tmp_path / "memory")
    memory.remember(remembered("How many flights are there? 3", "Which carrier flies to Miami? AA"))
    systems: list[str] = []

    def responder(request: ChatRequest) -> Reply:
        systems.append(request.messages[0]["content"])
        return ANSWER

    seen = Seen()
    execution = replace(agent_of(responder), memory=memory).ask("How many flights are there today?", seen)
    assert execution.recalled[0].entry.text == "How many flights are there? 3"
    assert systems[0].startswith("Answer questions about flights. Known: How many flights are there? 3")
    assert seen.events[0] == ("recalled", [found.entry.text for found in execution.recalled])
    assert seen.events[1] == ("turn", 1)


def test_an_empty_memory_recalls_nothing(agent_of: AgentOf, tmp_path: Path) -> None:
    seen = Seen()
    agent = replace(agent_of(COUNTS), memory=Memory(tmp_path / "memory"))
    assert agent.ask("How many flights are there?", seen).answer.endswith("Answer: 3")
    assert seen.events[0] == ("recalled", [])
    assert not (tmp_path / "memory").exists()


def test_an_unusable_memory_is_reported_and_does_not_fail_the_execution(
    agent_of: AgentOf, tmp_path: Path, spans: Spans
) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "current.json").write_text("{")
    seen = Seen()
    execution = replace(agent_of(COUNTS), memory=Memory(tmp_path / "memory")).ask("How many flights?", seen)
    assert execution.answer.endswith("Answer: 3")
    assert execution.recalled == ()
    name, why = seen.events[0]
    assert name == "recall_failed"
    assert "cannot be read" in why
    assert [name for name, _ in seen.events].count("recall_failed") == 1
    retrieval = spans.one("retrieve_memory")
    assert retrieval.status.status_code is StatusCode.ERROR
    assert attributes_of(retrieval)["error.type"] == "MemoryUnusableError"
    assert spans.root.status.status_code is StatusCode.OK


def test_an_unavailable_embedder_does_not_fail_the_execution(
    agent_of: AgentOf, ollama: Callable[[Responder], FakeOllama], tmp_path: Path
) -> None:
    Memory(tmp_path, OllamaEmbedder(ollama(COUNTS).url, "nomic-embed-text")).remember(
        remembered("Flights: 3")
    )
    absent = OllamaEmbedder(f"http://127.0.0.1:{unused_port()}", "nomic-embed-text")
    seen = Seen()
    execution = replace(agent_of(COUNTS), memory=Memory(tmp_path, absent)).ask("How many flights?", seen)
    assert execution.answer.endswith("Answer: 3")
    assert seen.events[0][0] == "recall_failed"
    assert "No Ollama responds" in seen.events[0][1]


# Many at once


def test_fifty_executions_at_once_do_not_mix(agent_of: AgentOf, spans: Spans, tmp_path: Path) -> None:
    many = 50
    together = threading.Barrier(many)

    def responder(request: ChatRequest) -> Reply:
        number = int(request.messages[1]["content"].rpartition(" ")[2])
        answers = tool_results(request)
        together.wait(timeout=60)
        if not answers:
            return replace(
                queries(f"SELECT count(*) + {number} * 1000 AS n FROM flights"),  # noqa: S608 (ours)
                input_tokens=1000 + number,
                output_tokens=number + 1,
            )
        return Reply(
            pieces=tuple(answers[0].splitlines()[1]), input_tokens=2000 + number, output_tokens=2 * number + 1
        )

    memory = Memory(tmp_path)
    memory.remember(remembered("Question number is asked often", "Nothing else"))
    agent = replace(agent_of(responder), memory=memory, recorder=Recorder(spans.tracer, captures=True))
    watchers = [Seen() for _ in range(many)]
    with ThreadPoolExecutor(many) as pool:
        executions = list(
            pool.map(lambda number: agent.ask(f"Question number {number}", watchers[number]), range(many))
        )

    traces = spans.traces()
    assert len(traces) == len({execution.trace_id for execution in executions}) == many
    for number, (execution, watcher) in enumerate(zip(executions, watchers, strict=True)):
        expected = str(number * 1000 + 3)
        assert execution.question == f"Question number {number}"
        assert execution.answer == expected
        assert execution.tools[0].result == f"n\n{expected}\n"
        assert execution.usage == Usage(3000 + 2 * number, 3 * number + 2)
        assert "".join(piece for name, piece in watcher.events if name == "received") == expected
        assert execution.trace_id is not None
        its_own = traces[int(execution.trace_id, 16)]
        assert sorted(span.name for span in its_own) == sorted(
            [
                "invoke_agent analyst",
                "retrieve_memory",
                "vector search",
                "ranking",
                *[f"chat {MODEL}", "prompt construction", "model completion"] * 2,
                "execute_tool query_flights",
            ]
        )
        (root,) = (span for span in its_own if span.parent is None)
        assert execution.span_id == f"{context_of(root)[1]:016x}"
        attributes = attributes_of(root)
        assert attributes["mlflow.spanInputs"] == execution.question
        assert attributes["mlflow.spanOutputs"] == expected
        assert attributes["gen_ai.usage.input_tokens"] == 3000 + 2 * number
        assert attributes["gen_ai.usage.output_tokens"] == 3 * number + 2
        ids = {context_of(span)[1] for span in its_own}
        assert all(span.parent is None or span.parent.span_id in ids for span in its_own)
        for chat in (span for span in its_own if span.name == f"chat {MODEL}"):
            asked = content_of(chat, "gen_ai.input.messages")
            assert asked[1]["parts"] == [{"type": "text", "content": execution.question}]
    conversations = {
        attributes_of(span).get("gen_ai.conversation.id") for span in spans.named("invoke_agent analyst")
    }
    assert len(conversations) == many


def test_executions_that_fail_leave_those_beside_them_alone(agent_of: AgentOf) -> None:
    together = threading.Barrier(12)

    def responder(request: ChatRequest) -> Reply:
        number = int(request.messages[1]["content"])
        if not tool_results(request):
            together.wait(timeout=60)
            return queries(f"SELECT {number} AS n" if number % 3 else "SELECT nonsense")
        if number % 3 == 1:
            return Reply(status=400, error=f"refused {number}")
        return Reply(pieces=(f"{number}: {tool_results(request)[0].splitlines()[0]}",))

    agent = agent_of(responder)

    def outcome(number: int) -> str:
        try:
            return agent.ask(str(number)).answer
        except (RefusedError, MalformedResponseError) as error:
            return str(error)

    with ThreadPoolExecutor(12) as pool:
        for number, text in enumerate(pool.map(outcome, range(12))):
            match number % 3:
                case 0:
                    assert text.startswith(f"{number}: Error: ")
                case 1:
                    assert f"refused {number}." in text
                case 2:
                    assert text == f"{number}: n"
