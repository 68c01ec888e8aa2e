"""Tests the Jobs of runs and steps that Dagster sends to Kubernetes with the values of the chart."""

import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster import DagsterEventType
from dagster._core.execution.retries import RetryMode
from dagster._core.instance.ref import InstanceRef
from dagster._core.launcher import LaunchRunContext
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.test_utils import create_run_for_test
from dagster._grpc.types import ExecuteStepArgs
from dagster_k8s.job import get_k8s_job_name
from kubernetes import client

from benchmarks.stack.files import DOCKER
from ledgerline.dagster.kubernetes_steps import START_SECONDS, start_problem
from ledgerline.ledger.event_log import read_history
from ledgerline.testing.ports import HOST
from tests.docker import chart_instance
from tests.docker.fake_kubernetes import FakeKubernetes, StartProblem, serving
from tests.docker.job_of_two_steps import two_steps
from tests.docker.kubernetes_files import PART, kustomization, of_kind, require_confined, require_valid

NAMESPACE = kustomization()["namespace"]
IMAGE = "ledgerline-pipelines:0.2.0"
IMAGE_OF_THE_CODE_SERVER = "ledgerline-pipelines:0.2.0"


@pytest.fixture
def kubernetes(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[FakeKubernetes, Path]]:
    with serving(tmp_path, runs_commands=getattr(request, "param", False)) as fake:
        yield fake


@pytest.fixture(autouse=True)
def image_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of the launcher on Python's path, as PYTHONPATH of the image has it."""
    monkeypatch.syspath_prepend(str(DOCKER))
    monkeypatch.setenv("PYTHONPATH", str(DOCKER))


@pytest.fixture
def instance(tmp_path: Path, kubernetes: tuple[FakeKubernetes, Path]) -> Iterator[dg.DagsterInstance]:
    """With the run launcher as the chart writes it, and everything else on this machine."""
    launcher = chart_instance.run_launcher()
    elsewhere = {"load_incluster_config": False, "kubeconfig_file": str(kubernetes[1]), "job_image": IMAGE}
    overrides = {"run_launcher": launcher | {"config": launcher["config"] | elsewhere}}
    home = tmp_path / "home"
    home.mkdir()
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home), overrides=overrides)) as instance:
        yield instance


def run_of_the_code_server(instance: dg.DagsterInstance, job: str) -> dg.DagsterRun:
    """A run as the daemon has it, whose code server has an image."""
    pointer = dg.reconstructable(two_steps).get_python_origin().repository_origin.code_pointer
    repository = RepositoryPythonOrigin(
        sys.executable, pointer, container_image=IMAGE_OF_THE_CODE_SERVER, entry_point=["dagster"]
    )
    return create_run_for_test(instance, job_name=job, job_code_origin=JobPythonOrigin(job, repository))


def pod(job: Any) -> Any:
    return job["spec"]["template"]["spec"]


def by_name(parts: list[Any]) -> dict[str, Any]:
    return {part["name"]: part for part in parts}


