"""Tests datasets in MLflow: each run has what it read and wrote itself, independently of others."""

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from openlineage.client.serde import Serde

from ledgerline.ledger.history import Outcome, RunHistory, RunStatus
from ledgerline.lineage import events as lineage
from ledgerline.mlflow_store import store
from tests.observability.mlflow_target import Target, history_of

DAYS = dg.StaticPartitionsDefinition(["d1", "d2", "d3"])


@dg.asset(code_version="1", partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
def flights(context: dg.AssetExecutionContext) -> None:
    """Has the same version for any content: it has no upstream, and records no version of its content."""
    rows = int(context.run.tags["rows"])
    for day in context.partition_keys:
        context.add_asset_metadata({"dagster/partition_row_count": rows}, partition_key=day)


@dg.asset(code_version="1")
def planes(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"dagster/row_count": int(context.run.tags["rows"])})


@dg.asset(deps=[flights, planes], partitions_def=DAYS)
def features() -> None: ...


@pytest.fixture
def target(mlflow_database: str, tmp_path: Path, request: pytest.FixtureRequest) -> Target:
    client = store.connect(mlflow_database)
    return Target(mlflow_database, request.node.name, str(tmp_path / "artifacts"), client)


def run(
    instance: dg.DagsterInstance, *assets: dg.AssetsDefinition, key: str | None = None, **tags: str
) -> RunHistory:
    result = dg.materialize(
        [flights, planes, features], selection=list(assets), instance=instance, partition_key=key, tags=tags
    )
    return history_of(instance, result.run_id)


def two_days(instance: dg.DagsterInstance, rows: str) -> RunHistory:
    tags = {"dagster/asset_partition_range_start": "d1", "dagster/asset_partition_range_end": "d2"}
    return run(instance, flights, rows=rows, **tags)


def datasets_of(
    target: Target, history: RunHistory
) -> dict[str, list[tuple[str, dict[str, int], str | None]]]:
    """Return a run's datasets by name: context, profile, and the run that wrote each."""
    found = defaultdict(list)
    inputs = target.run(history).inputs
    assert inputs is not None
    for each in inputs.dataset_inputs:
        tags = {tag.key: tag.value for tag in each.tags}
        profile = json.loads(each.dataset.profile or "{}")
        found[each.dataset.name].append((tags["mlflow.data.context"], profile, tags.get("written_by")))
    return dict(found)


def test_each_run_has_its_own_rows_and_partitions_of_an_equal_version(
    target: Target, instance: dg.DagsterInstance
):
    one, another, two = (
        run(instance, flights, key="d1", rows="5"),
        run(instance, flights, key="d1", rows="7"),
        two_days(instance, rows="9"),
    )
    versions = {each.data_version for history in (one, another, two) for each in history.materialisations}
    assert len(versions) == 1

    for history in (one, another, two):
        target.export(instance, history)

    profiles = [
        {"num_rows": 5, "num_partitions": 1},
        {"num_rows": 7, "num_partitions": 1},
        {"num_rows": 18, "num_partitions": 2},
    ]
    for history, profile in zip((one, another, two), profiles, strict=True):
        assert datasets_of(target, history) == {"flights": [("output", profile, history.run.run_id)]}


def test_reader_and_writer_have_the_same_dataset_in_any_order(target: Target, instance: dg.DagsterInstance):
    of_planes = run(instance, planes, rows="3")
    of_flights = run(instance, flights, key="d2", rows="5")
    reader = run(instance, features, key="d2")

    for history in (reader, of_flights, of_planes):
        target.export(instance, history)

    read = datasets_of(target, reader)
    flights_profile, planes_profile = {"num_rows": 5, "num_partitions": 1}, {"num_rows": 3}
    assert read["flights"] == [("input", flights_profile, of_flights.run.run_id)]
    assert read["planes"] == [("input", planes_profile, of_planes.run.run_id)]
    assert datasets_of(target, of_flights)["flights"] == [("output", flights_profile, of_flights.run.run_id)]
    assert datasets_of(target, of_planes)["planes"] == [("output", planes_profile, of_planes.run.run_id)]
    for name, writer in (("flights", of_flights), ("planes", of_planes)):
        digest = target.datasets(writer)[name].dataset.digest
        found = target.client.search_runs(
            [target.run(writer).info.experiment_id],
            f"dataset.name = '{name}' AND dataset.digest = '{digest}'",
        )
        assert {each.info.run_id for each in found} == {
            target.run(history).info.run_id for history in (reader, writer)
        }


def test_a_run_may_read_an_asset_before_it_writes_it(target: Target, instance: dg.DagsterInstance):
    """Both have the same name, and the version of their code."""
    before = run(instance, planes, rows="3")
    run(instance, flights, key="d1", rows="5")
    reader = run(instance, features, key="d1")
    again = run(instance, planes, features, key="d1", rows="4")

    target.export(instance, reader)
    target.export(instance, again)

    assert datasets_of(target, reader)["planes"] == [("input", {"num_rows": 3}, before.run.run_id)]
    assert datasets_of(target, again)["planes"] == [("output", {"num_rows": 4}, again.run.run_id)]


def test_a_dataset_is_described_once_it_is_whole(target: Target, instance: dg.DagsterInstance):
    whole = two_days(instance, rows="9")
    (attempt,) = whole.attempts
    half = replace(
        attempt, materialisations=attempt.materialisations[:1], outcome=Outcome.RUNNING, ended=None
    )
    underway = replace(whole, attempts=(half,), status=RunStatus.STARTED, ended=None)

    projection = target.projection
    projection.export(instance, underway, None)
    projection.export(instance, whole, underway)

    profile = {"num_rows": 18, "num_partitions": 2}
    assert datasets_of(target, whole) == {"flights": [("output", profile, whole.run.run_id)]}


def test_lineage_distinguishes_writes_of_an_equal_version(instance: dg.DagsterInstance):
    histories = [
        run(instance, flights, key="d1", rows="5"),
        run(instance, flights, key="d2", rows="6"),
        run(instance, planes, rows="7"),
    ]
    reader = run(instance, features, key="d2")

    versions = [_versions(history, "outputs") for history in histories]
    assert len({version for each in versions for version in each.values()}) == 3
    assert _versions(reader, "inputs") == versions[1] | versions[2]


def _versions(history: RunHistory, kind: str) -> dict[str, Any]:
    events = [json.loads(Serde.to_json(event)) for event in lineage.run_events(history, "test")]
    datasets = [dataset for event in events for dataset in event[kind]]
    return {each["name"]: each["facets"]["version"]["datasetVersion"] for each in datasets}
