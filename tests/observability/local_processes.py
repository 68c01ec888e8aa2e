"""An executor that runs each step with Dagster's command line in a separate process."""

import subprocess
import sys
from collections.abc import Generator, Iterator

import dagster as dg
from dagster._core.events import DagsterEvent
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.step_delegating import (
    CheckStepHealthResult,
    StepDelegatingExecutor,
    StepHandler,
    StepHandlerContext,
)


class LocalProcesses(StepHandler):
    """Executes each step with Dagster's command line, as executors of containers do."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def name(self) -> str:
        return "local processes"

    def launch_step(self, step_handler_context: StepHandlerContext) -> Iterator[DagsterEvent]:
        arguments = step_handler_context.execute_step_args
        assert arguments.step_keys_to_execute is not None
        (step,) = arguments.step_keys_to_execute
        context = step_handler_context.get_step_context(step)
        yield DagsterEvent.step_worker_starting(context, message=f"Starting {step}.", metadata={})
        command = [sys.executable, "-m", *arguments.get_command_args()]
        self._processes.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))

    def check_step_health(self, step_handler_context: StepHandlerContext) -> CheckStepHealthResult:
        return CheckStepHealthResult.healthy()

    def terminate_step(self, step_handler_context: StepHandlerContext) -> Iterator[DagsterEvent]:
        for process in self._processes:
            process.terminate()
        yield from ()

    def wait(self) -> None:
        for process in self._processes:
            process.wait()


class LocalProcessesExecutor(StepDelegatingExecutor):
    """Leaves no process behind."""

    def __init__(self, handler: LocalProcesses) -> None:
        super().__init__(handler, RetryMode.ENABLED, sleep_seconds=0.05)
        self._handler = handler

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Generator[DagsterEvent, None, None]:
        yield from super().execute(plan_context, execution_plan)
        self._handler.wait()


@dg.executor(name="local_processes", requirements=dg.multiple_process_executor_requirements())
def local_processes(context: dg.InitExecutorContext) -> LocalProcessesExecutor:
    return LocalProcessesExecutor(LocalProcesses())
