"""Checks an exported run against Dagster's own records, and against the received spans."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import dagster as dg
from dagster import DagsterEventType, EventLogEntry
from mlflow import MlflowClient
from mlflow.entities import Run

from ledgerline.ledger.observer import Observer, Report
from ledgerline.mlflow_runs.tags import STEP_KEY
from ledgerline.testing.otlp_receivers import Receiver
from ledgerline.testing.received_traces import ReceivedTrace
from ledgerline.testing.waiting import wait_until
from ledgerline.traces import attributes as names
from tests.integration.run_workers import PATIENCE_SECONDS

BUDGET_SECONDS = 30.0
POLL_SECONDS = 0.2

STATUSES = {"SUCCESS": "FINISHED", "FAILURE": "FAILED", "CANCELED": "KILLED"}

_STARTS = {
    DagsterEventType.STEP_START,
    DagsterEventType.STEP_RESTARTED,
    DagsterEventType.STEP_WORKER_STARTING,
}
_ENDS = {
    DagsterEventType.STEP_SUCCESS: False,
    DagsterEventType.STEP_FAILURE: True,
    DagsterEventType.STEP_UP_FOR_RETRY: True,
}


@dataclass(frozen=True)
class ObservedRuns:
    """The runs of an instance, and their exports."""

    instance: dg.DagsterInstance
    receiver: Receiver
    observers: Sequence[Observer]

    def tick(self) -> list[Report]:
        """Poll with each projection once."""
        return [observer.tick(self.instance, BUDGET_SECONDS) for observer in self.observers]

    def catch_up(self) -> None:
        """Poll with the projections until there is nothing new."""

        def nothing_new() -> bool:
            reports = self.tick()
            assert all(not report.failures for report in reports), reports
            return all(report.unavailable is None and not report.runs for report in reports)

        wait_until(nothing_new, "all is shown")

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Poll with the projections during the block."""
        over = threading.Event()

        def follow() -> None:
            while not over.wait(POLL_SECONDS):
                reports.extend(self.tick())

        reports: list[Report] = []
        thread = threading.Thread(target=follow)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        assert reports
        assert all(report.unavailable is None and not report.failures for report in reports)

    def trace(self, run_id: str) -> ReceivedTrace:
        """The trace of a run, after looking whether it has all that it must have."""
        return whole(self.receiver.trace(run_id), self.instance, run_id)

    def mlflow_run(self, client: MlflowClient, run_id: str) -> Run:
        """The only MLflow run of a run, after looking whether it has all that it must have."""
        return whole_mlflow_run(client, self.instance, run_id)


def whole(trace: ReceivedTrace, instance: dg.DagsterInstance, run_id: str) -> ReceivedTrace:
    """A trace, after looking whether it has all that the trace of a run must have."""
    run = instance.get_run_by_id(run_id)
    assert run is not None
    assert run.is_finished
    assert trace.root.attributes[names.RUN_ID] == run_id
    assert trace.root.failed == (not run.is_success)
    assert {of: span.failed for of, span in trace.attempts.items()} == _attempts(instance, run_id)
    for span in trace.spans:
        assert trace.root.started <= span.started <= span.ended <= trace.root.ended
        if span is not trace.root:
            assert trace.above(span)[-1] is trace.root  # and all in between are there
        if span.is_attempt or span is trace.root:
            assert ("exception" in span.events) == span.failed
    return trace


def whole_mlflow_run(client: MlflowClient, instance: dg.DagsterInstance, run_id: str) -> Run:
    """The only MLflow run of a run, after looking whether it has all that it must have."""
    run = instance.get_run_by_id(run_id)
    assert run is not None
    (found,) = mlflow_runs(client, run_id)
    assert found.info.status == STATUSES[run.status.value]
    assert found.info.end_time is not None
    documents = {file.path for file in client.list_artifacts(found.info.run_id, "lineage")}
    assert documents == {f"lineage/{asset}.json" for asset in _materialised(instance, run_id)}
    return found


def mlflow_run_once_whole(
    client: MlflowClient, instance: dg.DagsterInstance, run_id: str, seconds: float = PATIENCE_SECONDS
) -> Run:
    """Wait until the MLflow run of a run has all that it must have; its end is there before the rest."""
    missing: list[str] = []

    def is_whole() -> Run | None:
        if not mlflow_runs(client, run_id):
            return None
        try:
            return whole_mlflow_run(client, instance, run_id)
        except AssertionError as error:
            missing[:] = [str(error)]
            return None

    try:
        found = wait_until(is_whole, f"MLflow has the whole run {run_id}", seconds)
    except AssertionError as error:
        raise AssertionError("\n".join([str(error), *missing])) from None
    assert found is not None
    return found


def mlflow_runs(client: MlflowClient, run_id: str) -> Sequence[Run]:
    """Return all MLflow runs with the tag of a run, except those that its steps opened."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found = client.search_runs(experiments, f"tags.`dagster.run_id` = '{run_id}'")
    return [run for run in found if STEP_KEY not in run.data.tags]


def _attempts(instance: dg.DagsterInstance, run_id: str) -> Mapping[tuple[str, int], bool]:
    """Return every attempt in Dagster's event log, and whether it failed."""
    attempts: dict[tuple[str, int], bool] = {}
    latest: dict[str, int] = {}
    retried: set[str] = set()
    logged = instance.all_logs(run_id, of_type={*_STARTS, *_ENDS})
    for event in [entry.dagster_event for entry in logged if entry.dagster_event is not None]:
        step = event.step_key
        assert step is not None
        if event.event_type in _STARTS and (step not in latest or step in retried):
            latest[step] = latest.get(step, 0) + 1
            retried.discard(step)
            attempts[step, latest[step]] = True  # by default
        elif event.event_type in _ENDS:
            attempts[step, latest[step]] = _ENDS[event.event_type]
            if event.event_type is DagsterEventType.STEP_UP_FOR_RETRY:
                retried.add(step)
    return attempts


def _materialised(instance: dg.DagsterInstance, run_id: str) -> set[str]:
    logged = instance.all_logs(run_id, of_type=DagsterEventType.ASSET_MATERIALIZATION)
    return {_asset(entry) for entry in logged}


def _asset(entry: EventLogEntry) -> str:
    assert entry.dagster_event is not None
    assert entry.dagster_event.asset_key is not None
    return entry.dagster_event.asset_key.to_user_string()
