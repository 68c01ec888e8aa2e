"""Runs steps in Kubernetes pods, and fails steps whose pods cannot start. executors.py chooses the executor.

Dagster's executor waits for a pod without a limit. An image that cannot be pulled, or a Secret that does not
exist, would block the run until its maximum runtime.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster_k8s import k8s_job_executor
from dagster_k8s.executor import K8sStepHandler

from ledgerline.ledger.dagster_internals import (
    CheckStepHealthResult,
    StepDelegatingExecutor,
    StepHandler,
    StepHandlerContext,
)

# The limit equals that of runs (`startTimeoutSeconds` in docker/kubernetes/dagster-values.yaml), but begins
# when the pod is scheduled to a node. A step may wait for a free node without a limit.
START_SECONDS = 300


class StartingStepHandler(StepHandler):
    """Dagster's step handler, which also fails a step whose pod is scheduled but does not start."""

    def __init__(self, dagsters: K8sStepHandler) -> None:
        self._dagsters = dagsters

    @property
    def name(self) -> str:
        """The name in messages of the event log."""
        return self._dagsters.name

    def launch_step(self, step_handler_context: StepHandlerContext) -> Iterator[dg.DagsterEvent]:
        """Create the Job of a step."""
        return self._dagsters.launch_step(step_handler_context)

    def terminate_step(self, step_handler_context: StepHandlerContext) -> Iterator[dg.DagsterEvent]:
        """Delete the Job of a step."""
        return self._dagsters.terminate_step(step_handler_context)

    def check_step_health(self, step_handler_context: StepHandlerContext) -> CheckStepHealthResult:
        """Return whether the step is healthy, with a reason if it is not."""
        health = self._dagsters.check_step_health(step_handler_context)
        if not health.is_healthy:
            return health
        namespace = self._dagsters._get_container_context(step_handler_context).namespace
        job = self._dagsters._get_k8s_step_job_name(step_handler_context)
        problem = start_problem(self._dagsters._api_client.get_pods_in_job(job, namespace), datetime.now(UTC))
        if problem is None:
            return health
        # If the pod started later, it would execute a step that has already failed.
        try:
            list(self.terminate_step(step_handler_context))
        except Exception as error:  # noqa: BLE001 (the step has failed, whatever Kubernetes responds)
            ended = f"The job could not be deleted, delete it by hand: {error}"
        else:
            ended = "The job is deleted."
        return CheckStepHealthResult.unhealthy(reason=f"Kubernetes job {job}: {problem} {ended}")


def start_problem(pods: "Iterable[Any]", now: datetime) -> str | None:
    """Return why a pod has not started START_SECONDS after it was scheduled; None if there is no such pod.

    The pods are `V1Pod` objects of Kubernetes' client, whose types allow None even for fields that are always
    set.
    """
    for pod in pods:
        statuses = [*(pod.status.init_container_statuses or ()), *(pod.status.container_statuses or ())]
        if pod.status.phase != "Pending" or any(status.state.running for status in statuses):
            continue
        conditions = {condition.type: condition for condition in pod.status.conditions or ()}
        scheduled = conditions.get("PodScheduled")
        placed = scheduled.last_transition_time if scheduled and scheduled.status == "True" else None
        if placed is None or (now - placed).total_seconds() < START_SECONDS:
            continue
        waiting = "; ".join(_waiting(status) for status in statuses if status.state.waiting)
        return (
            f"pod {pod.metadata.name} got its node {pod.spec.node_name} more than {START_SECONDS} seconds "
            f"ago and has not started ({waiting or 'its node reports no container'}). Usually an image, a "
            "Secret, a ConfigMap or a volume is missing: `kubectl get events` says which."
        )
    return None


def _waiting(status: Any) -> str:
    waiting = status.state.waiting
    return f"{waiting.reason}: {waiting.message}" if waiting.message else f"{waiting.reason}"


_dagsters: Any = k8s_job_executor


@dg.executor(
    name="kubernetes",
    config_schema=_dagsters.config_schema,
    requirements=dg.multiple_process_executor_requirements(),
)
def step_pods(context: dg.InitExecutorContext) -> StepDelegatingExecutor:
    """Run each step in a separate pod, which continues if the run's pod ends."""
    executor = _dagsters.executor_creation_fn(context)
    executor._step_handler = StartingStepHandler(executor._step_handler)
    return executor
