"""Tests secrets and odd texts in records of training steps: none reaches MLflow, and runs are complete."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd
import pytest

from ledgerline.dagster.tracked_texts import param_text
from ledgerline.dagster.tracking import Dataset, MLflowResource, TrainingRun
from ledgerline.mlflow_store.tag_texts import MAX_TAG_LENGTH

if TYPE_CHECKING:
    from mlflow.entities import Run

ADDRESS = "postgresql://me:hunter2@db/flights"
CLEAN_ADDRESS = "postgresql://me:[redacted]@db/flights"


class Training:
    """Steps with a training run, in an MLflow database of this test's own."""

    def __init__(self, uri: str, artifacts: Path) -> None:
        from mlflow import MlflowClient

        self.mlflow = MLflowResource(tracking_uri=uri, experiment="texts", artifacts=str(artifacts))
        self.client: MlflowClient = MlflowClient(uri)

    def run(self, body: Callable[[TrainingRun], object], name: str = "small") -> "Run":
        """Return the MLflow run of a step that does this, as it ended."""

        @dg.asset
        def trained(context: dg.AssetExecutionContext, mlflow: MLflowResource) -> None:
            with mlflow.training_run(context, name) as run:
                body(run)

        dg.materialize([trained], resources={"mlflow": self.mlflow}, raise_on_error=False)
        experiment = self.client.get_experiment_by_name("texts")
        assert experiment is not None
        (found,) = self.client.search_runs([experiment.experiment_id])
        return found


@pytest.fixture
def training(mlflow_database: str, tmp_path: Path) -> Training:
    return Training(mlflow_database, tmp_path / "artifacts")


def failing(error: BaseException) -> Callable[[TrainingRun], object]:
    def body(run: TrainingRun) -> None:
        raise error

    return body


@pytest.mark.parametrize(
    ("message", "recorded"),
    [
        (f"cannot connect to {ADDRESS}", f"cannot connect to {CLEAN_ADDRESS}"),
        ("401 for Authorization: Bearer abcdef0123456789", "401 for Authorization: Bearer [redacted]"),
        ("a row has \x00 and \ud83d", "a row has \\x00 and \\ud83d"),
    ],
)
def test_an_error_is_recorded_without_secrets_and_with_valid_characters(
    training: Training, message: str, recorded: str
) -> None:
    run = training.run(failing(ValueError(message)))
    assert (run.info.status, run.data.tags["error"]) == ("FAILED", f"ValueError: {recorded}")


def test_a_long_error_ends_in_its_length_and_its_secret_at_the_limit_is_hidden(training: Training) -> None:
    start = "x" * (MAX_TAG_LENGTH - 60)
    run = training.run(failing(ValueError(f"{start} {ADDRESS} {'y' * 9000}")))
    recorded = run.data.tags["error"]
    assert len(recorded) == MAX_TAG_LENGTH
    assert "characters, sha256 " in recorded
    assert "hunter2" not in recorded


def test_a_run_whose_error_has_no_message_ends_as_failed(training: Training) -> None:
    class UnprintableError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no message")

    run = training.run(failing(UnprintableError()))
    assert run.info.status == "FAILED"
    assert run.data.tags["error"] == "UnprintableError: its message cannot be read (RuntimeError)"


def test_params_are_recorded_without_secrets(training: Training) -> None:
    params = {
        "max_iter": 4,
        "max_tokens": 100,
        "api_key": "hunter2hunter2",
        "database": ADDRESS,
        "store": {"bucket": "b", "secret_access_key": "hunter2"},
        "note": "nul \x00 half \ud83d",
        "long": "z" * 20_000,
    }
    run = training.run(lambda run: run.log_params(params))
    recorded = {name: run.data.params[name] for name in params}
    assert run.info.status == "FINISHED"
    assert recorded == {
        "max_iter": "4",
        "max_tokens": "100",
        "api_key": "[redacted]",
        "database": CLEAN_ADDRESS,
        "store": "{'bucket': 'b', 'secret_access_key': '[redacted]'}",
        "note": "nul \\x00 half \\ud83d",
        "long": recorded["long"],
    }
    assert len(recorded["long"]) == 6000


