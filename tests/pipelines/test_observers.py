"""Tests the sensors that export runs: which there are, and what a tick of each does and reports."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from mlflow import MlflowClient

from ledgerline.dagster import observed as module
from ledgerline.dagster import resources
from ledgerline.dagster.executors import executor_for
from ledgerline.dagster.observed import RunsNotExportedError, observers
from ledgerline.dagster.projections import RunProjections
from ledgerline.dagster.settings import Settings
from ledgerline.ledger.history import RunHistory
from ledgerline.ledger.observer import Observer
from ledgerline.ledger.projection import Backfill
from pipelines.definitions import build_definitions
from tests.project import EXPERIMENT


@dg.op
def count() -> int:
    return 3


@dg.job(executor_def=dg.in_process_executor)
def counting() -> None:
    count()


@pytest.fixture
def instance(stored_instance: dg.DagsterInstance) -> dg.DagsterInstance:
    return stored_instance


def settings_with(tmp_path: Path, **variables: str) -> Settings:
    return Settings.from_environment({"LEDGERLINE_HOME": str(tmp_path), **variables})


def sensors(**variables: str) -> dict[str, dg.SensorDefinition]:
    """Return the sensors that export runs, as the definitions have them with these variables."""
    settings = Settings.from_environment({"LEDGERLINE_HOME": "/nowhere", **variables})
    definitions = build_definitions(settings, executor_for("in_process", 0, 1))
    return {
        sensor.name: sensor
        for sensor in definitions.get_repository_def().sensor_defs
        if sensor.name.endswith("_runs")
    }


def projections(settings: Settings) -> RunProjections:
    return resources.projections(settings)


def evaluated(name: str, instance: dg.DagsterInstance, resource: RunProjections) -> str:
    """Evaluate a sensor as the daemon does; returns why it launches nothing."""
    (sensor,) = [each for each in observers(running=True, send_lineage=True) if each.name == name]
    with dg.build_sensor_context(instance=instance, resources={"projections": resource}) as context:
        data = sensor.evaluate_tick(context)
    assert not data.run_requests
    assert data.skip_message is not None
    return data.skip_message


# The sensors


def test_runs_are_traced_and_tracked_at_each_poll_of_the_daemon_by_default() -> None:
    found = sensors()
    assert set(found) == {"trace_runs", "track_runs"}
    for sensor in found.values():
        assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
        assert (sensor.minimum_interval_seconds or 30) < 5  # seconds between polls of the daemon
        assert sensor.description


def test_the_sensors_are_stopped_where_a_service_exports_runs() -> None:
    found = sensors(LEDGERLINE_OBSERVER="service")
    assert set(found) == {"trace_runs", "track_runs"}
    assert {sensor.default_status for sensor in found.values()} == {dg.DefaultSensorStatus.STOPPED}


def test_lineage_is_sent_where_it_has_an_address_to_go_to() -> None:
    found = sensors(OPENLINEAGE_URL="http://marquez.example:5000")
    assert set(found) == {"trace_runs", "track_runs", "send_lineage_of_runs"}
    assert found["send_lineage_of_runs"].default_status is dg.DefaultSensorStatus.RUNNING


# Their ticks


def test_a_run_is_traced_and_tracked(
    instance: dg.DagsterInstance, tmp_path: Path, mlflow_database: str
) -> None:
    settings = settings_with(tmp_path, MLFLOW_TRACKING_URI=mlflow_database)
    run_id = dg.execute_job(dg.reconstructable(_counting), instance).run_id
    report = {name: evaluated(name, instance, projections(settings)) for name in ("trace_runs", "track_runs")}

    for sentence in report.values():
        assert sentence.startswith("1 runs updated, ")
    client = MlflowClient(mlflow_database)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    trace = client.get_trace(f"tr-{run_id.replace('-', '')}")
    assert {"run counting", "count"} <= {span.name for span in trace.data.spans}
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`dagster.run_id` = '{run_id}'")
    assert run.info.status == "FINISHED"


def test_a_tick_without_news_is_reported(
    instance: dg.DagsterInstance, tmp_path: Path, mlflow_database: str
) -> None:
    resource = projections(settings_with(tmp_path, MLFLOW_TRACKING_URI=mlflow_database))
    assert evaluated("trace_runs", instance, resource) == "0 runs updated, 0 items written, 0 followed"


def test_histories_are_kept_between_ticks_by_instance_and_sensor(
    instance: dg.DagsterInstance, tmp_path: Path, mlflow_database: str
) -> None:
    resource = projections(settings_with(tmp_path, MLFLOW_TRACKING_URI=mlflow_database))
    for _ in range(2):
        evaluated("trace_runs", instance, resource)
        evaluated("track_runs", instance, resource)
    with dg.DagsterInstance.ephemeral() as other:
        evaluated("trace_runs", other, resource)
        kept = {
            key: observer
            for key, observer in module._observers.items()
            if key[0] in (instance.root_directory, other.root_directory)
        }
    assert {name for _, name in kept} == {"traces", "mlflow"}
    assert len(kept) == 3
    assert all(isinstance(observer, Observer) for observer in kept.values())


def test_a_collector_that_is_down_is_named_and_fails_nothing(
    instance: dg.DagsterInstance,
    tmp_path: Path,
    mlflow_database: str,
    refusing_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", refusing_url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    settings = settings_with(
        tmp_path, MLFLOW_TRACKING_URI=mlflow_database, OTEL_EXPORTER_OTLP_ENDPOINT=refusing_url
    )
    dg.execute_job(dg.reconstructable(_counting), instance)
    report = evaluated("trace_runs", instance, projections(settings))
    assert report.startswith(f"1 runs updated, 0 items written, 1 followed; unavailable: {refusing_url}")
    assert "written, 1 followed" in evaluated("track_runs", instance, projections(settings))


def test_an_mlflow_server_that_is_down_is_named_and_fails_nothing(
    instance: dg.DagsterInstance, tmp_path: Path, refusing_url: str
) -> None:
    resource = projections(settings_with(tmp_path, MLFLOW_TRACKING_URI=refusing_url))
    dg.execute_job(dg.reconstructable(_counting), instance)
    for name in ("trace_runs", "track_runs"):
        report = evaluated(name, instance, resource)
        assert "0 items written, 1 followed; unavailable: " in report
        assert refusing_url in report


def test_a_server_for_lineage_that_is_down_is_named_and_fails_nothing(
    instance: dg.DagsterInstance, tmp_path: Path, refusing_url: str
) -> None:
    resource = projections(settings_with(tmp_path, OPENLINEAGE_URL=refusing_url))
    dg.execute_job(dg.reconstructable(_counting), instance)
    assert refusing_url in evaluated("send_lineage_of_runs", instance, resource)


class RefusingProjection:
    """A projection that exports no run, for a reason in the run."""

    name = "refusing"

    def export(self, instance: dg.DagsterInstance, now: RunHistory, before: RunHistory | None) -> int:
        raise ValueError("it has no name")

    def export_backfill(self, backfill: Backfill) -> int:
        return 0


class RefusingProjections(RunProjections):
    def mlflow_runs(self) -> Any:
        return RefusingProjection()


def test_a_run_that_cannot_be_exported_fails_the_tick_with_the_reason(
    instance: dg.DagsterInstance, tmp_path: Path, mlflow_database: str
) -> None:
    settings = settings_with(tmp_path, MLFLOW_TRACKING_URI=mlflow_database)
    resource = RefusingProjections(**dict(projections(settings)))
    run_id = dg.execute_job(dg.reconstructable(_counting), instance).run_id
    with pytest.raises(RunsNotExportedError) as caught:
        evaluated("track_runs", instance, resource)
    assert str(caught.value.__cause__) == "it has no name"
    assert str(caught.value).endswith(f"run {run_id} cannot be exported: it has no name")
    # It is tried again later; until then, ticks report that it waits.
    assert evaluated("track_runs", instance, resource).endswith("0 items written, 1 followed")


def test_a_deleted_experiment_skips_the_tick_with_the_remedy(
    instance: dg.DagsterInstance, tmp_path: Path, mlflow_database: str
) -> None:
    resource = projections(settings_with(tmp_path, MLFLOW_TRACKING_URI=mlflow_database))
    client = MlflowClient(mlflow_database)
    experiment_id = client.create_experiment(EXPERIMENT)
    client.delete_experiment(experiment_id)
    dg.execute_job(dg.reconstructable(_counting), instance)
    report = evaluated("track_runs", instance, resource)
    assert f"`mlflow experiments restore --experiment-id {experiment_id}`" in report
    client.restore_experiment(experiment_id)
    assert "0 written" not in evaluated("track_runs", instance, resource)


def test_traces_that_are_switched_off_are_skipped_with_the_reason(
    instance: dg.DagsterInstance, tmp_path: Path, mlflow_database: str
) -> None:
    settings = settings_with(tmp_path, MLFLOW_TRACKING_URI=mlflow_database, OTEL_SDK_DISABLED="true")
    dg.execute_job(dg.reconstructable(_counting), instance)
    assert evaluated("trace_runs", instance, projections(settings)) == "The settings disable this projection."
    assert "1 runs updated" in evaluated("track_runs", instance, projections(settings))


def _counting() -> dg.JobDefinition:
    return counting


# In a project that does not use this library


FOREIGN = """
import dagster as dg

