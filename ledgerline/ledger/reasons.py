"""Groups failures by their reason, so that many runs with the same failure are reported in one line."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

# Ids, numbers, times and names of temporary files differ between failures with the same reason.
OF_ONE_CASE = re.compile(r"[\w.:-]*\d[\w.:-]*")


@dataclass(frozen=True)
class Reason:
    """A reason for one or more failures, with the name of one run or backfill that failed and its error."""

    example: str
    text: str
    count: int


def by_reason(failures: Mapping[str, str]) -> list[Reason]:
    """Group failures by reason, the most frequent first. Ids and numbers in their texts are ignored."""
    alike: dict[str, list[str]] = {}
    for failed, text in failures.items():
        alike.setdefault(OF_ONE_CASE.sub("#", text.replace(failed, "#")), []).append(failed)
    reasons = [Reason(failed[0], failures[failed[0]], len(failed)) for failed in alike.values()]
    return sorted(reasons, key=lambda reason: -reason.count)
