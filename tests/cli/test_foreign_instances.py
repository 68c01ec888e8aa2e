"""Tests `ledgerline observe --dagster-home`: how runs of other and of old instances are exported."""

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from ledgerline.cli.main import app
from ledgerline.cli.observed_instances import telling_name
from tests.cli.command_lines import Ledgerline
from tests.cli.foreign_homes import contents, links_reported, run_ids, runs_in
from tests.project import EXPERIMENT, PROJECT_ROOT

pytestmark = pytest.mark.usefixtures("mlflow_with_tables")


# Homes that Dagster of earlier releases wrote; homes/make_home.py made them.
HOMES = sorted(Path(__file__).with_name("homes").glob("*.tar.gz"))


def as_of_dagster_0_13(home: Path) -> None:
    """Make the databases what they were before there was a place for cursors."""
    tables = {
        "runs.db": ("kvs", "backfill_tags"),
        "runs/index.db": (
            "dynamic_partitions",
            "asset_event_tags",
            "asset_check_executions",
            "asset_daemon_asset_evaluations",
            "concurrency_limits",
            "concurrency_slots",
            "pending_steps",
        ),
    }
    for file, names in tables.items():
        with closing(sqlite3.connect(home / "history" / file)) as connection:
            for name in names:
                connection.execute(f"DROP TABLE IF EXISTS {name}")
            connection.execute("UPDATE alembic_version SET version_num = 'b37316bf5584'")
            connection.commit()


# Targets of the exports


def test_its_runs_are_exported_apart_from_those_of_this_project(
    ledgerline: Ledgerline, home: Path, tmp_path: Path, client: MlflowClient
) -> None:
    (run_id,) = run_ids(home, tmp_path)
    assert ledgerline("observe", run_id).exit_code == 2
    result = ledgerline("observe", run_id, "--dagster-home", home)
    assert result.exit_code == 0, result.output
    assert (
        f"The runs of {home} are exported to the MLflow experiment bakery and the lineage namespace bakery"
        in (result.stdout)
    )
    assert runs_in(client, "bakery") == [run_id]
    assert runs_in(client, EXPERIMENT) == []
    experiment = client.get_experiment_by_name("bakery")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    document = client.download_artifacts(run.info.run_id, "lineage/bread.json")
    assert '"namespace": "bakery"' in Path(document).read_text()
    assert '"namespace": "ledgerline"' not in Path(document).read_text()
    # The instance has another Dagster UI than this project.
    assert "dagster.url" not in run.data.tags


def test_experiment_namespace_and_pages_can_be_chosen(
    ledgerline: Ledgerline, home: Path, tmp_path: Path, client: MlflowClient
) -> None:
    (run_id,) = run_ids(home, tmp_path)
    chosen = ("--experiment", "ovens", "--namespace", "berlin", "--dagster-url", "https://dagster.example/")
    result = ledgerline("observe", run_id, "--dagster-home", home, *chosen)
    assert result.exit_code == 0, result.output
    experiment = client.get_experiment_by_name("ovens")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.tags["dagster.url"] == f"https://dagster.example/runs/{run_id}"
    document = client.download_artifacts(run.info.run_id, "lineage/bread.json")
    assert '"namespace": "berlin"' in Path(document).read_text()


@pytest.mark.parametrize(
    "option", [("--experiment", "x"), ("--namespace", "x"), ("--dagster-url", "http://x")], ids=lambda o: o[0]
)
def test_options_of_another_instance_need_one(ledgerline: Ledgerline, option: tuple[str, str]) -> None:
    result = ledgerline("observe", "--all", *option)
    assert result.exit_code == 2
    assert result.stderr.startswith(
        "--experiment, --namespace and --dagster-url work only with --dagster-home."
    )


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("/srv/bakery/dagster_home", "bakery"),
        ("/home/ana/.dagster", "ana"),
        ("/srv/bakery", "bakery"),
        ("/opt/dagster/dagster_home", "dagster"),
        ("/", "dagster"),
        ("/srv/.bakery/Dagster", "bakery"),
    ],
)
def test_an_instance_is_named_after_its_telling_folder(folder: str, name: str) -> None:
    assert telling_name(Path(folder)) == name


def test_an_instance_that_dagster_home_names_too_stays_without_a_configuration_of_this_project(
    ledgerline: Ledgerline, home: Path
) -> None:
    (home / "dagster.yaml").unlink(missing_ok=True)
    result = ledgerline("observe", "--all", "--dagster-home", home, "--read-only", DAGSTER_HOME=str(home))
    assert result.exit_code == 0, result.output
    assert not (home / "dagster.yaml").exists()


