"""How long a language model's server is waited for, and when it is asked again. Its errors: failures.py."""

import math
import random
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import count
from typing import TypeVar

from ledgerline.agent.language_model import Listener, ServerBusyError, StreamBrokenError
from ledgerline.agent.messages import Completion, Message, Role, ToolCall, Usage

Result = TypeVar("Result")


@dataclass(frozen=True)
class Deadline:
    """When what is being done has to have an end.

    Attributes:
        seconds: How long it may take altogether.
        at: When that is over, by the clock of time.monotonic().
    """

    seconds: float = math.inf
    at: float = math.inf

    @property
    def seconds_left(self) -> float:
        """How long it may still take; negative when it is too late."""
        return self.at - time.monotonic()


_deadline: ContextVar[Deadline] = ContextVar("deadline", default=Deadline())  # noqa: B039 (frozen)


@contextmanager
def ending_within(seconds: float) -> Iterator[None]:
    """Give what this thread does in the block a deadline; one that is sooner already stays."""
    own = Deadline(seconds, time.monotonic() + seconds)
    token = _deadline.set(min(own, _deadline.get(), key=lambda deadline: deadline.at))
    try:
        yield
    finally:
        _deadline.reset(token)


def deadline() -> Deadline:
    """That of what this thread is doing."""
    return _deadline.get()


@dataclass(frozen=True)
class Retries:
    """How often, and after how long, a server that gave no answer is asked again.

    Attributes:
        attempts: How often it is asked at most.
        first_wait_seconds: Before it is asked again; each further wait is about twice as long.
        wait: Lets time pass.
    """

    attempts: int = 5
    first_wait_seconds: float = 0.25
    wait: Callable[[float], None] = time.sleep

    def run(self, attempt: Callable[[], Result], nothing_came: Callable[[], bool] = lambda: True) -> Result:
        """Ask until there is an answer, as long as nothing has come of one and the deadline is not near.

        Raises:
            LanguageModelError: That of the last attempt.
        """
        for number in count(1):
            try:
                return attempt()
            except (ServerBusyError, StreamBrokenError):
                # Many are sent away at the same moment: by chance, they do not come back at the same one.
                spread = random.uniform(0.5, 1.5)  # noqa: S311 (no secret)
                seconds = self.first_wait_seconds * 2 ** (number - 1) * spread
                if number >= self.attempts or not nothing_came() or seconds >= deadline().seconds_left:
                    raise
                self.wait(seconds)
        raise AssertionError("count() has no end")


@dataclass(frozen=True)
class Ending:
    """What is known of an answer when it has come to its end.

    Attributes:
        reason: Why it ended, as the provider says.
        tokens_per_second: As the provider says, if it does.
    """

    tool_calls: tuple[ToolCall, ...]
    usage: Usage
    model: str
    reason: str
    tokens_per_second: float | None = None
    response_id: str | None = None

    @property
    def finish_reason(self) -> str:
        """Why it ended, as a Completion says it."""
        if self.reason == "length":
            return "length"
        return "tool_calls" if self.tool_calls else "stop"


# Pieces of an answer as they come, an empty one for what is no text, and in the end what is then known.
Answer = Generator[str, None, Ending]


@dataclass
class _Heard:
    listener: Listener
    texts: list[str] = field(default_factory=list)
    first: float | None = None
    last: float = 0.0

    def listen(self, answer: Answer) -> Ending:
        with closing(answer):
            while True:
                try:
                    piece = next(answer)
                except StopIteration as end:
                    return end.value
                self.last = time.monotonic()
                if self.first is None:
                    self.first = self.last
                if piece:
                    self.texts.append(piece)
                    self.listener(piece)

    def tokens_per_second(self, tokens: int) -> float | None:
        if self.first is None or self.last <= self.first or tokens < 2:
            return None
        return (tokens - 1) / (self.last - self.first)


def complete(ask: Callable[[], Answer], listener: Listener, seconds: float, retries: Retries) -> Completion:
    """Listen to an answer to its end; ask again as long as nothing of it has come.

    Args:
        ask: Begins a new answer.
        listener: Told of each piece of text when it comes.
        seconds: How long all of it may take.
        retries: How often to ask.

    Raises:
        LanguageModelError: There is no answer.
    """
    started = time.monotonic()
    heard = _Heard(listener)
    with ending_within(seconds):
        ending = retries.run(lambda: heard.listen(ask()), lambda: heard.first is None)
    return Completion(
        message=Message(Role.ASSISTANT, "".join(heard.texts), ending.tool_calls),
        usage=ending.usage,
        model=ending.model,
        finish_reason=ending.finish_reason,
        seconds_to_first_token=None if heard.first is None else heard.first - started,
        tokens_per_second=ending.tokens_per_second or heard.tokens_per_second(ending.usage.output_tokens),
        response_id=ending.response_id,
    )
