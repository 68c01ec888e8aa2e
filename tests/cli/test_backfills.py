"""Tests `ledgerline run JOB` and `ledgerline backfill JOB` in a project that is not the example."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from typer.testing import CliRunner, Result

from ledgerline.cli import run_config, runs
from ledgerline.cli.backfills import Given, planned, run_all
from ledgerline.cli.main import app
from ledgerline.dagster.settings import Settings
from tests.cli import bakeries


@pytest.fixture
def settings(tmp_path: Path, mlflow_database: str) -> Settings:
    return bakeries.settings_of(tmp_path / "home", mlflow_database)


@pytest.fixture
def instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    with runs.local_instance(settings) as instance:
        yield instance


@pytest.fixture
def runner(instance: dg.DagsterInstance, settings: Settings) -> Iterator[runs.Runner]:
    with runs.runner(instance, settings, bakeries.bakery()) as runner:
        yield runner


def run(runner: runs.Runner, job: str, given: Given) -> bool:
    return run_all(runner, job, planned(runner.loaded.job(job), given))


def materialised(instance: dg.DagsterInstance, asset: str) -> set[str]:
    return instance.get_materialized_partitions(dg.AssetKey(asset))


@pytest.mark.parametrize(
    ("asset", "given", "keys", "run_count"),
    [
        ("orders", Given(first="2023-01-01", last="2023-01-03"), {f"2023-01-0{n}" for n in (1, 2, 3)}, 1),
        ("temperatures", Given(["2023-07-01T05"]), {"2023-07-01-05:00"}, 1),
        ("reviews", Given(first="2023-01-08"), {"2023-01-08"}, 1),
        ("demand", Given(first="2023-02", last="2023-03"), {"2023-02-01", "2023-03-01"}, 2),
        (
            "deliveries",
            Given(first="2023-01-02", last="2023-01-05"),
            {f"2023-01-0{n}" for n in (2, 3, 4, 5)},
            2,
        ),
        ("stock", Given(["east", "north"]), {"north", "east"}, 2),
        (
            "loaves",
            Given(first="2023-01-01|north", last="2023-01-02|south"),
            {f"2023-01-0{day}|{shop}" for day in (1, 2) for shop in ("north", "south")},
            1,
        ),
    ],
)
def test_a_job_runs_for_the_partitions_that_are_named(
    asset: str, given: Given, keys: set[str], run_count: int, runner: runs.Runner
) -> None:
    assert run(runner, f"make_{asset}", given)
    assert materialised(runner.instance, asset) == keys
    assert runner.instance.get_runs_count() == run_count


def test_dynamic_partitions_are_run(runner: runs.Runner) -> None:
    runner.instance.add_dynamic_partitions("customers", ["ada", "bob"])
    assert run(runner, "make_accounts", Given(first="ada", last="bob"))
    assert materialised(runner.instance, "accounts") == {"ada", "bob"}
    assert runner.instance.get_runs_count() == 1


def test_a_job_without_partitions_is_run_once(runner: runs.Runner) -> None:
    assert run(runner, "make_menu", Given())
    assert runner.instance.get_latest_materialization_event(dg.AssetKey("menu")) is not None


def test_a_job_of_ops_gets_the_configuration_of_its_partition(runner: runs.Runner) -> None:
    assert run(runner, "clean_up", Given(first="2023-01-01", last="2023-01-02"))
    days = {each.tags["dagster/partition"] for each in runner.instance.get_runs()}
    assert days == {"2023-01-01", "2023-01-02"}


def test_a_job_keeps_its_loggers_and_tags(runner: runs.Runner) -> None:
    assert run(runner, "open_shop", Given())
    (found,) = runner.instance.get_runs()
    assert found.tags["shift"] == "early"


def test_a_run_that_fails_does_not_stop_the_next(runner: runs.Runner) -> None:
    assert not run(runner, "make_till", Given(first="north", last="east"))
    assert materialised(runner.instance, "till") == {"north", "east"}
    (failed,) = runner.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
    assert failed.tags["dagster/partition"] == "south"


def test_runs_name_the_code_location_and_its_repository(runner: runs.Runner) -> None:
    assert run(runner, "make_menu", Given())
    (found,) = runner.instance.get_runs()
    assert found.remote_job_origin is not None
    assert found.remote_job_origin.location_name == "bakery_definitions"  # it has no workspace.yaml


def ledgerline(settings: Settings, *arguments: str) -> Result:
    environment = {
        "LEDGERLINE_PROJECT": str(bakeries.FOLDER),
        "LEDGERLINE_HOME": str(settings.home),
        "LEDGERLINE_EXECUTOR": "in_process",
        "MLFLOW_TRACKING_URI": settings.tracking_uri,
    }
    return CliRunner().invoke(app, list(arguments), env=environment)


def test_a_run_is_configured_by_a_file_and_started_from_a_folder_of_the_project(
    settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text("ops:\n  bread:\n    config:\n      loaves: 7\n")
    command = ["run", "bake", "--partition", "2023-01-02", "--config", str(tmp_path / "config.yaml")]
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ledgerline"), *command],
        cwd=bakeries.FOLDER,
        env={name: value for name, value in os.environ.items() if name != "LEDGERLINE_PROJECT"}
        | {"LEDGERLINE_HOME": str(settings.home), "MLFLOW_TRACKING_URI": settings.tracking_uri},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with runs.local_instance(settings) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("bread"))
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.metadata["loaves"].value == 7
    assert "1 of 1 runs succeeded." in done.stdout


def test_a_configuration_is_json_or_yaml(tmp_path: Path) -> None:
    expected = {"ops": {"bread": {"config": {"loaves": 7}}}}
    (tmp_path / "config.json").write_text(json.dumps(expected))
    (tmp_path / "config.yaml").write_text("ops: {bread: {config: {loaves: 7}}}")
    for given in (json.dumps(expected), str(tmp_path / "config.json"), str(tmp_path / "config.yaml")):
        assert run_config.read(given) == expected
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(run_config.RunConfigError, match=r"list.yaml is not a run configuration"):
        run_config.read(str(tmp_path / "list.yaml"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "make_order"], "There is no job 'make_order'. Choose one of bake, "),
        (
            ["backfill", "make_orders"],
            "make_orders has partitions (2023-01-01 to 2023-02-28), and no partition is given. Give one",
        ),
        (
            ["run", "make_menu", "--partition", "x"],
            "make_menu has no partitions. Run it without naming a partition.",
        ),
        (["run", "make_menu", "--config", "nowhere.yaml"], "nowhere.yaml cannot be read: No such file"),
        (["run", "make_menu", "--config", "{a: [}"], "--config is neither JSON nor YAML: "),
        (
            ["run", "make_menu", "--config", '{"ops": {"menu": {"config": {"a": 1}}, "soup": {}}}'],
            "make_menu cannot be run with this configuration. Received unexpected config entry",
        ),
    ],
)
def test_an_invalid_backfill_is_refused_before_any_run(
    arguments: list[str], message: str, settings: Settings
) -> None:
    refused = ledgerline(settings, *arguments)
    assert refused.exit_code == 2
    assert refused.stderr.startswith(message)
    assert "Traceback" not in refused.output
    with runs.local_instance(settings) as instance:
        assert instance.get_runs_count() == 0


def test_the_nearest_job_is_named(settings: Settings) -> None:
    assert "The nearest is make_orders." in ledgerline(settings, "run", "make_order").stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("raise ValueError('no oven')", "cannot be imported: ValueError: no oven"),
        ("import no_such_thing", "cannot be imported: ModuleNotFoundError: No module named 'no_such_thing'"),
        ("jobs = []", "has no definitions. Assign a dagster.Definitions to 'defs' in it."),
    ],
)
def test_definitions_that_cannot_be_loaded_are_named(text: str, message: str, tmp_path: Path) -> None:
    name = f"broken_{abs(hash(text))}"
    (tmp_path / "pyproject.toml").write_text(f'[tool.ledgerline]\ndefinitions = "{name}"')
    (tmp_path / f"{name}.py").write_text(text)
    environment = {"LEDGERLINE_PROJECT": str(tmp_path), "LEDGERLINE_HOME": str(tmp_path / "home")}
    refused = CliRunner().invoke(app, ["run", "a_job"], env=environment)
    assert refused.exit_code == 2
    assert refused.stderr.startswith(f"{name}")
    assert message in refused.stderr