def require_pod_of_a_run(job: Any, name: str, image: str) -> None:
    """Assert what is true of runs and of steps."""
    require_valid(job)
    require_confined(pod(job))
    assert job["metadata"]["name"] == name
    assert job["spec"]["ttlSecondsAfterFinished"] == 86400
    assert job["spec"]["backoffLimit"] == 0  # Dagster starts again, not Kubernetes
    assert pod(job)["restartPolicy"] == "Never"
    assert pod(job)["enableServiceLinks"] is False
    assert pod(job)["serviceAccountName"] in of_kind("ServiceAccount")
    assert pod(job)["serviceAccountName"] == "dagster-runs"
    template = job["spec"]["template"]["metadata"]
    assert template["labels"][PART] == job["metadata"]["labels"][PART] == "run"
    assert template["annotations"] == {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
    (container,) = pod(job)["containers"]
    assert container["image"] == image
    assert container["imagePullPolicy"] == "IfNotPresent"
    declared = chart_instance.run_launcher()["config"]
    assert container["resources"] == declared["resources"]
    # The database's password is named, and nothing secret written down.
    variables = by_name(container["env"])
    assert variables["DAGSTER_PG_PASSWORD"]["valueFrom"] == {
        "secretKeyRef": {"name": "dagster-postgresql", "key": "postgresql-password"}
    }
    assert variables["DAGSTER_HOME"]["value"] == "/opt/dagster"
    assert variables.keys() <= {
        "DAGSTER_PG_PASSWORD",
        "DAGSTER_HOME",
        "DAGSTER_RUN_JOB_NAME",
        "DAGSTER_RUN_STEP_KEY",
        "DAGSTER_COMPRESSED_EXECUTE_STEP_ARGS",
    }
    assert container["envFrom"] == [
        {"configMapRef": {"name": "ledgerline"}},
        {"secretRef": {"name": "ledgerline"}},
    ]
    # The instance is in the command, in which the password is the name of its variable.
    assert by_name(pod(job)["volumes"]) == by_name(declared["volumes"])
    assert by_name(container["volumeMounts"]) == by_name(declared["volume_mounts"])


def test_a_run_is_a_job_with_the_image_of_its_code_server(
    kubernetes: tuple[FakeKubernetes, Path], instance: dg.DagsterInstance
) -> None:
    run = run_of_the_code_server(instance, "train_delay_model")
    instance.run_launcher.launch_run(LaunchRunContext(run, workspace=None))
    ((key, job),) = kubernetes[0].jobs.items()
    assert key == (NAMESPACE, f"dagster-run-{run.run_id}")
    require_pod_of_a_run(job, f"dagster-run-{run.run_id}", IMAGE_OF_THE_CODE_SERVER)
    labels = job["metadata"]["labels"]
    assert (labels["dagster/job"], labels["dagster/run-id"]) == ("train_delay_model", run.run_id)
    assert pod(job)["containers"][0]["args"][:3] == ["dagster", "api", "execute_run"]
    # It starts its steps, so it has access to Kubernetes.
    assert pod(job)["automountServiceAccountToken"] is True


def test_a_killed_run_is_resumed_by_another_job(
    kubernetes: tuple[FakeKubernetes, Path], instance: dg.DagsterInstance
) -> None:
    from dagster._core.launcher import ResumeRunContext

    run = run_of_the_code_server(instance, "train_delay_model")
    assert instance.run_launcher.supports_resume_run
    instance.run_launcher.resume_run(ResumeRunContext(run, workspace=None, resume_attempt_number=1))
    ((_, job),) = kubernetes[0].jobs.items()
    require_pod_of_a_run(job, f"dagster-run-{run.run_id}-1", IMAGE_OF_THE_CODE_SERVER)
    assert pod(job)["containers"][0]["args"][:3] == ["dagster", "api", "resume_run"]


@pytest.mark.parametrize("kubernetes", [True], indirect=True)
def test_each_step_is_a_job_and_one_that_fails_is_started_again(
    kubernetes: tuple[FakeKubernetes, Path], instance: dg.DagsterInstance
) -> None:
    with dg.execute_job(dg.reconstructable(two_steps), instance) as result:
        assert result.success
        assert result.output_for_node("follower") == 3
        events = [event.event_type for event in result.all_events if event.step_key == "fails_once"]
    assert DagsterEventType.STEP_UP_FOR_RETRY in events
    # The observer exports the same as for processes.
    history = read_history(instance, result.run_id)
    assert history is not None
    attempts = [(attempt.step, attempt.number) for attempt in history.attempts]
    assert attempts == [("fails_once", 1), ("fails_once", 2), ("follower", 1)]
    assert all(attempt.phases[0].name == "start worker" for attempt in history.attempts)
    first, second = (
        f"dagster-step-{get_k8s_job_name(result.run_id, key)}" for key in ("fails_once", "follower")
    )
    jobs = {name: job for (_, name), job in kubernetes[0].jobs.items()}
    assert list(jobs) == [first, f"{first}-1", second]
    for name, job in jobs.items():
        require_pod_of_a_run(job, name, IMAGE)
        assert job["metadata"]["labels"]["dagster/run-id"] == result.run_id
        assert pod(job)["containers"][0]["args"][-2:] == ["api", "execute_step"]
        # A step needs no access to Kubernetes.
        assert pod(job)["automountServiceAccountToken"] is False


@pytest.mark.parametrize("kubernetes", [True], indirect=True)
def test_a_step_whose_pod_cannot_start_fails_with_the_reason(
    kubernetes: tuple[FakeKubernetes, Path], instance: dg.DagsterInstance
) -> None:
    kubernetes[0].start_problem = StartProblem(
        "ErrImagePull", since=datetime.now(UTC) - timedelta(seconds=301)
    )
    with dg.execute_job(dg.reconstructable(two_steps), instance, raise_on_error=False) as result:
        assert not result.success
        (failure,) = result.filter_events(lambda event: event.is_step_failure)
    assert failure.step_key == "fails_once"
    error = failure.step_failure_data.error
    assert error is not None
    assert "got its node node-1 more than 300 seconds ago and has not started" in error.message
    assert "(ErrImagePull: no such thing)" in error.message
    # The Job is deleted, so that none of its pods can start later, unnoticed by the run.
    assert "The job is deleted." in error.message
    assert kubernetes[0].deleted >= kubernetes[0].jobs.keys()


def test_a_pod_is_given_time_to_start_and_without_limit_to_get_a_node() -> None:
    now = datetime.now(UTC)
    long_ago = now - timedelta(seconds=START_SECONDS + 1)
    waiting = client.V1ContainerState(waiting=client.V1ContainerStateWaiting(reason="ImagePullBackOff"))
    running = client.V1ContainerState(running=client.V1ContainerStateRunning())

    def pod_with(phase: str, state: Any, placed: str, since: datetime) -> client.V1Pod:
        return client.V1Pod(
            metadata=client.V1ObjectMeta(name="pod"),
            spec=client.V1PodSpec(containers=[], node_name="node-1"),
            status=client.V1PodStatus(
                phase=phase,
                conditions=[
                    client.V1PodCondition(type="PodScheduled", status=placed, last_transition_time=since)
                ],
                container_statuses=state
                and [
                    client.V1ContainerStatus(
                        image="", image_id="", name="dagster", ready=False, restart_count=0, state=state
                    )
                ],
            ),
        )

    assert start_problem([], now) is None
    assert start_problem([pod_with("Pending", waiting, "True", now)], now) is None
    assert start_problem([pod_with("Pending", waiting, "False", long_ago)], now) is None
    assert start_problem([pod_with("Pending", running, "True", long_ago)], now) is None
    assert start_problem([pod_with("Running", running, "True", long_ago)], now) is None
    problem = start_problem([pod_with("Pending", waiting, "True", long_ago)], now)
    assert problem is not None
    assert "(ImagePullBackOff)" in problem
    # A volume that cannot be mounted, for one.
    problem = start_problem([pod_with("Pending", None, "True", long_ago)], now)
    assert problem is not None
    assert "(its node reports no container)" in problem


@pytest.fixture
def in_a_pod_without_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of the instance as the chart renders it, but for the databases, in a pod of a cluster."""
    from kubernetes.config.incluster_config import SERVICE_TOKEN_FILENAME

    assert not Path(SERVICE_TOKEN_FILENAME).exists()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", HOST)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    elsewhere = ("schedule_storage", "run_storage", "event_log_storage", "compute_logs")
    rendered = {
        name: part for name, part in copy.deepcopy(chart_instance.instance()).items() if name not in elsewhere
    }
    rendered["local_artifact_storage"]["config"] = {"base_dir": str(tmp_path / "artifacts")}
    assert rendered["run_monitoring"]["max_resume_run_attempts"] > 0
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text(yaml.safe_dump(rendered))
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    return home


def test_the_rendered_instance_opens_without_a_token_and_launches_nothing(
    in_a_pod_without_token: Path,
) -> None:
    with dg.DagsterInstance.get() as instance:
        run = run_of_the_code_server(instance, "train_delay_model")
        with pytest.raises(Exception, match="may not launch, end or check runs on Kubernetes: Service token"):
            instance.run_launcher.launch_run(LaunchRunContext(run, workspace=None))
        # The daemon can still resume a run that was killed.
        assert instance.run_launcher.supports_resume_run
        assert instance.run_monitoring_max_resume_run_attempts == 2


def test_a_step_executes_in_a_pod_without_a_token(in_a_pod_without_token: Path) -> None:
    job = dg.reconstructable(two_steps)
    with dg.DagsterInstance.get() as instance:
        run = create_run_for_test(
            instance,
            job_name="two_steps",
            job_code_origin=job.get_python_origin(),
            status=dg.DagsterRunStatus.STARTED,
            execution_plan_snapshot=None,
        )
        step = ExecuteStepArgs(
            job_origin=job.get_python_origin(),
            run_id=run.run_id,
            step_keys_to_execute=["follower"],
            instance_ref=instance.get_ref(),
            retry_mode=RetryMode.DISABLED,
            known_state=None,
            should_verify_step=False,
        )
        executed = subprocess.run(
            [sys.executable, "-m", "dagster", *step.get_command_args()[1:]],
            capture_output=True,
            text=True,
            check=False,
        )
        assert executed.returncode == 0, executed.stderr


def test_the_observer_starts_in_a_pod_without_a_token(in_a_pod_without_token: Path) -> None:
    ledgerline = Path(sys.executable).with_name("ledgerline")
    told = {"LEDGERLINE_HOME": str(in_a_pod_without_token), "OTEL_SDK_DISABLED": "true"}
    observed = subprocess.run(
        [ledgerline, "observe", "--all"], env=os.environ | told, capture_output=True, text=True, check=False
    )
    assert "oken" not in observed.stdout + observed.stderr
    assert observed.returncode == 0, observed.stdout + observed.stderr
