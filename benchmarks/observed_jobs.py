"""The jobs that the observer's benchmarks execute: the same ops, bare or as each peer wants them.

A chain, because then a run takes longer by all that each step does. Who executes it: execute_observed.py.
"""

import hashlib
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import dagster as dg

from benchmarks.checkout import PROJECT_ROOT
from ledgerline.dagster.executors import warm_multiprocess_executor
from ledgerline.dagster.tracing import OTelResource
from ledgerline.ledger.dagster_internals import ReconstructableJob

# What hashing takes about 10 ms for. The same work every time: whoever takes the processor away is seen.
ITERATIONS = 20_000

# The versions of the job.
BARE, SPAN = "bare", "a span of ours in each op"
OTEL = "dagster-otel"
MLFLOW, MLFLOW_METRICS = "dagster-mlflow", "dagster-mlflow, a metric in each op"

IN_PROCESS, MULTIPROCESS = "in_process", "multiprocess"

# Not imported by a statement, because the project is installed without.
PEERS = {OTEL: "dagster_otel", MLFLOW: "dagster_mlflow", MLFLOW_METRICS: "dagster_mlflow"}

# What a version would import once in each process, at first use: that is not what is measured.
IMPORTS = {
    SPAN: ("ledgerline.traces.step_tracing",),
    OTEL: ("dagster_otel",),
    MLFLOW: ("dagster_mlflow", "mlflow.store.tracking.rest_store"),
    MLFLOW_METRICS: ("dagster_mlflow", "mlflow.store.tracking.rest_store"),
}

EXPERIMENT = "peer"  # of the runs that dagster-mlflow opens
INPUT = {"before": dg.In(int, default_value=0)}

Work = Callable[[], object]


def chain(version: str, ops: int, executor: str, seconds: float) -> dg.JobDefinition:
    """A job of some ops, one after the other.

    Args:
        version: One of the versions above.
        ops: How many.
        executor: IN_PROCESS, or MULTIPROCESS: the project's own.
        seconds: How long each op sleeps; with 0 it computes for about 10 ms instead.
    """

    def work() -> object:
        if seconds:
            return time.sleep(seconds)
        return hashlib.pbkdf2_hmac("sha256", b"work", b"", ITERATIONS)

    step, resources = _OPS[version](work)
    executors = {IN_PROCESS: dg.in_process_executor, MULTIPROCESS: warm_multiprocess_executor}

    @dg.job(name="observed", executor_def=executors[executor], resource_defs=resources)
    def observed() -> None:
        before = step.alias("step_0000")()
        for number in range(1, ops):
            before = step.alias(f"step_{number:04}")(before)

    if version in (MLFLOW, MLFLOW_METRICS):
        return import_module("dagster_mlflow").end_mlflow_on_run_finished(observed)
    return observed


def reconstructable(version: str, ops: int, executor: str, seconds: float) -> ReconstructableJob:
    """The same, as processes hand it to each other."""
    return dg.build_reconstructable_job(
        "benchmarks.observed_jobs",
        "chain",
        reconstructable_kwargs={"version": version, "ops": ops, "executor": executor, "seconds": seconds},
        reconstructor_working_directory=str(PROJECT_ROOT),
    )


def _bare(work: Work) -> tuple[dg.OpDefinition, dict[str, Any]]:
    @dg.op(ins=INPUT)
    def step(before: int) -> int:
        work()
        return before + 1

    return step, {}


def _span(work: Work) -> tuple[dg.OpDefinition, dict[str, Any]]:
    @dg.op(ins=INPUT)
    def step(before: int, otel: OTelResource) -> int:
        with otel.span("work", number=before):
            work()
        return before + 1

    return step, {"otel": OTelResource()}


def _dagster_otel(work: Work) -> tuple[dg.OpDefinition, dict[str, Any]]:
    @dg.op(ins=INPUT)
    @import_module("dagster_otel").traced()
    def step(before: int) -> int:
        work()
        return before + 1

    return step, {}


def _dagster_mlflow(work: Work) -> tuple[dg.OpDefinition, dict[str, Any]]:
    @dg.op(ins=INPUT, required_resource_keys={"mlflow"})
    def step(context: dg.OpExecutionContext, before: int) -> int:
        work()
        return before + 1

    return step, {"mlflow": _mlflow_tracking()}


def _dagster_mlflow_metrics(work: Work) -> tuple[dg.OpDefinition, dict[str, Any]]:
    @dg.op(ins=INPUT, required_resource_keys={"mlflow"})
    def step(context: dg.OpExecutionContext, before: int) -> int:
        started = time.perf_counter()
        work()
        context.resources.mlflow.log_metric(f"{context.op_handle}.seconds", time.perf_counter() - started)
        return before + 1

    return step, {"mlflow": _mlflow_tracking()}


def _mlflow_tracking() -> dg.ResourceDefinition:
    return import_module("dagster_mlflow").mlflow_tracking.configured(
        {"experiment_name": EXPERIMENT, "mlflow_tracking_uri": {"env": "MLFLOW_TRACKING_URI"}}
    )


_OPS: dict[str, Callable[[Work], tuple[dg.OpDefinition, dict[str, Any]]]] = {
    BARE: _bare,
    SPAN: _span,
    OTEL: _dagster_otel,
    MLFLOW: _dagster_mlflow,
    MLFLOW_METRICS: _dagster_mlflow_metrics,
}
