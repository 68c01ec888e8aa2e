"""Tests `ledgerline observe` and `ledgerline trace`: which runs they export, where, and what they report."""

import re
import time
from pathlib import Path

import dagster as dg
import pytest
from mlflow import MlflowClient

from ledgerline.cli.observing import ObservingError, named_run
from ledgerline.dagster.settings import Settings
from ledgerline.testing.loopback_servers import listening
from ledgerline.testing.otlp_receivers import Receiver
from ledgerline.testing.written_runs import begin
from tests.cli.command_lines import Ledgerline
from tests.cli.observed_planes import executed, traced, tracked
from tests.project import EXPERIMENT

pytestmark = pytest.mark.usefixtures("mlflow_with_tables")

NO_RUN = "00000000-0000-0000-0000-000000000000"


# Mistakes


@pytest.mark.parametrize(
    "arguments", [[], [NO_RUN, "--all"], [NO_RUN, "--follow"], ["--all", "--follow"]], ids=" ".join
)
def test_a_command_without_exactly_one_selection_is_refused_with_the_choices(
    ledgerline: Ledgerline, arguments: list[str]
) -> None:
    result = ledgerline("observe", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("`ledgerline observe` needs exactly one of a run id, --all and --follow.")


@pytest.mark.parametrize("arguments", [[NO_RUN], ["--follow"]], ids=" ".join)
def test_a_time_without_all_is_refused(ledgerline: Ledgerline, arguments: list[str]) -> None:
    result = ledgerline("observe", *arguments, "--since", "12h")
    assert (result.exit_code, result.stderr) == (
        2,
        "--since works only with --all. Add --all, or omit --since.\n",
    )


@pytest.mark.parametrize(
    "time", ["yesterday", "12", "12x", "-3d", "", "2026-13-01", "99999999999w", "99999999d"]
)
def test_an_invalid_time_is_named_with_an_example(ledgerline: Ledgerline, time: str) -> None:
    result = ledgerline("observe", "--all", f"--since={time}")
    assert result.exit_code == 2
    assert (
        result.stderr
        == f"{time!r} is not a time. Write 2026-01-31, 2026-01-31T12:00, or an age such as 12h or 7d.\n"
    )


@pytest.mark.parametrize("command", ["observe", "trace"])
def test_an_unknown_run_is_named_with_its_instance(
    ledgerline: Ledgerline, settings: Settings, command: str
) -> None:
    result = ledgerline(command, NO_RUN)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"There is no run {NO_RUN} in {settings.dagster_home}.")


def test_a_run_may_be_named_by_its_first_characters_or_as_its_trace_is() -> None:
    first, second = "2271abcd-0000-4000-8000-000000000001", "2299abcd-0000-4000-8000-000000000002"
    with dg.DagsterInstance.ephemeral() as instance:
        with pytest.raises(ObservingError, match=r"^There is no run 22 in .*\.$"):
            named_run(instance, "22")
        for run_id in (first, second):
            instance.add_run(dg.DagsterRun("job", run_id=run_id))
        assert named_run(instance, first) == first
        assert named_run(instance, "2271ABCD") == first
        assert named_run(instance, second.replace("-", "")) == second
        with pytest.raises(ObservingError, match=f"2 runs begin with 22, of which {second} is the latest"):
            named_run(instance, "22")
        for text in ("3", "", "-"):
            with pytest.raises(ObservingError, match=f"There is no run {text} in .* The latest is {second}"):
                named_run(instance, text)


