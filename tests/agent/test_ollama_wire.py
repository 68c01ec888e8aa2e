"""Tests Ollama's responses on the wire: the fake and a real server receive the same requests.

There is no client in between: each response is compared as it arrives.
"""

import re
from typing import Any

import httpx
import pytest

from ledgerline.testing.fake_ollama import VERSION
from tests.agent import real_ollama
from tests.agent.ollama_servers import lines
from tests.agent.real_ollama import CAPABILITIES, PLAIN, TAGGED, TALKER, THINKER

HELLO = [{"role": "user", "content": "Say hello."}]
SHORT = {"num_ctx": 512, "num_predict": 60}
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}


def chat(http: httpx.Client, model: str = TALKER, **fields: Any) -> httpx.Response:
    return http.post("/api/chat", json={"model": model, "messages": HELLO, "options": SHORT, **fields})


def writing(wanted: object, **fields: Any) -> dict[str, Any]:
    """A request of which the model writes this."""
    return {"tools": [ADD], "format": {"const": wanted}, **fields}


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


# The server and its models


def test_its_version_is_the_one_that_was_tried(http: httpx.Client) -> None:
    assert http.get("/api/version").json() == {"version": VERSION}
    assert http.get("/").text == "Ollama is running"
    nothing = http.get("/api/nothing")
    assert (nothing.status_code, nothing.text) == (404, "404 page not found")


@pytest.mark.parametrize("model", CAPABILITIES)
def test_a_model_is_described_with_its_capabilities_and_context_length(
    http: httpx.Client, model: str
) -> None:
    description = http.post("/api/show", json={"model": model}).json()
    assert description["capabilities"] == list(CAPABILITIES[model])
    architecture = description["model_info"]["general.architecture"]
    assert description["model_info"][f"{architecture}.context_length"] == real_ollama.CONTEXT_TOKENS
    assert "format" in description["details"]


def test_models_are_listed_with_their_tags(http: httpx.Client) -> None:
    listed = http.get("/api/tags").json()["models"]
    assert {model["name"] for model in listed} == {f"{name}:latest" for name in CAPABILITIES}


@pytest.mark.parametrize("name", [TALKER, f"{TALKER}:latest", TALKER.upper(), f"library/{TALKER}"])
def test_a_model_is_found_by_each_form_of_its_name(http: httpx.Client, name: str) -> None:
    answer = chat(http, name, stream=False).json()
    assert answer["model"] == name
    assert answer["done"] is True


WHOLE = "registry.ollama.ai/library"


@pytest.mark.parametrize(
    ("path", "name", "status", "error"),
    [
        ("/api/chat", "nope", 404, "model 'nope' not found"),
        ("/api/show", "nope", 404, "model 'nope' not found"),
        ("/api/embed", "nope", 404, 'model "nope" not found, try pulling it first'),
        ("/api/chat", "a:b:c", 400, "model is required"),
        ("/api/show", "a:b:c", 500, f"unqualified name: {WHOLE}/a:b:c"),
        ("/api/embed", "a:b:c", 500, f"unqualified name: {WHOLE}/a:b:c"),
        ("/api/chat", "", 400, "model is required"),
        ("/api/show", "", 400, "model is required"),
        ("/api/embed", "", 500, f"unqualified name: {WHOLE}/!MISSING!:latest"),
    ],
)
def test_a_name_that_is_wrong_is_refused_in_many_ways(
    http: httpx.Client, path: str, name: str, status: int, error: str
) -> None:
    answer = http.post(path, json={"model": name, "messages": HELLO, "input": "x"})
    assert (answer.status_code, answer.json()) == (status, {"error": error})


@pytest.mark.parametrize(
    ("model", "fields", "error"),
    [
        (PLAIN, {"tools": [ADD]}, f"{WHOLE}/{PLAIN}:latest does not support tools"),
        (TALKER, {"think": True}, f'"{TALKER}" does not support thinking'),
        (TALKER, {"think": "low"}, f'"{TALKER}" does not support thinking'),
        (THINKER, {"think": "high"}, 'think value "high" is not supported for this model'),
    ],
)
def test_a_missing_capability_of_a_model_is_refused(
    http: httpx.Client, model: str, fields: dict[str, Any], error: str
) -> None:
    answer = chat(http, model, **fields)
    assert (answer.status_code, answer.json()) == (400, {"error": error})


def test_a_model_that_cannot_think_accepts_requests_without_thinking(http: httpx.Client) -> None:
    assert chat(http, think=False, stream=False).status_code == 200


