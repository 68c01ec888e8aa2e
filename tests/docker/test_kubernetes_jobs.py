"""The Jobs of runs and steps: what Dagster sends to Kubernetes out of the values, and that steps run so."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterEventType
from dagster._core.instance.ref import InstanceRef
from dagster._core.launcher import LaunchRunContext
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.test_utils import create_run_for_test
from dagster_k8s.job import get_k8s_job_name

from observability.event_log import read_history
from tests.docker import chart_instance
from tests.docker.fake_kubernetes import FakeKubernetes, serving
from tests.docker.job_of_two_steps import two_steps
from tests.docker.kubernetes_files import PART, of_kind, require_confined, require_valid, values

NAMESPACE = "ledgerline"
IMAGE = "ledgerline-pipelines:0.1.0"
IMAGE_OF_THE_CODE_SERVER = "ledgerline-pipelines:0.2.0"


@pytest.fixture
def kubernetes(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[FakeKubernetes, Path]]:
    with serving(tmp_path, runs_commands=getattr(request, "param", False)) as fake:
        yield fake


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
    """What holds for runs and steps alike."""
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
    said = values()["runLauncher"]["config"]["k8sRunLauncher"]
    assert container["resources"] == said["resources"]
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
    assert by_name(pod(job)["volumes"]) == by_name(said["volumes"])
    assert by_name(container["volumeMounts"]) == by_name(said["volumeMounts"])


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
    # It starts its steps, so it may ask Kubernetes.
    assert pod(job)["automountServiceAccountToken"] is True


def test_a_run_that_was_killed_is_taken_up_again_by_another_job(
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
    # Whoever shows runs sees what it sees of processes.
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
        # A step has nothing to ask Kubernetes for.
        assert pod(job)["automountServiceAccountToken"] is False
