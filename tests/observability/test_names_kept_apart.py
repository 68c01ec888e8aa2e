"""Tests assets with similar names in every target: a key may have slashes within its parts."""

import json
from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluation
from openlineage.client.serde import Serde
from opentelemetry.sdk.resources import Resource

from ledgerline.ledger.event_log import read_history
from ledgerline.ledger.history import RunHistory, asset_name
from ledgerline.ledger.links import Links
from ledgerline.lineage import events as lineage
from ledgerline.mlflow_runs.datasets import run_datasets
from ledgerline.mlflow_runs.metrics import run_metrics
from ledgerline.traces import attributes, spans

INNER = dg.AssetKey(["a/b"])
NESTED = dg.AssetKey(["a", "b"])
ESCAPED = dg.AssetKey(["a\\", "b"])
ROWS = {INNER: 1, NESTED: 10, ESCAPED: 100}
NAMES = {r"a\/b": 1, "a/b": 10, r"a\\/b": 100}


@dg.op
def alike(context: dg.OpExecutionContext) -> None:
    for key, rows in ROWS.items():
        lineage_of_day = dg.TableColumnLineage({"day": [dg.TableColumnDep(key, "hour")]})
        metadata = {"dagster/row_count": rows, "dagster/column_lineage": lineage_of_day}
        tags = {"dagster/data_version": "v"}
        context.log_event(dg.AssetMaterialization(key, metadata=metadata, tags=tags))


@dg.op(ins={"after": dg.In(dg.Nothing)})
def checks() -> Iterator[AssetCheckEvaluation | dg.Output[None]]:
    for key in ROWS:
        yield AssetCheckEvaluation(key, "whole", key == NESTED, {})
    yield dg.Output(None)


@dg.job(executor_def=dg.in_process_executor)
def similar() -> None:
    checks(after=alike())


@pytest.fixture(scope="module")
def history() -> RunHistory:
    with dg.DagsterInstance.ephemeral() as instance:
        run = similar.execute_in_process(instance=instance)
        found = read_history(instance, run.run_id)
    assert found is not None
    return found


def test_an_asset_has_a_name_to_itself():
    assert [asset_name(key) for key in ROWS] == list(NAMES)
    assert asset_name(dg.AssetKey(["tables", "flights of 2013"])) == "tables/flights of 2013"


def test_each_has_its_metric(history: RunHistory):
    metrics = {point.key: point.value for point in run_metrics(history, None)}
    rows = {name: value for name, value in metrics.items() if name.startswith("rows/")}
    assert sorted(rows.values()) == [1, 10, 100]
    assert rows["rows/a/b"] == 10


def test_each_has_its_dataset(history: RunHistory):
    datasets = {each.dataset.name: json.loads(each.dataset.profile or "") for each in run_datasets(history)}
    assert datasets == {name: {"num_rows": rows} for name, rows in NAMES.items()}


def test_each_is_in_the_trace(history: RunHistory):
    made = list(spans.run_spans(history, None, Resource.get_empty(), Links(), None))
    (step,) = [span for span in made if span.name == "alike"]
    recorded_attributes = step.attributes or {}
    assert recorded_attributes[attributes.ASSETS] == tuple(NAMES)
    assert recorded_attributes[attributes.DATA_VERSIONS] == tuple(f"{name}=v" for name in NAMES)
    events = [event.attributes or {} for span in made for event in span.events if event.name == "asset check"]
    verdicts = {each[attributes.ASSET]: each[attributes.CHECK_PASSED] for each in events}
    assert verdicts == {name: name == "a/b" for name in NAMES}


def test_each_is_a_dataset_of_lineage_with_its_columns_and_checks(history: RunHistory):
    events = [json.loads(Serde.to_json(event)) for event in lineage.run_events(history, "test")]
    (outputs,) = [
        event["outputs"] for event in events if event["job"]["name"].endswith(".alike") and event["outputs"]
    ]
    statistics = {each["name"]: each["outputFacets"]["outputStatistics"] for each in outputs}
    assert {name: each["rowCount"] for name, each in statistics.items()} == NAMES
    for each in outputs:
        (source,) = each["facets"]["columnLineage"]["fields"]["day"]["inputFields"]
        assert source["name"] == each["name"]
    (inputs,) = [event["inputs"] for event in events if event["inputs"]]
    verdicts = {
        each["name"]: each["inputFacets"]["dataQualityAssertions"]["assertions"][0]["success"]
        for each in inputs
    }
    assert verdicts == {name: name == "a/b" for name in NAMES}


def test_each_has_its_document(history: RunHistory):
    documents = lineage.documents(history, "test")
    assert len(documents) == len(NAMES)
    assert "a.b.json" in documents
    recorded_attributes = [json.loads(content)["outputs"] for content in documents.values()]
    assert sorted(output["name"] for outputs in recorded_attributes for output in outputs) == sorted(NAMES)
