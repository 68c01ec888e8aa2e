"""Checks a run of the stack in each backend: the trace in Jaeger and MLflow, and the MLflow run."""

from dataclasses import dataclass

import dagster as dg
from mlflow import MlflowClient
from mlflow.entities import Run

from benchmarks.stack.stack import Stack
from benchmarks.stack.traces import Jaeger, MLflowTraces, expected_spans
from ledgerline.testing.received_traces import ReceivedTrace
from ledgerline.testing.waiting import wait_until
from tests.integration.observed_runs import mlflow_run_once_whole, whole
from tests.integration.pages import Pages
from tests.integration.stack.differences import differences

# An outage of minutes is made up for in seconds; the rest is for a busy machine.
EXPORT_SECONDS = 120


def pages_of(stack: Stack) -> Pages:
    """Return a client of the stack's webserver."""
    return Pages(stack.machine.url("dagster-webserver", 3000))


@dataclass(frozen=True)
class Exports:
    """A stack and its instance, for the exports of runs that have ended."""

    stack: Stack
    instance: dg.DagsterInstance

    def everywhere(self, run_id: str) -> ReceivedTrace:
        """Wait until a run is exported to every target, and check all of it; return the trace from Jaeger."""
        trace = self.in_jaeger(run_id)
        self.as_trace_in_mlflow(run_id)
        self.as_mlflow_run(run_id)
        return trace

    def in_jaeger(self, run_id: str) -> ReceivedTrace:
        """Return the trace of a run in Jaeger, once it equals the event log."""
        return self._once_equal(self.stack.jaeger, run_id)

    def as_trace_in_mlflow(self, run_id: str) -> ReceivedTrace:
        """The same in MLflow."""
        return self._once_equal(MLflowTraces(self._client), run_id)

    def as_mlflow_run(self, run_id: str) -> Run:
        """Return the MLflow run of a run, once it is whole there."""
        return mlflow_run_once_whole(self._client, self.instance, run_id, EXPORT_SECONDS)

    @property
    def _client(self) -> MlflowClient:
        return MlflowClient(self.stack.mlflow_url)

    def _once_equal(self, backend: Jaeger | MLflowTraces, run_id: str) -> ReceivedTrace:
        environment = self.stack.machine.described("observer").environment
        expected = expected_spans(self.instance, run_id, environment)
        differences_now: list[str] = []

        def is_equal() -> ReceivedTrace | None:
            trace = backend.trace(run_id)
            differences_now[:] = differences(trace, expected)
            return trace if not differences_now else None

        try:
            trace = wait_until(is_equal, f"the whole run {run_id} is there", EXPORT_SECONDS)
        except AssertionError as error:
            raise AssertionError(
                "\n".join([f"{type(backend).__name__}: {error}", *differences_now])
            ) from None
        assert trace is not None
        return whole(trace, self.instance, run_id)
