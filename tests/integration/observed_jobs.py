"""Jobs whose steps trace themselves and fail as the tags of their run define; for code servers, too.

The tests are in test_observer_faults.py and test_spans_inside_steps.py.
"""

import contextvars
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.multiprocess import MultiprocessExecutor
from opentelemetry import context as otel_context
from opentelemetry import trace

from ledgerline.dagster import resources
from ledgerline.dagster.observed import observers
from ledgerline.dagster.settings import Settings, environment_with
from ledgerline.dagster.tracing import OTelResource
from ledgerline.testing.waiting import wait_until

FAULT = "fault/"  # and the name of a step: a tag that defines what happens there
GATE = "gate"  # a tag with a path, for the steps that wait: see `wait_at_the_gate`
EXIT_CODE = 3
GATE_SECONDS = 120.0
LIBRARY = "a library"

TRACING_CHILD = Path(__file__).with_name("tracing_child.py")

# These modules are imported by Dagster in every step, and preloaded once for each run.
PRELOADED = [
    __name__,
    "dagster._core.executor.multiprocess",
    "dagster._core.instance.factory",
    "dagster._core.storage.sqlite_storage",
    "dagster._core.storage.local_compute_log_manager",
    "dagster._core.run_coordinator.queued_run_coordinator",
    "dagster._core.launcher.default_run_launcher",
    "ledgerline.traces.step_tracing",
    "upath.implementations.local",
]
CLOCK_BEHIND = "tests.integration.clock_behind"

# The faults of a step

# Two runs in one process wait here for each other.
MEETING = threading.Barrier(2)


def meet_fate(context: dg.AssetExecutionContext) -> None:
    """Do what the run's tag defines for this step."""
    step = context.op_execution_context.get_step_execution_context().step.key
    fault = context.run.tags.get(FAULT + step)
    if fault == "raises":
        raise ValueError("weevils")
    if fault == "exits":
        os._exit(EXIT_CODE)
    if fault == "is killed" or (fault == "is killed once" and context.retry_number == 0):
        os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when there is no memory left
    if fault == "waits":
        wait_at_the_gate(Path(context.run.tags[GATE]))
    if fault == "meets the other run":
        MEETING.wait(GATE_SECONDS)


def wait_at_the_gate(gate: Path) -> None:
    """Leave a file `reached` there, and go on once there is a file `open`."""
    Path(gate, "reached").write_text(str(os.getpid()))
    wait_until(Path(gate, "open").exists, f"{gate} is open", GATE_SECONDS)


def work(context: dg.AssetExecutionContext, otel: OTelResource, what: str) -> int:
    with otel.span(what, attempt=context.retry_number + 1), library_call(f"{what}, by a library"):
        pass
    with library_call(f"before {what}"):
        pass
    meet_fate(context)
    return 1


def library_call(name: str) -> trace.Span:
    """A span of another library."""
    return trace.get_tracer(LIBRARY).start_as_current_span(name)  # pyright: ignore[reportReturnType]


# A chain of assets


@dg.asset(code_version="1")
def grain(context: dg.AssetExecutionContext, otel: OTelResource) -> int:
    return work(context, otel, "harvest")


@dg.asset
def flour(context: dg.AssetExecutionContext, otel: OTelResource, grain: int) -> int:
    return grain + work(context, otel, "grind")


@dg.asset(retry_policy=dg.RetryPolicy(max_retries=1))
def bread(context: dg.AssetExecutionContext, otel: OTelResource, flour: int) -> int:
    return flour + work(context, otel, "knead")


BAKERY = [grain, flour, bread]

# Steps that start threads and processes


@dg.asset
def threads(otel: OTelResource) -> None:
    """Threads with Dagster's context and OpenTelemetry's, with OpenTelemetry's only, and with none."""

    def in_thread(name: str) -> None:
        with otel.span(name), library_call(f"{name}, by a library"):
            pass

    def with_context_of_telemetry(context: otel_context.Context) -> None:
        token = otel_context.attach(context)
        in_thread("thread with a trace")
        otel_context.detach(token)

    with otel.span("around threads"), ThreadPoolExecutor(1) as pool:
        pool.submit(contextvars.copy_context().run, in_thread, "thread with all").result()
        pool.submit(with_context_of_telemetry, otel_context.get_current()).result()
        pool.submit(in_thread, "thread with nothing").result()


@dg.asset
def child_process(context: dg.AssetExecutionContext, otel: OTelResource) -> dg.MaterializeResult:
    def traceparent_of_child() -> str:
        return subprocess.run(
            [sys.executable, "-c", "import os; print(os.environ.get('TRACEPARENT', 'nothing'))"],
            env=environment_with(otel.environment()),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout.strip()

    with otel.span("calling"):
        inside = traceparent_of_child()
    return dg.MaterializeResult(metadata={"inside": inside, "outside": traceparent_of_child()})


@dg.asset
def piped_process(
    context: dg.AssetExecutionContext, otel: OTelResource, pipes: dg.PipesSubprocessClient
) -> dg.MaterializeResult:
    with otel.span("piping"):
        return pipes.run(
            context=context,
            command=[sys.executable, str(TRACING_CHILD)],
            env=otel.environment(),
            extras=dict(otel.trace_context()),
        ).get_materialize_result()


# Jobs


@dg.executor(name="processes", requirements=dg.multiple_process_executor_requirements())
def processes(context: dg.InitExecutorContext) -> MultiprocessExecutor:
    return _processes(PRELOADED)


@dg.executor(name="processes_behind", requirements=dg.multiple_process_executor_requirements())
def processes_behind(context: dg.InitExecutorContext) -> MultiprocessExecutor:
    """Return steps whose clock is behind from the first reading on."""
    return _processes([CLOCK_BEHIND, *PRELOADED])


def _processes(preloaded: list[str]) -> MultiprocessExecutor:
    return MultiprocessExecutor(
        retries=RetryMode.ENABLED,
        max_concurrent=2,
        start_method="forkserver",
        explicit_forkserver_preload=preloaded,
    )


def baking() -> dg.JobDefinition:
    return definitions().resolve_job_def("baking")


def baking_here() -> dg.JobDefinition:
    return definitions().resolve_job_def("baking_here")


def baking_behind() -> dg.JobDefinition:
    return definitions().resolve_job_def("baking_behind")


def threading_here() -> dg.JobDefinition:
    return definitions().resolve_job_def("threading_here")


def calling() -> dg.JobDefinition:
    return definitions().resolve_job_def("calling")


def definitions() -> dg.Definitions:
    """Return definitions with the resources that the environment configures now."""
    settings = Settings.from_environment(os.environ)
    return dg.Definitions(
        assets=[*BAKERY, threads, child_process, piped_process],
        resources={
            "otel": resources.otel(settings),
            "projections": resources.projections(settings),
            "pipes": dg.PipesSubprocessClient(),
        },
        sensors=observers(running=False, send_lineage=False),
        jobs=[
            dg.define_asset_job("baking", BAKERY, executor_def=processes),
            dg.define_asset_job("baking_here", BAKERY, executor_def=dg.in_process_executor),
            dg.define_asset_job("baking_behind", BAKERY, executor_def=processes_behind),
            dg.define_asset_job("threading_here", [threads], executor_def=dg.in_process_executor),
            dg.define_asset_job("calling", [child_process, piped_process], executor_def=processes),
        ],
    )


defs = definitions()
