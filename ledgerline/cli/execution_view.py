"""Prints the execution of an agent to the terminal while it happens. The agent is in agent/."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from ledgerline.agent.execution import Execution, Outcome, ToolUse, Watcher
from ledgerline.agent.memory import Recalled
from ledgerline.agent.messages import ToolCall

MAX_LINES = 6  # of the output of a tool
MAX_CHARACTERS = 110  # of a line
NO_ANSWER = {
    Outcome.EMPTY: "The response of the language model is empty, or has a tool call that cannot be parsed. "
    "Rephrase the question, or choose a model that calls tools more reliably.",
    Outcome.NO_FINDING: "The answer does not state a finding, and is not remembered. Rephrase the question, "
    "or choose a larger model.",
}
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class ExecutionView(Watcher):
    """Prints the finished parts of an execution, and below them the current one, on a terminal only."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._doing = "starting"
        self._since = time.monotonic()
        self._received = ""
        self._live = Live(get_renderable=self._render, console=console, transient=True, refresh_per_second=8)

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._console.quiet:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def recalled(self, memories: Sequence[Recalled]) -> None:
        """Print the entries that were recalled from memory."""
        if memories:
            self._print("memory", f"relevant entries: {len(memories)}")
        for recalled in memories:
            self._detail(f"{recalled.relevance:.2f}  {recalled.entry.text}")

    def recall_failed(self, why: str) -> None:
        """Print why the memory cannot be used."""
        self._print("memory", f"not used: {why}", style="yellow")

    def turn_begins(self, number: int) -> None:
        """Print that the language model is working."""
        self._now(f"thinking, turn {number}")

    def text_received(self, piece: str) -> None:
        """Print a piece of the response of the language model."""
        self._received += piece

    def tool_called(self, call: ToolCall) -> None:
        """Print a call of a tool by the language model."""
        self._print(call.name, _readable(call.arguments))
        self._now(call.name)

    def tool_returned(self, use: ToolUse) -> None:
        """Print the output of a tool."""
        lines = use.result.strip().splitlines()
        for line in lines[:MAX_LINES]:
            self._detail(line, style="red" if use.failed else "dim")
        if len(lines) > MAX_LINES:
            self._detail(f"… {len(lines) - MAX_LINES} more lines")
        self._now("thinking")

    def _now(self, doing: str) -> None:
        self._doing, self._since, self._received = doing, time.monotonic(), ""

    def _print(self, what: str, text: str, style: str = "") -> None:
        self._console.print(
            Text.assemble((f"{printable(what)}  ", "bold cyan"), (printable(text), style)), soft_wrap=True
        )

    def _detail(self, line: str, style: str = "dim") -> None:
        text = printable(line.replace("\n", "  "))
        if len(text) > MAX_CHARACTERS:
            text = f"{text[:MAX_CHARACTERS]}…"
        self._console.print(Text(f"    {text}", style), no_wrap=True, overflow="ellipsis")

    def _render(self) -> RenderableType:
        seconds = time.monotonic() - self._since
        status = Spinner("dots", Text(f"{printable(self._doing)} …  {seconds:.0f} s", "dim"))
        return Group(Text(printable(self._received)), status) if self._received else status


def print_execution(console: Console, execution: Execution, trace_page: str | None) -> None:
    """Print the answer, its duration and tokens, and the URL of its trace."""
    console.print()
    console.print(Text(printable(execution.answer) or "There is no answer.", "bold"), soft_wrap=True)
    if execution.stopped_by is not None:
        limit = f"The limit of {execution.stopped_by.value} ended the execution (LEDGERLINE_AGENT_*)."
        console.print(Text(limit, "red"))
    elif execution.outcome in NO_ANSWER:
        console.print(Text(NO_ANSWER[execution.outcome], "red"), soft_wrap=True)
    usage = execution.usage
    tools = f", {len(execution.tools)} tool calls" if execution.tools else ""
    version = "" if execution.prompt_version is None else f" version {execution.prompt_version}"
    facts = (
        f"{execution.seconds:.1f} s, {execution.turns} turns{tools}, {usage.input_tokens:,} tokens in, "
        f"{usage.output_tokens:,} out, {execution.model}, prompt {execution.prompt}{version}"
    )
    console.print()
    console.print(Text(facts, "dim"), soft_wrap=True)
    if trace_page is not None:
        console.print(Text(f"trace: {trace_page}", "dim"), soft_wrap=True)


def printable(text: str) -> str:
    """Return a text without control characters, which models, tools and web pages may contain."""
    return "".join(
        character if character.isprintable() or character in "\n\t" else REPLACEMENT for character in text
    )


def _readable(arguments: Mapping[str, Any] | str) -> str:
    """Return arguments as text; a single text argument without its name."""
    if isinstance(arguments, str):
        return arguments
    match list(arguments.values()):
        case [str(only)]:
            return " ".join(only.split())
    return json.dumps(dict(arguments))
