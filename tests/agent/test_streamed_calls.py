"""Tests tool calls in parts, as servers with OpenAI's protocol send them, also with deviations."""

import json
from typing import Any

import pytest

from ledgerline.agent.messages import Message, Role, ToolCall
from ledgerline.agent.openai_provider import OpenAIModel
from ledgerline.testing.fake_ollama import Reply, scripted
from ledgerline.testing.fake_openai import MODEL, FakeOpenAI

QUESTION = Message(Role.USER, "How many?")
ONE, TWO = '{"sql": "select 1"}', '{"sql": "select 2"}'


def part(name: str | None = None, arguments: object = None, **fields: Any) -> dict[str, Any]:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {**fields, "function": function} if function else fields


def calls(*parts: dict[str, Any], before: tuple[Message, ...] = ()) -> list[tuple[str, str, object]]:
    """Id, name and arguments of what is made of the parts."""
    with FakeOpenAI(scripted(Reply(raw_calls=parts))) as fake:
        completion = OpenAIModel(fake.api, MODEL).complete((QUESTION, *before), (), 20, lambda _: None)
    assert completion.finish_reason == "tool_calls"
    return [(call.id, call.name, call.arguments) for call in completion.message.tool_calls]


HALVES = [ONE[:9], ONE[9:]]
BOTH = [("query", {"sql": "select 1"}), ("query", {"sql": "select 2"})]


@pytest.mark.parametrize(
    "parts",
    [
        # The parts arrive as the protocol defines.
        [
            part("query", "", index=0, id="a"), *(part(None, half, index=0) for half in HALVES),
            part("query", TWO, index=1, id="b"),
        ],
        # The parts of two calls alternate.
        [
            part("query", "", index=0, id="a"), part("query", "", index=1, id="b"),
            part(None, TWO, index=1), *(part(None, half, index=0) for half in HALVES),
        ],
        # All with index 0, or with none, and ids.
        [part("query", ONE, index=0, id="a"), part("query", TWO, index=0, id="b")],
        [part("query", ONE, id="a"), part("query", TWO, id="b")],
        [part("query", ONE, index=None, id="a"), part("query", TWO, index=None, id="b")],
        # The parts of two calls alternate and differ by their ids only.
        [
            part("query", HALVES[0], index=0, id="a"), part("query", TWO, index=0, id="b"),
            part(None, HALVES[1], index=0, id="a"),
        ],
        # Calls without ids are separated by the index, or when the arguments before are whole.
        [part("query", ONE, index=0), part("query", TWO, index=1)],
        [part("query", ONE, index=0), part("query", TWO, index=0)],
        [part("query", ONE), part("query", TWO)],
        [part("query"), *(part(None, half) for half in HALVES), part("query"), part(None, TWO)],
        [part("query", ONE, id=""), part("query", TWO, id="")],
        # Ids and names in each part, and once more at the end.
        [
            *(part("query", half, index=0, id="a") for half in HALVES), part("query", "", index=0, id="a"),
            part("query", TWO, index=1, id="b"), part("query", "", index=1, id="b"),
        ],
        # The same id for all of them.
        [part("query", ONE, index=0, id="a"), part("query", TWO, index=0, id="a")],
        [part("query", ONE, index=0, id="a"), part("query", TWO, index=1, id="a")],
        # Arguments as an object.
        [part("query", json.loads(ONE), index=0, id="a"), part("query", json.loads(TWO), index=0, id="b")],
        # Each part has another id.
        [
            part("query", HALVES[0], index=0, id="a"), part(None, HALVES[1], index=0, id="c"),
            part("query", TWO, index=1, id="b"),
        ],
    ],
    ids=[
        "by the protocol", "in turns", "index 0", "no index", "null index", "in turns by id", "no ids",
        "no ids, index 0", "no ids, no index", "no ids, in parts", "empty ids", "repeated", "one id",
        "one id, indices", "objects", "ids of parts",
    ],
)  # fmt: skip
def test_parallel_calls_are_kept_apart_and_whole(parts: list[dict[str, Any]]) -> None:
    made = calls(*parts)
    assert [(name, arguments) for _, name, arguments in made] == BOTH
    assert len({own for own, _, _ in made}) == 2
    assert all(own for own, _, _ in made)


def test_other_names_are_other_calls() -> None:
    parts = [part("query", "", index=0), part("search", "", index=0), part("query", "{}", index=0)]
    assert [name for _, name, _ in calls(*parts)] == ["query", "search", "query"]


def test_a_call_without_arguments_is_one() -> None:
    assert calls(part("now", index=0, id="a")) == [("a", "now", {})]
    assert calls(part("now", "", index=0)) == [("call_1", "now", {})]


def test_ids_are_those_of_the_server_unless_the_conversation_has_them() -> None:
    known = ToolCall("a", "query", {})
    before = (Message(Role.ASSISTANT, "", (known,)), Message(Role.TOOL, "1", responds_to=known))
    made = calls(part("query", ONE, index=0, id="a"), part("query", TWO, index=1, id="b"), before=before)
    assert [own for own, _, _ in made] == ["call_2", "b"]


@pytest.mark.parametrize("arguments", ['{"sql": "sel', "[1]", "5"])
def test_arguments_of_another_type_are_kept_unchanged(arguments: str) -> None:
    assert calls(part("query", arguments, index=0, id="a")) == [("a", "query", arguments)]