@pytest.mark.parametrize(
    "value", [1, 1.5, True, None, "text", [1, "a"], (1, "a"), {"a": (1, None)}, Path("/x")]
)
def test_an_ordinary_param_is_recorded_as_python_writes_it(value: Any) -> None:
    expected = {"a": [1, None]} if isinstance(value, dict) else value
    assert param_text("value", value) == str(expected)


def test_a_dataset_is_recorded_without_secrets_and_its_scores_find_it(training: Training) -> None:
    name = f"rows of {ADDRESS} {'n' * 600}"
    rows = Dataset(name, "a" * 64, "s3://key:hunter2@bucket/rows", 7)
    schema = dg.TableSchema([dg.TableColumn(f"of {ADDRESS}", "string"), dg.TableColumn("password", "string")])

    def body(run: TrainingRun) -> None:
        run.log_dataset(rows, "training", schema)
        run.log_metrics({"roc_auc": 0.7}, None, rows)

    run = training.run(body)
    assert run.info.status == "FINISHED"
    assert run.inputs is not None
    (recorded,) = run.inputs.dataset_inputs
    assert recorded.dataset.name.startswith(f"rows of {CLEAN_ADDRESS} nnn")
    assert (recorded.dataset.source_type, json.loads(recorded.dataset.source)) == (
        "s3",
        {"uri": "s3://key:[redacted]@bucket/rows"},
    )
    columns = json.loads(recorded.dataset.schema or "")["mlflow_colspec"]
    assert [column["name"] for column in columns] == [f"of {CLEAN_ADDRESS}", "password"]
    assert run.data.metrics == {"roc_auc": 0.7}


def test_the_name_of_a_run_is_recorded_without_secrets_and_not_too_long(training: Training) -> None:
    run = training.run(lambda run: None, name=f"on {ADDRESS} \x00 {'n' * 900}")
    assert run.info.run_name is not None
    assert run.info.run_name.startswith(f"on {CLEAN_ADDRESS} \\x00 nnn")
    assert len(run.info.run_name) == 250


def test_a_table_is_stored_without_secrets_and_numbers_stay(training: Training, tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "answer": ["it is 7", f"I asked {ADDRESS}"],
            "api_key": ["hunter2hunter2", None],
            "tokens": [12, 13],
            "at": pd.to_datetime(["2013-01-01", "2013-01-02"]),
            "calls": [[f"read {ADDRESS}"], []],
        }
    )

    def body(run: TrainingRun) -> None:
        run.log_table(frame, "answers.json")

    run = training.run(body)
    file = training.client.download_artifacts(run.info.run_id, "answers.json", str(tmp_path))
    stored = json.loads(Path(file).read_text())
    assert stored["columns"] == ["answer", "api_key", "tokens", "at", "calls"]
    assert stored["data"] == [
        ["it is 7", "[redacted]", 12, "2013-01-01T00:00:00.000", [f"read {CLEAN_ADDRESS}"]],
        [f"I asked {CLEAN_ADDRESS}", None, 13, "2013-01-02T00:00:00.000", []],
    ]
    assert frame["answer"][1] == f"I asked {ADDRESS}"


def test_the_name_of_a_file_is_stored_without_secrets(training: Training) -> None:
    run = training.run(
        lambda run: run.log_files({"token=ghp_abcdefghijklmnopqrstuvwxyz0123456789.txt": b"x"})
    )
    (file,) = training.client.list_artifacts(run.info.run_id)
    assert "ghp_" not in file.path
    assert "[redacted]" in file.path


@pytest.mark.parametrize("partition", [f"of {ADDRESS}", "token=hunter2hunter2"])
def test_a_partition_key_is_recorded_without_secrets(training: Training, partition: str) -> None:
    @dg.asset(partitions_def=dg.StaticPartitionsDefinition([partition]))
    def trained(context: dg.AssetExecutionContext, mlflow: MLflowResource) -> None:
        with mlflow.training_run(context, "small"):
            pass

    dg.materialize([trained], resources={"mlflow": training.mlflow}, partition_key=partition)
    experiment = training.client.get_experiment_by_name("texts")
    assert experiment is not None
    (run,) = training.client.search_runs([experiment.experiment_id])
    assert "hunter2" not in run.data.tags["dagster.partition_key"]
