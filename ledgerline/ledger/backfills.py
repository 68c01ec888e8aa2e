"""Reads backfills from Dagster's run storage. observer.py decides when they are exported."""

import time
from collections.abc import Sequence
from enum import Enum

import dagster as dg
from dagster import RunRecord, RunsFilter

from ledgerline.ledger.dagster_internals import NOT_FINISHED_STATUSES
from ledgerline.ledger.projection import Backfill

# Statuses of a backfill after which no further run is launched. COMPLETED alone does not distinguish success
# and failure: Dagster before 1.9 had no other status, and `dagster job backfill` still writes it.
FINAL_STATUSES = {"COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"}
LOST = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
# `dagster job backfill` records a backfill after it has submitted the runs, and a retry is launched after its
# run has failed. A backfill or retry that is missing for longer than this was deleted, or cannot be launched.
PATIENCE_SECONDS = 3600


class Pending(Enum):
    """The reasons why a backfill cannot be exported."""

    IN_PROGRESS = "it is in progress"
    UNKNOWN = "Dagster has no such backfill"


def read_backfill(instance: dg.DagsterInstance, backfill_id: str) -> Backfill | Pending:
    """Return a backfill that has ended: its status, and the status of each of its runs, is final.

    A backfill ends with its last run. Dagster records another time: that of the daemon's next poll or, with
    `dagster job backfill`, that at which the last run was submitted.
    """
    backfill = instance.get_backfill(backfill_id)
    if backfill is not None and backfill.status.value not in FINAL_STATUSES:
        return Pending.IN_PROGRESS
    if _records(instance, backfill_id, NOT_FINISHED_STATUSES, limit=1):
        return Pending.IN_PROGRESS
    latest = _records(instance, backfill_id, order_by="end_time", limit=1)
    last = _end_of(latest[0]) if latest else None
    lost = _records(instance, backfill_id, LOST)
    recently = time.time() - PATIENCE_SECONDS
    if backfill is None:
        return Pending.IN_PROGRESS if last is not None and last > recently else Pending.UNKNOWN
    if any(
        record.dagster_run.is_complete_and_waiting_to_retry and _end_of(record) > recently for record in lost
    ):
        return Pending.IN_PROGRESS
    succeeded = _records(instance, backfill_id, [dg.DagsterRunStatus.SUCCESS]) if lost else []
    return Backfill(
        backfill_id=backfill_id,
        started=backfill.backfill_timestamp,
        ended=last or backfill.backfill_end_timestamp or backfill.backfill_timestamp,
        status=backfill.status.value,
        title=backfill.title,
        # A run counts once with its retries, and not if one of them succeeded.
        failed_runs=len({_first(record) for record in lost} - {_first(record) for record in succeeded}),
    )


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


def _end_of(record: RunRecord) -> float:
    return record.end_time or record.update_timestamp.timestamp()


def _first(record: RunRecord) -> str:
    """Return the run that this one is a retry of, or itself."""
    return record.dagster_run.root_run_id or record.dagster_run.run_id