# Instances of older versions


@pytest.mark.parametrize("command", [["--all"], ["RUN"]], ids=" ".join)
def test_an_instance_without_a_table_for_cursors_is_exported_in_full_and_only_read(
    ledgerline: Ledgerline, home: Path, tmp_path: Path, client: MlflowClient, command: list[str]
) -> None:
    (run_id,) = run_ids(home, tmp_path)
    as_of_dagster_0_13(home)
    before = contents(home)
    chosen = [run_id if part == "RUN" else part for part in command]
    result = ledgerline("observe", *chosen, "--dagster-home", home)
    assert result.exit_code == 0, result.output
    assert "Nothing is written to that instance:" in result.stdout
    assert "runs.db was created by an old Dagster and has no table kvs for cursors." in result.stdout
    assert runs_in(client, "bakery") == [run_id]
    assert contents(home) == before


def test_an_instance_with_another_schema_is_only_read(
    ledgerline: Ledgerline, home: Path, client: MlflowClient
) -> None:
    with closing(sqlite3.connect(home / "history" / "runs.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '5e139331e376'")
        connection.commit()
    before = contents(home)
    result = ledgerline("observe", "--all", "--dagster-home", home)
    assert result.exit_code == 0, result.output
    assert "runs.db has the schema 5e139331e376, and Dagster" in result.stdout
    assert len(runs_in(client, "bakery")) == 1
    assert contents(home) == before


@pytest.mark.parametrize("archive", HOMES, ids=lambda archive: archive.name.removesuffix(".tar.gz"))
def test_the_home_of_an_earlier_dagster_is_exported(
    ledgerline: Ledgerline, client: MlflowClient, tmp_path: Path, archive: Path
) -> None:
    home = tmp_path / "earlier" / "dagster_home"
    home.mkdir(parents=True)
    subprocess.run(["tar", "-xzf", archive, "-C", home], check=True)
    result = ledgerline("observe", "--all", "--dagster-home", home)
    assert result.exit_code == 0, result.output
    (run_id,) = runs_in(client, "earlier")
    traced = ledgerline("trace", run_id[:8], "--dagster-home", home)
    assert [name for name in ("numbers", "total") if f"─ {name}" in traced.stdout] == ["numbers", "total"]


@pytest.fixture
def folder_of_the_process() -> Iterator[None]:
    yield
    os.chdir(PROJECT_ROOT)


def test_a_home_may_be_a_relative_path(
    ledgerline: Ledgerline,
    home: Path,
    client: MlflowClient,
    folder_of_the_process: None,
) -> None:
    os.chdir(home.parent)
    assert ledgerline("observe", "--all", "--dagster-home", "dagster_home").exit_code == 0
    assert len(runs_in(client, "bakery")) == 1


def test_commands_that_need_a_project_are_refused_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.delenv("LEDGERLINE_PROJECT")
    monkeypatch.delenv("LEDGERLINE_HOME")
    for command in ("run", "dev"):
        result = CliRunner().invoke(app, [command])
        assert result.exit_code == 2, result.output
        assert f"There is no project in {elsewhere} or above it." in result.output
    assert not list(elsewhere.iterdir())


def test_without_a_project_the_instance_that_dagster_home_names_is_observed(
    ledgerline: Ledgerline, home: Path, tmp_path: Path, client: MlflowClient
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    variables = {"LEDGERLINE_PROJECT": str(elsewhere), "DAGSTER_HOME": str(home)}
    result = ledgerline("observe", "--all", "--experiment", "bread", **variables)
    assert result.exit_code == 0, result.output
    (run_id,) = run_ids(home, tmp_path)
    assert runs_in(client, "bread") == [run_id]
    assert links_reported(home, run_id)
    traced = ledgerline("trace", run_id, **variables)
    assert traced.exit_code == 0, traced.output
    assert "bread" in traced.output
    assert not list(elsewhere.iterdir())


def test_in_a_project_dagster_home_is_that_of_the_project(ledgerline: Ledgerline, home: Path) -> None:
    result = ledgerline("observe", "--all", "--experiment", "bread", DAGSTER_HOME=str(home))
    assert result.exit_code == 2
    assert "--experiment, --namespace and --dagster-url work only with --dagster-home." in result.output


def test_without_a_project_and_an_instance_the_message_names_both_ways(
    ledgerline: Ledgerline, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    result = ledgerline("observe", "--all", LEDGERLINE_PROJECT=str(elsewhere))
    assert result.exit_code == 2
    assert "--dagster-home or DAGSTER_HOME names an instance." in " ".join(result.output.split())
