"""Tests outages of programs of the stack: nothing of a run is lost, and no other target waits."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
import pytest
from dagster import DagsterEventType, DagsterRunStatus, RunsFilter

from benchmarks.stack.stack import Stack
from ledgerline.testing.waiting import wait_until
from tests.integration.pages import wait_for_the_end
from tests.integration.stack.exports import EXPORT_SECONDS, Exports, pages_of
from tests.integration.stack.metrics import metrics_of

# A day with late flights, and three: enough to be in the midst of.
DAY = {"dagster/partition": "2013-02-08"}
DAYS = {
    "dagster/asset_partition_range_start": "2013-02-08",
    "dagster/asset_partition_range_end": "2013-02-10",
}
UNDER_WAY = 40  # records of a run with finished and remaining steps


@pytest.fixture
def exports(stack: Stack, instance: dg.DagsterInstance) -> Exports:
    return Exports(stack, instance)


@contextmanager
def down(stack: Stack, *names: str) -> Iterator[None]:
    """Stop services during the block."""
    stack.stop(*names)
    try:
        yield
    finally:
        stack.start(*names)


def under_way(stack: Stack, instance: dg.DagsterInstance) -> str:
    """A run that is in the midst of its steps."""
    run_id = pages_of(stack).launch("ingest_flights", DAYS)
    wait_until(lambda: len(instance.all_logs(run_id)) >= UNDER_WAY, "the run is under way", EXPORT_SECONDS)
    assert not _run(instance, run_id).is_finished
    return run_id


def executed(stack: Stack, instance: dg.DagsterInstance) -> str:
    """A run that has ended well."""
    run_id = pages_of(stack).launch("ingest_flights", DAY)
    assert wait_for_the_end(instance, run_id) is DagsterRunStatus.SUCCESS
    return run_id


def run_again(instance: dg.DagsterInstance, run_id: str) -> str:
    """The run by which Dagster repeats one that was killed."""

    def found() -> list[dg.DagsterRun]:
        return list(instance.get_runs(RunsFilter(tags={"dagster/parent_run_id": run_id})))

    (again,) = wait_until(found, "Dagster runs it again", EXPORT_SECONDS)
    return again.run_id


# Backends of runs


def test_jaeger_misses_nothing_after_an_outage_and_mlflow_has_not_waited(
    stack: Stack, instance: dg.DagsterInstance, exports: Exports
) -> None:
    with down(stack, "jaeger"):
        run_id = executed(stack, instance)
        exports.as_trace_in_mlflow(run_id)
        exports.as_mlflow_run(run_id)
    assert exports.in_jaeger(run_id).repeated == []


def test_mlflow_misses_nothing_after_an_outage_and_jaeger_has_not_waited(
    stack: Stack, instance: dg.DagsterInstance, exports: Exports
) -> None:
    with down(stack, "mlflow"):
        run_id = executed(stack, instance)
        exports.in_jaeger(run_id)
    exports.as_trace_in_mlflow(run_id)
    exports.as_mlflow_run(run_id)


def test_a_collector_killed_with_full_queues_loses_no_accepted_span(
    stack: Stack, instance: dg.DagsterInstance, exports: Exports
) -> None:
    """Full on purpose: of a few traces, while neither receiver is there."""
    run_ids = [executed(stack, instance)]
    stack.stop("otel-collector")
    stack.start("otel-collector", OTELCOL_QUEUE_BYTES="40000")
    try:
        with down(stack, "jaeger", "mlflow"):
            run_ids += [executed(stack, instance) for _ in range(2)]

            def is_full() -> bool:
                refused = "otelcol_receiver_failed_spans", "otelcol_receiver_refused_spans"
                found = metrics_of(stack.machine.url("otel-collector", 8888))
                return any(value > 0 for name, value in found.items() if name.startswith(refused))

            wait_until(is_full, "the collector refuses spans", EXPORT_SECONDS)
            stack.kill("otel-collector")
            stack.start("otel-collector", OTELCOL_QUEUE_BYTES="40000")
            run_ids.append(executed(stack, instance))
        for run_id in run_ids:
            exports.everywhere(run_id)
    finally:
        stack.stop("otel-collector")
        stack.start("otel-collector")


# Storages of runs


def test_a_postgresql_that_is_restarted_does_not_disturb_a_run(
    stack: Stack, instance: dg.DagsterInstance, exports: Exports
) -> None:
    run_id = under_way(stack, instance)
    stack.database.stop()
    time.sleep(2)
    stack.database.start()

    status = wait_for_the_end(instance, run_id)

    trace = exports.everywhere(run_id)
    # If the run was writing at that moment, it has failed with the reason.
    assert status is DagsterRunStatus.SUCCESS or "psycopg2" in str(trace.root.events["exception"])


def test_a_run_that_cannot_write_for_long_has_failed_and_is_run_again(
    stack: Stack, instance: dg.DagsterInstance, exports: Exports
) -> None:
    run_id = under_way(stack, instance)
    stack.database.stop()
    time.sleep(30)  # Dagster waits for some ten seconds
    stack.database.start()

    assert wait_for_the_end(instance, run_id) is DagsterRunStatus.FAILURE
    exports.everywhere(run_id)
    again = run_again(instance, run_id)
    assert wait_for_the_end(instance, again) is DagsterRunStatus.SUCCESS
    trace = exports.everywhere(again)
    assert run_id.replace("-", "") in {linked for linked, _ in trace.root.links}


# Dagster itself


def test_a_run_does_not_notice_that_pages_daemon_and_observer_are_killed(
    stack: Stack, instance: dg.DagsterInstance, exports: Exports
) -> None:
    others = ("dagster-webserver", "dagster-daemon", "observer")
    run_id = under_way(stack, instance)
    stack.kill(*others)
    stack.start(*others)
    assert wait_for_the_end(instance, run_id) is DagsterRunStatus.SUCCESS
    wait_until(pages_of(stack).have_jobs, "the pages are back", EXPORT_SECONDS)
    exports.everywhere(run_id)


def test_a_code_server_that_is_stopped_waits_for_its_runs_and_others_wait_for_the_next_one(
    stack: Stack, instance: dg.DagsterInstance, exports: Exports
) -> None:
    run_id = under_way(stack, instance)
    stopping = threading.Thread(target=stack.stop, args=("code",), kwargs={"seconds": 300})
    stopping.start()
    try:
        other = pages_of(stack).launch("ingest_flights", DAY)
        assert wait_for_the_end(instance, run_id) is DagsterRunStatus.SUCCESS
    finally:
        stopping.join()
        stack.start("code")
    wait_until(pages_of(stack).have_jobs, "the code server is back", EXPORT_SECONDS)
    assert wait_for_the_end(instance, other) is DagsterRunStatus.SUCCESS
    for each in (run_id, other):
        exports.everywhere(each)


def test_a_run_that_was_killed_with_its_code_server_has_failed_and_is_run_again(
    stack: Stack, instance: dg.DagsterInstance, exports: Exports
) -> None:
    run_id = under_way(stack, instance)
    stack.kill("code")
    stack.start("code")

    assert wait_for_the_end(instance, run_id) is DagsterRunStatus.FAILURE
    messages = [entry.message for entry in instance.all_logs(run_id, of_type=DagsterEventType.RUN_FAILURE)]
    assert any("code server was killed" in message for message in messages)
    again = run_again(instance, run_id)
    assert wait_for_the_end(instance, again) is DagsterRunStatus.SUCCESS
    for each in (run_id, again):
        exports.everywhere(each)


def _run(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRun:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run
