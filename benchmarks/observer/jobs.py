"""Defines the job that the observer's scenarios execute: a chain of equal ops, bare or adapted to a peer.

In a chain, the duration of a run includes the overhead of every step. execute.py executes the job.
"""

import hashlib
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import dagster as dg

from benchmarks.processes import PROJECT_ROOT
from ledgerline.dagster.executors import warm_multiprocess_executor
from ledgerline.dagster.tracing import OTelResource
from ledgerline.ledger.dagster_internals import ReconstructableJob

# The number of hashes that takes about 10 ms of processor time, so that waiting for a processor is visible.
ITERATIONS = 20_000

# The versions of the job.
BARE, SPAN, OTEL, MLFLOW = "bare", "span", "dagster-otel", "dagster-mlflow + metric"
# The modules of peers are imported by name, because the project is installed without them.
PEERS = {OTEL: "dagster_otel", MLFLOW: "dagster_mlflow"}
# Modules that a version imports at its first use. Their import is not measured.
IMPORTS = {
    SPAN: ("ledgerline.traces.step_tracing",),
    OTEL: ("dagster_otel",),
    MLFLOW: ("dagster_mlflow", "mlflow.store.tracking.rest_store"),
}
IN_PROCESS, MULTIPROCESS = "in_process", "multiprocess"
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
INPUT = {"before": dg.In(int, default_value=0)}


def chain(version: str, ops: int, executor: str, seconds: float) -> dg.JobDefinition:
    """Return a job of ops that sleep for some seconds or, with 0, compute instead."""
    step, resources = _step(version, lambda: _work(seconds))
    executors = {IN_PROCESS: dg.in_process_executor, MULTIPROCESS: warm_multiprocess_executor}

    @dg.job(name="observed", executor_def=executors[executor], resource_defs=resources)
    def observed() -> None:
        before = step.alias("step_0000")()
        for number in range(1, ops):
            before = step.alias(f"step_{number:04}")(before)

    if version == MLFLOW:
        return import_module("dagster_mlflow").end_mlflow_on_run_finished(observed)
    return observed


def reconstructable(version: str, ops: int, executor: str, seconds: float) -> ReconstructableJob:
    """Return the job in a form that can be sent to another process."""
    arguments = {"version": version, "ops": ops, "executor": executor, "seconds": seconds}
    return dg.build_reconstructable_job(
        __name__,
        "chain",
        reconstructable_kwargs=arguments,
        reconstructor_working_directory=str(PROJECT_ROOT),
    )


def _work(seconds: float) -> None:
    if seconds:
        time.sleep(seconds)
    else:
        hashlib.pbkdf2_hmac("sha256", b"work", b"", ITERATIONS)


def _step(version: str, work: Callable[[], None]) -> tuple[dg.OpDefinition, dict[str, Any]]:
    """Return the op of a version, with the resources that it needs."""

    def plain(before: int) -> int:
        work()
        return before + 1

    def spanned(before: int, otel: OTelResource) -> int:
        with otel.span("work", number=before):
            return plain(before)

    def measured(context: dg.OpExecutionContext, before: int) -> int:
        begun = time.perf_counter()
        after = plain(before)
        context.resources.mlflow.log_metric(f"{context.op_handle}.seconds", time.perf_counter() - begun)
        return after

    if version == SPAN:
        return dg.op(name="step", ins=INPUT)(spanned), {"otel": OTelResource()}
    if version == MLFLOW:
        tracking = import_module("dagster_mlflow").mlflow_tracking.configured(
            {"experiment_name": "peer", "mlflow_tracking_uri": {"env": "MLFLOW_TRACKING_URI"}}
        )
        op = dg.op(name="step", ins=INPUT, required_resource_keys={"mlflow"})(measured)
        return op, {"mlflow": tracking}
    body = import_module("dagster_otel").traced()(plain) if version == OTEL else plain
    return dg.op(name="step", ins=INPUT)(body), {}
