"""Tests runs with compose.sampling.yaml, which the observer samples when they have ended."""

import threading
from collections.abc import Iterator

import dagster as dg
import pytest
from dagster import DagsterEventType
from dagster._core.event_api import EventLogCursor
from dagster._core.instance import InstanceRef
from mlflow import MlflowClient

from benchmarks.stack.files import SAMPLING
from benchmarks.stack.stack import Stack
from benchmarks.stack.traces import MLflowTraces
from ledgerline.ledger.cursors import Cursors
from ledgerline.testing.waiting import wait_until
from tests.integration.stack.exports import EXPORT_SECONDS, Exports

# Runs are in this process here; to keep what they print, Dagster would start processes that outlive them.
NO_LOGS = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
SAMPLED = ("otel-collector", "observer")


@pytest.fixture
def sampled(stack: Stack) -> Iterator[None]:
    """Start services with the option and a share of none, and in the end as they were."""
    stack.stop(*SAMPLED)
    stack.start("otel-collector", options=[SAMPLING], OTELCOL_SAMPLING_PERCENT="0")
    stack.start("observer", options=[SAMPLING], OTEL_TRACES_SAMPLER_ARG="0")
    yield
    stack.stop(*SAMPLED)
    stack.start(*SAMPLED)


@pytest.fixture
def without_logs(stack: Stack, instance: dg.DagsterInstance) -> Iterator[dg.DagsterInstance]:
    """The same instance, which keeps nothing of what its steps print."""
    home = stack.machine.described("code").environment["DAGSTER_HOME"]
    ref = InstanceRef.from_dir(home, overrides={"compute_logs": NO_LOGS})
    with dg.DagsterInstance.from_ref(ref) as without_logs:
        yield without_logs


def cursors(instance: dg.DagsterInstance) -> Cursors:
    found = Cursors.load(instance.run_storage, "traces")
    assert found is not None
    return found


def stored_at(cursor: str) -> int:
    """Return the number of the record that a cursor in an event log is behind."""
    return EventLogCursor.parse(cursor).storage_id()


@pytest.mark.usefixtures("sampled")
def test_with_the_option_a_late_failure_is_exported_whole_and_a_quick_success_is_not(
    stack: Stack, without_logs: dg.DagsterInstance, mlflow_client: MlflowClient
) -> None:
    instance, may_fail = without_logs, threading.Event()

    @dg.asset
    def planes() -> int:
        return 3

    @dg.asset(deps=[planes])
    def fleet() -> None:
        assert may_fail.wait(EXPORT_SECONDS)
        raise ValueError("too late")

    def run_that_fails() -> None:
        dg.materialize([planes, fleet], instance=instance, tags={"fails": "late"}, raise_on_error=False)

    quick = dg.materialize([planes], instance=instance).run_id
    running = threading.Thread(target=run_that_fails, name="the run that fails")
    running.start()
    try:

        def read_half() -> str | None:
            """Return the run that fails, once its first step was read; the quick run is done with."""
            under_way = cursors(instance)
            for run in instance.get_runs(dg.RunsFilter(tags={"fails": "late"})):
                ended = instance.get_records_for_run(
                    run.run_id, of_type=DagsterEventType.STEP_SUCCESS
                ).records
                read = under_way.active.get(run.run_id)
                if quick in under_way.ended and ended and read is not None:
                    return run.run_id if stored_at(read) >= ended[0].storage_id else None
            return None

        failing = wait_until(read_half, "the observer reads the run that fails", EXPORT_SECONDS)
        assert failing is not None
        backends = (stack.jaeger, MLflowTraces(mlflow_client))
        assert [backend.trace(failing).spans for backend in backends] == [[], []]
    finally:
        may_fail.set()
        running.join()

    exports = Exports(stack, instance)
    trace = exports.in_jaeger(failing)
    assert trace.root.failed
    exports.as_trace_in_mlflow(failing)
    assert [backend.trace(quick).spans for backend in backends] == [[], []]
    # Runs of MLflow are not traces: every run has one.
    for run_id in (quick, failing):
        exports.as_mlflow_run(run_id)
