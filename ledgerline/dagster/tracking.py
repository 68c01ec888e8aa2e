"""MLflow as a resource: training runs of steps. It does not depend on how a model is trained or evaluated."""

import json
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from ledgerline.cleaning.passwords import without_password
from ledgerline.cleaning.texts import clean
from ledgerline.dagster.failures import PermanentFailure, permanent_failures
from ledgerline.dagster.tracked_texts import error_text, name_text, param_text, source_text, table_texts
from ledgerline.mlflow_runs import tags as mlflow_tags
from ledgerline.mlflow_store import model_files, store, stored_model
from ledgerline.mlflow_store.stored_model import ModelRefusedError, StoredModel
from ledgerline.mlflow_store.tag_texts import tag_texts

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient

# Tags of MLflow runs that a step opened, in addition to those of mlflow_runs/tags.py.
PARTITION_TAG = "dagster.partition_key"
ERROR_TAG = "error"
TABLES_TAG = "mlflow.loggedArtifacts"  # a tag of MLflow that lists the tables among the artifacts

MAX_DIGEST_LENGTH = 36  # MLflow's limit for a dataset's digest
MAX_BATCH_PARAMS = 100
MAX_BATCH_METRICS = 1000


@dataclass(frozen=True)
class Dataset:
    """Rows that a model was trained or evaluated on: their name, digest, location and number."""

    name: str
    sha256: str
    source: str
    rows: int

    @property
    def digest(self) -> str:
        """The digest, shortened to the limit of MLflow."""
        return self.sha256[:MAX_DIGEST_LENGTH]


