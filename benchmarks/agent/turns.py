"""Measures what an agent adds to its language model: spans, memory, validation and budgets.

The language model is a fake server in a separate process that responds at once. The same conversation is
executed in several ways: a tool call, its result, and the final answer.
"""

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import mlflow
from ollama import Client
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from pydantic import BaseModel

from benchmarks.context import Context, Result
from benchmarks.processes import milliseconds, spawned
from ledgerline.agent.agent import Agent
from ledgerline.agent.execution import Execution
from ledgerline.agent.memory import Memory
from ledgerline.agent.ollama_provider import OllamaModel
from ledgerline.agent.prompt import Prompt
from ledgerline.agent.recording import Recorder
from ledgerline.agent.tools import ToolResult, describe
from ledgerline.agent.vector_store import Entry
from ledgerline.testing.fake_ollama import MODEL, ChatRequest, FakeOllama, Reply

TURNS, MEMORIES, CONCURRENT, WARM_UP = 2, 1000, 50, 10
QUESTION, ANSWER = "How many flights left JFK?", "There were 38110. Answer: 38110"
SYSTEM = "You answer questions about flights."
CALL = ("count_flights", {"airport": "JFK"})
ALONE = "Ollama's client alone"
RESULT = "flights\n38110\n"


class CountArguments(BaseModel):
    """The arguments of the tool."""

    airport: str


class CountTool:
    """A tool that returns at once."""

    name = CALL[0]
    description = "Counts the flights of an airport."
    arguments = CountArguments

    def call(self, arguments: CountArguments, recorder: Recorder, seconds: float) -> ToolResult:
        """Return a constant."""
        return ToolResult(RESULT)


def measure_turns(context: Context) -> list[Result]:
    """Measure a conversation in several ways, which alternate, and many conversations at the same time."""
    count = context.pick(200, 5)
    with spawned(_serve) as (_, pipe):
        url = pipe.recv()
        agent = _agent(context, OllamaModel(url, MODEL))
        without_memory = Agent(agent.name, agent.model, agent.prompt, agent.tools, recorder=agent.recorder)
        ways = {
            ALONE: partial(_converse, Client(url)),
            "Agent.ask(): spans with content, memory, validation": partial(_ask, agent),
            "the same without memory": partial(_ask, without_memory),
        }
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(count + WARM_UP):
            for way, run in ways.items():
                taken[way] += milliseconds(run)
        # This is the last one, because MLflow writes in the background, which would slow down the others.
        with _traced_by_mlflow(context, Client(url)) as run:
            taken["Ollama's client, @mlflow.trace around each part"] = milliseconds(run, count + WARM_UP)
        concurrent = _concurrent(agent)
    per_turn = {way: [each / TURNS for each in times[WARM_UP:]] for way, times in taken.items()}
    medians = {way: statistics.median(times) for way, times in per_turn.items()}
    rows = [
        (way, medians[way], statistics.quantiles(times, n=100)[98], medians[way] - medians[ALONE])
        for way, times in per_turn.items()
    ]
    title = f"A turn, of {count} executions with {TURNS} turns each, {MEMORIES:,} entries in memory"
    columns = ("conversation", "median, ms", "p99, ms", "more than the client, ms")
    return [Result(title, columns, rows, ("Goal: less than 5 ms more a turn.",)), concurrent]


def _concurrent(agent: Agent) -> Result:
    """Measure many executions in one process, each with another question."""
    barrier = threading.Barrier(CONCURRENT)

    def ask(number: int) -> Execution:
        barrier.wait()
        return agent.ask(f"{QUESTION} ({number})")

    with ThreadPoolExecutor(CONCURRENT) as pool:
        begun = time.perf_counter()
        executions = list(pool.map(ask, range(CONCURRENT)))
        seconds = time.perf_counter() - begun
    mixed = sum(
        execution.answer != f"{ANSWER} ({number})" or execution.turns != TURNS
        for number, execution in enumerate(executions)
    )
    rows = [
        ("seconds", seconds),
        ("executions a second", CONCURRENT / seconds),
        ("traces", len({execution.trace_id for execution in executions})),
        ("answers to another question", mixed),
    ]
    return Result(f"{CONCURRENT} executions at the same time", ("number", "value"), rows)


def _agent(context: Context, model: OllamaModel) -> Agent:
    """Return an agent with all features enabled."""
    memory, now = Memory(context.folder / "memory"), datetime.now(UTC)
    texts = (f"How many flights left airport {number}? {number * 7}." for number in range(MEMORIES))
    memory.remember([Entry(f"{number}", "answer", text, "", now) for number, text in enumerate(texts)])
    provider = TracerProvider()
    # The base class of exporters discards spans.
    provider.add_span_processor(BatchSpanProcessor(SpanExporter()))
    recorder = Recorder(provider.get_tracer("benchmark"), captures=True)
    prompt = Prompt("analyst", f"{SYSTEM} {{{{ memories }}}}", 1)
    return Agent("analyst", model, prompt, [CountTool()], memory, recorder=recorder)


def _ask(agent: Agent) -> None:
    execution = agent.ask(QUESTION)
    assert execution.answer == ANSWER, execution


def _converse(client: Client) -> None:
    """Hold the conversation with the official client alone."""
    messages = _messages()
    for _ in range(TURNS):
        parts = list(client.chat(MODEL, messages, tools=[_tool()], stream=True))
        if any(part.message.tool_calls for part in parts):
            messages += _tool_used()


@contextmanager
def _traced_by_mlflow(context: Context, client: Client) -> Iterator[Callable[[], None]]:
    """Yield a function that does so with MLflow's decorator around the parts that an agent traces."""
    mlflow.set_tracking_uri(f"sqlite:///{context.folder}/mlflow.db")
    mlflow.set_experiment("benchmark")

    construct = mlflow.trace(lambda messages: messages, name="prompt construction")
    use = mlflow.trace(_tool_used, name="execute_tool", span_type="TOOL")

    @mlflow.trace(name="model completion")
    def complete(messages: list[Any]) -> list[Any]:
        return [part.model_dump() for part in client.chat(MODEL, messages, tools=[_tool()], stream=True)]

    @mlflow.trace(name="chat", span_type="CHAT_MODEL")
    def chat(messages: list[Any]) -> list[Any]:
        return complete(construct(messages))

    @mlflow.trace(name="invoke_agent", span_type="AGENT")
    def run() -> None:
        messages = _messages()
        for _ in range(TURNS):
            if any(part["message"]["tool_calls"] for part in chat(messages)):
                messages += use()

    yield run
    mlflow.flush_trace_async_logging(terminate=True)


def _serve(pipe: Connection) -> None:
    """Run a fake Ollama that responds at once, and send its URL."""

    def reply(request: ChatRequest) -> Reply:
        question = next(message["content"] for message in request.messages if message["role"] == "user")
        if request.messages[-1]["role"] != "tool":
            return Reply(tool_calls=(CALL,))
        return Reply(pieces=(ANSWER, question.removeprefix(QUESTION)))

    with FakeOllama(reply) as fake:
        pipe.send(fake.url)
        pipe.recv()  # It waits until this process is ended.


def _messages() -> list[Any]:
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]


def _tool_used() -> list[Any]:
    name, arguments = CALL
    return [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": name, "arguments": arguments}}],
        },
        {"role": "tool", "content": RESULT, "tool_name": name},
    ]


def _tool() -> dict[str, Any]:
    tool = describe(CountTool())
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}
