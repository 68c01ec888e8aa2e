"""The failure no retry can mend. What may pass by itself is an ordinary exception, and retried."""

from collections.abc import Sequence

import dagster as dg


class PermanentFailure(dg.Failure):
    """A step must stop now: its input, its configuration or its surroundings need a person.

    Args:
        problem: What is wrong, naming the thing.
        remedy: What the reader can do about it.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(description=f"{problem} {remedy}", allow_retries=False)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem} {self.remedy}"


def listed(names: Sequence[str]) -> str:
    """Write names as a message lists them: the first five, and how many more there are."""
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