@pytest.mark.parametrize("command", [["observe", "--all"], ["observe", "--follow"], ["trace", NO_RUN]])
def test_a_folder_without_an_instance_is_named_and_not_changed(
    ledgerline: Ledgerline, tmp_path: Path, command: list[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for folder in (empty, tmp_path / "nothing"):
        result = ledgerline(*command, "--dagster-home", str(folder))
        assert result.exit_code == 2
        assert result.stderr.startswith(f"{folder} is not a Dagster instance")
        assert "DAGSTER_HOME" in result.stderr
    assert list(empty.iterdir()) == []


def test_an_unusable_address_is_named_before_any_export(
    ledgerline: Ledgerline, instance: dg.DagsterInstance, client: MlflowClient
) -> None:
    run_id = executed(instance)
    result = ledgerline("observe", run_id, OPENLINEAGE_URL="marquez.example")
    assert result.exit_code == 2
    assert result.stderr.startswith("OPENLINEAGE_URL cannot be used; set it to an address")
    assert tracked(client) == []


# One run


def test_a_run_is_exported_as_a_trace_and_as_an_mlflow_run(
    ledgerline: Ledgerline, instance: dg.DagsterInstance, client: MlflowClient
) -> None:
    run_id, other = executed(instance), executed(instance)
    result = ledgerline("observe", run_id)
    assert result.exit_code == 0, result.output
    assert {"planes", "fleet"} <= traced(client, run_id)
    assert tracked(client) == [run_id]
    assert other not in result.output


def test_an_unavailable_target_is_named_and_the_others_are_exported(
    ledgerline: Ledgerline, instance: dg.DagsterInstance, client: MlflowClient, refusing_url: str
) -> None:
    run_id = executed(instance)
    result = ledgerline(
        "observe", run_id, OTEL_EXPORTER_OTLP_ENDPOINT=refusing_url, OTEL_EXPORTER_OTLP_TIMEOUT="1"
    )
    assert result.exit_code == 1
    assert f"Run {run_id} was not exported (traces): {refusing_url}" in result.stdout
    assert "Traceback" not in result.output
    assert tracked(client) == [run_id]


def test_a_run_that_cannot_be_exported_is_named_with_the_reason(
    ledgerline: Ledgerline, instance: dg.DagsterInstance, client: MlflowClient
) -> None:
    client.delete_experiment(client.create_experiment(EXPERIMENT))
    run_id = executed(instance)
    result = ledgerline("observe", run_id)
    assert result.exit_code == 1
    assert f"Run {run_id} was not exported (mlflow): The MLflow experiment" in result.stdout
    assert "Traceback" not in result.output


# All runs


def test_all_runs_are_exported_and_a_second_export_changes_nothing(
    ledgerline: Ledgerline, instance: dg.DagsterInstance, client: MlflowClient
) -> None:
    run_ids = sorted(executed(instance) for _ in range(3))
    for _ in range(2):
        result = ledgerline("observe", "--all")
        assert result.exit_code == 0, result.output
        assert "100%" in result.stdout
        assert result.stdout.endswith("3 runs exported.\n")
        assert tracked(client) == run_ids
        for run_id in run_ids:
            spans = client.get_trace(f"tr-{run_id.replace('-', '')}").data.spans
            assert len({span.span_id for span in spans}) == len(spans)


def test_more_runs_than_are_read_together_are_all_exported(
    ledgerline: Ledgerline, instance: dg.DagsterInstance, settings: Settings
) -> None:
    runs = [begin(instance) for _ in range(51)]
    for run in runs:
        run.end()
    # The slower of the two targets is down.
    no_database = f"sqlite:///{settings.home}/mlflow.db/in-a-file"
    with listening(Receiver()) as receiver:
        result = ledgerline(
            "observe", "--all", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, MLFLOW_TRACKING_URI=no_database
        )
        assert receiver.trace_ids == {run.run_id.replace("-", "") for run in runs}
    assert result.exit_code == 1
    assert f"{len(runs)} runs were not exported (mlflow), for example " in result.stdout


def test_an_instance_without_runs_is_reported(ledgerline: Ledgerline) -> None:
    result = ledgerline("observe", "--all")
    assert (result.exit_code, result.stdout) == (0, "There are no runs to export.\n")


@pytest.mark.parametrize(
    ("since", "exported"),
    [("90m", ["new"]), ("2d", ["new", "old"]), ("4w", ["new", "old"]), ("date", ["new"])],
)
def test_only_runs_since_the_time_are_exported(
    ledgerline: Ledgerline,
    instance: dg.DagsterInstance,
    client: MlflowClient,
    since: str,
    exported: list[str],
) -> None:
    day = 24 * 3600
    if since == "date":
        since = time.strftime("%Y-%m-%dT%H:%M", time.localtime(time.time() - day / 2))
    ages = {"old": day, "new": 60}
    runs = {name: begin(instance, seconds_ago=age) for name, age in ages.items()}
    for name, run in runs.items():
        run.end(seconds_ago=ages[name] - 1)
    result = ledgerline("observe", "--all", "--since", since)
    assert result.exit_code == 0, result.output
    assert tracked(client) == sorted(runs[name].run_id for name in exported)


def test_a_second_export_exports_what_an_unavailable_target_has_missed(
    ledgerline: Ledgerline, instance: dg.DagsterInstance, client: MlflowClient
) -> None:
    run_ids = [executed(instance) for _ in range(2)]
    with listening(Receiver()) as receiver:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
        receiver.stop()
        result = ledgerline("observe", "--all", **variables)
        assert result.exit_code == 1
        assert f"2 runs were not exported (traces), for example {run_ids[0]}: {receiver.url}" in result.stdout
        assert run_ids[1] not in result.stdout
        assert result.stdout.endswith("Some runs could not be exported. Repeating the command is safe.\n")
        assert tracked(client) == sorted(run_ids)

        verbose = ledgerline("observe", "--all", "-v", **variables)
        for run_id in run_ids:
            assert verbose.stdout.count(f"Run {run_id} was not exported (traces): {receiver.url}") == 1
        assert "for example" not in verbose.stdout

        receiver.start()
        assert ledgerline("observe", "--all", **variables).exit_code == 0
        for run_id in run_ids:
            assert "fleet" in {span.name for span in receiver.trace(run_id).spans}


# Printed traces


def test_the_trace_of_a_run_is_printed_as_a_tree(
    ledgerline: Ledgerline, instance: dg.DagsterInstance
) -> None:
    run_id = executed(instance)
    result = ledgerline("trace", run_id, "--least", "0")
    assert result.exit_code == 0, result.output
    steps = re.findall(r"^(\S+ (?:planes|fleet)) ", result.stdout, flags=re.MULTILINE)
    assert result.stdout.startswith("run ")
    assert steps == ["├─ planes", "└─ fleet"]
    assert "─ compute " in result.stdout
    assert re.search(r"\d\.\d s", result.stdout)
    assert "compute" not in ledgerline("trace", run_id, "--least", "1000").stdout


def test_the_trace_of_a_run_that_goes_on_is_printed_as_far_as_it_is(
    ledgerline: Ledgerline, instance: dg.DagsterInstance
) -> None:
    run = begin(instance)
    result = ledgerline("trace", run.run_id)
    assert result.exit_code == 0
    assert "running" in result.stdout


def test_a_trace_is_printed_whether_or_not_traces_are_sent(
    ledgerline: Ledgerline, instance: dg.DagsterInstance, refusing_url: str
) -> None:
    run_id = executed(instance)
    variables = {"OTEL_SDK_DISABLED": "true", "MLFLOW_TRACKING_URI": refusing_url}
    assert "fleet" in ledgerline("trace", run_id, **variables).stdout
