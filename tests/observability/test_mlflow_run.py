"""Tests Dagster runs exported to MLflow, on a database and on a server: complete, and once only."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING

import dagster as dg
import pytest

from ledgerline.cleaning.texts import REDACTED, shortened
from ledgerline.dagster.tracking import MLflowResource
from ledgerline.ledger.event_log import LINKS_METADATA
from ledgerline.ledger.history import RunStatus
from ledgerline.ledger.links import Links
from ledgerline.ledger.projection import Backfill
from ledgerline.mlflow_runs.metrics import run_metrics
from ledgerline.mlflow_runs.projection import MLFLOW_RUN_METADATA
from ledgerline.testing.recordings import Recordings
from tests.observability import mlflow_jobs as jobs
from tests.observability.mlflow_target import (
    DAGSTER,
    MLFLOW,
    Target,
    execute,
    history_of,
    links_in,
    mapped,
    materialize,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

OBSERVERS = 4


@pytest.fixture
def target(
    tracking_uri: str, artifacts: str | None, client: "MlflowClient", request: pytest.FixtureRequest
) -> Target:
    """MLflow both ways; the experiment is this test's own."""
    return Target(tracking_uri, request.node.name, artifacts, client)


@pytest.fixture
def database(mlflow_database: str, tmp_path: Path, request: pytest.FixtureRequest) -> Target:
    """MLflow without a server, for what does not depend on it."""
    from mlflow import MlflowClient

    return Target(
        mlflow_database, request.node.name, str(tmp_path / "artifacts"), MlflowClient(mlflow_database)
    )


# Contents of MLflow


def test_a_run_is_one_mlflow_run_with_its_name_its_status_and_its_times(
    target: Target, instance: dg.DagsterInstance
):
    tags = {"dagster/schedule_name": "daily", "dagster/backfill": "abcdefgh"}
    history = materialize(instance, jobs.flights, partition_key="2013-01", tags=tags)

    assert target.export(instance, history) > 10

    run, run_id = target.run(history), history.run.run_id
    assert run.info.run_name == "flights 2013-01"
    assert run.info.status == "FINISHED"
    assert history.started is not None
    assert history.ended is not None
    assert run.info.start_time == int(history.started * 1000)
    assert run.info.end_time == int(history.ended * 1000)
    own = {name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.")}
    trace_id = run_id.replace("-", "")
    assert own == {
        "ledgerline.kind": "dagster_run",
        "dagster.run_id": run_id,
        "dagster.root_run_id": run_id,
        "dagster.job_name": "__ephemeral_asset_job__",
        "dagster.partition": "2013-01",
        "dagster.backfill_id": "abcdefgh",
        "dagster.schedule": "daily",
        "dagster.url": f"{DAGSTER}/runs/{run_id}",
        "trace_id": trace_id,
        "trace_url": f"{MLFLOW}/#/experiments/{run.info.experiment_id}/traces/tr-{trace_id}",
    }
    assert run.data.tags["mlflow.source.name"] == "__ephemeral_asset_job__"
    assert run.data.tags["mlflow.source.type"] == "JOB"
    assert run.data.tags["mlflow.user"] == "dagster"
    assert run.data.tags["mlflow.note.content"].startswith(
        f"Dagster run [{run_id}]({DAGSTER}/runs/{run_id}) · SUCCESS · "
    )
    metrics = run.data.metrics
    assert set(metrics) == {
        "run_seconds",
        "launch_seconds",
        "step_seconds/flights",
        "resource_seconds/flights",
        "compute_seconds/flights",
        "rows/flights",
        "checks_passed",
        "checks_failed",
    }
    assert metrics["rows/flights"] == 27_004
    assert (metrics["checks_passed"], metrics["checks_failed"]) == (1, 1)
    assert metrics["run_seconds"] == pytest.approx(history.ended - history.started, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("ops", ("FINISHED", "")),
        ("errors", ("FAILED", "chained: KeyError: 'tailnum'")),
        ("crash", ("FAILED", "ChildProcessCrashException")),
        ("killed", ("FAILED", "dagster.RunFailure: The process of the run is gone.")),
        ("canceled", ("KILLED", "DagsterExecutionInterruptedError")),
        ("canceled in the queue", ("KILLED", "Taken out of the queue.")),
    ],
)
def test_the_status_is_dagsters_and_an_error_is_the_one_at_the_root(
    name: str,
    ending: tuple[str, str],
    recorded: Recordings,
    database: Target,
    instance: dg.DagsterInstance,
):
    status, error = ending
    history = recorded[name].history

    database.export(instance, history)

    run = database.run(history)
    assert run.info.status == status
    assert ("error" in run.data.tags) == bool(error)
    assert error in run.data.tags.get("error", "")


