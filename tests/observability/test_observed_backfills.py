"""Tests that backfills are exported once they and all of their runs have ended."""

import dagster as dg
import pytest
from dagster._core.execution.backfill import (
    BULK_ACTION_TERMINAL_STATUSES,
    BulkActionStatus,
    PartitionBackfill,
)

from ledgerline.ledger.backfills import FINAL_STATUSES, PATIENCE_SECONDS
from ledgerline.ledger.cursors import Cursors
from ledgerline.ledger.observer import (
    LINGER_SECONDS,
    Observer,
)
from ledgerline.testing.written_runs import (
    Clock,
    FakeTarget,
    WrittenRun,
    begin,
)
from tests.observability.followed_runs import AWAY, BUDGET, refusing

BACKFILL = "abcdefgh"


def backfill(instance: dg.DagsterInstance, status: BulkActionStatus, ended: float | None = None) -> None:
    found = instance.get_backfill(BACKFILL)
    written = PartitionBackfill(
        backfill_id=BACKFILL,
        status=status,
        from_failure=False,
        tags={},
        backfill_timestamp=1_000.0,
        title="the whole year",
        backfill_end_timestamp=ended,
    )
    if found is None:
        instance.add_backfill(written)
    else:
        instance.update_backfill(written)


def end_of(run: WrittenRun) -> float:
    assert run.record.end_time is not None
    return run.record.end_time


FINAL = [
    (BulkActionStatus.COMPLETED_SUCCESS, False),
    (BulkActionStatus.COMPLETED, False),
    (BulkActionStatus.COMPLETED_FAILED, True),
    (BulkActionStatus.FAILED, True),
    (BulkActionStatus.CANCELED, True),
]


def test_every_status_of_a_backfill_is_known_to_be_final_or_not() -> None:
    going_on = {BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING, BulkActionStatus.FAILING}
    assert set(BulkActionStatus) == going_on | {status for status, _ in FINAL}
    assert {status.value for status, _ in FINAL} == FINAL_STATUSES
    assert set(BULK_ACTION_TERMINAL_STATUSES) == {status for status, _ in FINAL}


@pytest.mark.parametrize(
    ("status", "failed", "ended"), [(*final, ended) for final in FINAL for ended in (None, 1_003.0, 9e9)]
)
def test_a_finished_backfill_is_exported_once_and_ends_with_its_last_run(
    instance: dg.DagsterInstance, clock: Clock, status: BulkActionStatus, failed: bool, ended: float | None
) -> None:
    target = FakeTarget()
    observer = Observer(target)
    backfill(instance, BulkActionStatus.REQUESTED)
    runs = [begin(instance, backfill=BACKFILL) for _ in range(3)]
    observer.tick(instance, BUDGET)
    for run in (runs[0], runs[2], runs[1]):
        run.end()
    observer.tick(instance, BUDGET)
    assert target.backfills == []

    backfill(instance, status, ended)
    for _ in range(5):
        observer.tick(instance, BUDGET)
        clock.forward(LINGER_SECONDS / 2)
    Observer(target).tick(instance, BUDGET)
    (exported,) = target.backfills
    assert (exported.backfill_id, exported.started, exported.ended) == (BACKFILL, 1_000.0, end_of(runs[1]))
    assert (exported.status, exported.title) == (status.value, "the whole year")
    assert (exported.failed, exported.failed_runs) == (failed, 0)


@pytest.mark.parametrize(
    "status", [BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING, BulkActionStatus.FAILING]
)
def test_a_backfill_goes_on_until_its_status_is_final(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget, status: BulkActionStatus
) -> None:
    backfill(instance, status)
    begin(instance, backfill=BACKFILL).end()
    observer.tick(instance, BUDGET)
    assert target.backfills == []


