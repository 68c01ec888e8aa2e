"""Time limits and retries of requests to a language model's server. Its errors are in failures.py."""

import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

from ledgerline.agent.language_model import ServerBusyError, StreamBrokenError

Result = TypeVar("Result")


@dataclass(frozen=True)
class Deadline:
    """The time at which the current work must have ended.

    Attributes:
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
