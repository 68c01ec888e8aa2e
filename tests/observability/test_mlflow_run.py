"""Dagster runs shown in MLflow, on a database and on a server: what is there, and once only."""

import json
import multiprocessing
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import dagster as dg
import pytest

from observability.event_log import LINKS_METADATA, read_history
from observability.history import RunHistory
from observability.links import MLFLOW_TRACE, Links
from observability.mlflow_run import MLFLOW_RUN_METADATA, MLflowRunProjection, StillOpenError
from observability.projection import Backfill, TargetUnavailableError
from registry import store
from resources.tracking import MLflowResource
from tests.observability import mlflow_jobs as jobs
from tests.observability.recorded_jobs import Recordings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

HOST = "127.0.0.1"
PROMISED_SECONDS = 10
DAGSTER, MLFLOW = "http://dagster.example:3000", "http://mlflow.example:5000"
LINKS = Links(DAGSTER, MLFLOW, MLFLOW + MLFLOW_TRACE)


@pytest.fixture
def experiment(request: pytest.FixtureRequest) -> str:
    """An experiment of this test's own."""
    return request.node.name


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


class CountingClient:
    """A client that counts what is asked of it."""

    def __init__(self, client: "MlflowClient") -> None:
        self._client = client
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        self.calls[name] += 1
        return getattr(self._client, name)


def documents(history: RunHistory, mlflow_run_id: str) -> Mapping[str, bytes]:
    return {f"{history.run.job}.json": json.dumps({"mlflow": mlflow_run_id}).encode()}


def projection_to(
    tracking_uri: str,
    experiment: str,
    artifacts: str | None = None,
    links: Links = LINKS,
    wrap: Callable[[Any], Any] = lambda client: client,
) -> MLflowRunProjection:
    def open_experiment() -> "tuple[MlflowClient, str]":
        try:
            client = store.connect(tracking_uri)
        except store.StoreUnreachableError as error:
            raise TargetUnavailableError(str(error)) from error
        return wrap(client), store.experiment_id(client, experiment, artifacts)

    return MLflowRunProjection(tracking_uri, open_experiment, links, documents)


@pytest.fixture
def projection(tracking_uri: str, experiment: str, artifacts: str | None) -> MLflowRunProjection:
    return projection_to(tracking_uri, experiment, artifacts)


def history_of(instance: dg.DagsterInstance, run_id: str) -> RunHistory:
    history = read_history(instance, run_id)
    assert history is not None
    return history


def run_job(
    instance: dg.DagsterInstance, job: dg.JobDefinition, config: Mapping[str, Any] | None = None
) -> RunHistory:
    result = job.execute_in_process(instance=instance, run_config=config, raise_on_error=False)
    return history_of(instance, result.run_id)


def mapped(instance: dg.DagsterInstance, steps: int = 2) -> RunHistory:
    return run_job(instance, jobs.mapping, {"ops": {"split": {"config": {"steps": steps}}}})


def runs_of(client: "MlflowClient", run_id: str, tag: str = "dagster.run_id") -> "list[Run]":
    """All that MLflow has of a Dagster run, in any experiment."""
    experiments = [found.experiment_id for found in client.search_experiments()]
    return list(client.search_runs(experiments, f"tags.`{tag}` = '{run_id}'"))


def only_run(client: "MlflowClient", history: RunHistory) -> "Run":
    (run,) = runs_of(client, history.run.run_id)
    return run


def points(client: "MlflowClient", run: "Run") -> list[tuple[str, int, int, float]]:
    """Every point of every metric."""
    return sorted(
        (point.key, point.step, point.timestamp, point.value)
        for name in run.data.metrics
        for point in client.get_metric_history(run.info.run_id, name)
    )


def datasets_of(run: "Run") -> dict[str, Any]:
    assert run.inputs is not None
    return {recorded.dataset.name: recorded for recorded in run.inputs.dataset_inputs}


def links_in(instance: dg.DagsterInstance, run_id: str) -> list[Mapping[str, dg.MetadataValue]]:
    """The metadata of the engine events with links."""
    events = [entry.dagster_event for entry in instance.all_logs(run_id)]
    return [
        event.engine_event_data.metadata
        for event in events
        if event is not None and event.is_engine_event and LINKS_METADATA in event.engine_event_data.metadata
    ]


# What is there


