"""Tests that metric, dataset, trace and lineage event of a real run give the same number of rows."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
from openlineage.client.serde import Serde
from opentelemetry.sdk.resources import Resource

from ledgerline.ledger.event_log import read_history
from ledgerline.ledger.history import RunHistory
from ledgerline.ledger.links import Links
from ledgerline.lineage import events as lineage
from ledgerline.mlflow_runs.datasets import run_datasets
from ledgerline.mlflow_runs.metrics import run_metrics
from ledgerline.traces import attributes, spans
from tests.observability import counted_assets as assets

if TYPE_CHECKING:
    from mlflow.entities import Metric


def materialized(
    instance: dg.DagsterInstance, asset: dg.AssetsDefinition, tags: Mapping[str, str], key: str | None = None
) -> RunHistory:
    run = dg.materialize([asset], instance=instance, tags=tags, partition_key=key, raise_on_error=False)
    return history_of(instance, run.run_id)


def history_of(instance: dg.DagsterInstance, run_id: str) -> RunHistory:
    history = read_history(instance, run_id)
    assert history is not None
    return history


def metric_rows(history: RunHistory) -> dict[str, float]:
    """Return the value of each asset in MLflow: that of the latest point."""
    latest = {}
    for point in sorted(run_metrics(history, None), key=lambda each: (each.step, each.timestamp, each.value)):
        if point.key.startswith("rows/"):
            latest[point.key.removeprefix("rows/")] = point.value
    return latest


def dataset_rows(history: RunHistory) -> dict[str, int]:
    profiles = {each.dataset.name: json.loads(each.dataset.profile or "{}") for each in run_datasets(history)}
    return {asset: profile["num_rows"] for asset, profile in profiles.items() if "num_rows" in profile}


def traced_rows(history: RunHistory) -> list[int]:
    """The rows of the attempts, in the order in which they ended."""
    made = spans.run_spans(history, None, Resource.get_empty(), Links(), None)
    recorded_rows = [(span.attributes or {}).get(attributes.ROWS) for span in made]
    return [rows for rows in recorded_rows if isinstance(rows, int)]


def outputs(history: RunHistory) -> list[list[dict[str, Any]]]:
    """The outputs in the lineage events, event by event."""
    events = lineage.run_events(history, "test")
    return [json.loads(Serde.to_json(event))["outputs"] for event in events]


def lineage_rows(history: RunHistory) -> list[dict[str, int]]:
    """The rows by asset in the events of the attempts, in the order in which they ended."""
    statistics = [
        {
            output["name"]: output["outputFacets"]["outputStatistics"]["rowCount"]
            for output in of_event
            if "outputStatistics" in output.get("outputFacets", {})
        }
        for of_event in outputs(history)
    ]
    return [each for each in statistics if each]


def partition_rows(history: RunHistory) -> dict[str, int | None]:
    """The rows by partition in the lineage events."""
    return {
        part["partition"]: part.get("rows")
        for of_event in outputs(history)
        for output in of_event
        for part in output["outputFacets"]["ledgerline_partitions"]["partitions"]
    }


@pytest.mark.parametrize(
    ("asset", "tags", "rows"),
    [
        (assets.returned_once, assets.FOUR_DAYS, 40),
        (assets.stored_once, assets.FOUR_DAYS, 40),
        (assets.block, assets.A_BLOCK, 40),
        (assets.empty, assets.FOUR_DAYS, 0),
        (assets.counted_by_partition, assets.FOUR_DAYS, 10),
        (assets.table_counts_by_partition, assets.FOUR_DAYS, 10),
        (assets.counted_in_part, assets.FOUR_DAYS, 40),
        (assets.half_counted, assets.FOUR_DAYS, None),
        (assets.logged_by_partition, assets.FOUR_DAYS, 10),
        (assets.returned_once, assets.ONE_DAY, 40),
        (assets.stored_once, assets.ONE_DAY, 40),
        (assets.logged_and_returned, {}, 5),
        (assets.logged_by_io_manager, {}, 5),
        (assets.float_count, {}, 5),
        (assets.no_count, {}, None),
        (assets.negative_count, {}, None),
        (assets.huge_count, {}, None),
    ],
    ids=lambda value: value.key.to_user_string() if isinstance(value, dg.AssetsDefinition) else None,
)
def test_every_target_has_the_number_of_written_rows(
    instance: dg.DagsterInstance, asset: dg.AssetsDefinition, tags: Mapping[str, str], rows: int | None
):
    history = materialized(instance, asset, tags)

    rows_by_asset = {} if rows is None else {asset.key.to_user_string(): rows}
    assert metric_rows(history) == rows_by_asset
    assert dataset_rows(history) == rows_by_asset
    assert traced_rows(history) == list(rows_by_asset.values())
    assert lineage_rows(history)[:1] == ([rows_by_asset] if rows_by_asset else [])


def test_a_single_partition_has_the_count_of_its_output(instance: dg.DagsterInstance):
    history = materialized(instance, assets.returned_once, {}, key="d3")

    assert partition_rows(history) == {"d3": 40}
    assert metric_rows(history) == dataset_rows(history) == {"returned_once": 40}


def test_the_count_of_an_output_is_not_that_of_each_of_its_partitions(instance: dg.DagsterInstance):
    assert partition_rows(materialized(instance, assets.returned_once, assets.FOUR_DAYS)) == {
        "d1": None,
        "d2": None,
        "d3": None,
        "d4": None,
    }
    assert partition_rows(materialized(instance, assets.counted_by_partition, assets.FOUR_DAYS)) == {
        "d1": 1,
        "d2": 2,
        "d3": 3,
        "d4": 4,
    }


def test_the_last_attempt_of_a_retried_step_counts(instance: dg.DagsterInstance):
    history = materialized(instance, assets.retried, {})

    assert [attempt.number for attempt in history.attempts] == [1, 2]
    assert metric_rows(history) == dataset_rows(history) == {"first": 6, "second": 3}
    assert traced_rows(history) == [5, 6 + 3]
    assert lineage_rows(history)[:2] == [{"first": 5}, {"first": 6, "second": 3}]


def test_the_partitions_that_several_steps_write_are_added_up(instance: dg.DagsterInstance):
    run = assets.mapped.execute_in_process(instance=instance)
    history = history_of(instance, run.run_id)

    assert metric_rows(history) == dataset_rows(history) == {"mapped": 40}
    assert traced_rows(history) == [10, 10, 10, 10]
    assert lineage_rows(history)[:4] == [{"mapped": 10}] * 4


def test_a_partition_that_two_steps_write_counts_as_the_later_one_wrote_it(instance: dg.DagsterInstance):
    run = assets.mapped_then_mended.execute_in_process(instance=instance)
    history = history_of(instance, run.run_id)

    assert metric_rows(history) == dataset_rows(history) == {"mapped": 37}
    assert traced_rows(history)[-1] == 7


def test_rows_written_bit_by_bit_are_those_written_at_once(instance: dg.DagsterInstance):
    history = history_of(instance, assets.mapped_then_mended.execute_in_process(instance=instance).run_id)
    states = [
        replace(history, attempts=history.attempts[:count], ended=None)
        for count in range(len(history.attempts) + 1)
    ]
    bit_by_bit = [
        point
        for before, now in zip([None, *states], states, strict=False)
        for point in run_metrics(now, before)
    ]

    def rows(points: "Iterable[Metric]") -> list[tuple[int, int, float]]:
        return sorted((each.step, each.timestamp, each.value) for each in points if each.key == "rows/mapped")

    assert rows(bit_by_bit) == rows(run_metrics(history, None))
