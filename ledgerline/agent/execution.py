"""What an execution of an agent did, how far it may go, and who may watch. How it goes: agent.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from ledgerline.agent.memory import Recalled
from ledgerline.agent.messages import ToolCall, Usage


class Limit(StrEnum):
    """What an execution ran into."""

    TURNS = "turns"
    TOKENS = "tokens"
    SECONDS = "seconds"
    LENGTH = "length"  # of what the model may say at once


class Outcome(StrEnum):
    """The ways in which an execution can end. Only the first is a success."""

    ANSWERED = "answered"
    NO_FINDING = "no_finding"  # there is text, but not what was asked for
    EMPTY = "empty"  # there is no text, and no tool call that could be read
    STOPPED = "stopped"  # by a limit


@dataclass(frozen=True)
class Budget:
    """How far an execution may go.

    Attributes:
        turns: Completions of the language model; in the last it is offered no tools.
        tool_calls: All of them together; more are answered with a refusal.
        tokens: In and out together, as the provider counts them. Looked at after each turn.
        seconds: For everything.
    """

    turns: int = 8
    tool_calls: int = 16
    tokens: int = 50_000
    seconds: float = 180.0

    def __post_init__(self) -> None:
        for name in ("turns", "tool_calls", "tokens", "seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"The budget for {name} is {getattr(self, name):g}; it must be above 0.")


@dataclass(frozen=True)
class ToolUse:
    """A tool call and what came of it.

    Attributes:
        answer: What the model was told.
        failed: Whether that says what went wrong.
    """

    call: ToolCall
    answer: str
    failed: bool
    seconds: float


@dataclass(frozen=True)
class Execution:
    """An execution of an agent, from its question to its answer.

    Attributes:
        answer: What the model said in the end; empty if it did not get that far.
        finding: What the answer states; None: it states nothing.
        stopped_by: The limit it ran into; None: it came to an end by itself.
        turns: Completions of the language model.
        model: As the provider names it.
        prompt: Name of the prompt.
        prompt_version: In the prompt registry, if it is there.
        seconds: From the question to the answer.
        trace_id: Its trace, 32 hexadecimal digits; None: nothing was traced.
        span_id: Its span in it, 16 hexadecimal digits.
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
    def looked_up(self) -> bool:
        """True if a tool call succeeded; otherwise the answer is the model's own, or from memory."""
        return any(not use.failed for use in self.tools)


class Watcher:
    """Told what an execution does, while it does it; this one does nothing with it."""

    def recalled(self, memories: Sequence[Recalled]) -> None:
        """What was found in memory."""

    def forgot(self, why: str) -> None:
        """Memory could not be asked; it goes on without."""

    def turn_begins(self, number: int) -> None:
        """The language model is asked, the first time with 1."""

    def heard(self, piece: str) -> None:
        """A piece of text came from the language model."""

    def tool_called(self, call: ToolCall) -> None:
        """The language model asked for a tool."""

    def tool_answered(self, use: ToolUse) -> None:
        """The tool did it, or failed."""
