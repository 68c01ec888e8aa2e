"""Waiting for other processes in tests, by their effects."""

import time
from collections.abc import Callable
from typing import TypeVar

POLL_SECONDS = 0.02
PATIENCE_SECONDS = 180

Found = TypeVar("Found")


def wait_until(condition: Callable[[], Found], what: str, seconds: float = PATIENCE_SECONDS) -> Found:
    """Poll until a condition holds.

    Args:
        condition: Returns something true once it holds.
        what: The condition in words, for the message.
        seconds: The most to wait.

    Returns:
        What the condition returned.

    Raises:
        AssertionError: It does not hold in time.
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s until {what}"
        time.sleep(POLL_SECONDS)
    return found
