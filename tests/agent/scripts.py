"""Replies of a fake model, and a check of executions that a limit has stopped."""

from collections.abc import Callable

from opentelemetry.trace import StatusCode

from ledgerline.agent.agent import Agent
from ledgerline.agent.execution import Limit
from ledgerline.testing.fake_ollama import Analyst, ChatRequest, Reply, Responder
from tests.agent.spans import Spans, attributes_of

AgentOf = Callable[[Responder], Agent]

COUNT = "SELECT count(*) FROM flights"
COUNTS = Analyst({"How many flights": COUNT}, tool="query_flights")
ANSWER = Reply(pieces=("Three", " flights.\n", "Answer: 3"))


def queries(*sqls: str) -> Reply:
    return Reply(tool_calls=tuple(("query_flights", {"sql": sql}) for sql in sqls))


def tool_results(request: ChatRequest) -> list[str]:
    """Return the results of tools so far."""
    return [message["content"] for message in request.messages if message["role"] == "tool"]


def assert_stopped(spans: Spans, limit: Limit) -> None:
    root = spans.root
    assert root.status.status_code is StatusCode.ERROR
    assert root.status.description == f"The execution was stopped by its limit of {limit.value}."
    assert attributes_of(root)["error.type"] == "budget"
    assert attributes_of(root)["ledgerline.agent.stopped_by"] == limit.value
