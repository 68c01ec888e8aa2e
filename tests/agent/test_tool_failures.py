"""Tests how an agent continues after a tool or a call has failed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from pydantic import BaseModel

from ledgerline.agent.recording import Recorder
from ledgerline.agent.tools import ToolResult
from ledgerline.testing.fake_ollama import ChatRequest, Reply, scripted
from ledgerline.testing.fake_searxng import FakeSearXNG
from tests.agent.scripts import ANSWER, COUNT, COUNTS, AgentOf, queries, tool_results


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
def test_a_failure_of_a_tool_is_reported_to_the_model(
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
def test_an_unknown_tool_is_reported_to_the_model(openai_agent_of: AgentOf, name: str) -> None:
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
def test_arguments_that_are_not_a_json_object_are_reported_to_the_model(
    openai_agent_of: AgentOf, arguments: str
) -> None:
    call = Reply(tool_calls=(("query_flights", arguments),))
    execution = openai_agent_of(scripted(call, ANSWER)).ask("How many?")
    assert execution.answer.endswith("Answer: 3")
    assert execution.tools[0].failed
    assert "are not a JSON object" in execution.tools[0].result


def test_the_model_corrects_itself_after_an_error(agent_of: AgentOf) -> None:
    def responder(request: ChatRequest) -> Reply:
        answers = tool_results(request)
        if not answers:
            return queries("SELECT dely FROM flights")
        return queries("SELECT max(delay) FROM flights") if len(answers) == 1 else ANSWER

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


def test_a_call_that_ollama_confuses_with_another_tool_is_not_executed(agent_of: AgentOf) -> None:
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