def test_a_run_is_one_mlflow_run_with_its_name_its_status_and_its_times(
    projection: MLflowRunProjection, client: "MlflowClient", instance: dg.DagsterInstance
):
    instance_tags = {"dagster/schedule_name": "daily", "dagster/backfill": "abcdefgh"}
    result = dg.materialize(
        [jobs.planes, jobs.flights],
        selection=[jobs.flights],
        instance=instance,
        partition_key="2013-01",
        tags=instance_tags,
    )
    history = history_of(instance, result.run_id)

    assert projection.export(instance, history, None) > 10

    run = only_run(client, history)
    assert run.info.run_name == "__ephemeral_asset_job__ 2013-01"
    assert run.info.status == "FINISHED"
    assert history.started is not None
    assert history.ended is not None
    assert run.info.start_time == int(history.started * 1000)
    assert run.info.end_time == int(history.ended * 1000)
    tags = {name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.")}
    trace_id = result.run_id.replace("-", "")
    assert tags == {
        "ledgerline.kind": "dagster_run",
        "dagster.run_id": result.run_id,
        "dagster.root_run_id": result.run_id,
        "dagster.job_name": "__ephemeral_asset_job__",
        "dagster.partition": "2013-01",
        "dagster.backfill_id": "abcdefgh",
        "dagster.schedule": "daily",
        "dagster.url": f"{DAGSTER}/runs/{result.run_id}",
        "trace_id": trace_id,
        "trace_url": f"{MLFLOW}/#/experiments/{run.info.experiment_id}/traces/tr-{trace_id}",
    }
    assert run.data.tags["mlflow.source.name"] == "__ephemeral_asset_job__"
    assert run.data.tags["mlflow.source.type"] == "JOB"
    assert run.data.tags["mlflow.user"] == "dagster"
    assert {name for name, _, _, _ in points(client, run)} == {
        "run_seconds",
        "launch_seconds",
        "step_seconds/flights",
        "compute_seconds/flights",
        "rows/flights",
        "checks_passed",
        "checks_failed",
        *(["resource_seconds/flights"] if "resource_seconds/flights" in run.data.metrics else []),
        *(["store_seconds/flights"] if "store_seconds/flights" in run.data.metrics else []),
    }
    assert run.data.metrics["rows/flights"] == 27_004
    assert (run.data.metrics["checks_passed"], run.data.metrics["checks_failed"]) == (1, 1)
    assert run.data.metrics["run_seconds"] == pytest.approx(history.ended - history.started, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "status", "error"),
    [
        ("ops", "FINISHED", None),
        ("errors", "FAILED", "chained: KeyError: 'tailnum'"),
        ("crash", "FAILED", "crash: ChildProcessCrashException"),
        ("killed", "FAILED", "dagster.RunFailure: The process of the run is gone."),
        ("canceled", "KILLED", "DagsterExecutionInterruptedError"),
        ("canceled in the queue", "KILLED", "dagster.RunCanceled: Taken out of the queue."),
    ],
)
def test_the_status_is_dagsters_and_an_error_is_the_one_at_the_root(
    name: str,
    status: str,
    error: str | None,
    recorded: Recordings,
    mlflow_database: str,
    experiment: str,
    tmp_path: Path,
    instance: dg.DagsterInstance,
):
    history = recorded[name].history
    client = store.connect(mlflow_database)

    projection_to(mlflow_database, experiment, str(tmp_path)).export(instance, history, None)

    run = only_run(client, history)
    assert run.info.status == status
    if error is None:
        assert "error" not in run.data.tags
    else:
        assert error in run.data.tags["error"]


def test_every_attempt_is_a_point_of_its_step(
    projection: MLflowRunProjection, client: "MlflowClient", instance: dg.DagsterInstance
):
    history = run_job(instance, jobs.cleaning, {"ops": {"clean": {"config": {"fails": False}}}})

    projection.export(instance, history, None)

    run = only_run(client, history)
    assert run.info.status == "FINISHED"
    recorded = [(step, time) for name, step, time, _ in points(client, run) if name == "step_seconds/clean"]
    assert recorded == [(attempt.number, int((attempt.ended or 0) * 1000)) for attempt in history.attempts]
    assert [step for step, _ in recorded] == [1, 2]
    assert "| clean | 1 | retry |" in run.data.tags["mlflow.note.content"]
    assert "| clean | 2 | success |" in run.data.tags["mlflow.note.content"]


