"""What an agent's bookkeeping costs: spans, memory, validation and budgets, beside the bare conversation.

    .venv/bin/python -m benchmarks.agent [--executions 200] [--json FILE]

The language model is a fake server in a process of its own, which answers at once: what is measured is what
is around the model. Each way has the same conversation: a tool call, its answer, and the final answer.
"""

import argparse
import json
import multiprocessing
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from pydantic import BaseModel
from rich.console import Console

from benchmarks.results import Result
from ledgerline.agent.agent import Agent
from ledgerline.agent.memory import Memory
from ledgerline.agent.messages import Message, Role
from ledgerline.agent.ollama_provider import OllamaModel
from ledgerline.agent.prompt import Prompt
from ledgerline.agent.recording import Recorder
from ledgerline.agent.tools import ToolAnswer, describe
from ledgerline.agent.vector_store import Entry

WIDTH = 132  # where the output is no terminal
TURNS = 2
MEMORIES = 1000
AT_ONCE = 50
WARM_UP = 10
QUESTION = "How many flights left JFK?"
ANSWER = "There were 38110. Answer: 38110"
PROMPT = Prompt("analyst", "You answer questions about flights. {{ memories }}", 1)
GOAL_MS = 5


class Counted(BaseModel):
    """What the tool takes."""

    airport: str


class CountTool:
    """A tool that knows its answer, so that it takes no time."""

    name = "count_flights"
    description = "Counts the flights of an airport."
    arguments = Counted

    def call(self, arguments: Counted, recorder: Recorder, seconds: float) -> ToolAnswer:
        """Say it."""
        return ToolAnswer("flights\n38110\n")


class Nowhere(SpanExporter):
    """Takes spans, and counts them."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Take them."""
        self.spans.extend(spans)
        return SpanExportResult.SUCCESS


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--executions", type=int, default=200, help="of each way, in turns")
    parser.add_argument("--json", type=Path, help="a file to write all numbers to")
    arguments = parser.parse_args()

    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    about = {
        "processors": psutil.cpu_count(),
        "load": round(psutil.getloadavg()[0], 2),
        "python": platform.python_version(),
        "ollama": version("ollama"),
        "mlflow": version("mlflow"),
    }
    console.print(about)
    with fake_ollama() as (url, model_name), tempfile.TemporaryDirectory() as folder:
        exporter = Nowhere()
        agent = analyst(url, model_name, Path(folder), exporter)
        results = [
            one_after_the_other(agent, url, model_name, folder, arguments.executions),
            at_once(agent, exporter),
        ]
    for result in results:
        result.show(console)
    if arguments.json is not None:
        told = {"machine": about, "results": [result.as_json() for result in results]}
        arguments.json.write_text(json.dumps(told, indent=2) + "\n")


def analyst(url: str, model_name: str, folder: Path, exporter: SpanExporter) -> Agent:
    """An agent with everything switched on."""
    memory = Memory(folder / "memory")
    now = datetime.now(UTC)
    memory.remember(
        [
            Entry(f"{n}", "answer", f"How many flights left airport {n}? {n * 7}.", "", now)
            for n in range(MEMORIES)
        ]
    )
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    recorder = Recorder(provider.get_tracer("benchmark"), captures=True)
    return Agent("analyst", OllamaModel(url, model_name), PROMPT, [CountTool()], memory, recorder=recorder)


def one_after_the_other(agent: Agent, url: str, model_name: str, folder: str, count: int) -> Result:
    """The same conversation in several ways, in turns."""
    ways: dict[str, Callable[[], None]] = {
        "Ollama's client alone": bare(url, model_name),
        "our provider alone": provided(agent),
        "Agent.ask(): spans with content, memory, validation": lambda: _asked(agent),
        "the same without memory": lambda: _asked(_without_memory(agent)),
    }
    took: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(count + WARM_UP):
        for way, run in ways.items():
            seconds = _seconds(run)
            if number >= WARM_UP:
                took[way].append(1000 * seconds / TURNS)
    # By itself, after the others: it writes in the background, which would slow them down.
    with traced_by_mlflow(url, model_name, folder) as run:
        times = [1000 * _seconds(run) / TURNS for _ in range(count + WARM_UP)]
        took["Ollama's client, @mlflow.trace around each part"] = times[WARM_UP:]
    least = statistics.median(took["Ollama's client alone"])
    rows = []
    for way, times in took.items():
        median = statistics.median(times)
        rows.append((way, median, statistics.quantiles(times, n=100)[98], median - least))
    return Result(
        "turns",
        f"A turn, of {count} executions with {TURNS} turns each, {MEMORIES:,} entries in memory",
        ("how", "median, ms", "p99, ms", "more than the client, ms"),
        rows,
        (f"Goal: bookkeeping under {GOAL_MS} ms a turn.",),
    )