def test_every_attempt_is_a_point_of_its_step(target: Target, instance: dg.DagsterInstance):
    history = execute(instance, jobs.cleaning, {"ops": {"clean": {"config": {"fails": False}}}})

    target.export(instance, history)

    run = target.run(history)
    assert run.info.status == "FINISHED"
    recorded = [
        (step, time) for name, step, time, _ in target.points(history) if name == "step_seconds/clean"
    ]
    assert recorded == [(attempt.number, int((attempt.ended or 0) * 1000)) for attempt in history.attempts]
    assert [step for step, _ in recorded] == [1, 2]
    assert "| clean | 1 | retry |" in run.data.tags["mlflow.note.content"]
    assert "| clean | 2 | success |" in run.data.tags["mlflow.note.content"]


def test_a_mapped_step_has_a_name_that_mlflow_takes(target: Target, instance: dg.DagsterInstance):
    history = mapped(instance)

    target.export(instance, history)

    steps = {name for name in target.run(history).data.metrics if name.startswith("step_seconds/")}
    assert steps == {"step_seconds/split", "step_seconds/double:0", "step_seconds/double:1"}


def test_run_config_becomes_params_without_secrets(
    target: Target, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FLIGHTS_PASSWORD", "hunter2")
    of_op = {
        "learning_rate": 0.1,
        "early_stopping": True,
        "seed": None,
        "note": "",
        "columns": ["carrier", "origin"],
        "models": [{"depth": 3}, {"depth": 4}],
        "long": "x" * 10_000,
        "api_key": "hunter2",
        "max_tokens": 100,
    }
    of_resource = {
        "password": {"env": "FLIGHTS_PASSWORD"},
        "url": "postgresql://reader:hunter2@db.example/flights",
    }
    config = {"ops": {"learn": {"config": of_op}}, "resources": {"database": {"config": of_resource}}}
    history = execute(instance, jobs.learning, config)

    for _ in range(2):
        target.export(instance, history)

    assert target.run(history).data.params == {
        "ops.learn.config.learning_rate": "0.1",
        "ops.learn.config.early_stopping": "true",
        "ops.learn.config.seed": "null",
        "ops.learn.config.note": "",
        "ops.learn.config.columns": '["carrier", "origin"]',
        "ops.learn.config.models.0.depth": "3",
        "ops.learn.config.models.1.depth": "4",
        "ops.learn.config.long": shortened("x" * 10_000, 6_000),
        "ops.learn.config.api_key": REDACTED,
        "ops.learn.config.max_tokens": "100",
        "resources.database.config.password.env": "FLIGHTS_PASSWORD",
        "resources.database.config.url": f"postgresql://reader:{REDACTED}@db.example/flights",
    }


def test_two_hundred_of_very_many_params_are_kept_and_the_others_counted(
    target: Target, instance: dg.DagsterInstance
):
    values = {f"value_{number:03}": number for number in range(230)}
    database = {"config": {"password": "x", "url": "y"}}
    config = {"ops": {"learn": {"config": values}}, "resources": {"database": database}}
    history = execute(instance, jobs.learning, config)

    for _ in range(2):
        target.export(instance, history)

    run = target.run(history)
    assert len(run.data.params) == 200
    assert run.data.tags["ledgerline.params_left_out"] == "32"


def test_read_and_written_assets_are_datasets_with_their_data_versions(
    target: Target, instance: dg.DagsterInstance
):
    upstream = materialize(instance, jobs.planes)
    history = materialize(instance, jobs.flights, partition_key="2013-01")

    for exported in (upstream, history, history):
        target.export(instance, exported)

    written = target.datasets(upstream)["planes"]
    recorded = target.datasets(history)
    assert set(recorded) == {"planes", "flights"}
    read, flights = recorded["planes"], recorded["flights"]
    assert read.dataset == written.dataset
    assert {tag.key: tag.value for tag in read.tags} == {
        "mlflow.data.context": "input",
        "data_version": jobs.PLANES_VERSION,
        "written_by": upstream.run.run_id,
    }
    assert {tag.key: tag.value for tag in written.tags}["mlflow.data.context"] == "output"
    assert json.loads(read.dataset.profile) == {"num_rows": 3_322}
    assert flights.dataset.digest != read.dataset.digest
    assert {tag.key: tag.value for tag in flights.tags}["mlflow.data.context"] == "output"
    assert json.loads(flights.dataset.source) == {"asset": "flights", "dagster_run_id": history.run.run_id}
    assert json.loads(flights.dataset.profile) == {"num_rows": 27_004, "num_partitions": 1}
    assert json.loads(flights.dataset.schema) == {
        "mlflow_colspec": [
            {"name": "tailnum", "type": "string", "required": True},
            {"name": "seats", "type": "double", "required": False},
        ]
    }


def test_assets_that_a_run_wrote_itself_are_not_its_inputs(database: Target, instance: dg.DagsterInstance):
    history = materialize(instance, jobs.planes, jobs.flights, partition_key="2013-01")

    database.export(instance, history)

    tags = {
        name: {tag.key: tag.value for tag in recorded.tags}
        for name, recorded in database.datasets(history).items()
    }
    assert {name: of_one["mlflow.data.context"] for name, of_one in tags.items()} == {
        "planes": "output",
        "flights": "output",
    }


def test_lineage_and_a_timeline_are_artifacts(target: Target, instance: dg.DagsterInstance, tmp_path: Path):
    history = mapped(instance)

    target.export(instance, history)

    run_id = target.run(history).info.run_id
    assert target.files(history) == {"lineage", "lineage/mapping.json", "timeline.png"}
    folder = Path(target.client.download_artifacts(run_id, "", str(tmp_path)))
    assert json.loads((folder / "lineage/mapping.json").read_bytes()) == {"mlflow": run_id}
    assert (folder / "timeline.png").read_bytes().startswith(b"\x89PNG")


def test_the_runs_that_steps_opened_are_nested(target: Target, instance: dg.DagsterInstance):
    mlflow = MLflowResource(
        tracking_uri=target.tracking_uri, experiment=target.experiment, artifacts=target.artifacts
    )
    history = materialize(instance, jobs.delay_model, resources={"mlflow": mlflow}, partition_key="2013-01")

    for _ in range(2):
        target.export(instance, history)

    runs = {run.info.run_name: run for run in target.runs(history.run.run_id)}
    small, parent = runs.pop("small"), runs.pop("delay_model 2013-01")
    assert not runs
    assert small.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert small.data.params["max_iter"] == "4"
    assert "mlflow.parentRunId" not in parent.data.tags


def test_a_reexecution_is_nested_under_the_run_that_was_first(target: Target, instance: dg.DagsterInstance):
    first = mapped(instance)
    run = instance.create_run_for_job(
        jobs.mapping,
        run_config=first.run.config,
        root_run_id=first.run.run_id,
        parent_run_id=first.run.run_id,
    )
    jobs.execute(run, instance)
    second = history_of(instance, run.run_id)

    for exported in (first, second, second):
        target.export(instance, exported)

    tags = target.run(second).data.tags
    assert tags["mlflow.parentRunId"] == target.run(first).info.run_id
    assert tags["dagster.root_run_id"] == tags["dagster.parent_run_id"] == first.run.run_id


def test_the_trace_is_linked_though_it_has_not_arrived(database: Target, instance: dg.DagsterInstance):
    from mlflow.entities.span import Span
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    history = mapped(instance)
    for _ in range(2):
        database.export(instance, history)
    run = database.run(history)

    (span,) = encode_spans([jobs.root_span(history.run.run_id)]).resource_spans[0].scope_spans[0].spans
    database.client._tracking_client.store.log_spans(run.info.experiment_id, [Span.from_otel_proto(span)])

    traces = database.client.search_traces(locations=[run.info.experiment_id], run_id=run.info.run_id)
    assert [trace.info.trace_id for trace in traces] == [f"tr-{run.data.tags['trace_id']}"]


def test_the_links_are_reported_to_dagster_once(target: Target, instance: dg.DagsterInstance):
    history = mapped(instance)

    target.export(instance, history)
    reread = history_of(instance, history.run.run_id)
    assert target.export(instance, reread, history) == 0
    assert target.export(instance, reread) > 0

    (links,) = links_in(instance, history.run.run_id)
    run = target.run(history)
    experiment = f"{MLFLOW}/#/experiments/{run.info.experiment_id}"
    assert links == {
        LINKS_METADATA: dg.MetadataValue.url(f"{experiment}/traces/tr-{run.data.tags['trace_id']}"),
        MLFLOW_RUN_METADATA: dg.MetadataValue.url(f"{experiment}/runs/{run.info.run_id}"),
    }
    assert reread.links_reported


def test_without_pages_the_ids_are_reported(database: Target, instance: dg.DagsterInstance):
    history = mapped(instance)
    database.links = Links()

    database.export(instance, history)

    (links,) = links_in(instance, history.run.run_id)
    run = database.run(history)
    assert links == {
        LINKS_METADATA: dg.MetadataValue.text(history.run.run_id.replace("-", "")),
        MLFLOW_RUN_METADATA: dg.MetadataValue.text(run.info.run_id),
    }
    assert not {"trace_url", "dagster.url"} & set(run.data.tags)


def test_a_backfill_adds_nothing_to_its_runs(database: Target):
    backfill = Backfill("abcdefgh", 1.0, 2.0, "COMPLETED_SUCCESS", None)

    assert database.projection.export_backfill(backfill) == 0


# While it goes on


def test_nothing_is_written_before_a_step_has_its_resources(
    recorded: Recordings, database: Target, instance: dg.DagsterInstance
):
    recording = recorded["processes"]
    begun = next(
        index
        for index, record in enumerate(recording.records)
        if record.event_log_entry.dagster_event is not None
        and record.event_log_entry.dagster_event.event_type_value == "RESOURCE_INIT_SUCCESS"
    )

    assert database.export(instance, recording.history_of(recording.records[:begun])) == 0
    assert database.runs(recording.run.run_id) == []
    assert database.export(instance, recording.history_of(recording.records[: begun + 1])) > 0
    assert len(database.runs(recording.run.run_id)) == 1


@pytest.mark.parametrize("name", ["processes", "retries", "partitions", "checks", "canceled", "mapped"])
def test_an_export_in_portions_has_the_same_result(
    name: str, recorded: Recordings, target: Target, instance: dg.DagsterInstance
):
    recording, before, statuses = recorded[name], None, set()
    for end in range(0, len(recording.records), 7):
        now = recording.history_of(recording.records[:end])
        target.export(instance, now, before)
        before = now
        statuses |= {run.info.status for run in target.runs(now.run.run_id)}
    target.export(instance, recording.history, before)

    assert statuses == {"RUNNING"}
    assert target.run(recording.history).info.status != "RUNNING"
    assert target.points(recording.history) == sorted(
        (point.key, point.step, point.timestamp, point.value)
        for point in run_metrics(recording.history, None)
    )


# Again, and by several at once


def test_a_second_export_duplicates_nothing(target: Target, instance: dg.DagsterInstance):
    history = materialize(instance, jobs.flights, partition_key="2013-01")

    target.export(instance, history)
    first, points = target.run(history), target.points(history)
    for before in (None, replace(history, ended=None, status=RunStatus.STARTED)):
        target.export(instance, history, before)

    again = target.run(history)
    assert target.points(history) == points
    assert len(points) == len(set(points)) == len(again.data.metrics)
    assert again.data.to_dictionary() == first.data.to_dictionary()
    assert again.info.run_id == first.info.run_id
    assert set(target.datasets(history)) == {"planes", "flights"}


def test_concurrent_observers_create_one_run(target: Target, instance: dg.DagsterInstance):
    history = materialize(instance, jobs.flights, partition_key="2013-01")
    at_once = Barrier(OBSERVERS)

    def observe(_: int) -> None:
        projection = target.projection
        at_once.wait()
        projection.export(instance, history, None)

    with ThreadPoolExecutor(OBSERVERS) as observers:
        list(observers.map(observe, range(OBSERVERS)))

    run = target.run(history)
    assert run.info.status == "FINISHED"
    points = target.points(history)
    assert len(points) == len(set(points)) == len(run.data.metrics)
    assert {"run_seconds", "step_seconds/flights", "rows/flights"} <= set(run.data.metrics)
    assert target.files(history) == {"lineage", "lineage/__ephemeral_asset_job__.json", "timeline.png"}
    assert set(target.datasets(history)) == {"planes", "flights"}


def test_observers_keep_the_same_one_of_two_runs(database: Target, instance: dg.DagsterInstance):
    history = mapped(instance)
    database.export(instance, history)
    first = database.run(history)
    other = database.client.create_run(
        first.info.experiment_id,
        tags={"ledgerline.kind": "dagster_run", "dagster.run_id": history.run.run_id},
    )

    database.export(instance, history)

    kept = database.run(history)
    assert kept.info.run_id == min(first.info.run_id, other.info.run_id)
    assert kept.info.status == "FINISHED"
    assert kept.data.metrics == first.data.metrics
    removed = database.client.get_run(max(first.info.run_id, other.info.run_id))
    assert removed.info.lifecycle_stage == "deleted"
    assert kept.info.run_id in removed.data.tags["mlflow.note.content"]


@pytest.mark.parametrize("ended", [False, True])
def test_the_number_of_calls_does_not_grow_with_the_run(
    ended: bool, database: Target, instance: dg.DagsterInstance
):
    counts = []
    for steps in (1, 50):
        history = mapped(instance, steps)
        if not ended:
            history = replace(history, ended=None, status=RunStatus.STARTED)
        projection, client = database.counting()
        projection.export(instance, history, None)
        counts.append(client.calls)

    assert counts[0] == counts[1]
    assert counts[0].total() == (9 if ended else 6)


def test_more_points_than_mlflow_accepts_are_sent_in_batches(database: Target, instance: dg.DagsterInstance):
    history = mapped(instance, 220)
    projection, client = database.counting()

    projection.export(instance, history, None)

    assert len(database.run(history).data.metrics) > 800
    assert client.calls["log_batch"] == 2