def test_a_model_for_conversations_makes_embeddings_all_the_same(http: httpx.Client) -> None:
    answer = http.post("/api/embed", json={"model": TALKER, "input": ["one", "two"]})
    assert answer.status_code == 200
    assert len(answer.json()["embeddings"]) == 2


# Answers


def test_a_response_arrives_in_parts_and_the_last_has_the_counts(http: httpx.Client) -> None:
    answer = chat(http)
    assert answer.headers["content-type"] == "application/x-ndjson"
    *parts, last = lines(answer)
    assert all(part["done"] is False and part["message"]["content"] for part in parts)
    assert last["message"] == {"role": "assistant", "content": ""}
    assert (last["done"], last["done_reason"]) == (True, "stop")
    assert min(last["prompt_eval_count"], last["eval_count"], last["eval_duration"]) > 0


def test_no_messages_load_a_model_and_unload_it(http: httpx.Client) -> None:
    for keep_alive, reason in ((60, "load"), (0, "unload")):
        answer = chat(http, messages=[], keep_alive=keep_alive).json()
        assert (answer["done_reason"], answer["message"]["content"]) == (reason, "")


# Tool calls


def test_a_tool_call_arrives_whole_with_an_id(http: httpx.Client) -> None:
    asked, last = lines(chat(http, **writing(call("add", a=1, b=2))))
    (made,) = asked["message"].pop("tool_calls")
    assert re.fullmatch("call_[a-z0-9]{8}", made["id"])
    assert made["function"] == {"index": 0, "name": "add", "arguments": {"a": 1, "b": 2}}
    assert asked["message"] == {"role": "assistant", "content": ""}
    assert (last["message"], last["done_reason"]) == ({"role": "assistant", "content": ""}, "stop")


@pytest.mark.parametrize("name", ["address", "add_all", "madden"])
def test_a_tool_whose_name_is_part_of_another_receives_the_others_arguments(
    http: httpx.Client, name: str
) -> None:
    asked, _ = lines(chat(http, **writing(call(name, a=7, street="x"))))
    (made,) = asked["message"]["tool_calls"]
    assert (made["function"]["name"], made["function"]["arguments"]) == ("add", {"a": 7, "street": "x"})


def test_a_call_to_a_tool_that_was_not_offered_vanishes(http: httpx.Client) -> None:
    *parts, last = lines(chat(http, TAGGED, **writing('<tool_call>{"name": "weather"}')))
    assert parts == []
    assert last["message"] == {"role": "assistant", "content": ""}
    assert last["done_reason"] == "stop"
    assert last["eval_count"] > 0


def test_without_a_tag_it_is_text(http: httpx.Client) -> None:
    parts = lines(chat(http, **writing(call("weather", city="Oslo"))))
    assert "".join(part["message"]["content"] for part in parts) == (
        '{"name":"weather","arguments":{"city":"Oslo"}}'
    )


def test_without_tools_a_call_is_text(http: httpx.Client) -> None:
    message = chat(http, stream=False, **writing(call("add", a=1), tools=[])).json()["message"]
    assert message.keys() == {"role", "content"}
    assert message["content"].strip() == '{"name":"add","arguments":{"a":1}}'


# Contexts

LONG = [
    {"role": "user", "content": "one " * 60},
    {"role": "assistant", "content": "two " * 60},
    {"role": "user", "content": "three " * 20},
]
SMALL = {"num_ctx": 64, "num_predict": 1}


@pytest.mark.parametrize("stream", [True, False])
def test_a_conversation_that_is_too_long_is_refused_if_it_may_not_be_cut(
    http: httpx.Client, stream: bool
) -> None:
    fields = {"messages": LONG, "options": SMALL, "stream": stream, "truncate": False, "shift": False}
    answer = chat(http, **fields)
    assert answer.status_code == 400
    assert answer.json() == {"error": "the input length exceeds the context length"}


def test_else_it_is_cut_and_counted_as_if_nothing_was(http: httpx.Client) -> None:
    answer = chat(http, messages=LONG, options=SMALL, stream=False)
    assert answer.status_code == 200
    assert answer.json()["prompt_eval_count"] < SMALL["num_ctx"] - 8


def test_a_context_that_is_longer_than_the_model_was_made_for_is_lowered(http: httpx.Client) -> None:
    assert chat(http, options={"num_ctx": 16_384, "num_predict": 1}).status_code == 200
    (running,) = [
        model for model in http.get("/api/ps").json()["models"] if model["name"] == f"{TALKER}:latest"
    ]
    assert running["context_length"] == real_ollama.CONTEXT_TOKENS
