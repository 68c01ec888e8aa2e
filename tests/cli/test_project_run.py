"""Tests `ledgerline run` in a small project: what it runs, prints and leaves out."""

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from ledgerline.cli import runs
from ledgerline.dagster.settings import Settings

DEFINITIONS = """
import dagster as dg

from ledgerline.dagster.summaries import summary

DAYS = dg.DailyPartitionsDefinition(start_date="2023-01-01", end_date="2023-03-01")
MONTHS = dg.MonthlyPartitionsDefinition(start_date="2023-01-01", end_date="2023-03-01")


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
def sales() -> None: ...


@dg.asset(partitions_def=MONTHS, deps=[sales])
def demand(context: dg.AssetExecutionContext) -> None:
    if "burnt" in context.run.tags.get("dagster/partition", "") or FAILS:
        raise dg.Failure("The oven is cold.")
    context.add_asset_metadata(summary({"loaves": {"model": 0.5, "mean of the year": 1250.25}}))


defs = dg.Definitions(
    assets=[sales, demand],
    jobs=[dg.define_asset_job("count", ["sales"]), dg.define_asset_job("learn", ["demand"])],
)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.ledgerline]\ndefinitions = "bakery.definitions"\nrun = ["count", "learn"]\n'
        'run_partition = "2023-01-01"\n'
    )
    (tmp_path / "bakery").mkdir()
    (tmp_path / "bakery" / "__init__.py").touch()
    write(tmp_path, fails=False)
    return tmp_path


def write(project: Path, *, fails: bool) -> None:
    (project / "bakery" / "definitions.py").write_text(f"FAILS = {fails}\n{DEFINITIONS}")


def ledgerline(project: Path, tracking_uri: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a person does, in the folder of the project."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("LEDGERLINE_")}
    return subprocess.run(
        [str(Path(sys.executable).parent / "ledgerline"), *arguments],
        cwd=project,
        env=own | {"MLFLOW_TRACKING_URI": tracking_uri},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_jobs_of_the_project_are_run_and_their_summaries_printed(
    project: Path, mlflow_database: str
) -> None:
    done = ledgerline(project, mlflow_database, "run")
    assert done.returncode == 0, done.stdout + done.stderr
    for part in (
        "count  2023-01-01 to 2023-01-31",
        "learn  2023-01-01",
        "run learn 2023-01-01",  # its trace
        "demand 2023-01-01",  # its summary
        "Next:  ledgerline dev   the Dagster and MLflow pages",
    ):
        assert part in done.stdout
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("│ loaves")]
    assert [cell.strip() for cell in row.strip("│").split("│")] == ["loaves", "0.5000", "1,250.2500"]

    again = ledgerline(project, mlflow_database, "run", "--partition", "2023-02")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "count  2023-02-01 to 2023-02-28" in again.stdout

    write(project, fails=True)
    failed = ledgerline(project, mlflow_database, "run", "--partition", "")  # as without the option
    assert failed.returncode == 1
    assert "count  2023-01-01 to 2023-01-31 is materialised already (--fresh runs it again)" in failed.stdout
    assert "The oven is cold." in failed.stdout
    assert "Next:" not in failed.stdout

    settings = Settings.from_environment({"LEDGERLINE_PROJECT": str(project)})
    with runs.local_instance(settings) as instance:
        statuses = [(run.job_name, run.status) for run in instance.get_runs()]
    assert statuses == [
        ("learn", dg.DagsterRunStatus.FAILURE),
        ("learn", dg.DagsterRunStatus.SUCCESS),
        ("count", dg.DagsterRunStatus.SUCCESS),
        ("learn", dg.DagsterRunStatus.SUCCESS),
        ("count", dg.DagsterRunStatus.SUCCESS),
    ]


def test_without_a_configured_job_the_existing_jobs_are_listed(project: Path, mlflow_database: str) -> None:
    (project / "pyproject.toml").write_text('[tool.ledgerline]\ndefinitions = "bakery.definitions"\n')
    listed = ledgerline(project, mlflow_database, "run")
    assert listed.returncode == 2
    rows = [line.strip("│").split("│") for line in listed.stdout.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in row[:2]] for row in rows] == [
        ["count", "2023-01-01 to 2023-02-28"],
        ["learn", "2023-01-01 to 2023-02-01"],
    ]
    assert 'run = ["JOB", ...] in [tool.ledgerline]' in listed.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "2023-01-01"], "--from, --to and --config work only with a job"),
        (["--config", "{}"], "--from, --to and --config work only with a job"),
        (["learn", "--fresh"], "--fresh works only without a job"),
        (
            ["--partition", "2023-01", "--partition", "2023-02"],
            "Without a job, --partition can be given only once",
        ),
        (["--partition", "2024-01"], "'2024-01' is not a partition of learn. Choose one from 2023-01-01"),
    ],
)
def test_contradictory_options_are_refused(
    arguments: list[str], message: str, project: Path, mlflow_database: str
) -> None:
    refused = ledgerline(project, mlflow_database, "run", *arguments)
    assert refused.returncode == 2, refused.stdout
    assert refused.stderr.startswith(message)