def at_once(agent: Agent, exporter: Nowhere) -> Result:
    """Many executions in one process, each with a question of its own."""
    exporter.spans.clear()
    barrier = threading.Barrier(AT_ONCE)

    def ask(number: int) -> Any:
        barrier.wait()
        return agent.ask(f"{QUESTION} ({number})")

    started = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        executions = list(pool.map(ask, range(AT_ONCE)))
    seconds = time.perf_counter() - started
    mixed = sum(
        execution.answer != f"{ANSWER} ({number})" or execution.turns != TURNS
        for number, execution in enumerate(executions)
    )
    traces = len({execution.trace_id for execution in executions})
    rows = [
        ("seconds", seconds),
        ("executions a second", AT_ONCE / seconds),
        ("traces", traces),
        ("answers that are another's", mixed),
    ]
    return Result("at once", f"{AT_ONCE} executions at once", ("what", "value"), rows)


def bare(url: str, model_name: str) -> Callable[[], None]:
    """The conversation with the official client, and nothing else."""
    from ollama import Client

    client = Client(url)

    def run() -> None:
        messages = _messages()
        tools = [_tool()]
        for _ in range(TURNS):
            calls = [
                call
                for part in client.chat(model_name, messages, tools=tools, stream=True)
                for call in part.message.tool_calls or ()
            ]
            if calls:
                messages += _called()

    return run


def provided(agent: Agent) -> Callable[[], None]:
    """The conversation with our provider, and nothing else."""
    offered = [describe(CountTool())]

    def run() -> None:
        messages = [Message(Role.SYSTEM, "You answer questions about flights."), Message(Role.USER, QUESTION)]
        for _ in range(TURNS):
            said = agent.model.complete(messages, offered, 60, lambda piece: None).message
            messages.append(said)
            messages += [Message(Role.TOOL, "flights\n38110\n", answers=call) for call in said.tool_calls]

    return run


@contextmanager
def traced_by_mlflow(url: str, model_name: str, folder: str) -> Iterator[Callable[[], None]]:
    """The conversation with the official client, with MLflow's decorator around the same parts."""
    import mlflow
    from ollama import Client

    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.set_experiment("benchmark")
    client = Client(url)

    @mlflow.trace(name="prompt construction")
    def construct(messages: list[Any]) -> list[Any]:
        return messages

    @mlflow.trace(name="model completion")
    def complete(messages: list[Any]) -> list[Any]:
        return [part.model_dump() for part in client.chat(model_name, messages, tools=[_tool()], stream=True)]

    @mlflow.trace(name="chat", span_type="CHAT_MODEL")
    def chat(messages: list[Any]) -> list[Any]:
        return complete(construct(messages))

    @mlflow.trace(name="execute_tool", span_type="TOOL")
    def use() -> list[Any]:
        return _called()

    @mlflow.trace(name="invoke_agent", span_type="AGENT")
    def run() -> None:
        messages = _messages()
        for _ in range(TURNS):
            if any(part["message"]["tool_calls"] for part in chat(messages)):
                messages += use()

    yield run
    mlflow.flush_trace_async_logging(terminate=True)


def _seconds(run: Callable[[], None]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


@contextmanager
def fake_ollama() -> Iterator[tuple[str, str]]:
    """A server that answers at once, in a process of its own: its address, and the model it has."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        ours.send("end")
        process.join()


def _serve(pipe: Connection) -> None:
    from ledgerline.testing.fake_ollama import MODEL, ChatRequest, FakeOllama, Reply

    def reply(request: ChatRequest) -> Reply:
        asked = next(said["content"] for said in request.messages if said["role"] == "user")
        if request.messages[-1]["role"] != "tool":
            return Reply(tool_calls=(("count_flights", {"airport": "JFK"}),))
        return Reply(pieces=(ANSWER, asked.removeprefix(QUESTION)))

    with FakeOllama(reply) as fake:
        pipe.send((fake.url, MODEL))
        pipe.recv()


def _asked(agent: Agent) -> None:
    execution = agent.ask(QUESTION)
    assert execution.answer == ANSWER, execution


def _without_memory(agent: Agent) -> Agent:
    return Agent(agent.name, agent.model, agent.prompt, agent.tools, recorder=agent.recorder)


def _messages() -> list[Any]:
    return [
        {"role": "system", "content": "You answer questions about flights."},
        {"role": "user", "content": QUESTION},
    ]


def _called() -> list[Any]:
    call = {"function": {"name": "count_flights", "arguments": {"airport": "JFK"}}}
    return [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "flights\n38110\n", "tool_name": "count_flights"},
    ]


def _tool() -> dict[str, Any]:
    described = describe(CountTool())
    return {
        "type": "function",
        "function": {
            "name": described.name,
            "description": described.description,
            "parameters": dict(described.parameters),
        },
    }


if __name__ == "__main__":
    main()
