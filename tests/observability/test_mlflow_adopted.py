"""Tests MLflow runs that dagster-mlflow opened: adopted, not duplicated, and ended with the Dagster run."""

import multiprocessing
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import dagster as dg
import pytest

from ledgerline.ledger.history import RunHistory, RunStatus
from ledgerline.ledger.projection import NotYetError
from ledgerline.testing.recordings import Recordings
from tests.observability import mlflow_jobs as jobs
from tests.observability.mlflow_target import Target, execute, history_of, mapped

THEIRS = "an experiment of dagster-mlflow"
ADOPTION_TAG = "dagster_run_id"


@pytest.fixture
def database(mlflow_database: str, tmp_path: Path, request: pytest.FixtureRequest) -> Target:
    from mlflow import MlflowClient

    client = MlflowClient(mlflow_database)
    client.create_experiment(THEIRS, artifact_location=(tmp_path / "theirs").as_uri())
    return Target(mlflow_database, request.node.name, str(tmp_path / "artifacts"), client)


@pytest.fixture(scope="module")
def followed(
    mlflow_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[dg.DagsterInstance, Mapping[str, str]]]:
    """Runs whose job uses the real dagster-mlflow, each in a process that has exited, by job."""
    resource = {
        "experiment_name": THEIRS,
        "mlflow_tracking_uri": mlflow_server,
        "env": {},
        "extra_tags": {"team": "flights"},
    }
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("followed"))) as instance:
        run_ids = {name: str(uuid4()) for name in ("succeeding", "failing")}
        spawn = multiprocessing.get_context("spawn")  # such a process ends as one of the command line does
        processes = [
            spawn.Process(target=jobs.execute_following, args=(name, run_id, instance.get_ref(), resource))
            for name, run_id in run_ids.items()
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            assert process.exitcode == 0
        yield instance, run_ids


def opened_elsewhere(target: Target, history: RunHistory, status: str = "RUNNING", **tags: str) -> str:
    """Do the same as dagster-mlflow when its resource is initialised, and when the process exits."""
    experiment = target.client.get_experiment_by_name(THEIRS)
    assert experiment is not None
    tags = {ADOPTION_TAG: history.run.run_id, "mlflow.user": "somebody", **tags}
    run = target.client.create_run(experiment.experiment_id, run_name=history.run.job, tags=tags)
    if status != "RUNNING":
        target.client.set_terminated(run.info.run_id, status)
    return run.info.run_id


def going_on(history: RunHistory) -> RunHistory:
    """Return the history before the end."""
    return replace(history, ended=None, status=RunStatus.STARTED)


def failed(instance: dg.DagsterInstance) -> RunHistory:
    history = execute(instance, jobs.cleaning, {"ops": {"clean": {"config": {"fails": True}}}})
    assert history.status is RunStatus.FAILURE
    return history


@pytest.mark.parametrize(("name", "status"), [("succeeding", "FINISHED"), ("failing", "FAILED")])
def test_a_run_that_follows_itself_has_one_mlflow_run_which_ends_as_it_did(
    name: str, status: str, followed: tuple[dg.DagsterInstance, Mapping[str, str]], mlflow_server: str
):
    from mlflow import MlflowClient

    instance, run_ids = followed
    history = history_of(instance, run_ids[name])
    target = Target(mlflow_server, f"ours, {name}", None, MlflowClient(mlflow_server))
    (opened,) = target.runs(run_ids[name], ADOPTION_TAG)
    assert opened.info.status == "FINISHED"  # whatever happened

    for _ in range(3):
        target.export(instance, history)

    run = target.run(history)
    assert run.info.run_id == opened.info.run_id
    assert run.info.status == status
    assert run.info.end_time == int((history.ended or 0) * 1000)
    assert run.data.params["depth"] == "3"
    assert run.data.metrics["auc"] == 0.7
    assert run.data.tags["team"] == "flights"
    assert "step_seconds/train" in run.data.metrics
    assert ("the loss is not a number" in run.data.tags.get("error", "")) == (name == "failing")
    assert target.files(history) == {"lineage", f"lineage/{name}.json", "timeline.png"}
    ours = target.client.get_experiment_by_name(f"ours, {name}")
    assert ours is not None
    assert list(target.client.search_runs([ours.experiment_id])) == []


def test_ours_is_removed_when_theirs_appears(database: Target, instance: dg.DagsterInstance):
    history = mapped(instance)
    database.export(instance, going_on(history))
    ours = database.run(history).info.run_id

    theirs = opened_elsewhere(database, history, "FINISHED")
    database.export(instance, history, going_on(history))

    run = database.run(history)
    assert run.info.run_id == theirs
    assert {"launch_seconds", "step_seconds/split", "run_seconds"} <= set(run.data.metrics)
    removed = database.client.get_run(ours)
    assert removed.info.lifecycle_stage == "deleted"
    assert theirs in removed.data.tags["mlflow.note.content"]


def test_the_status_waits_for_the_process_that_would_overwrite_it(
    database: Target, instance: dg.DagsterInstance
):
    history = failed(instance)
    theirs = opened_elsewhere(database, history)

    with pytest.raises(NotYetError, match=f"{history.run.run_id} still has MLflow run {theirs}"):
        database.export(instance, history)
    assert database.run(history).info.status == "RUNNING"
    assert "run_seconds" in database.run(history).data.metrics

    database.client.set_terminated(theirs, "FINISHED")  # the process exits
    for _ in range(2):
        database.export(instance, history)
    assert database.run(history).info.status == "FAILED"


def test_the_status_does_not_wait_for_a_process_that_has_died(database: Target, instance: dg.DagsterInstance):
    history = failed(instance)
    opened_elsewhere(database, history)

    database.export(instance, replace(history, ended=time.time() - 60))

    assert database.run(history).info.status == "FAILED"


def test_a_status_that_the_process_of_a_step_left_is_corrected_at_once(
    database: Target, recorded: Recordings, instance: dg.DagsterInstance
):
    history = recorded["crash"].history
    opened_elsewhere(database, history, "FINISHED")

    database.export(instance, going_on(history))
    assert database.run(history).info.status == "RUNNING"

    database.export(instance, history, going_on(history))
    assert database.run(history).info.status == "FAILED"


def test_tags_of_an_adopted_run_stay(database: Target, instance: dg.DagsterInstance):
    history = failed(instance)
    given = {"mlflow.note.content": "The run of the paper", "mlflow.parentRunId": "0" * 32}
    theirs = opened_elsewhere(database, history, "FINISHED", **given)
    database.client.log_param(theirs, "ops.clean.config.fails", "sometimes")

    for _ in range(2):
        database.export(instance, history)

    run = database.run(history)
    assert run.info.status == "FAILED"
    assert given.items() <= run.data.tags.items()
    assert run.data.tags["mlflow.user"] == "somebody"
    assert run.data.params == {"ops.clean.config.fails": "sometimes"}


def test_the_first_of_several_runs_is_adopted_and_has_the_others_below_it(
    database: Target, instance: dg.DagsterInstance
):
    history = failed(instance)
    first = opened_elsewhere(database, history, "FINISHED")
    time.sleep(0.002)  # MLflow's clock has milliseconds
    second = opened_elsewhere(database, history, "FINISHED")

    for _ in range(2):
        database.export(instance, history)

    assert database.run(history).info.run_id == first
    assert database.client.get_run(second).data.tags["mlflow.parentRunId"] == first
