"""Tests what an agent gets from an Ollama server, the same from the fake and from a real one."""

import httpx
import pytest

from ledgerline.agent.language_model import ContextTooLongError, LanguageModelError, UnknownModelError
from ledgerline.agent.messages import Completion, Message, Role, Thinking, ToolDescription
from ledgerline.agent.ollama_embedder import OllamaEmbedder
from ledgerline.agent.ollama_provider import OllamaModel
from tests.agent.real_ollama import CONTEXT_TOKENS, PLAIN, TALKER, THINKER

SECONDS = 120.0
HELLO = (Message(Role.USER, "Say hello."),)
# The question, what was found for it so far, and another question: the first goes first.
LONG = (
    Message(Role.USER, "one " * 60),
    Message(Role.ASSISTANT, "two " * 60),
    Message(Role.USER, "three " * 20),
)
ADD = ToolDescription(
    "add", "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
)


def model_of(server: str, name: str = TALKER, **settings: object) -> OllamaModel:
    return OllamaModel(server, name, **{"context_tokens": 512, "max_output_tokens": 40, **settings})


def ask(
    model: OllamaModel, messages: tuple[Message, ...] = HELLO, received: list[str] | None = None
) -> Completion:
    return model.complete(messages, (), SECONDS, ([] if received is None else received).append)


def test_a_response_has_a_text_and_a_count_of_tokens(server: str) -> None:
    received: list[str] = []
    model = model_of(server)
    model.require()
    completion = ask(model, received=received)
    assert completion.message.content == "".join(received) != ""
    assert min(completion.usage.input_tokens, completion.usage.output_tokens) > 0
    assert completion.finish_reason == "stop"
    assert completion.seconds_to_first_token is not None
    assert completion.tokens_per_second is not None


def test_every_dropped_message_of_a_conversation_is_reported(server: str) -> None:
    received: list[str] = []
    with pytest.raises(ContextTooLongError, match="the input length exceeds the context length"):
        ask(model_of(server, context_tokens=128, max_output_tokens=1), LONG, received)
    assert received == []
    assert ask(model_of(server, max_output_tokens=1), LONG).message.content


def test_a_context_is_not_longer_than_that_of_the_model(
    server: str, http: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    model = model_of(server, context_tokens=2 * CONTEXT_TOKENS)
    model.require()
    ask(model)
    (response,) = [
        record.getMessage() for record in caplog.records if record.name == "ledgerline.agent.ollama_provider"
    ]
    assert f"{TALKER} of Ollama at {server} was made for a context of 8,192 tokens" in response
    assert "instead of the 16,384 tokens of LEDGERLINE_LLM_CONTEXT_TOKENS" in response
    running = {one["name"]: one["context_length"] for one in http.get("/api/ps").json()["models"]}
    assert running[f"{TALKER}:latest"] == CONTEXT_TOKENS


@pytest.mark.parametrize(
    ("name", "settings", "problem"),
    [
        (PLAIN, {}, "cannot call tools"),
        (TALKER, {"think": Thinking.ON}, "(cannot think|setting for thinking)"),
        (TALKER, {"think": Thinking.LOW}, "(cannot think|setting for thinking)"),
        ("nope", {}, "has no model nope"),
        ("a:b:c", {}, "does not accept a:b:c as the name of a model"),
    ],
)
def test_an_unusable_model_is_refused_by_the_check_and_by_a_request(
    server: str, name: str, settings: dict[str, object], problem: str
) -> None:
    model = model_of(server, name, **settings)
    for act in (model.require, lambda: model.complete(HELLO, (ADD,), SECONDS, lambda _: None)):
        with pytest.raises(UnknownModelError, match=problem):
            act()


def test_levels_of_thinking_are_for_models_that_have_them(server: str) -> None:
    model = model_of(server, THINKER, think=Thinking.HIGH)
    model.require()  # the description of a model does not tell this
    with pytest.raises(UnknownModelError, match='think value "high" is not supported'):
        ask(model)


@pytest.mark.parametrize(
    ("name", "think"),
    [(TALKER, Thinking.OFF), (TALKER, None), (THINKER, Thinking.ON), (THINKER, Thinking.OFF)],
)
def test_thinking_is_as_it_is_set(server: str, name: str, think: Thinking | None) -> None:
    assert ask(model_of(server, name, think=think)).message.content


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (TALKER, "smol of Ollama at .* cannot create embeddings; its capabilities are: completion, tools"),
        ("nope", "has no model nope"),
        ("a:b:c", "does not accept a:b:c as the name of a model"),
    ],
)
def test_a_model_that_makes_no_embeddings_is_refused(server: str, name: str, problem: str) -> None:
    with pytest.raises(LanguageModelError, match=problem) as error:
        OllamaEmbedder(server, name).embed(["text"])
    assert type(error.value) is UnknownModelError