@dataclass(frozen=True)
class TrainingRun:
    """An open MLflow run. Everything is written to it by its id."""

    client: "MlflowClient"
    experiment_id: str
    run_id: str

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log the params of the training; a retry may log the same values again."""
        from mlflow.entities import Param

        entities = [Param(clean(name), param_text(name, value)) for name, value in params.items()]
        for start in range(0, len(entities), MAX_BATCH_PARAMS):
            self.client.log_batch(self.run_id, params=entities[start : start + MAX_BATCH_PARAMS])

    def log_curve(self, name: str, values: Sequence[float]) -> None:
        """Log a metric for each iteration, starting with 0. A retry adds only missing values."""
        from mlflow.entities import Metric

        known = {metric.step for metric in self.client.get_metric_history(self.run_id, name)}
        now = _now_ms()
        metrics = [
            Metric(name, float(value), now, step) for step, value in enumerate(values) if step not in known
        ]
        for start in range(0, len(metrics), MAX_BATCH_METRICS):
            self.client.log_batch(self.run_id, metrics=metrics[start : start + MAX_BATCH_METRICS])

    def log_metrics(
        self, metrics: Mapping[str, float], model_id: str | None, dataset: Dataset | None
    ) -> None:
        """Log metrics of the run, and of a dataset and a model if given. A retry adds only changed values."""
        from mlflow.entities import Metric

        recorded = self.client.get_run(self.run_id).data.metrics
        now = _now_ms()
        entities = [
            Metric(
                name,
                float(value),
                now,
                0,
                model_id=model_id,
                dataset_name=name_text(dataset.name) if dataset else None,
                dataset_digest=dataset.digest if dataset else None,
                run_id=self.run_id,
            )
            for name, value in metrics.items()
            if recorded.get(name) != float(value)
        ]
        self.client.log_batch(self.run_id, metrics=entities)

    def log_dataset(self, dataset: Dataset, usage: str, schema: dg.TableSchema) -> None:
        """Log rows with these columns as an input of the run.

        The usage, such as "training" or "evaluation", is the value of MLflow's tag `mlflow.data.context`.
        """
        from mlflow.entities import Dataset as DatasetEntity
        from mlflow.entities import DatasetInput, InputTag

        source = source_text(dataset.source)
        columns = [
            {"name": clean(column.name), "type": column.type, "required": not column.constraints.nullable}
            for column in schema.columns
        ]
        entity = DatasetEntity(
            name=name_text(dataset.name),
            digest=dataset.digest,
            source_type="local" if "://" not in source else source.split(":")[0],
            source=json.dumps({"uri": source}),
            schema=json.dumps({"mlflow_colspec": columns}),
            profile=json.dumps({"num_rows": dataset.rows}),
        )
        tags = [InputTag("mlflow.data.context", usage), InputTag("content_sha256", dataset.sha256)]
        self.client.log_inputs(self.run_id, datasets=[DatasetInput(entity, tags)])

    def log_table(self, frame: "pd.DataFrame", file: str) -> None:
        """Store a table, which MLflow's UI compares with those of other runs. A retry replaces it."""
        content = table_texts(frame).to_json(orient="split", index=False, date_format="iso")
        self.log_files({file: content.encode()})
        tables = [{"path": file, "type": "table"}]
        self.client.set_tag(self.run_id, TABLES_TAG, json.dumps(tables))

    def log_files(self, contents: Mapping[str, bytes]) -> None:
        """Store artifacts by file name, such as images and documents.

        Names are cleaned. Contents are stored unchanged, because evidence is sealed. Callers redact secrets
        in texts beforehand.
        """
        with tempfile.TemporaryDirectory() as folder:
            for name, content in contents.items():
                Path(folder, name_text(name)).write_bytes(content)
            self.client.log_artifacts(self.run_id, folder)

    def log_model(
        self, model: Any, name: str, inputs: "pd.DataFrame", *, method: str = stored_model.PREDICT
    ) -> str:
        """Store a model with signature, example and requirements, so that loading it runs none of its code.

        A model of an earlier attempt of the same run is deleted.

        Args:
            model: Fitted model: an estimator or a pipeline of scikit-learn, an estimator or a Booster of
                LightGBM or XGBoost, or an ONNX graph.
            name: Name of the model in MLflow.
            inputs: Rows as a client would send them; columns with missing values here may have them in
                requests.
            method: Method that the service calls: "predict" for values and labels, "predict_proba" for the
                probability of each class.

        Returns:
            Id of the logged model.

        Raises:
            PermanentFailure: The model cannot be stored in this form, or does not have the method.
        """
        from mlflow.entities import LoggedModelOutput

        earlier = f"source_run_id = '{self.run_id}'"
        for earlier_model in self.client.search_logged_models([self.experiment_id], filter_string=earlier):
            self.client.delete_logged_model(earlier_model.model_id)
        with permanent_failures():
            model_type = model_files.flavour_of(model).model_type(model, method)
        params = self.client.get_run(self.run_id).data.params
        logged = self.client.create_logged_model(
            self.experiment_id, name, self.run_id, params=params, model_type=model_type
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model")
            with permanent_failures():
                model_files.save(model, path, inputs, logged, self.run_id, method=method)
            self.client.log_model_artifacts(logged.model_id, str(path))
        self.client.log_outputs(self.run_id, [LoggedModelOutput(logged.model_id, step=0)])
        self.client.finalize_logged_model(logged.model_id, "READY")
        return logged.model_id


class MLflowResource(dg.ConfigurableResource):
    """Opens MLflow runs for steps that train or evaluate a model.

    If a step raises an error, its MLflow run ends as FAILED with the error as a tag. A retry of the step
    continues the same MLflow run.

    Example:
        >>> @dg.asset
        ... def model(context: dg.AssetExecutionContext, mlflow: MLflowResource) -> None:
        ...     with mlflow.training_run(context, "oven model") as run:
        ...         run.log_params({"depth": 3})
        >>> mlflow = MLflowResource(tracking_uri="sqlite:///mlflow.db", experiment="bakery")
        >>> dg.materialize([model], resources={"mlflow": mlflow}).success
        True
    """

    tracking_uri: str = Field(description="URL of an MLflow server, or URI of its database.")
    experiment: str = Field(description="Name of the MLflow experiment; created when missing.")
    artifacts: str | None = Field(
        default=None,
        description="Folder or URL for the artifacts of a new experiment. Default: chosen by the server.",
    )

    def open_experiment(self) -> tuple["MlflowClient", str]:
        """Return a client and the id of the experiment, which is created if it does not exist.

        Raises:
            PermanentFailure: MLflow is unavailable, or the experiment was deleted.
        """
        client = connect(self.tracking_uri)
        try:
            return client, store.experiment_id(client, self.experiment, self.artifacts)
        except store.StoreUnreachableError as error:
            raise PermanentFailure(error.problem, error.remedy) from error

    @contextmanager
    def training_run(self, context: dg.AssetExecutionContext, name: str) -> Iterator[TrainingRun]:
        """Open an MLflow run for this step, or the MLflow run of an earlier attempt at it.

        Raises:
            PermanentFailure: The MLflow server cannot be reached.
        """
        client, experiment_id = self.open_experiment()
        tags = {
            mlflow_tags.RUN_ID: context.run.run_id,
            mlflow_tags.STEP_KEY: context.op_execution_context.get_step_execution_context().step.key,
            mlflow_tags.JOB: context.job_name,
        }
        if context.has_partition_key:
            tags[PARTITION_TAG] = context.partition_key
        tags = tag_texts(tags)
        run_id = _run_with_tags(client, experiment_id, tags)
        if run_id is None:
            run_id = client.create_run(experiment_id, tags=tags, run_name=name_text(name)).info.run_id
        with _open(TrainingRun(client, experiment_id, run_id)) as run:
            run.log_params(_library_versions())
            yield run

    @contextmanager
    def reopened_run(self, run_id: str) -> Iterator[TrainingRun]:
        """Open an MLflow run that another step has finished, to add to it.

        Raises:
            PermanentFailure: The MLflow server cannot be reached.
        """
        client = connect(self.tracking_uri)
        experiment_id = client.get_run(run_id).info.experiment_id
        with _open(TrainingRun(client, experiment_id, run_id)) as run:
            yield run

    def link(self, run: TrainingRun) -> dg.MetadataValue:
        """Return the URL of a run in MLflow's UI, or its id for a tracking store without a server."""
        if not self.tracking_uri.startswith(("http://", "https://")):
            return dg.MetadataValue.text(run.run_id)
        server = without_password(self.tracking_uri).rstrip("/")
        return dg.MetadataValue.url(f"{server}/#/experiments/{run.experiment_id}/runs/{run.run_id}")

    def load_model(self, model_id: str) -> StoredModel:
        """Load a logged model without running code from its files.

        Raises:
            PermanentFailure: The model cannot be loaded in this way.
        """
        client = connect(self.tracking_uri)
        location = client.get_logged_model(model_id).artifact_location
        try:
            with store.downloaded(client, location) as folder:
                return model_files.load(folder)
        except ModelRefusedError as error:
            raise PermanentFailure(error.problem, error.remedy or "Train the model again.") from error


def connect(tracking_uri: str) -> "MlflowClient":
    """Open an MLflow client.

    Raises:
        PermanentFailure: MLflow is unavailable; the error is raised within seconds.
    """
    try:
        return store.connect(tracking_uri)
    except store.StoreUnreachableError as error:
        raise PermanentFailure(
            error.problem,
            error.remedy or "Start it (`ledgerline dev` starts one) or set MLFLOW_TRACKING_URI.",
        ) from error


@contextmanager
def _open(run: TrainingRun) -> Iterator[TrainingRun]:
    from mlflow.exceptions import MlflowException

    client, run_id = run.client, run.run_id
    client.update_run(run_id, status="RUNNING")
    if ERROR_TAG in client.get_run(run_id).data.tags:
        client.delete_tag(run_id, ERROR_TAG)
    try:
        yield run
    except BaseException as error:
        killed = isinstance(error, KeyboardInterrupt | dg.DagsterExecutionInterruptedError)
        try:
            client.set_tag(run_id, ERROR_TAG, error_text(error))
            client.set_terminated(run_id, "KILLED" if killed else "FAILED")
        except MlflowException as unreported:  # the step raises its own error
            error.add_note(f"This failure could not be logged to MLflow: {clean(str(unreported))}")
        raise
    client.set_terminated(run_id, "FINISHED")


def _run_with_tags(client: "MlflowClient", experiment_id: str, tags: Mapping[str, str]) -> str | None:
    conditions = [f"tags.`{name}` = '{tags[name]}'" for name in (mlflow_tags.RUN_ID, mlflow_tags.STEP_KEY)]
    runs = client.search_runs([experiment_id], " and ".join(conditions), max_results=1)
    return runs[0].info.run_id if runs else None


def _library_versions() -> dict[str, str]:
    from importlib.metadata import version

    import mlflow.version

    # MLflow and its client-only distribution have the same version number.
    libraries = ("dagster", "numpy", "pandas", "pyarrow", "scikit-learn", "skops")
    versions = {f"version.{library}": version(library) for library in libraries}
    return {"version.python": platform.python_version(), "version.mlflow": mlflow.version.VERSION, **versions}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
