"""Waits for a condition in tests."""

import time
from collections.abc import Callable
from typing import TypeVar

POLL_SECONDS = 0.02
PATIENCE_SECONDS = 180

Value = TypeVar("Value")


def wait_until(condition: Callable[[], Value], what: str, seconds: float = PATIENCE_SECONDS) -> Value:
    """Poll until a condition holds.

    Args:
        condition: Function that returns a true value once the condition holds.
        what: Description of the condition, for the message.
        seconds: Maximum time to wait.

    Returns:
        Value that the condition returned.

    Raises:
        AssertionError: The condition does not hold in time.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s until {what}"
        time.sleep(POLL_SECONDS)
    return value
