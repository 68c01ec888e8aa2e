"""Tests `ledgerline run` and `ledgerline backfill` from an empty folder, as a new user types them."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
from mlflow import MlflowClient

from assets.delay_model_evaluation import Evaluation
from ledgerline.dagster.storage.io_managers import open_records, open_tables

MONTH = "2013-07-01"

Ledgerline = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class FirstRun:
    """An empty folder after `ledgerline run`, and what the terminal showed."""

    home: Path
    output: str

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.home}/mlflow.db")

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        with dg.DagsterInstance.from_config(str(self.home / "dagster")) as instance:
            yield instance


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory, ledgerline: Ledgerline) -> FirstRun:
    home = tmp_path_factory.mktemp("home")
    done = ledgerline(home, "run")
    assert done.returncode == 0, done.stdout + done.stderr
    return FirstRun(home, done.stdout)


def test_the_first_run_ends_with_a_model_in_production(first_run: FirstRun) -> None:
    model = first_run.client.get_registered_model("flight_delay")
    assert {alias: int(number) for alias, number in model.aliases.items()} == {"production": 1}
    version = first_run.client.get_model_version("flight_delay", "1")
    assert version.tags["partition"] == MONTH
    assert (version.tags["stage"], version.tags["decision"]) == ("production", "passed")
    assert len(version.tags["sha256"]) == 64
    assert version.tags["sha256"][:12] in first_run.output


def test_the_training_run_is_finished_and_has_everything(first_run: FirstRun) -> None:
    version = first_run.client.get_model_version("flight_delay", "1")
    run = first_run.client.get_run(version.run_id or "")
    assert run.info.status == "FINISHED"
    assert run.data.params["window_months"] == "3"
    assert "version.scikit-learn" in run.data.params
    assert run.data.metrics["roc_auc"] > run.data.metrics["carrier_hour_rate/roc_auc"]
    assert run.data.metrics["brier"] < run.data.metrics["carrier_hour_rate/brier"]
    curve = first_run.client.get_metric_history(run.info.run_id, "train_loss")
    assert [point.step for point in curve] == list(range(101))
    assert run.inputs is not None
    usages = {
        tag.value
        for item in run.inputs.dataset_inputs
        for tag in item.tags
        if tag.key == "mlflow.data.context"
    }
    assert usages == {"training", "evaluation"}
    files = {item.path for item in first_run.client.list_artifacts(run.info.run_id)}
    assert files == {"loss.png", "roc.png", "calibration.png", "importance.png", "slices.png", "slices.json"}


def test_the_scored_day_names_the_version(first_run: FirstRun) -> None:
    rows = open_tables(str(first_run.home / "data")).read(dg.AssetKey("delay_predictions"), ["2013-07-31"])
    assert len(rows) == 1001
    assert set(rows["model_alias"]) == {"production"}
    assert rows["late_probability"].between(0, 1).all()


def test_the_terminal_prints_steps_traces_scores_and_the_next_commands(first_run: FirstRun) -> None:
    for part in (
        "production of flight_delay: version 1",
        "better_than_production",
        "✓ flights ",
        "114,794 rows",
        "roc_auc",
        "carrier hour rate",
        "make dev",
        "flight_delay",
    ):
        assert part in first_run.output
    for line in (
        r"run train_delay_model 2013-07-01 +\d+\.\d s",
        r"├─ delay_model +\d",
        r"─ fit +\d+\.\d s +━",
    ):
        assert re.search(line, first_run.output)
    for noise in ("Traceback", "Warning", "DEBUG"):
        assert noise not in first_run.output


def test_each_dagster_run_is_a_run_and_a_trace_in_mlflow(first_run: FirstRun) -> None:
    with first_run.instance() as instance:
        run_ids = [run.run_id for run in instance.get_runs()]
    experiments = [experiment.experiment_id for experiment in first_run.client.search_experiments()]
    assert len(run_ids) == 4
    for run_id in run_ids:
        found = first_run.client.search_runs(experiments, f"tags.`dagster.run_id` = '{run_id}'")
        (run,) = [each for each in found if "mlflow.parentRunId" not in each.data.tags]  # and no training run
        trace = first_run.client.get_trace(f"tr-{run_id.replace('-', '')}")
        assert (run.info.status, trace.info.state.value) == ("FINISHED", "OK")


def test_every_check_of_the_first_run_passed(first_run: FirstRun) -> None:
    with first_run.instance() as instance:
        run = instance.get_runs(dg.RunsFilter(job_name="ingest_flights"))[-1]
        evaluations = [
            record.event_log_entry.dagster_event
            for record in instance.get_records_for_run(
                run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
            ).records
        ]
    assert len(evaluations) == 25
    assert all(event is not None and event.asset_check_evaluation_data.passed for event in evaluations)


def test_a_second_run_reads_nothing_again_and_scores_the_same_to_the_last_digit(
    first_run: FirstRun, ledgerline: Ledgerline
) -> None:
    records = open_records(str(first_run.home / "data"))
    before = records.read(dg.AssetKey("delay_model_evaluation"), MONTH, Evaluation)

    done = ledgerline(first_run.home, "run")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "is materialised already" in done.stdout.replace("\n", " ")
    after = records.read(dg.AssetKey("delay_model_evaluation"), MONTH, Evaluation)
    assert after.run_id != before.run_id
    assert after.scores == before.scores
    assert after.data_sha256 == before.data_sha256
    # The same model again is not better than itself.
    assert "Refused. production stays with version 1." in done.stdout
    assert "a gain of 0.0000" in " ".join(re.sub("[│ ]+", " ", done.stdout).split())


def test_the_registry_command_prints_the_production_version_and_its_cause(
    first_run: FirstRun, ledgerline: Ledgerline
) -> None:
    listed = ledgerline(first_run.home, "registry", "list")
    assert re.search(r"flight_delay +│ .* │ 1 ", listed.stdout), listed.stdout + listed.stderr
    history = ledgerline(first_run.home, "registry", "history", "flight_delay")
    lines = [line for line in history.stdout.splitlines() if line.startswith("│")]
    assert "staging: none -> 1, registration" in lines[0]
    assert "version 1 against the baseline: passed" in lines[1]
    assert "production: none -> 1, promotion" in lines[2]
    assert "Warning" not in history.stderr

    as_json = ledgerline(first_run.home, "registry", "history", "flight_delay", "--json")
    document = json.loads(as_json.stdout)
    assert document["differences"] == []
    evaluated, promoted = document["entries"][1], document["entries"][2]
    assert promoted["evidence"] == evaluated["evidence"]
    now = ledgerline(first_run.home, "registry", "history", "flight_delay", "--at", "0m", "--json")
    (period,) = json.loads(now.stdout)["periods"]
    assert (period["version"], period["entry"]["entry"], period["until"]) == (1, 3, None)
    before = ledgerline(first_run.home, "registry", "history", "flight_delay", "--at", "2013-01-01")
    assert "No version of flight_delay is known to have been in production at" in before.stdout

    result = ledgerline(first_run.home, "registry", "show", "flight_delay", "--version", "1")
    assert "2013-04-01 to 2013-06-30" in result.stdout
    assert evaluated["evidence"] in result.stdout.replace("\n", "")


@pytest.mark.parametrize(
    ("arguments", "status", "problem"),
    [
        (["history"], 2, "The definitions release several models. Name one: delay_minutes, flight_delay."),
        (["show", "no_such_model"], 2, "There is no registered model 'no_such_model'"),
        (["show", "flight_delay", "--version", "99"], 2, "flight_delay has no version 99"),
        (["history", "flight_delay", "--at", "yesterday"], 2, "yesterday"),
        (["promote", "another_model"], 2, "No job compares or promotes 'another_model'"),
        (["approve", "flight_delay", "--version", "99"], 2, "flight_delay has no version 99"),
        (
            ["promote", "flight_delay", "--version", "1"],
            1,
            "Version 1 of flight_delay is in production already, since",
        ),
        (["rollback", "flight_delay"], 1, "No version of flight_delay was in production before version 1"),
        (
            ["compare", "flight_delay", "--version", "1"],
            1,
            "Version 1 of flight_delay is in production already: nothing to",
        ),
        (
            ["compare", "flight_delay", "--version", "1", "--against", "1"],
            1,
            "Version 1 of flight_delay cannot be compared with itself",
        ),
        (["webhook", "http://127.0.0.1:1/"], 2, "LEDGERLINE_WEBHOOK_SECRET"),
    ],
)
def test_a_refusal_of_the_registry_is_printed_in_a_sentence(
    first_run: FirstRun, ledgerline: Ledgerline, arguments: list[str], status: int, problem: str
) -> None:
    done = ledgerline(first_run.home, "registry", *arguments)
    printed = done.stdout + done.stderr
    assert done.returncode == status, printed
    assert problem in printed.replace("\n", " ")
    assert "Traceback" not in printed


def test_a_backfill_of_days_is_one_run(first_run: FirstRun, ledgerline: Ledgerline) -> None:
    done = ledgerline(
        first_run.home, "backfill", "score_flights", "--from", "2013-07-01", "--to", "2013-07-05"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with first_run.instance() as instance:
        run = instance.get_runs(dg.RunsFilter(job_name="score_flights"), limit=1)[0]
        scored = instance.get_materialized_partitions(dg.AssetKey("delay_predictions"))
    assert run.tags["dagster/asset_partition_range_end"] == "2013-07-05"
    assert scored == {f"2013-07-0{day}" for day in range(1, 6)} | {"2013-07-31"}


def test_a_dead_tracking_server_fails_the_step_at_the_first_attempt_and_is_named(
    first_run: FirstRun, ledgerline: Ledgerline, refusing_url: str
) -> None:
    with first_run.instance() as instance:
        before = instance.fetch_materializations(dg.AssetKey("delay_model"), limit=100).records

    done = ledgerline(first_run.home, "run", MLFLOW_TRACKING_URI=refusing_url)

    assert done.returncode == 1
    assert refusing_url in done.stdout
    assert "MLFLOW_TRACKING_URI" in done.stdout.replace("\n", " ")
    with first_run.instance() as instance:
        assert len(instance.fetch_materializations(dg.AssetKey("delay_model"), limit=100).records) == len(
            before
        )
        run = instance.get_runs(dg.RunsFilter(job_name="train_delay_model"), limit=1)[0]
        stats = instance.get_run_stats(run.run_id)
        step = instance.get_run_step_stats(run.run_id, ["delay_model"])[0]
    assert stats.steps_failed == 1
    assert step.attempts == 1


def test_a_damaged_file_is_named_and_nothing_is_trained(first_run: FirstRun, ledgerline: Ledgerline) -> None:
    file = first_run.home / "data" / "features" / "2013-05-05.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    try:
        done = ledgerline(first_run.home, "run")
    finally:
        file.write_bytes(whole)
    assert done.returncode == 1
    assert "2013-05-05.parquet is not a whole Parquet file" in done.stdout
    assert "PermanentFailure" not in done.stdout
    assert "delay_model_version" not in done.stdout


def test_a_month_outside_the_data_is_refused(tmp_path: Path, ledgerline: Ledgerline) -> None:
    done = ledgerline(tmp_path, "run", "--partition", "2014-01")
    assert done.returncode == 2
    assert "2013-02" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_state_folder_that_cannot_be_written_is_named(tmp_path: Path, ledgerline: Ledgerline) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("not a folder")
    done = ledgerline(in_the_way / "home", "run")
    assert done.returncode == 2
    assert str(in_the_way) in done.stderr
    assert "LEDGERLINE_HOME" in done.stderr
    assert "Traceback" not in done.stderr
