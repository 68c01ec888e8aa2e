"""Tests `ledgerline new` for each kind of prediction, from the command to a rollback of a model."""

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from ledgerline.evaluation.kinds import Binary, Multiclass, Quantiles, Regression
from ledgerline.evaluation.prediction_kind import PredictionKind
from ledgerline.new_project.kind import Kind
from ledgerline.registry.history import Entry, Evaluation
from tests.integration.new_projects import VENV, NewProject, new_project, step_config
from tests.project import PROJECT_ROOT

KINDS: dict[Kind, PredictionKind] = {
    Kind.BINARY: Binary(),
    Kind.MULTICLASS: Multiclass(("low", "normal", "high")),
    Kind.REGRESSION: Regression(),
    Kind.QUANTILES: Quantiles((0.1, 0.5, 0.9)),
}
CLIENT_ROWS = [
    {"shop": "Market", "weekday": "Saturday", "time": "morning", "temperature": 18, "rain": 0},
    {"shop": "Mill", "weekday": "Monday", "time": "evening", "temperature": 9.5, "rain": 2.5},
]


@pytest.fixture(scope="module", params=list(Kind), ids=str)
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewProject]:
    """A new project after `make run`."""
    with new_project(tmp_path_factory.mktemp("new"), request.param) as made:
        made.make("run")
        yield made


@pytest.fixture(scope="module")
def refused(project: NewProject) -> Evaluation:
    """The judgement of a version of the next month that was trained with one iteration."""
    project.ledgerline("run", "read_rows", "--partition", "2025-06")
    project.ledgerline("run", "train", "--partition", "2025-06", "--config", step_config(max_iter=1))
    return evaluations(project.entries)[-1]


@pytest.fixture(scope="module")
def promoted(project: NewProject, refused: Evaluation) -> Evaluation:
    """The judgement of a version of the next month that was trained as always."""
    project.ledgerline("run", "--partition", "2025-06")
    project.wait_until_served(3)
    return evaluations(project.entries)[-1]


def evaluations(entries: list[Entry]) -> list[Evaluation]:
    return [entry.record for entry in entries if isinstance(entry.record, Evaluation)]


def test_make_run_ends_with_a_version_that_passed_its_gates_in_production(project: NewProject) -> None:
    (evaluated, *_) = evaluations(project.entries)
    assert (evaluated.version, evaluated.against, evaluated.passed, list(evaluated.broken_rules)) == (
        1,
        None,
        True,
        [],
    )
    version = project.client.get_model_version(project.model, "1")
    assert version.tags["partition"] == "2025-05-01"
    assert json.loads(version.tags["trained_on"]) == [["2025-02-01", "2025-04-01"]]
    assert len(version.tags["sha256"]) == 64
    with project.instance() as instance:
        assert instance.get_materialized_partitions(dg.AssetKey("predictions")) == {"2025-05-01"}


def test_the_mlflow_run_of_the_training_has_everything(project: NewProject) -> None:
    run = project.client.get_run(project.client.get_model_version(project.model, "1").run_id or "")
    assert run.info.status == "FINISHED"
    assert run.data.params["max_iter"] == "50"
    assert KINDS[project.kind].primary_metric in run.data.metrics
    losses = [name for name in run.data.metrics if name == "loss" or name.startswith("loss/")]
    assert len(losses) == (3 if project.kind is Kind.QUANTILES else 1)
    for name in losses:
        curve = [point.value for point in project.client.get_metric_history(run.info.run_id, name)]
        assert len(curve) == 51
        assert curve[-1] < curve[0]
    assert run.inputs is not None
    assert run.outputs is not None
    usages = {tag.value for item in run.inputs.dataset_inputs for tag in item.tags if "context" in tag.key}
    assert usages == {"training", "evaluation"}
    assert len(run.outputs.model_outputs) == 1


def test_each_run_has_a_whole_trace_and_an_mlflow_run(project: NewProject) -> None:
    with project.instance() as instance:
        first = list(reversed(instance.get_runs()))[:4]
    assert [run.job_name for run in first] == ["read_rows", "train", f"release_{project.model}", "predict"]
    experiment = project.client.get_experiment_by_name(project.model)
    assert experiment is not None
    for run in first:
        found = project.client.search_runs(
            [experiment.experiment_id], f"tags.`dagster.run_id` = '{run.run_id}'"
        )
        assert any(each.info.run_name and each.info.run_name.startswith(run.job_name) for each in found)
        assert {each.info.status for each in found} == {"FINISHED"}
    tree = project.ledgerline("trace", first[1].run_id, "--least", "0")
    for span in ("run train 2025-05-01", "model_version", "compute", "fit", "store model"):
        assert span in tree


def test_a_service_that_was_started_before_activates_the_version(project: NewProject) -> None:
    project.wait_until_served(project.in_production() or 0)
    answers = project.predict(CLIENT_ROWS)
    shape = {Kind.BINARY: 2, Kind.MULTICLASS: 3, Kind.QUANTILES: 3}.get(project.kind)
    assert len(answers) == 2
    assert [len(answer) if shape else isinstance(answer, float) for answer in answers] == [shape or True] * 2


def test_a_worse_version_is_refused_with_numbers(project: NewProject, refused: Evaluation) -> None:
    assert (refused.version, refused.against, refused.passed) == (2, 1, False)
    assert "better_than_production" in refused.broken_rules
    run = project.client.get_run(refused.evidence_run_id)
    metric = KINDS[project.kind].primary_metric
    scores = {name: run.data.metrics[f"{name}/{metric}"] for name in ("staging", "production", "gain")}
    assert scores["staging"] > scores["production"]
    assert scores["gain"] == pytest.approx(scores["production"] - scores["staging"])
    files = {item.path for item in project.client.list_artifacts(run.info.run_id)}
    assert {"evidence.json", "report.html", "gains.png", "calibration.png"} <= files


def test_a_better_version_of_a_later_month_replaces_it(promoted: Evaluation) -> None:
    assert (promoted.version, promoted.against, promoted.passed) == (3, 1, True)


def test_production_is_rolled_back_and_the_service_follows(project: NewProject, promoted: Evaluation) -> None:
    project.ledgerline("registry", "rollback", project.model, "--reason", "too good to be true")
    assert project.in_production() == 1
    project.wait_until_served(1)


def test_the_tests_of_the_project_pass(project: NewProject) -> None:
    assert "4 passed" in project.make("test")


def test_dagster_loads_its_workspace(project: NewProject) -> None:
    validated = project.run(VENV / "bin" / "dagster", "definitions", "validate", "-w", "workspace.yaml")
    assert "Validation successful for code location" in validated


def test_its_definitions_import_nothing_else_than_the_project_and_the_library(project: NewProject) -> None:
    modules = """
import json, sys
import pipelines.definitions
print(json.dumps([m.__file__ for m in sys.modules.values() if getattr(m, "__file__", None)]))
"""
    loaded = [
        Path(file) for file in json.loads(project.run(VENV / "bin" / "python", "-W", "ignore", "-c", modules))
    ]
    own = {str(file.relative_to(project.folder)) for file in loaded if file.is_relative_to(project.folder)}
    assert {"assets/rows.py", "assets/model.py", "pipelines/definitions.py", "resources/wiring.py"} <= own
    ours = [file.relative_to(PROJECT_ROOT) for file in loaded if file.is_relative_to(PROJECT_ROOT)]
    assert {file.parts[0] for file in ours} <= {"ledgerline", ".venv"}
