"""What every projection of runs has in common. Who drives them: observer.py."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import dagster as dg

from ledgerline.cleaning.texts import clean
from ledgerline.ledger.history import RunHistory

MAX_LISTED = 10  # parts in one message


class TargetUnavailableError(Exception):
    """What a projection writes to does not take it now; the message names it. Nothing is lost: try later.

    Secrets are taken out of the message: libraries repeat addresses in their errors.
    """

    def __init__(self, message: str) -> None:
        super().__init__(clean(message))


class RefusedError(Exception):
    """Parts of a run that the target will never take; all others are written, and the run counts as shown.

    Args:
        target: What refuses them, and where it is.
        left_out: What is refused, and why.
        written: How many things were written.
    """

    def __init__(self, target: str, left_out: Mapping[str, str], written: int) -> None:
        parts = [f"{what} ({why})" for what, why in left_out.items()]
        more = len(parts) - MAX_LISTED
        listed = "; ".join(parts[:MAX_LISTED]) + (f"; and {more} more" if more > 0 else "")
        super().__init__(clean(f"{target} refuses, and is shown without: {listed}"))
        self.left_out = left_out
        self.written = written


class NotYetError(Exception):
    """A run cannot be shown to its end for the moment, for a reason of its own that passes; others can."""


@dataclass(frozen=True)
class Backfill:
    """A backfill that is over; times in seconds since the epoch.

    Attributes:
        backfill_id: Its id in Dagster.
        started: When it was requested.
        ended: When the last of its runs ended.
        status: Dagster's own.
        title: The title that it was launched with.
        failed_runs: How many of its runs failed or were canceled, and were not retried with success.
    """

    backfill_id: str
    started: float
    ended: float
    status: str
    title: str | None
    failed_runs: int = 0

    @property
    def failed(self) -> bool:
        """True if Dagster calls the backfill, or one of its runs, failed or canceled."""
        return "FAIL" in self.status or "CANCEL" in self.status or self.failed_runs > 0


class Projection(Protocol):
    """Shows runs somewhere else: as spans, as MLflow runs, as lineage events."""

    @property
    def name(self) -> str:
        """Its own, in messages and as the key of its cursor."""
        ...

    def export(self, instance: dg.DagsterInstance, now: RunHistory, before: RunHistory | None) -> int:
        """Show what a run has done since it was last shown; the same again does no harm.

        Args:
            instance: Where the run is.
            now: All that it has done.
            before: What it had done when it was last shown; None if it never was.

        Returns:
            How many things were written: spans, calls, events.

        Raises:
            TargetUnavailableError: It could not be shown now.
            NotYetError: Its end is to be shown later.
            RefusedError: The target refuses parts of it for good; the rest was shown.
        """
        ...

    def export_backfill(self, backfill: Backfill) -> int:
        """Show a backfill that is over, if there is something to show beside its runs.

        Returns:
            How many things were written.

        Raises:
            TargetUnavailableError: It could not be shown now.
        """
        ...