def test_a_backfill_is_not_over_before_its_runs_are_and_failed_if_one_did(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    """`dagster job backfill` does this: it calls a backfill completed once it has submitted the runs."""
    good, bad = begin(instance, backfill=BACKFILL), begin(instance, backfill=BACKFILL)
    backfill(instance, BulkActionStatus.COMPLETED, 1_003.0)
    observer.tick(instance, BUDGET)
    good.end()
    observer.tick(instance, BUDGET)
    assert target.backfills == []
    bad.fail()
    Observer(target).tick(instance, BUDGET)  # also by another process
    (exported,) = target.backfills
    assert (exported.failed, exported.failed_runs, exported.ended) == (True, 1, end_of(bad))


def test_a_backfill_that_is_written_down_after_its_runs_is_waited_for(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    begin(instance, backfill=BACKFILL).end()
    observer.tick(instance, BUDGET)
    backfill(instance, BulkActionStatus.COMPLETED, 1_003.0)
    observer.tick(instance, BUDGET)
    assert [exported.backfill_id for exported in target.backfills] == [BACKFILL]


def test_a_run_that_is_retried_with_success_does_not_fail_its_backfill(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    first = begin(instance, backfill=BACKFILL)
    backfill(instance, BulkActionStatus.COMPLETED, 1_003.0)
    first.fail()
    instance.add_run_tags(first.run_id, {"dagster/will_retry": "true"})
    observer.tick(instance, BUDGET)
    assert target.backfills == []  # the retry has not started

    retry = begin(instance, backfill=BACKFILL, retry_of=first)
    instance.add_run_tags(first.run_id, {"dagster/auto_retry_run_id": retry.run_id})
    observer.tick(instance, BUDGET)
    assert target.backfills == []
    retry.end()
    observer.tick(instance, BUDGET)
    (exported,) = target.backfills
    assert (exported.failed, exported.ended) == (False, end_of(retry))


def test_a_retry_that_is_never_launched_is_waited_for_for_a_limited_time(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    lost = begin(instance, backfill=BACKFILL, seconds_ago=PATIENCE_SECONDS + 2)
    lost.fail(seconds_ago=PATIENCE_SECONDS + 1)
    instance.add_run_tags(lost.run_id, {"dagster/will_retry": "true"})
    backfill(instance, BulkActionStatus.COMPLETED, 1_003.0)
    observer.tick(instance, BUDGET)
    assert [exported.failed_runs for exported in target.backfills] == [1]


def test_a_run_added_to_a_backfill_later_changes_its_export(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    begin(instance, backfill=BACKFILL).end()
    backfill(instance, BulkActionStatus.COMPLETED_SUCCESS, 2_000.0)
    observer.tick(instance, BUDGET)
    late = begin(instance, backfill=BACKFILL)
    observer.tick(instance, BUDGET)
    late.fail()
    observer.tick(instance, BUDGET)
    before, after = target.backfills
    assert (before.backfill_id, before.started) == (after.backfill_id, after.started)
    assert (before.failed, after.failed, after.ended) == (False, True, end_of(late))


def test_a_backfill_whose_runs_were_deleted_ends_when_dagster_ends_it(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    run = begin(instance, backfill=BACKFILL)
    backfill(instance, BulkActionStatus.REQUESTED)
    observer.tick(instance, BUDGET)
    instance.delete_run(run.run_id)
    backfill(instance, BulkActionStatus.CANCELED, 2_000.0)
    observer.tick(instance, BUDGET)
    assert [(exported.ended, exported.failed) for exported in target.backfills] == [(2_000.0, True)]


def test_a_backfill_whose_runs_ended_long_ago_is_exported_by_the_next_process(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    backfill(instance, BulkActionStatus.REQUESTED)
    begin(instance, backfill=BACKFILL).end(seconds_ago=LINGER_SECONDS + 1)
    observer.tick(instance, BUDGET)
    backfill(instance, BulkActionStatus.CANCELED, 2_000.0)
    Observer(target).tick(instance, BUDGET)
    assert [exported.status for exported in target.backfills] == ["CANCELED"]


def test_a_backfill_is_exported_when_its_target_is_available_again(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    backfill(instance, BulkActionStatus.COMPLETED_SUCCESS, 2_000.0)
    begin(instance, backfill=BACKFILL).end()
    target.before_export = refusing(AWAY, BACKFILL)
    assert observer.tick(instance, BUDGET).unavailable == str(AWAY)
    target.before_export = refusing(AWAY, "nobody")
    observer.tick(instance, BUDGET)
    observer.tick(instance, BUDGET)
    assert len(target.backfills) == 1


def test_a_backfill_that_cannot_be_exported_is_named_and_delays_no_run(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    backfill(instance, BulkActionStatus.COMPLETED_SUCCESS, 2_000.0)
    begin(instance, backfill=BACKFILL).end()
    problem = ValueError("a span without a name")
    target.before_export = refusing(problem, BACKFILL)
    assert f"backfill {BACKFILL} cannot be exported: a span without a name" in str(
        observer.tick(instance, BUDGET)
    )
    later = begin(instance, "a word")
    observer.tick(instance, BUDGET)
    assert target.new_words_of(later) == [["a word"]]


def test_a_backfill_that_was_deleted_is_forgotten_in_the_end(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    run = begin(instance, backfill="deleted", seconds_ago=PATIENCE_SECONDS + 2)
    observer.tick(instance, BUDGET)
    cursors = Cursors.load(instance.run_storage, target.name)
    assert cursors is not None
    assert cursors.backfills == {"deleted"}
    run.end(seconds_ago=PATIENCE_SECONDS + 1)
    report = observer.tick(instance, BUDGET)
    assert (report.failures, report.unavailable) == ({}, None)
    cursors = Cursors.load(instance.run_storage, target.name)
    assert cursors is not None
    assert (target.backfills, cursors.backfills) == ([], set())


def test_a_finished_backfill_is_exported_with_a_requested_run(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    backfill(instance, BulkActionStatus.COMPLETED_FAILED, 2_000.0)
    run = begin(instance, backfill=BACKFILL)
    run.end()
    assert observer.export_run(instance, run.record) == 2
    assert [exported.status for exported in target.backfills] == ["COMPLETED_FAILED"]