@dg.asset
def numbers():
    return 3

defs = dg.Definitions(assets=[numbers], jobs=[dg.define_asset_job("count", "*")])
"""

THREE_LINES = """
from ledgerline.dagster.observed import observed

defs = dg.Definitions.merge(defs, observed())
"""


def test_three_lines_add_the_observer_to_a_project(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # there is no project of this library here, or above
    monkeypatch.delenv("LEDGERLINE_PROJECT", raising=False)
    monkeypatch.setenv("LEDGERLINE_HOME", str(tmp_path / "home"))
    (tmp_path / "foreign.py").write_text(FOREIGN + THREE_LINES)
    definitions = definitions_in(tmp_path / "foreign.py")
    repository = definitions.get_repository_def()
    assert {sensor.name for sensor in repository.sensor_defs} == {"trace_runs", "track_runs"}
    result = repository.get_job("count").execute_in_process(instance=instance)
    sensor = repository.get_sensor_def("track_runs")
    resources_of_it = dict(definitions.resources or {})
    with dg.build_sensor_context(
        instance=instance, repository_def=repository, resources=resources_of_it
    ) as context:
        assert "1 run" in str(sensor.evaluate_tick(context).skip_message)
    client = MlflowClient(Settings.from_environment({"LEDGERLINE_HOME": str(tmp_path / "home")}).tracking_uri)
    (experiment,) = [each for each in client.search_experiments() if each.name == "ledgerline"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.tags["dagster.run_id"] == result.run_id
    assert run.info.status == "FINISHED"


def definitions_in(file: Path) -> dg.Definitions:
    """Load the definitions of a file as Dagster's code server does."""
    specification = spec_from_file_location(file.stem, file)
    assert specification is not None
    assert specification.loader is not None
    module = module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.defs