def test_run_config_is_params_and_hides_what_is_secret(
    projection: MLflowRunProjection,
    client: "MlflowClient",
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("FLIGHTS_PASSWORD", "hunter2")
    config = {
        "ops": {
            "learn": {
                "config": {
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
            }
        },
        "resources": {
            "database": {
                "config": {
                    "password": {"env": "FLIGHTS_PASSWORD"},
                    "url": "postgresql://reader:hunter2@db.example/flights",
                }
            }
        },
    }
    history = run_job(instance, jobs.learning, config)

    for _ in range(2):
        projection.export(instance, history, None)

    params = only_run(client, history).data.params
    of_op, of_resource = "ops.learn.config", "resources.database.config"
    assert params == {
        f"{of_op}.learning_rate": "0.1",
        f"{of_op}.early_stopping": "true",
        f"{of_op}.seed": "null",
        f"{of_op}.note": "",
        f"{of_op}.columns": '["carrier", "origin"]',
        f"{of_op}.models.0.depth": "3",
        f"{of_op}.models.1.depth": "4",
        f"{of_op}.long": "x" * 6_000,
        f"{of_op}.api_key": "***",
        f"{of_op}.max_tokens": "100",
        f"{of_resource}.password.env": "FLIGHTS_PASSWORD",
        f"{of_resource}.url": "postgresql://***@db.example/flights",
    }


def test_of_very_many_params_two_hundred_are_kept_and_the_others_counted(
    projection: MLflowRunProjection, client: "MlflowClient", instance: dg.DagsterInstance
):
    values = {f"value_{number:03}": number for number in range(230)}
    history = run_job(
        instance,
        jobs.learning,
        {
            "ops": {"learn": {"config": values}},
            "resources": {"database": {"config": {"password": "x", "url": "y"}}},
        },
    )

    for _ in range(2):
        projection.export(instance, history, None)

    run = only_run(client, history)
    assert len(run.data.params) == 200
    assert run.data.tags["ledgerline.params_left_out"] == "32"


def test_what_was_read_and_written_are_datasets_with_their_data_versions(
    projection: MLflowRunProjection, client: "MlflowClient", instance: dg.DagsterInstance
):
    first = history_of(instance, dg.materialize([jobs.planes], instance=instance).run_id)
    second = history_of(
        instance,
        dg.materialize(
            [jobs.planes, jobs.flights],
            selection=[jobs.flights],
            instance=instance,
            partition_key="2013-01",
        ).run_id,
    )

    for history in (first, second, second):
        projection.export(instance, history, None)

    written = datasets_of(only_run(client, first))["planes"]
    recorded = datasets_of(only_run(client, second))
    assert set(recorded) == {"planes", "flights"}
    read, flights = recorded["planes"], recorded["flights"]
    assert read.dataset.digest == written.dataset.digest == jobs.PLANES_VERSION[:36]
    assert {tag.key: tag.value for tag in read.tags} == {
        "mlflow.data.context": "input",
        "data_version": jobs.PLANES_VERSION,
    }
    assert {tag.key: tag.value for tag in written.tags}["mlflow.data.context"] == "output"
    assert json.loads(read.dataset.profile) == {"num_rows": 3_322}
    assert flights.dataset.digest == "flights of January"
    assert {tag.key: tag.value for tag in flights.tags}["mlflow.data.context"] == "output"
    assert json.loads(flights.dataset.source) == {"asset": "flights"}
    assert json.loads(flights.dataset.profile) == {"num_rows": 27_004, "num_partitions": 1}
    assert json.loads(flights.dataset.schema) == {
        "mlflow_colspec": [
            {"name": "tailnum", "type": "string", "required": True},
            {"name": "seats", "type": "double", "required": False},
        ]
    }


def test_what_a_run_wrote_itself_is_no_input_of_it(
    projection: MLflowRunProjection, client: "MlflowClient", instance: dg.DagsterInstance
):
    result = dg.materialize([jobs.planes, jobs.flights], instance=instance, partition_key="2013-01")
    history = history_of(instance, result.run_id)

    projection.export(instance, history, None)

    contexts = {
        name: recorded.tags[0].value for name, recorded in datasets_of(only_run(client, history)).items()
    }
    assert contexts == {"planes": "output", "flights": "output"}


def test_lineage_and_a_timeline_are_artifacts(
    projection: MLflowRunProjection, client: "MlflowClient", instance: dg.DagsterInstance, tmp_path: Path
):
    history = mapped(instance)

    projection.export(instance, history, None)

    run_id = only_run(client, history).info.run_id
    assert {artifact.path for artifact in client.list_artifacts(run_id)} == {"lineage", "timeline.png"}
    assert [artifact.path for artifact in client.list_artifacts(run_id, "lineage")] == [
        "lineage/mapping.json"
    ]
    folder = Path(client.download_artifacts(run_id, "", str(tmp_path)))
    assert json.loads((folder / "lineage/mapping.json").read_bytes()) == {"mlflow": run_id}
    assert (folder / "timeline.png").read_bytes().startswith(b"\x89PNG")


def test_the_runs_that_steps_opened_are_nested(
    projection: MLflowRunProjection,
    tracking_uri: str,
    experiment: str,
    client: "MlflowClient",
    instance: dg.DagsterInstance,
):
    mlflow = MLflowResource(tracking_uri=tracking_uri, experiment=experiment)
    result = dg.materialize(
        [jobs.planes, jobs.flights, jobs.delay_model],
        selection=[jobs.delay_model],
        instance=instance,
        resources={"mlflow": mlflow},
        partition_key="2013-01",
    )
    history = history_of(instance, result.run_id)

    for _ in range(2):
        projection.export(instance, history, None)

    runs = {run.info.run_name: run for run in runs_of(client, result.run_id)}
    small, parent = runs.pop("small"), runs.pop("__ephemeral_asset_job__ 2013-01")
    assert not runs
    assert small.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert small.data.params["max_iter"] == "4"
    assert "mlflow.parentRunId" not in parent.data.tags


def test_a_reexecution_is_nested_under_the_run_it_repeats(
    projection: MLflowRunProjection, client: "MlflowClient", instance: dg.DagsterInstance
):
    first = mapped(instance)
    again = jobs.mapping.execute_in_process(
        instance=instance,
        run_config=first.run.config,
        tags={"dagster/root_run_id": first.run.run_id, "dagster/parent_run_id": first.run.run_id},
    )
    second = history_of(instance, again.run_id)
    assert second.run.root_run_id in (None, first.run.run_id)

    for history in (first, second, second):
        projection.export(instance, history, None)

    tags = only_run(client, second).data.tags
    assert tags["mlflow.parentRunId"] == only_run(client, first).info.run_id
    assert tags["dagster.root_run_id"] == tags["dagster.parent_run_id"] == first.run.run_id


def test_the_trace_is_linked_before_it_has_arrived(
    projection: MLflowRunProjection, client: "MlflowClient", instance: dg.DagsterInstance
):
    history = mapped(instance)

    for _ in range(2):
        projection.export(instance, history, None)

    run = only_run(client, history)
    traces = client.search_traces(locations=[run.info.experiment_id], run_id=run.info.run_id)
    assert list(traces) == []  # it is there when it comes


def test_the_links_are_reported_to_dagster_once(
    projection: MLflowRunProjection, client: "MlflowClient", instance: dg.DagsterInstance
):
    history = mapped(instance)

    projection.export(instance, history, None)
    reread = history_of(instance, history.run.run_id)
    assert projection.export(instance, reread, history) == 0
    assert projection.export(instance, reread, None) > 0

    (links,) = links_in(instance, history.run.run_id)
    run = only_run(client, history)
    experiment = f"{MLFLOW}/#/experiments/{run.info.experiment_id}"
    assert links == {
        LINKS_METADATA: dg.MetadataValue.url(f"{experiment}/traces/tr-{run.data.tags['trace_id']}"),
        MLFLOW_RUN_METADATA: dg.MetadataValue.url(f"{experiment}/runs/{run.info.run_id}"),
    }
    assert reread.links_reported


def test_without_pages_the_ids_are_reported(
    mlflow_database: str, experiment: str, tmp_path: Path, instance: dg.DagsterInstance
):
    history = mapped(instance)

    projection_to(mlflow_database, experiment, str(tmp_path), Links()).export(instance, history, None)

    (links,) = links_in(instance, history.run.run_id)
    run = only_run(store.connect(mlflow_database), history)
    assert links == {
        LINKS_METADATA: dg.MetadataValue.text(history.run.run_id.replace("-", "")),
        MLFLOW_RUN_METADATA: dg.MetadataValue.text(run.info.run_id),
    }
    assert not {"trace_url", "dagster.url"} & set(run.data.tags)
