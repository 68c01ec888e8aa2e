"""Tests that runs which died with the code server are ended by the next one, and only these."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterRunStatus
from dagster._core.test_utils import create_run_for_test

from benchmarks.stack.files import DOCKER, services

CODE = runpy.run_path(str(DOCKER / "code_server.py"))
HERE = {"host": "code", "port": 4000}


@pytest.fixture
def end_orphaned_runs() -> Callable[..., list[str]]:
    def end(instance: dg.DagsterInstance, host: str, port: int) -> list[str]:
        found: list[str] = CODE["orphaned_runs"](instance, host, port)
        ended: list[str] = CODE["end_runs"](instance, found) if found else []
        return ended

    return end


def run(instance: dg.DagsterInstance, status: DagsterRunStatus, server: dict[str, object] | None) -> str:
    tags = {} if server is None else {CODE["SERVER_TAG"]: json.dumps(server)}
    return create_run_for_test(instance, job_name="job", status=status, tags=tags).run_id


def status_of(instance: dg.DagsterInstance, run_id: str) -> DagsterRunStatus:
    found = instance.get_run_by_id(run_id)
    assert found is not None
    return found.status


def test_the_tag_is_the_one_that_dagster_writes() -> None:
    from dagster._core.storage.tags import GRPC_INFO_TAG

    assert CODE["SERVER_TAG"] == GRPC_INFO_TAG


def test_the_server_is_started_at_the_address_that_the_workspace_names() -> None:
    environment = services()["code"]["environment"]
    assert services()["code"]["command"][-2:] == [
        environment["DAGSTER_CODE_HOST"],
        environment["DAGSTER_CODE_PORT"],
    ]


def test_a_run_of_the_server_before_has_failed(end_orphaned_runs: Callable[..., list[str]]) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        died = run(instance, DagsterRunStatus.STARTED, HERE)
        assert end_orphaned_runs(instance, "code", 4000) == [died]
        assert status_of(instance, died) == DagsterRunStatus.FAILURE
        messages = [record.message for record in instance.all_logs(died)]
        assert any("killed" in message for message in messages)


def test_a_run_that_was_being_cancelled_is_cancelled(end_orphaned_runs: Callable[..., list[str]]) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        died = run(instance, DagsterRunStatus.CANCELING, HERE)
        end_orphaned_runs(instance, "code", 4000)
        assert status_of(instance, died) == DagsterRunStatus.CANCELED


@pytest.mark.parametrize(
    "server", [None, {"host": "elsewhere", "port": 4000}, {"host": "code", "port": 4001}]
)
def test_runs_of_others_go_on(
    end_orphaned_runs: Callable[..., list[str]], server: dict[str, object] | None
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        alive = run(instance, DagsterRunStatus.STARTED, server)
        assert end_orphaned_runs(instance, "code", 4000) == []
        assert status_of(instance, alive) == DagsterRunStatus.STARTED


@pytest.mark.parametrize("status", [DagsterRunStatus.NOT_STARTED, DagsterRunStatus.SUCCESS])
def test_waiting_and_ended_runs_are_not_changed(
    end_orphaned_runs: Callable[..., list[str]], status: DagsterRunStatus
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        other = run(instance, status, HERE)
        assert end_orphaned_runs(instance, "code", 4000) == []
        assert status_of(instance, other) == status


def test_a_run_that_another_process_has_ended_is_not_changed() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        died = run(instance, DagsterRunStatus.STARTED, HERE)
        found = CODE["orphaned_runs"](instance, "code", 4000)
        assert found == [died]
        instance.report_run_canceled(instance.get_runs()[0])
        assert CODE["end_runs"](instance, found) == []
        assert status_of(instance, died) == DagsterRunStatus.CANCELED


def test_a_stopping_server_prints_what_the_launcher_searches_for() -> None:
    from dagster._grpc import server

    launcher = runpy.run_path(str(DOCKER / "run_launcher.py"))
    assert launcher["REFUSED"] in Path(server.__file__).read_text()


def test_dagster_retries_killed_runs_and_not_failed_ones(
    end_orphaned_runs: Callable[..., list[str]],
) -> None:
    from dagster._core.events import RunFailureReason
    from dagster._core.execution.retries import auto_reexecution_should_retry_run

    retries = {"enabled": True, "max_retries": 2, "retry_on_asset_or_op_failure": False}
    with dg.instance_for_test(overrides={"run_retries": retries}) as instance:
        died = run(instance, DagsterRunStatus.STARTED, HERE)
        end_orphaned_runs(instance, "code", 4000)
        killed = instance.get_run_by_id(died)
        assert killed is not None
        assert auto_reexecution_should_retry_run(instance, killed, None)
        assert not auto_reexecution_should_retry_run(instance, killed, RunFailureReason.STEP_FAILURE)
