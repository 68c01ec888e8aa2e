"""Tests the fake with Ollama's official client, without this project's own."""

import json
import math
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from ollama import Client, ResponseError

from ledgerline.testing.fake_ollama import EMBEDDING_MODEL, MODEL, Analyst, FakeOllama, Reply, scripted

TOOL = {
    "type": "function",
    "function": {
        "name": "query_flights",
        "description": "Answers SQL.",
        "parameters": {"type": "object", "properties": {"sql": {"type": "string"}}, "required": ["sql"]},
    },
}
QUESTION = {"role": "user", "content": "How many flights were late?"}
SQL = "select count(*) from flights"


@pytest.fixture
def analyst() -> Iterator[FakeOllama]:
    with FakeOllama(Analyst({"flights were late": SQL, "tomorrow": None}, tool="query_flights")) as fake:
        yield fake


@pytest.fixture
def client(analyst: FakeOllama) -> Iterator[Client]:
    with Client(analyst.url, trust_env=False) as client:
        yield client


def test_it_responds_with_its_version(analyst: FakeOllama) -> None:
    with urllib.request.urlopen(analyst.url) as answer:
        assert answer.read() == b"Ollama is running"
    with urllib.request.urlopen(f"{analyst.url}/api/version") as answer:
        assert json.load(answer)["version"]


def test_its_models_are_listed_and_described(client: Client) -> None:
    assert [model.model for model in client.list().models] == [MODEL, EMBEDDING_MODEL]
    description = client.show(MODEL)
    assert description.capabilities == ["completion", "tools"]
    assert description.modelinfo
    assert client.show("nomic-embed-text").capabilities == ["embedding"]


def test_a_chat_is_streamed_piece_by_piece(client: Client) -> None:
    parts = list(client.chat(MODEL, [{"role": "user", "content": "And tomorrow?"}], stream=True))
    assert "".join(part.message.content or "" for part in parts).endswith("\nAnswer: unknown")
    assert [part.done for part in parts] == [False, False, False, True]
    assert all(part.message.role == "assistant" and part.model == MODEL for part in parts)
    assert parts[-1].done_reason == "stop"
    assert (parts[-1].prompt_eval_count, parts[-1].eval_count) == (26, 10)
    assert parts[-1].eval_duration == 500_000_000


def test_a_chat_without_streaming_has_the_same_content(client: Client) -> None:
    whole = client.chat(MODEL, [{"role": "user", "content": "And tomorrow?"}])
    assert whole.message.content == "This is what the tables say.\nAnswer: unknown"
    assert whole.done
    assert whole.eval_count == 10


@pytest.mark.parametrize("how", ["streamed", "whole"])
def test_the_analyst_calls_its_tool_and_answers_with_the_result(
    client: Client, analyst: FakeOllama, how: str
) -> None:
    def chat(messages: list[Any]) -> tuple[str, list[Any]]:
        if how == "whole":
            parts = [client.chat(MODEL, messages, tools=[TOOL])]
        else:
            parts = list(client.chat(MODEL, messages, tools=[TOOL], stream=True))
        calls = [call for part in parts for call in part.message.tool_calls or ()]
        return "".join(part.message.content or "" for part in parts), calls

    text, (call,) = chat([QUESTION])
    assert text == ""
    assert (call.function.name, call.function.arguments) == ("query_flights", {"sql": SQL})
    asked = {"role": "assistant", "tool_calls": [call]}
    found = {"role": "tool", "tool_name": "query_flights", "content": 'n,m\n"1,024",7\n\nCut after 1 row.'}
    text, calls = chat([QUESTION, asked, found])
    assert text.splitlines()[-1] == "Answer: 1,024"
    assert calls == []
    assert [len(request.messages) for request in analyst.requests] == [1, 3]
    assert analyst.requests[0].tools[0]["function"]["name"] == "query_flights"


def test_the_analyst_answers_unknown_without_a_query(client: Client) -> None:
    text = client.chat(MODEL, [{"role": "user", "content": "Why?"}]).message.content
    assert text is not None
    assert text.endswith("Answer: unknown")


def test_texts_with_common_words_have_near_vectors(client: Client) -> None:
    texts = ["late flights of United", "flights of United, late", "weather in Newark"]
    one, same, other = client.embed(EMBEDDING_MODEL, texts).embeddings
    assert {len(vector) for vector in (one, same, other)} == {64}
    assert all(math.hypot(*vector) == pytest.approx(1) for vector in (one, same, other))
    assert list(one) == list(same)
    assert math.dist(one, other) > 0.5
    assert client.embed(EMBEDDING_MODEL, texts[0]).embeddings == [one]


def test_an_unknown_model_is_not_found(client: Client) -> None:
    for ask in (
        lambda: client.chat("other", [QUESTION]),
        lambda: list(client.chat("other", [QUESTION], stream=True)),
        lambda: client.show("other"),
        lambda: client.embed("other", "text"),
    ):
        with pytest.raises(ResponseError, match=r"model ['\"]other['\"] not found") as error:
            ask()
        assert error.value.status_code == 404


def test_a_model_without_tools_refuses_them(client: Client) -> None:
    with pytest.raises(ResponseError, match="does not support tools") as error:
        client.chat("nomic-embed-text", [QUESTION], tools=[TOOL])
    assert error.value.status_code == 400


def test_a_script_is_followed_to_its_end_and_not_beyond() -> None:
    replies = scripted(Reply(pieces=("one",)), Reply(pieces=("two",)))
    with FakeOllama(replies) as fake, Client(fake.url, trust_env=False) as client:
        assert [client.chat(MODEL, [QUESTION]).message.content for _ in range(2)] == ["one", "two"]
        with pytest.raises(ResponseError, match="only 2 replies"):
            client.chat(MODEL, [QUESTION])


def test_an_error_within_the_stream_is_one_to_the_client() -> None:
    reply = Reply(pieces=("one",), error="out of memory")
    with FakeOllama(scripted(reply)) as fake, Client(fake.url, trust_env=False) as client:
        parts = iter(client.chat(MODEL, [QUESTION], stream=True))
        assert next(parts).message.content == "one"
        with pytest.raises(ResponseError, match="out of memory"):
            next(parts)
