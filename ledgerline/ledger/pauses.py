"""Decides how long an observer waits before it retries a run. projection.py defines the failures."""

import time
from collections.abc import Container
from dataclasses import dataclass

FIRST_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 300

# Most outages are short.
TRIES_WITHOUT_PAUSE = 4
FIRST_OUTAGE_SECONDS = 1.0
LONGEST_OUTAGE_SECONDS = 60.0


@dataclass
class _Pause:
    seconds: float
    until: float
    outage: str | None
    tries: int = 1


class Pauses:
    """The pauses of runs. Each pause of a run is twice as long as the one before.

    An outage is over when one of the affected runs is exported. Then all others are retried at once.
    """

    def __init__(self) -> None:
        self._pauses: dict[str, _Pause] = {}

    def __contains__(self, run_id: str) -> bool:
        pause = self._pauses.get(run_id)
        return pause is not None and time.monotonic() < pause.until

    @property
    def outage(self) -> str | None:
        """The error of the unavailable target; None if no run waits for it."""
        return next((pause.outage for pause in self._pauses.values() if pause.outage is not None), None)

    def failed(self, run_id: str) -> None:
        """Pause a run that cannot be exported although the target is available."""
        before = self._pauses.get(run_id)
        seconds = FIRST_SECONDS
        if before is not None and before.outage is None:
            seconds = min(before.seconds * 2, LONGEST_PAUSE_SECONDS)
        self._pauses[run_id] = _Pause(seconds, time.monotonic() + seconds, None)

    def unavailable(self, run_id: str, outage: str) -> None:
        """Pause a run whose target is unavailable."""
        before = self._pauses.get(run_id)
        tries, seconds = 1, 0.0
        if before is not None and before.outage is not None:
            tries = before.tries + 1
        if before is not None and tries > TRIES_WITHOUT_PAUSE:
            seconds = min(before.seconds * 2 or FIRST_OUTAGE_SECONDS, LONGEST_OUTAGE_SECONDS)
        self._pauses[run_id] = _Pause(seconds, time.monotonic() + seconds, outage, tries)

    def exported(self, run_id: str) -> None:
        """End the pause of an exported run and, if it was due to an outage, the pauses of the others."""
        pause = self._pauses.pop(run_id, None)
        if pause is not None and pause.outage is not None:
            self._pauses = {run: other for run, other in self._pauses.items() if other.outage is None}

    def keep_only(self, run_ids: Container[str]) -> None:
        """Remove all runs but those that are still followed."""
        self._pauses = {run: pause for run, pause in self._pauses.items() if run in run_ids}
