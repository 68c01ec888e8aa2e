"""Tests a tool call of a model on a real Ollama server, if there is one."""

import os

import pytest

from ledgerline.agent.messages import Message, Role, ToolDescription
from ledgerline.agent.ollama_provider import OllamaModel

SECONDS = 300.0  # the model may have to be loaded first, and there may be no accelerator
TOOL = ToolDescription(
    "add",
    "Adds two numbers and tells the sum.",
    {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
    },
)

pytestmark = pytest.mark.ollama


@pytest.fixture(scope="module")
def model() -> OllamaModel:
    host = os.environ.get("OLLAMA_HOST")
    if not host:
        pytest.skip("OLLAMA_HOST is not set: there is no Ollama server to ask")
    name = os.environ.get("LEDGERLINE_LLM_MODEL") or _first_with_tools(host)
    model = OllamaModel(host, name, seed=1, max_output_tokens=1024)
    model.require()
    return model


def _first_with_tools(host: str) -> str:
    from ollama import Client

    with Client(host, timeout=10) as client:
        for listed in client.list().models:
            if listed.model and "tools" in (client.show(listed.model).capabilities or ()):
                return listed.model
    pytest.skip("The server at OLLAMA_HOST has no model that can call tools")


def test_a_response_has_a_text_and_a_count_of_tokens(model: OllamaModel) -> None:
    received: list[str] = []
    completion = model.complete((Message(Role.USER, "Say hello."),), (), SECONDS, received.append)
    assert completion.message.content == "".join(received)
    assert completion.usage.output_tokens > 0
    assert completion.seconds_to_first_token is not None
    assert completion.tokens_per_second is not None


def test_it_calls_a_tool_and_reads_its_answer(model: OllamaModel) -> None:
    question = Message(Role.USER, "Use the tool `add` to find 4711 + 815, then tell me the sum.")
    asked = model.complete((question,), (TOOL,), SECONDS, lambda _: None)
    assert asked.finish_reason == "tool_calls"
    call = asked.message.tool_calls[0]
    assert (call.name, call.arguments) == ("add", {"a": 4711, "b": 815})
    answer = Message(Role.TOOL, "5526", responds_to=call)
    final = model.complete((question, asked.message, answer), (TOOL,), SECONDS, lambda _: None)
    assert "5526" in final.message.content.replace(",", "")
