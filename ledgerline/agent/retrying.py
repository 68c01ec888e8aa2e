"""Time limits and retries of requests to a language model's server. Its errors are in failures.py."""

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
    """The time at which the current work must have ended.

    Attributes:
        seconds: Time limit of the work in seconds.
        at: Time of the deadline by the clock of time.monotonic().
    """

    seconds: float = math.inf
    at: float = math.inf

    @property
    def seconds_left(self) -> float:
        """The seconds until the deadline; negative after it."""
        return self.at - time.monotonic()


_deadline: ContextVar[Deadline] = ContextVar("deadline", default=Deadline())  # noqa: B039 (frozen)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Set a deadline for the work of this thread in the block; an earlier deadline stays in force."""
    own = Deadline(seconds, time.monotonic() + seconds)
    token = _deadline.set(min(own, _deadline.get(), key=lambda deadline: deadline.at))
    try:
        yield
    finally:
        _deadline.reset(token)


def deadline() -> Deadline:
    """Return the deadline of this thread's current work."""
    return _deadline.get()


@dataclass(frozen=True)
class Retries:
    """The number of attempts and the delays between them.

    Attributes:
        attempts: Maximum number of attempts.
        first_wait_seconds: Delay after the first attempt; each further delay is about twice as long.
        wait: Function that waits for a number of seconds.
    """

    attempts: int = 5
    first_wait_seconds: float = 0.25
    wait: Callable[[float], None] = time.sleep

    def run(self, attempt: Callable[[], Result], may_retry: Callable[[], bool] = lambda: True) -> Result:
        """Repeat an attempt while the server is busy or closes the connection, within the deadline.

        Args:
            attempt: Function that sends the request.
            may_retry: Function that returns False once a retry would repeat a part of the response.

        Raises:
            LanguageModelError: The error of the last attempt.
        """
        for number in count(1):
            try:
                return attempt()
            except (ServerBusyError, StreamBrokenError):
                # Random delays prevent clients that were rejected at the same time from retrying at the same
                # time.
                spread = random.uniform(0.5, 1.5)  # noqa: S311 (no secret)
                seconds = self.first_wait_seconds * 2 ** (number - 1) * spread
                if number >= self.attempts or not may_retry() or seconds >= deadline().seconds_left:
                    raise
                self.wait(seconds)
        raise AssertionError("count() has no end")


@dataclass(frozen=True)
class StreamEnd:
    """The data that is known at the end of a streamed response.

    Attributes:
        tool_calls: Tool calls that the model requests.
        usage: Tokens of the request and the response.
        model: Name of the model, as the provider reports it.
        reason: Reason why the response ended, as the provider reports it.
        tokens_per_second: Output tokens per second, if the provider reports them.
        response_id: Identifier of the response, if the provider gives one.
    """

    tool_calls: tuple[ToolCall, ...]
    usage: Usage
    model: str
    reason: str
    tokens_per_second: float | None = None
    response_id: str | None = None

    @property
    def finish_reason(self) -> str:
        """The reason in the words of a Completion."""
        if self.reason == "length":
            return "length"
        return "tool_calls" if self.tool_calls else "stop"


# Yields the pieces of a response, an empty text for each piece that is not text, and returns its end.
ResponseStream = Generator[str, None, StreamEnd]


@dataclass
class _StreamReader:
    listener: Listener
    texts: list[str] = field(default_factory=list)
    first: float | None = None
    last: float = 0.0

    def read(self, stream: ResponseStream) -> StreamEnd:
        with closing(stream):
            while True:
                try:
                    piece = next(stream)
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


def complete(
    begin: Callable[[], ResponseStream], listener: Listener, seconds: float, retries: Retries
) -> Completion:
    """Read a streamed response to its end; retry only as long as no part of it was received.

    Args:
        begin: Function that sends the request and returns a new stream.
        listener: Function that is called with each piece of text.
        seconds: Time limit of all attempts together.
        retries: Number of attempts and delays.

    Raises:
        LanguageModelError: There is no complete response.
    """
    started = time.monotonic()
    reader = _StreamReader(listener)
    with time_limit(seconds):
        end = retries.run(lambda: reader.read(begin()), lambda: reader.first is None)
    return Completion(
        message=Message(Role.ASSISTANT, "".join(reader.texts), end.tool_calls),
        usage=end.usage,
        model=end.model,
        finish_reason=end.finish_reason,
        seconds_to_first_token=None if reader.first is None else reader.first - started,
        tokens_per_second=end.tokens_per_second or reader.tokens_per_second(end.usage.output_tokens),
        response_id=end.response_id,
    )
