"""Records of an agent's executions, their budgets, and watchers. The agent itself is in agent.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from ledgerline.agent.memory import Recalled
from ledgerline.agent.messages import ToolCall, Usage


class Limit(StrEnum):
    """The limit that stopped an execution."""

    TURNS = "turns"
    TOKENS = "tokens"
    SECONDS = "seconds"
    LENGTH = "length"  # the limit of a single response of the model


class Outcome(StrEnum):
    """The ways in which an execution can end. Only the first is a success."""

    ANSWERED = "answered"
    NO_FINDING = "no_finding"  # there is text, but it does not state what was asked for
    EMPTY = "empty"  # there is neither text nor a tool call that could be parsed
    STOPPED = "stopped"  # a limit was reached


@dataclass(frozen=True)
class Budget:
    """Limits of one execution.

    Attributes:
        turns: Maximum number of completions; no tools are offered in the last one.
        tool_calls: Maximum number of tool calls; further calls return an error to the model.
        tokens: Maximum of input and output tokens together, as the provider counts them. It is checked
            after each turn.
        seconds: Time limit of the whole execution.
    """

    turns: int = 8
    tool_calls: int = 16
    tokens: int = 50_000
    seconds: float = 180.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise ValueError(f"The budget for {name} is {value:g}; it must be above 0.")


@dataclass(frozen=True)
class ToolUse:
    """A tool call and its result.

    Attributes:
        result: Text that was returned to the model.
        failed: True if the text is an error.
        seconds: Duration of the call.
    """

    call: ToolCall
    result: str
    failed: bool
    seconds: float


@dataclass(frozen=True)
class Execution:
    """An execution of an agent, from its question to its answer.

    Attributes:
        answer: Last text of the model; empty if a limit was reached before the model wrote any.
        finding: Fact that the answer states; None if the answer states no fact.
        stopped_by: Limit that was reached; None if no limit was reached.
        turns: Number of completions of the language model.
        tools: Tool calls in their order.
        recalled: Entries of memory that the prompt contained.
        seconds: Seconds from the question to the answer.
        model: Name of the model, as the provider reports it.
        prompt: Name of the prompt.
        prompt_version: Version of the prompt in the registry; None if it is not registered.
        trace_id: Id of the trace, 32 hexadecimal digits; None if the execution was not traced.
        span_id: Id of the execution's span, 16 hexadecimal digits; None if it was not traced.
    """

    question: str
    answer: str
    finding: str | None
    stopped_by: Limit | None
    turns: int
    tools: tuple[ToolUse, ...]
    recalled: tuple[Recalled, ...]
    usage: Usage
    seconds: float
    model: str
    prompt: str
    prompt_version: int | None
    trace_id: str | None
    span_id: str | None

    @property
    def outcome(self) -> Outcome:
        """The way in which the execution ended."""
        if self.stopped_by is not None:
            return Outcome.STOPPED
        if not self.answer:
            return Outcome.EMPTY
        return Outcome.NO_FINDING if self.finding is None else Outcome.ANSWERED

    @property
    def used_tools(self) -> bool:
        """True if a tool call succeeded; otherwise the answer comes from the model or from memory."""
        return any(not use.failed for use in self.tools)


class Watcher:
    """Receives the events of an execution while it runs; this class ignores them."""

    def recalled(self, memories: Sequence[Recalled]) -> None:
        """Handle the entries that were recalled from memory."""

    def recall_failed(self, why: str) -> None:
        """Handle an error of memory; the execution continues without it."""

    def turn_begins(self, number: int) -> None:
        """Handle the beginning of a turn; the first has the number 1."""

    def text_received(self, piece: str) -> None:
        """Handle a piece of text from the language model."""

    def tool_called(self, call: ToolCall) -> None:
        """Handle a tool call before it runs."""

    def tool_returned(self, use: ToolUse) -> None:
        """Handle the result of a tool call, which may be an error."""
