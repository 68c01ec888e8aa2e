"""Tests the resource that opens agents: what it passes on, refuses, and keeps secret."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracer

from ledgerline.agent.execution import Budget
from ledgerline.agent.memory import Memory
from ledgerline.agent.ollama_provider import OllamaModel
from ledgerline.agent.openai_provider import OpenAIModel
from ledgerline.agent.prompt import Prompt
from ledgerline.dagster.agent import SECRET_VARIABLES, AgentResource
from ledgerline.dagster.failures import PermanentFailure
from ledgerline.testing.fake_ollama import EMBEDDING_MODEL, MODEL, Analyst, FakeOllama

PROMPT = Prompt("terse", "Be terse.", 3)


@pytest.fixture
def fake() -> Iterator[FakeOllama]:
    with FakeOllama(Analyst({})) as fake:
        yield fake


def resource(**changes: Any) -> AgentResource:
    return AgentResource(
        **{"provider": "ollama", "address": "http://127.0.0.1:11434", "model": MODEL, **changes}
    )


def test_every_field_is_described_for_dagsters_pages() -> None:
    fields = AgentResource.model_fields
    assert [name for name, field in fields.items() if not field.description] == []


@pytest.mark.parametrize(("provider", "kind"), [("ollama", OllamaModel), ("openai", OpenAIModel)])
def test_the_provider_decides_the_protocol(provider: str, kind: type[OllamaModel | OpenAIModel]) -> None:
    model = resource(provider=provider, temperature=0.5, seed=7, output_tokens=99).language_model()
    assert isinstance(model, kind)
    assert model.model == MODEL
    assert model.settings == {"temperature": 0.5, "seed": 7, "max_tokens": 99}


def test_an_existing_model_is_not_a_problem(fake: FakeOllama) -> None:
    resource(address=fake.url).require()
    assert fake.requests == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"address": "http://127.0.0.1:9"}, "No Ollama responds at http://127.0.0.1:9"),
        ({"model": "nobody:1b"}, "nobody:1b"),
        ({"model": EMBEDDING_MODEL}, "cannot call tools"),
        ({"address": "http://127.0.0.1:99999"}, "is not the address of a server"),
        ({"provider": "openai", "address": "http://:0"}, "is not the address of a server"),
    ],
)
def test_an_unusable_model_is_not_retried(changes: dict[str, str], problem: str, fake: FakeOllama) -> None:
    with pytest.raises(PermanentFailure, match=problem) as caught:
        resource(**{"address": fake.url, **changes}).require()
    assert caught.value.remedy


def test_an_agent_has_the_budget_and_the_tools_that_were_configured(fake: FakeOllama) -> None:
    configured = resource(address=fake.url, turns=3, tool_calls=4, tokens=500, seconds=6.5)
    agent = configured.agent("analyst", PROMPT, [], None, NoOpTracer())
    assert agent.budget == Budget(3, 4, 500, 6.5)
    assert agent.prompt == PROMPT
    assert agent.tools == []
    searching = resource(search_url="http://127.0.0.1:9").agent("analyst", PROMPT, [], None, NoOpTracer())
    assert [tool.name for tool in searching.tools] == ["web_search"]


@pytest.mark.parametrize("name", SECRET_VARIABLES)
def test_no_secret_of_the_environment_is_in_a_trace(
    name: str, fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "authorization=pa55-word-1,tok3n-word-2" if "HEADERS" in name else "pa55-word-1")
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    configured = resource(address=fake.url, captures=True)
    agent = configured.agent("analyst", PROMPT, [], None, provider.get_tracer("test"))
    agent.ask("Is pa55-word-1 the password?")
    recorded = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert "the password?" in recorded
    assert "pa55-word-1" not in recorded


def test_messages_are_recorded_only_where_it_is_configured(fake: FakeOllama) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    resource(address=fake.url).agent("analyst", PROMPT, [], None, provider.get_tracer("test")).ask("Why?")
    assert "Why?" not in "".join(span.to_json() for span in exporter.get_finished_spans())


def test_without_a_folder_there_is_no_memory() -> None:
    assert resource().open_memory() is None


def test_opening_a_memory_creates_nothing(tmp_path: Path) -> None:
    memory = resource(memory=str(tmp_path / "memory"), embedding_model="nomic-embed-text").open_memory()
    assert isinstance(memory, Memory)
    assert list(tmp_path.iterdir()) == []
