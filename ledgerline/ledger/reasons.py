"""Failures by what they have in common: many runs that fail for one reason are one line."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

# Ids, numbers, times and names of temporary files: all that differs in what is the same for many runs.
OF_ONE_CASE = re.compile(r"[\w.:-]*\d[\w.:-]*")


@dataclass(frozen=True)
class Reason:
    """A reason why some things could not be shown.

    Attributes:
        example: One of them.
        text: What was said of that one.
        count: How many there are.
    """

    example: str
    text: str
    count: int


def by_reason(failures: Mapping[str, str]) -> list[Reason]:
    """Return one reason for failures that differ in ids and numbers only, the most frequent first."""
    alike: dict[str, list[str]] = {}
    for failed, text in failures.items():
        alike.setdefault(OF_ONE_CASE.sub("#", text.replace(failed, "#")), []).append(failed)
    reasons = [Reason(failed[0], failures[failed[0]], len(failed)) for failed in alike.values()]
    return sorted(reasons, key=lambda reason: -reason.count)
