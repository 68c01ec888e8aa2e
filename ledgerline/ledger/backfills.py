"""Backfills as Dagster's run storage has them -> Backfill. Who shows them when: observer.py."""

import time
from collections.abc import Sequence
from enum import Enum

import dagster as dg
from dagster import RunRecord, RunsFilter

from ledgerline.ledger.dagster_internals import NOT_FINISHED_STATUSES
from ledgerline.ledger.projection import Backfill

# Statuses of a backfill from which no further run is to be expected. COMPLETED is the only one that
# does not say how it went; versions before 1.9 had no other, and `dagster job backfill` still writes it.
OVER = {"COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"}
LOST = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
# `dagster job backfill` writes a backfill down after it has submitted its runs, and a retry follows its run:
# so long both may take. A backfill or run that is missing after that was deleted, or cannot be launched.
PATIENCE_SECONDS = 3600


class Pending(Enum):
    """The reasons why there is no backfill to show."""

    GOES_ON = "it goes on"
    UNKNOWN = "Dagster does not know it, or no longer"


def read_backfill(instance: dg.DagsterInstance, backfill_id: str) -> Backfill | Pending:
    """Return a backfill that is over: its status is final, and so is that of each of its runs.

    It ends with its last run. The time that Dagster writes down is another one: that at which its daemon
    looked again or, with `dagster job backfill`, that at which the last run was submitted.
    """
    found = instance.get_backfill(backfill_id)
    if found is not None and found.status.value not in OVER:
        return Pending.GOES_ON
    if _records(instance, backfill_id, NOT_FINISHED_STATUSES, limit=1):
        return Pending.GOES_ON
    last = _ended(_records(instance, backfill_id, order_by="end_time", limit=1))
    lost = _records(instance, backfill_id, LOST)
    recently = time.time() - PATIENCE_SECONDS
    if found is None:
        return Pending.GOES_ON if last is not None and last > recently else Pending.UNKNOWN
    if any(
        record.dagster_run.is_complete_and_waiting_to_retry and _end_of(record) > recently for record in lost
    ):
        return Pending.GOES_ON
    return Backfill(
        backfill_id=backfill_id,
        started=found.backfill_timestamp,
        ended=last or found.backfill_end_timestamp or found.backfill_timestamp,
        status=found.status.value,
        title=found.title,
        failed_runs=_not_made_up_for(instance, backfill_id, lost),
    )


def _not_made_up_for(instance: dg.DagsterInstance, backfill_id: str, lost: Sequence[RunRecord]) -> int:
    """Count the runs that failed, each with its retries as one, without those of which one succeeded."""
    if not lost:
        return 0
    succeeded = _records(instance, backfill_id, [dg.DagsterRunStatus.SUCCESS])
    return len({_first(record) for record in lost} - {_first(record) for record in succeeded})


def _records(
    instance: dg.DagsterInstance,
    backfill_id: str,
    statuses: Sequence[dg.DagsterRunStatus] = (),
    *,
    limit: int | None = None,
    order_by: str | None = None,
) -> Sequence[RunRecord]:
    runs = RunsFilter(tags={"dagster/backfill": backfill_id}, statuses=list(statuses) or None)
    return instance.get_run_records(runs, limit=limit, order_by=order_by)


def _ended(records: Sequence[RunRecord]) -> float | None:
    return _end_of(records[0]) if records else None


def _end_of(record: RunRecord) -> float:
    return record.end_time or record.update_timestamp.timestamp()


def _first(record: RunRecord) -> str:
    """Return the run that this one is a retry of, or itself."""
    return record.dagster_run.root_run_id or record.dagster_run.run_id
