"""Tests the outputs inside graphs of a run, and how long they are stored."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from ledgerline.dagster.storage.io_managers import RecordStorage, open_records


@dataclass(frozen=True)
class Number:
    value: int


@dg.op(out=dg.DynamicOut(io_manager_key="run_records"))
def numbers() -> list[dg.DynamicOutput[Number]]:
    return [dg.DynamicOutput(Number(value), str(value)) for value in (1, 2, 3)]


@dg.op(out=dg.Out(io_manager_key="run_records"))
def doubled(number: Number) -> Number:
    return Number(2 * number.value)


@dg.op(out=dg.Out(io_manager_key="run_records"))
def added(numbers: list[Number]) -> Number:
    return Number(sum(number.value for number in numbers))


@dg.graph
def sums() -> None:
    added(numbers().map(doubled).collect())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / ".runs"


def executed(folder: Path, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    job = sums.to_job("sums", resource_defs={"run_records": RecordStorage(base=str(folder))})
    return job.execute_in_process(instance=instance)


def test_records_keep_their_types_between_steps(folder: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = executed(folder, instance)

    assert result.output_for_node("added") == Number(12)
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {".json"}


def test_those_of_runs_that_ended_long_ago_or_are_unknown_are_deleted(folder: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run_id = executed(folder, instance).run_id
        unknown = folder / ("0" * 36)
        unknown.mkdir()
        records = open_records(str(folder))

        assert records.delete_runs(instance, timedelta(days=30)) == 1
        assert [path.name for path in folder.iterdir()] == [run_id]
        assert records.delete_runs(instance, timedelta(0)) == 1
        assert list(folder.iterdir()) == []


def test_without_records_there_is_nothing_to_delete(folder: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert open_records(str(folder)).delete_runs(instance, timedelta(days=30)) == 0
