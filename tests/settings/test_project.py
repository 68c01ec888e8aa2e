"""Tests the project of a folder, by `[tool.ledgerline]` in its pyproject.toml."""

from pathlib import Path

import pytest

from ledgerline.settings.project import Project, ProjectError
from tests.project import PROJECT_ROOT


def project_in(folder: Path, table: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(table)
    return folder


def test_this_checkout_is_the_project_of_the_flights() -> None:
    assert Project.from_environment({}, PROJECT_ROOT / "docs") == Project(
        root=PROJECT_ROOT,
        definitions="pipelines.definitions",
        experiment="flight_delay",
        models=("flight_delay", "delay_minutes"),
        commands="pipelines.commands",
        run=("ingest_flights", "train_delay_model", "release_flight_delay", "score_flights"),
        run_partition="2013-07-01",
    )


def test_the_nearest_folder_above_with_a_table_is_the_project(tmp_path: Path) -> None:
    outer = project_in(tmp_path, '[tool.ledgerline]\nexperiment = "outer"')
    inner = project_in(outer / "a" / "b", "[tool.ruff]\nline-length = 100")
    assert Project.from_environment({}, inner) == Project(root=outer, experiment="outer")


def test_without_a_project_state_goes_to_the_folder_itself(tmp_path: Path) -> None:
    found = Project.from_environment({}, tmp_path)
    assert found == Project(root=tmp_path)
    with pytest.raises(ProjectError, match=r"no project in .* or above it"):
        _ = found.module


def test_a_variable_names_the_project_of_a_process_that_works_elsewhere(tmp_path: Path) -> None:
    there = project_in(tmp_path / "there", '[tool.ledgerline]\ndefinitions = "kitchen.definitions"')
    found = Project.from_environment({"LEDGERLINE_PROJECT": str(there)}, PROJECT_ROOT)
    assert (found.root, found.module) == (there, "kitchen.definitions")


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("[tool.ledgerline", "cannot be read"),
        ('[tool]\nledgerline = "flights"', "is 'flights'"),
        (
            "[tool.ledgerline]\nname = 1",
            "no other keys than definitions, experiment, models, commands, run, run_partition",
        ),
        ("[tool.ledgerline]\nexperiment = 3", "experiment of .* is 3; it must be a text"),
        ('[tool.ledgerline]\ndefinitions = ""', "definitions of .* is ''; it must be a text"),
        ('[tool.ledgerline]\nrun = "train"', "run of .* must be a list of texts"),
        ("[tool.ledgerline]\nrun_partition = 7", "run_partition of .* is 7; it must be a text"),
        ("[tool.ledgerline]\ncommands = [1]", r"commands of .* is \[1\]; it must be a text"),
        ('[tool.ledgerline]\nmodels = "flight_delay"', "models of .* it must be a list of texts"),
        ("[tool.ledgerline]\nmodels = [1]", r"models of .* is \[1\]; it must be a list of texts"),
    ],
)
def test_a_table_that_is_not_understood_is_named(tmp_path: Path, table: str, problem: str) -> None:
    project_in(tmp_path, table)
    with pytest.raises(ProjectError, match=problem) as caught:
        Project.from_environment({}, tmp_path)
    assert str(tmp_path / "pyproject.toml") in str(caught.value)
