"""Helpers for tests of language models: questions, fakes of both protocols, and checks of errors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from ledgerline.agent.language_model import LanguageModel, LanguageModelError
from ledgerline.agent.messages import Completion, Message, Role, ToolDescription
from ledgerline.agent.ollama_provider import OllamaModel
from ledgerline.agent.openai_provider import OpenAIModel
from ledgerline.agent.retrying import Retries
from ledgerline.testing import fake_ollama, fake_openai
from ledgerline.testing.fake_ollama import FakeOllama
from ledgerline.testing.fake_openai import FakeOpenAI

SECONDS = 20.0
QUESTION = (Message(Role.SYSTEM, "You know flights."), Message(Role.USER, "How many?"))
TOOL = ToolDescription(
    "query_flights",
    "Answers SQL.",
    {
        "type": "object",
        "properties": {
            "sql": {"type": "string", "description": "One SELECT."},
            "limit": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
        },
        "required": ["sql"],
    },
)
IMPATIENT = Retries(first_wait_seconds=0.001)
SECRET = "correct-horse"


@dataclass(frozen=True)
class Provider:
    """A protocol with its fake and its client.

    Attributes:
        kind: Name of the server in errors.
        fake: Class of the fake server.
        model: Class of the language model.
        name: Name of the model on the fake server.
        path: Path of the API.
    """

    kind: str
    fake: type[FakeOllama] | type[FakeOpenAI]
    model: type[OllamaModel] | type[OpenAIModel]
    name: str
    path: str = ""

    def model_at(self, url: str, **settings: object) -> OllamaModel | OpenAIModel:
        """Return a model of the server at a URL."""
        return self.model(f"{url}{self.path}", self.name, **{"retries": IMPATIENT, **settings})


OLLAMA = Provider("Ollama", FakeOllama, OllamaModel, fake_ollama.MODEL)
OPENAI = Provider("OpenAI-compatible server", FakeOpenAI, OpenAIModel, fake_openai.MODEL, "/v1")


def ask(
    model: LanguageModel,
    messages: Sequence[Message] = QUESTION,
    tools: Sequence[ToolDescription] = (TOOL,),
    seconds: float = SECONDS,
    received: list[str] | None = None,
) -> Completion:
    """Complete a conversation, and append the received pieces to a list."""
    return model.complete(messages, tools, seconds, ([] if received is None else received).append)


def failure(kind: type[LanguageModelError], act: Callable[[], object]) -> LanguageModelError:
    """Return the error, which has a remedy in a whole sentence and hides its cause."""
    with pytest.raises(kind) as raised:
        act()
    error = raised.value
    assert type(error) is kind
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None
    assert error.remedy.endswith(".")
    return error
