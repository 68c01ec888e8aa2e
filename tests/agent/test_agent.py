"""How an agent gets from a question to its answer: turns, tools, memory, budgets and many at once."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.trace import StatusCode
from pydantic import BaseModel

from ledgerline.agent.agent import NO_MORE_TOOLS, Agent
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
from ledgerline.agent.tools import ToolResult
from ledgerline.agent.vector_store import Entry
from ledgerline.testing.fake_ollama import MODEL, Analyst, ChatRequest, FakeOllama, Reply, Responder, scripted
from ledgerline.testing.fake_searxng import FakeSearXNG, page
from ledgerline.testing.fake_searxng import Reply as Page
from ledgerline.testing.ports import unused_port
from tests.agent.spans import Spans, attributes_of, content_of, context_of

AgentOf = Callable[[Responder], Agent]

COUNT = "SELECT count(*) FROM flights"
COUNTS = Analyst({"How many flights": COUNT}, tool="query_flights")
ANSWER = Reply(pieces=("Three", " flights.\n", "Answer: 3"))


def asks(*sqls: str) -> Reply:
    return Reply(tool_calls=tuple(("query_flights", {"sql": sql}) for sql in sqls))


def told(request: ChatRequest) -> list[str]:
    """Return the results of tools so far."""
    return [message["content"] for message in request.messages if message["role"] == "tool"]


class Seen(Watcher):
    """Writes down what it is told."""

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


class Nothing(BaseModel):
    """No arguments."""


@dataclass(frozen=True)
class Broken:
    """A tool with a defect."""

    error: Exception
    name: str = "broken"
    description: str = "Fails."
    arguments: type[BaseModel] = Nothing

    def call(self, arguments: Nothing, recorder: Recorder, seconds: float) -> ToolResult:
        raise self.error


# The way from the question to the answer


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


def test_the_model_is_told_the_prompt_the_question_and_the_tools(
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


def test_a_question_that_is_no_unicode_is_answered(agent_of: AgentOf) -> None:
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


# Tools that fail


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("query_flights", {"sql": "SELECT nothing FROM flights"}, "Error: "),
        ("query_flights", {"sql": "DELETE FROM flights"}, "read-only"),
        (
            "query_flights",
            {"SQL": COUNT},
            "query_flights was not called, because its arguments are invalid: sql: Field required",
        ),
        ("query_flights", {"sql": 3}, "sql: Input should be a valid string"),
        ("query_flights", {}, "Its arguments are {"),
        ("web_search", {"queries": []}, "web_search was not called, because its arguments are invalid"),
        ("broken", {}, "broken failed: ZeroDivisionError. Do without it."),
    ],
)
def test_what_goes_wrong_with_a_tool_is_an_answer_to_the_model(
    agent_of: AgentOf, name: str, arguments: Mapping[str, Any], expected: str
) -> None:
    agent = agent_of(scripted(Reply(tool_calls=((name, arguments),)), ANSWER))
    agent = replace(agent, tools=(*agent.tools, Broken(ZeroDivisionError("division of a secret"))))
    execution = agent.ask("How many?")
    assert execution.answer.endswith("Answer: 3")
    (use,) = execution.tools
    assert use.failed
    assert use.result.startswith("Error: ")
    assert expected in use.result
    assert "division of a secret" not in use.result


@pytest.mark.parametrize("name", ["delete_everything", "query_flights_now", ""])
def test_a_tool_that_does_not_exist_is_an_answer_to_the_model(openai_agent_of: AgentOf, name: str) -> None:
    execution = openai_agent_of(scripted(Reply(tool_calls=((name, {}),)), ANSWER)).ask("How many?")
    assert execution.answer.endswith("Answer: 3")
    (use,) = execution.tools
    assert use.failed
    assert f"There is no tool {name!r}. The tools are: query_flights, web_search" in use.result


@pytest.mark.parametrize(
    "error", [RuntimeError("it broke"), KeyError("gone"), RecursionError(), OSError(28, "No space left")]
)
def test_any_defect_of_a_tool_leaves_the_execution_going(agent_of: AgentOf, error: Exception) -> None:
    agent = agent_of(scripted(Reply(tool_calls=(("broken", {}), ("query_flights", {"sql": COUNT}))), ANSWER))
    execution = replace(agent, tools=(*agent.tools, Broken(error))).ask("How many?")
    assert [use.failed for use in execution.tools] == [True, False]
    assert type(error).__name__ in execution.tools[0].result


@pytest.mark.parametrize("arguments", ['{"sql": "SELECT', "[1, 2]", "null", "\x00"])
def test_arguments_that_are_no_json_object_are_an_answer_to_the_model(
    openai_agent_of: AgentOf, arguments: str
) -> None:
    call = Reply(tool_calls=(("query_flights", arguments),))
    execution = openai_agent_of(scripted(call, ANSWER)).ask("How many?")
    assert execution.answer.endswith("Answer: 3")
    assert execution.tools[0].failed
    assert "are not a JSON object" in execution.tools[0].result


def test_the_model_corrects_itself_after_an_error(agent_of: AgentOf) -> None:
    def responder(request: ChatRequest) -> Reply:
        answers = told(request)
        if not answers:
            return asks("SELECT dely FROM flights")
        return asks("SELECT max(delay) FROM flights") if len(answers) == 1 else ANSWER

    execution = agent_of(responder).ask("How late?")
    assert [use.failed for use in execution.tools] == [True, False]
    assert '"delay"' in execution.tools[0].result


@pytest.mark.parametrize(
    ("name", "arguments", "problem"),
    [
        ("query_flights", {"sql": COUNT, "city": "Oslo"}, "city: there is no such argument"),
        (
            "query_flights",
            {"url": "https://a.example"},
            "sql: Field required; url: there is no such argument",
        ),
        ("query_flights", {"name": "query_flights", "arguments": {"sql": COUNT}}, "sql: Field required"),
        ("web_search", {"queries": ["a"], "sql": COUNT}, "sql: there is no such argument"),
        ("broken", {"x": 1}, "x: there is no such argument"),
    ],
)
def test_a_tool_is_not_called_with_arguments_that_it_does_not_have(
    agent_of: AgentOf, searxng: FakeSearXNG, name: str, arguments: Mapping[str, Any], problem: str
) -> None:
    agent = agent_of(scripted(Reply(tool_calls=((name, arguments),)), ANSWER))
    execution = replace(agent, tools=(*agent.tools, Broken(AssertionError("it was called")))).ask("How many?")
    (use,) = execution.tools
    assert use.failed
    assert f"Error: {name} was not called, because its arguments are invalid: " in use.result
    assert problem in use.result
    assert not searxng.searches


def test_what_ollama_takes_for_a_call_of_another_tool_is_not_done(agent_of: AgentOf) -> None:
    # Ollama's parser finds the name of the offered tool in this one, and calls that with these arguments.
    meant_for_another = Reply(tool_calls=(("delete_query_flights", {"table": "flights"}),))
    execution = agent_of(scripted(meant_for_another, ANSWER)).ask("How many?")
    (use,) = execution.tools
    assert (use.call.name, use.call.arguments) == ("query_flights", {"table": "flights"})
    assert use.failed
    assert "table: there is no such argument" in use.result


@pytest.mark.parametrize(("one", "other"), [("flights", "query_flights"), ("query_flights", "query_flights")])
def test_tools_whose_names_are_in_each_other_are_refused(agent_of: AgentOf, one: str, other: str) -> None:
    tools = (Broken(ValueError(), one), Broken(ValueError(), other))
    with pytest.raises(ValueError, match=f"The tool name '{one}' is a part of '{other}'"):
        replace(agent_of(COUNTS), tools=tools)


# Answers that state nothing


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
    execution = replace(agent_of(scripted(asks(COUNT), ANSWER)), finding=stated).ask("How many?")
    assert (execution.outcome, execution.finding) == (Outcome.ANSWERED, "3")
    assert execution.used_tools
    assert spans.root.status.status_code is StatusCode.OK
    assert attributes_of(spans.root)["ledgerline.agent.outcome"] == "answered"


@pytest.mark.parametrize("lost", [LOST, Reply(), Reply(pieces=(" \n",)), TALK])
def test_a_model_whose_call_was_lost_is_told_so_once_and_may_call_again(
    agent_of: AgentOf, lost: Reply
) -> None:
    requests: list[ChatRequest] = []
    script = scripted(lost, asks(COUNT), ANSWER)

    def responder(request: ChatRequest) -> Reply:
        requests.append(request)
        return script(request)

    execution = replace(agent_of(responder), finding=stated).ask("How many?")
    assert (execution.outcome, execution.finding, execution.turns) == (Outcome.ANSWERED, "3", 3)
    said = requests[1].messages[-1]
    assert said["role"] == "user"
    assert "it could not be parsed: call one of these tools (query_flights, web_search)" in said["content"]
    assert all(message["content"] or message.get("tool_calls") for message in requests[-1].messages)


@pytest.mark.parametrize("nothing", [LOST, Reply(), Reply(pieces=("\n",)), Reply(thinking=("Hm.",))])
def test_an_answer_of_nothing_is_no_success(agent_of: AgentOf, spans: Spans, nothing: Reply) -> None:
    execution = agent_of(scripted(nothing, nothing)).ask("How many?")
    assert (execution.outcome, execution.answer, execution.stopped_by) == (Outcome.EMPTY, "", None)
    assert execution.turns == 2
    assert_no_answer(spans, Outcome.EMPTY)


def test_an_answer_without_a_finding_is_no_success(agent_of: AgentOf, spans: Spans) -> None:
    execution = replace(agent_of(scripted(asks(COUNT), TALK, TALK)), finding=stated).ask("How many?")
    assert (execution.outcome, execution.answer) == (Outcome.NO_FINDING, "I will look it up.")
    assert execution.finding is None
    assert_no_answer(spans, Outcome.NO_FINDING)


def test_without_a_turn_that_is_left_it_is_the_limit_that_stopped_it(agent_of: AgentOf, spans: Spans) -> None:
    agent = replace(agent_of(scripted(asks(COUNT), TALK)), finding=stated, budget=Budget(turns=2))
    execution = agent.ask("How many?")
    assert (execution.outcome, execution.stopped_by) == (Outcome.STOPPED, Limit.TURNS)
    assert_stopped(spans, Limit.TURNS)


def test_an_answer_is_looked_up_only_if_a_tool_has_told_something(agent_of: AgentOf) -> None:
    assert not agent_of(scripted(ANSWER)).ask("How many?").used_tools
    assert not agent_of(scripted(asks("SELECT x FROM flights"), ANSWER)).ask("How many?").used_tools
    assert agent_of(scripted(asks("SELECT x FROM flights", COUNT), ANSWER)).ask("How many?").used_tools


# Budgets


@pytest.mark.parametrize("name", ["turns", "tool_calls", "tokens", "seconds"])
def test_a_budget_of_nothing_is_none(name: str) -> None:
    with pytest.raises(ValueError, match=f"budget for {name} is 0; it must be above 0"):
        Budget(**{name: 0})


def assert_stopped(spans: Spans, limit: Limit) -> None:
    root = spans.root
    assert root.status.status_code is StatusCode.ERROR
    assert root.status.description == f"The execution was stopped by its limit of {limit.value}."
    assert attributes_of(root)["error.type"] == "budget"
    assert attributes_of(root)["ledgerline.agent.stopped_by"] == limit.value


def test_turns_are_limited_and_the_last_one_is_offered_no_tools(
    openai_agent_of: AgentOf, spans: Spans
) -> None:
    offered: list[int] = []

    def never_done(request: ChatRequest) -> Reply:
        offered.append(len(request.tools))
        return asks(COUNT)

    agent = replace(openai_agent_of(never_done), budget=Budget(turns=3))
    execution = agent.ask("How many?")
    assert offered == [2, 2, 0]
    assert execution.stopped_by is Limit.TURNS
    assert execution.turns == 3
    assert execution.answer == ""
    # Tool calls of the last turn, in which no tools were offered, are not run.
    assert [use.failed for use in execution.tools] == [False, False, True]
    assert NO_MORE_TOOLS in execution.tools[-1].result
    assert_stopped(spans, Limit.TURNS)


def test_a_model_that_answers_in_its_last_turn_has_answered(agent_of: AgentOf) -> None:
    agent = agent_of(lambda request: asks(COUNT) if request.tools else ANSWER)
    execution = replace(agent, budget=Budget(turns=2)).ask("How many?")
    assert execution.stopped_by is None
    assert execution.answer.endswith("Answer: 3")


def test_tool_calls_are_limited_also_within_a_turn(agent_of: AgentOf, spans: Spans) -> None:
    offered: list[int] = []

    def responder(request: ChatRequest) -> Reply:
        offered.append(len(request.tools))
        return asks(*[COUNT] * 5) if request.tools else ANSWER

    execution = replace(agent_of(responder), budget=Budget(tool_calls=7)).ask("How many?")
    assert [use.failed for use in execution.tools] == [False] * 7 + [True] * 3
    assert all(NO_MORE_TOOLS in use.result for use in execution.tools[7:])
    assert offered == [2, 2, 0]
    assert execution.stopped_by is None
    assert execution.answer.endswith("Answer: 3")
    assert attributes_of(spans.root)["ledgerline.agent.tool_calls"] == 10


def test_tokens_are_limited(agent_of: AgentOf, spans: Spans) -> None:
    agent = agent_of(lambda _: replace(asks(COUNT), input_tokens=300, output_tokens=200))
    execution = replace(agent, budget=Budget(turns=100, tool_calls=100, tokens=1400)).ask("How many?")
    assert execution.stopped_by is Limit.TOKENS
    assert execution.usage == Usage(900, 600)
    assert execution.turns == 3
    assert_stopped(spans, Limit.TOKENS)


def test_an_answer_counts_even_if_it_took_the_last_tokens(agent_of: AgentOf) -> None:
    agent = agent_of(scripted(replace(ANSWER, input_tokens=900)))
    execution = replace(agent, budget=Budget(tokens=100)).ask("How many?")
    assert execution.stopped_by is None
    assert execution.answer.endswith("Answer: 3")


@pytest.mark.parametrize(
    "slow",
    [
        Reply(pieces=("never",), seconds_before=3600),
        Reply(pieces=("one", "two"), seconds_between=3600),
        Reply(pieces=("byte by byte" * 10_000,), seconds_between_bytes=0.05),
    ],
    ids=["before", "between", "bytes"],
)
def test_seconds_are_limited_whatever_the_server_is_slow_with(
    agent_of: AgentOf, spans: Spans, slow: Reply
) -> None:
    agent = agent_of(scripted(asks(COUNT), slow))
    execution = replace(agent, budget=Budget(seconds=2)).ask("How many?")
    assert execution.stopped_by is Limit.SECONDS
    assert execution.answer == ""
    assert len(execution.tools) == 1
    assert execution.seconds >= 2
    assert_stopped(spans, Limit.SECONDS)
    (failed,) = (span for span in spans.named(f"chat {MODEL}") if span.status.status_code is StatusCode.ERROR)
    assert attributes_of(failed)["error.type"] == "TooSlowError"


def test_a_slow_query_ends_with_the_time(agent_of: AgentOf) -> None:
    slow = "SELECT count(*) FROM range(10000000) a, range(10000000) b"
    execution = replace(agent_of(lambda _: asks(slow)), budget=Budget(seconds=2)).ask("How many?")
    assert execution.stopped_by is Limit.SECONDS
    assert "took too long" in execution.tools[0].result


def test_a_slow_search_ends_with_the_time(agent_of: AgentOf, searxng: FakeSearXNG) -> None:
    searxng.reply = lambda _: Page(waits=True)
    responder = scripted(Reply(tool_calls=(("web_search", {"queries": ["a"]}),)), ANSWER)
    execution = replace(agent_of(responder), budget=Budget(seconds=2)).ask("How many?")
    assert execution.stopped_by is Limit.SECONDS
    assert "did not respond within" in execution.tools[0].result


def test_the_length_of_the_output_is_limited(agent_of: AgentOf, spans: Spans) -> None:
    agent = agent_of(scripted(Reply(pieces=("The answer is",), done_reason="length")))
    execution = agent.ask("How many?")
    assert execution.stopped_by is Limit.LENGTH
    assert execution.answer == "The answer is"
    assert_stopped(spans, Limit.LENGTH)


# Memory


def remembered(*texts: str) -> list[Entry]:
    return [
        Entry(f"entry-{number}", "answer", text, "test", datetime(2026, 1, 31, tzinfo=UTC))
        for number, text in enumerate(texts)
    ]


def test_what_is_remembered_is_in_the_prompt(agent_of: AgentOf, tmp_path: Path) -> None:
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


def test_a_memory_that_is_empty_recalls_nothing(agent_of: AgentOf, tmp_path: Path) -> None:
    seen = Seen()
    agent = replace(agent_of(COUNTS), memory=Memory(tmp_path / "memory"))
    assert agent.ask("How many flights are there?", seen).answer.endswith("Answer: 3")
    assert seen.events[0] == ("recalled", [])
    assert not (tmp_path / "memory").exists()


def test_without_a_usable_memory_it_goes_on_and_says_so(
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


def test_without_an_embedder_that_answers_it_goes_on(
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
        answers = told(request)
        together.wait(timeout=60)
        if not answers:
            return replace(
                asks(f"SELECT count(*) + {number} * 1000 AS n FROM flights"),  # noqa: S608 (ours)
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
        said = attributes_of(root)
        assert said["mlflow.spanInputs"] == execution.question
        assert said["mlflow.spanOutputs"] == expected
        assert said["gen_ai.usage.input_tokens"] == 3000 + 2 * number
        assert said["gen_ai.usage.output_tokens"] == 3 * number + 2
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
        if not told(request):
            together.wait(timeout=60)
            return asks(f"SELECT {number} AS n" if number % 3 else "SELECT nonsense")
        if number % 3 == 1:
            return Reply(status=400, error=f"refused {number}")
        return Reply(pieces=(f"{number}: {told(request)[0].splitlines()[0]}",))

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
