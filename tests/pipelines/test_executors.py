"""Tests the executors of steps: separate processes, of which one may be killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterEventType

from ledgerline.dagster.executors import (
    USES_LANGUAGE_MODEL,
    ExecutorError,
    executor_for,
    require_shared,
    start_warm_process,
    warm_multiprocess_executor,
)
from ledgerline.dagster.settings import Settings
from ledgerline.settings.declaration import SettingsError


class Folder(dg.Config):
    """Folder in which a step leaves what a test reads."""

    path: str


@dg.op
def first_process() -> int:
    return os.getpid()


@dg.op
def second_process(first: int) -> tuple[int, int]:
    return first, os.getpid()


@dg.job(executor_def=warm_multiprocess_executor)
def two_steps() -> None:
    second_process(first_process())


@dg.op(retry_policy=dg.RetryPolicy(max_retries=1))
def killed_once(config: Folder) -> str:
    victim = Path(config.path, "victim")
    if not victim.exists():
        victim.write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)
    return victim.read_text()


@dg.op
def follower(killed: str) -> bool:
    return int(killed) != os.getpid()


@dg.job(executor_def=warm_multiprocess_executor)
def survives_a_kill() -> None:
    follower(killed_once())


@dg.op(retry_policy=dg.RetryPolicy(max_retries=1))
def killed_always() -> None:
    os._exit(7)


@dg.job(executor_def=warm_multiprocess_executor)
def does_not_survive() -> None:
    killed_always()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


def events_of(result: dg.JobExecutionResult, step_key: str) -> list[DagsterEventType]:
    return [event.event_type for event in result.all_events if event.step_key == step_key]


def test_each_step_has_a_separate_process(instance: dg.DagsterInstance) -> None:
    with dg.execute_job(dg.reconstructable(two_steps), instance) as result:
        assert result.success
        first, second = result.output_for_node("second_process")
    assert len({first, second, os.getpid()}) == 3


def test_a_step_whose_process_is_killed_is_retried(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    config = {"ops": {"killed_once": {"config": {"path": str(tmp_path)}}}}
    with dg.execute_job(dg.reconstructable(survives_a_kill), instance, run_config=config) as result:
        assert result.success
        events = events_of(result, "killed_once")
        assert result.output_for_node("follower") is True
    assert DagsterEventType.STEP_UP_FOR_RETRY in events
    assert events.index(DagsterEventType.STEP_UP_FOR_RETRY) < events.index(DagsterEventType.STEP_RESTARTED)
    assert events[-1] is DagsterEventType.STEP_SUCCESS


def test_a_step_whose_process_ends_every_time_fails_the_run(instance: dg.DagsterInstance) -> None:
    with dg.execute_job(dg.reconstructable(does_not_survive), instance) as result:
        assert not result.success
        events = events_of(result, "killed_always")
    assert events.count(DagsterEventType.STEP_UP_FOR_RETRY) == 1
    assert events[-1] is DagsterEventType.STEP_FAILURE
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.status is dg.DagsterRunStatus.FAILURE


def test_an_executor_is_chosen_by_name() -> None:
    assert executor_for("in_process", 0, 1) is dg.in_process_executor
    names = {name: executor_for(name, 3, 2).name for name in ("multiprocess", "multiprocess_spawn")}
    assert set(names.values()) == {"multiprocess"}  # one name in the run's configuration for both


@pytest.mark.parametrize(
    ("name", "creation"),
    [
        ("multiprocess", warm_multiprocess_executor.executor_creation_fn),
        ("multiprocess_spawn", dg.multiprocess_executor.executor_creation_fn),
    ],
)
def test_processes_are_forked_unless_spawning_is_configured(name: str, creation: object) -> None:
    assert executor_for(name, 0, 1).executor_creation_fn is creation


def test_a_warm_process_imports_the_modules_of_its_steps() -> None:
    tables, models = start_warm_process([]), start_warm_process(["scikitlearn", "mlflow"])
    assert set(start_warm_process([], ["pipelines.definitions"])) == {"pipelines.definitions", *tables}
    assert "sklearn.ensemble" not in tables
    assert {"sklearn.ensemble", "mlflow.sklearn"} <= set(models)
    assert start_warm_process(["parquet"]) == tables


def test_modules_of_language_models_are_imported_by_steps_that_use_them() -> None:
    loaded = set(start_warm_process(["ollama"]))
    assert {"ledgerline.agent.agent", "ledgerline.agent.ollama_provider", "ollama", "duckdb"} <= loaded
    assert not loaded & {"sklearn.ensemble", "mlflow.sklearn"}
    others = set(start_warm_process(["scikitlearn", "mlflow"]))
    assert not others & {"ledgerline.agent.agent", "duckdb"}


@pytest.mark.parametrize("name", ["multiprocess", "multiprocess_spawn"])
def test_steps_with_a_language_model_have_a_separate_limit(name: str) -> None:
    processed = executor_for(name, 4, 2).apply_config_mapping({"config": {}}).value
    assert processed is not None
    configured = processed["config"]
    ((key, value),) = USES_LANGUAGE_MODEL.items()
    assert configured["max_concurrent"] == 4
    assert configured["tag_concurrency_limits"] == [{"key": key, "value": value, "limit": 2}]


def test_pods_are_limited_like_processes_retried_and_have_no_token() -> None:
    processed = executor_for("kubernetes", 4, 2).apply_config_mapping({"config": {}}).value
    assert processed is not None
    configured = processed["config"]
    ((key, value),) = USES_LANGUAGE_MODEL.items()
    assert configured["max_concurrent"] == 4
    assert configured["tag_concurrency_limits"] == [{"key": key, "value": value, "limit": 2}]
    assert configured["retries"] == {"enabled": {}}
    assert configured["step_k8s_config"]["pod_spec_config"] == {"automount_service_account_token": False}


def test_the_number_of_pods_is_unlimited_unless_configured() -> None:
    # The cores of the run's pod do not tell those of other pods.
    processed = executor_for("kubernetes", 0, 2).apply_config_mapping({"config": {}}).value
    assert processed is not None
    assert "max_concurrent" not in processed["config"]


def test_without_its_library_kubernetes_is_refused_with_the_package_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "dagster_k8s", None)
    monkeypatch.delitem(sys.modules, "ledgerline.dagster.kubernetes_steps", raising=False)
    with pytest.raises(ExecutorError, match=r"`kubernetes`: dagster_k8s is not .*-mlops\[kubernetes\]'"):
        executor_for("kubernetes", 0, 1)


@pytest.mark.parametrize("name", ["multiprocess", "multiprocess_spawn", "in_process"])
def test_the_other_executors_do_without_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dagster_k8s", None)
    assert executor_for(name, 0, 1)


def test_tables_on_the_disk_of_one_pod_are_refused() -> None:
    with pytest.raises(
        ExecutorError, match=r"LEDGERLINE_EXECUTOR is kubernetes.*/nowhere/data is on the disk of"
    ):
        require_shared("/nowhere/data")


# Something is mounted there on Linux and macOS alike.
@pytest.mark.parametrize("data", ["s3://bucket/prefix", "gs://bucket/prefix", "/dev/tables", "/dev"])
def test_tables_in_a_bucket_or_on_a_volume_are_taken(data: str) -> None:
    require_shared(data)


def test_an_error_is_raised_when_the_code_location_is_loaded(tmp_path: Path) -> None:
    variables = {
        "LEDGERLINE_EXECUTOR": "kubernetes",
        "LEDGERLINE_DATA": "/nowhere/data",
        "LEDGERLINE_HOME": str(tmp_path),
    }
    loaded = subprocess.run(
        [sys.executable, "-c", "import pipelines.definitions"],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert loaded.returncode != 0
    assert "ExecutorError: LEDGERLINE_EXECUTOR is kubernetes" in loaded.stderr


def test_the_code_location_loads_with_pods(tmp_path: Path) -> None:
    settings = Settings.from_environment(
        {"LEDGERLINE_HOME": str(tmp_path), "LEDGERLINE_DATA": "s3://bucket/tables"}
    )
    from pipelines.definitions import build_definitions

    dg.Definitions.validate_loadable(build_definitions(settings, executor_for("kubernetes", 0, 1)))


def test_an_unknown_executor_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="LEDGERLINE_EXECUTOR is 'cluster'; set it to one of: multi"):
        Settings.from_environment({"LEDGERLINE_EXECUTOR": "cluster"})


def test_the_executor_of_this_project_forks_steps_from_a_process_that_has_its_definitions() -> None:
    from pipelines.definitions import defs

    executor = defs.executor
    assert isinstance(executor, dg.ExecutorDefinition)
    processed = executor.apply_config_mapping({"config": {}}).value
    assert processed is not None
    assert processed["config"]["preloaded"] == ["pipelines.definitions"]
