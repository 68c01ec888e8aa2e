"""Tests the budgets of an execution: turns, tool calls, tokens, seconds and the length of the output."""

from dataclasses import replace

import pytest
from opentelemetry.trace import StatusCode

from ledgerline.agent.agent import NO_MORE_TOOLS
from ledgerline.agent.execution import Budget, Limit
from ledgerline.agent.messages import Usage
from ledgerline.testing.fake_ollama import MODEL, ChatRequest, Reply, scripted
from ledgerline.testing.fake_searxng import FakeSearXNG
from ledgerline.testing.fake_searxng import Reply as Page
from tests.agent.scripts import ANSWER, COUNT, AgentOf, assert_stopped, queries
from tests.agent.spans import Spans, attributes_of


@pytest.mark.parametrize("name", ["turns", "tool_calls", "tokens", "seconds"])
def test_a_budget_of_zero_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"budget for {name} is 0; it must be above 0"):
        Budget(**{name: 0})


def test_turns_are_limited_and_the_last_one_is_offered_no_tools(
    openai_agent_of: AgentOf, spans: Spans
) -> None:
    offered: list[int] = []

    def never_done(request: ChatRequest) -> Reply:
        offered.append(len(request.tools))
        return queries(COUNT)

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
    agent = agent_of(lambda request: queries(COUNT) if request.tools else ANSWER)
    execution = replace(agent, budget=Budget(turns=2)).ask("How many?")
    assert execution.stopped_by is None
    assert execution.answer.endswith("Answer: 3")


def test_tool_calls_are_limited_also_within_a_turn(agent_of: AgentOf, spans: Spans) -> None:
    offered: list[int] = []

    def responder(request: ChatRequest) -> Reply:
        offered.append(len(request.tools))
        return queries(*[COUNT] * 5) if request.tools else ANSWER

    execution = replace(agent_of(responder), budget=Budget(tool_calls=7)).ask("How many?")
    assert [use.failed for use in execution.tools] == [False] * 7 + [True] * 3
    assert all(NO_MORE_TOOLS in use.result for use in execution.tools[7:])
    assert offered == [2, 2, 0]
    assert execution.stopped_by is None
    assert execution.answer.endswith("Answer: 3")
    assert attributes_of(spans.root)["ledgerline.agent.tool_calls"] == 10


def test_tokens_are_limited(agent_of: AgentOf, spans: Spans) -> None:
    agent = agent_of(lambda _: replace(queries(COUNT), input_tokens=300, output_tokens=200))
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
def test_seconds_are_limited_for_every_kind_of_slow_request(
    agent_of: AgentOf, spans: Spans, slow: Reply
) -> None:
    agent = agent_of(scripted(queries(COUNT), slow))
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
    execution = replace(agent_of(lambda _: queries(slow)), budget=Budget(seconds=2)).ask("How many?")
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
