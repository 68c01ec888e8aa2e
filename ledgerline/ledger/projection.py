"""The interface of projections, which export runs to another system. observer.py drives them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import dagster as dg

from ledgerline.cleaning.texts import clean
from ledgerline.errors import LedgerlineError
from ledgerline.ledger.history import RunHistory

MAX_LISTED = 10  # maximum number of parts in one message


class ProjectionError(LedgerlineError):
    """A projection could not export all of a run, or of a backfill.

    Secrets are removed from the message, because libraries repeat URLs in their errors.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(clean(problem), remedy)


class TargetUnavailableError(ProjectionError):
    """The target of a projection is unavailable. The run can be exported later, and no event is lost."""

    is_transient = True


class RefusedError(ProjectionError):
    """The target refuses parts of a run permanently. All other parts are written, and the run is exported.

    Args:
        target: Name and address of the target.
        left_out: Reasons by refused part.
        written: Number of items that were written.
    """

    def __init__(self, target: str, left_out: Mapping[str, str], written: int) -> None:
        parts = [f"{what} ({why})" for what, why in left_out.items()]
        more = len(parts) - MAX_LISTED
        listed = "; ".join(parts[:MAX_LISTED]) + (f"; and {more} more" if more > 0 else "")
        super().__init__(f"{target} refuses these parts, and the run is exported without them: {listed}")
        self.left_out = left_out
        self.written = written


class NotYetError(ProjectionError):
    """The end of a run cannot be exported yet. The target is available, and other runs are not affected."""

    is_transient = True


@dataclass(frozen=True)
class Backfill:
    """A backfill that has ended. Times are seconds since the epoch.

    Attributes:
        started: Time of the request.
        ended: Time at which its last run ended.
        failed_runs: Number of its runs that failed or were canceled and have no successful retry.
    """

    backfill_id: str
    started: float
    ended: float
    status: str
    title: str | None
    failed_runs: int = 0

    @property
    def failed(self) -> bool:
        """True if the backfill, or one of its runs, failed or was canceled."""
        return "FAIL" in self.status or "CANCEL" in self.status or self.failed_runs > 0


class Projection(Protocol):
    """Exports runs to another system: as spans, as MLflow runs or as lineage events.

    Any class with these members is a projection; it needs no base class.

    Example:
        >>> from ledgerline.ledger.observer import Observer
        >>> class FailedSteps:
        ...     name = "failed_steps"
        ...
        ...     def export(self, instance, now, before):
        ...         failed = [attempt.step for attempt in now.ended_since(before) if attempt.failed]
        ...         print(now.title, failed)
        ...         return len(failed)
        ...
        ...     def export_backfill(self, backfill):
        ...         return 0
        >>> @dg.asset
        ... def bread() -> None:
        ...     raise ValueError("no flour")
        >>> with dg.DagsterInstance.ephemeral() as instance:
        ...     _ = dg.materialize([bread], instance=instance, raise_on_error=False)
        ...     report = Observer(FailedSteps()).tick(instance, budget=10)
        bread ['bread']
        >>> str(report)
        '1 runs updated, 1 items written, 1 followed'
    """

    @property
    def name(self) -> str:
        """The name in messages, which is also the key of the cursor."""
        ...

    def export(self, instance: dg.DagsterInstance, now: RunHistory, before: RunHistory | None) -> int:
        """Export the part of a run that is new since the last export.

        The export must be idempotent, because an observer may repeat it.

        Args:
            instance: Dagster instance of the run.
            now: History of the run up to now.
            before: History at the last export; None if the run was never exported.

        Returns:
            Number of items that were written: spans, calls or events.

        Raises:
            TargetUnavailableError: The target is unavailable.
            NotYetError: The end of the run must be exported later.
            RefusedError: The target refuses parts of the run permanently; the rest is exported.
        """
        ...

    def export_backfill(self, backfill: Backfill) -> int:
        """Export a backfill that has ended; return 0 if the target stores only its runs.

        Returns:
            Number of items that were written.

        Raises:
            TargetUnavailableError: The target is unavailable.
        """
        ...
