"""Tests the printed progress of a run: rows, failed checks, and the cause of an error."""

import io
from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from rich.console import Console

from ledgerline.cli import progress
from ledgerline.dagster.failures import PermanentFailure

DAYS = dg.StaticPartitionsDefinition(["monday", "tuesday"])


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
def flights(context: dg.AssetExecutionContext) -> None:
    for day, rows in (("monday", 842), ("tuesday", 943)):
        context.add_asset_metadata({"dagster/partition_row_count": rows}, partition_key=day)


@dg.asset
def planes(context: dg.AssetExecutionContext) -> None:
    context.log.info("Counting planes")
    context.add_asset_metadata({"dagster/row_count": 3_322})


@dg.asset_check(asset=planes, blocking=True)
def unique_key() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=False, description="2 rows share a key")


@dg.asset_check(asset=planes)
def plausible_values() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True, description="6 columns within their ranges")


@dg.asset
def broken() -> None:
    try:
        raise OSError("the disk is full")
    except OSError as error:
        raise RuntimeError("The rows were not written.") from error


@dg.asset(deps=[broken])
def after_broken() -> None: ...


@dg.asset
def refused() -> None:
    raise PermanentFailure("The file is not there.", "Install it again.")


@dg.asset(retry_policy=dg.RetryPolicy(max_retries=1))
def flaky(context: dg.AssetExecutionContext) -> None:
    if context.retry_number == 0:
        raise ConnectionError("nobody answers")


@pytest.fixture
def ephemeral() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def view_of(
    instance: dg.DagsterInstance, *assets: dg.AssetsDefinition, **tags: str
) -> dict[str, progress.Step]:
    """The steps of a real run, fed with its stored records."""
    run = dg.materialize([*assets], instance=instance, tags=tags, raise_on_error=False)
    view = progress.RunView()
    for record in instance.get_records_for_run(run.run_id).records:
        view.feed(record)
    return view.steps


def test_a_step_that_succeeded_has_its_time_and_the_rows_of_all_its_partitions(
    ephemeral: dg.DagsterInstance,
) -> None:
    tags = {
        "dagster/asset_partition_range_start": "monday",
        "dagster/asset_partition_range_end": "tuesday",
    }
    (step,) = view_of(ephemeral, flights, **tags).values()
    assert (step.key, step.state, step.rows) == ("flights", "done", 842 + 943)
    assert step.started is not None
    assert step.ended is not None
    assert step.seconds == step.ended - step.started


def test_a_table_without_partitions_has_rows_too(ephemeral: dg.DagsterInstance) -> None:
    step = view_of(ephemeral, planes)["planes"]
    assert (step.rows, step.doing, step.failed_checks) == (3_322, "Counting planes", [])


def test_a_failed_check_is_printed_with_its_description(ephemeral: dg.DagsterInstance) -> None:
    steps = view_of(ephemeral, planes, unique_key, plausible_values)
    assert steps["planes_unique_key"].failed_checks == ["unique_key: 2 rows share a key"]
    assert steps["planes_plausible_values"].failed_checks == []


def test_the_error_of_a_step_is_the_exception_it_raised(ephemeral: dg.DagsterInstance) -> None:
    steps = view_of(ephemeral, broken, after_broken)
    assert steps["broken"].state == "failed"
    assert steps["broken"].error == "RuntimeError: The rows were not written."
    assert "after_broken" not in steps or steps["after_broken"].started is None


def test_a_permanent_failure_is_printed_with_its_remedy(ephemeral: dg.DagsterInstance) -> None:
    step = view_of(ephemeral, refused)["refused"]
    assert step.state == "failed"
    assert "The file is not there. Install it again." in step.error


def test_a_step_that_is_retried_ends_as_the_last_attempt_did(ephemeral: dg.DagsterInstance) -> None:
    run = dg.materialize([flaky], instance=ephemeral)
    view = progress.RunView()
    ends = []
    for record in ephemeral.get_records_for_run(run.run_id).records:
        ended = view.feed(record)
        if ended is not None:
            ends.append(ended.state)
    assert ends == ["will be retried", "done"]
    assert view.steps["flaky"].error == ""


def test_a_run_is_printed_line_by_line_until_its_last_event(ephemeral: dg.DagsterInstance) -> None:
    console = Console(file=io.StringIO(), width=100)
    job = dg.Definitions(
        assets=[planes, broken], executor=dg.in_process_executor
    ).resolve_implicit_global_asset_job_def()
    run = ephemeral.create_run_for_job(job)
    with progress.displayed(console, ephemeral, run.run_id, "count  monday") as view:
        execute_run(InMemoryJob(job), run, ephemeral)
    assert {step.key: step.state for step in view.steps.values()} == {"planes": "done", "broken": "failed"}
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "count  monday"
    (done,) = [line for line in lines if "✓ planes" in line]
    assert done.endswith("3,322 rows")
    assert any("✗ broken" in line for line in lines)


def test_a_step_that_has_not_started_has_no_duration() -> None:
    assert progress.Step("flights").seconds == 0
