"""Tests that tags and metadata given by users are exported to each target of a run."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
import pytest
from opentelemetry.sdk.resources import Resource

from ledgerline.cleaning.texts import REDACTED
from ledgerline.ledger.event_log import read_history
from ledgerline.ledger.given_by_users import MAX_NUMBERS, MAX_TAGS, numbers, owners_in, user_tags
from ledgerline.ledger.history import RunHistory
from ledgerline.ledger.links import Links
from ledgerline.ledger.tail import Tail
from ledgerline.lineage import events as lineage
from ledgerline.mlflow_runs.metrics import MAX_METADATA_POINTS, run_metrics
from ledgerline.mlflow_runs.tags import run_tags
from ledgerline.traces.spans import run_spans

DAYS = dg.StaticPartitionsDefinition(["monday", "tuesday"])
LARGE = 10**30

METADATA: Mapping[str, Any] = {
    "accuracy": 0.25,
    "rate": 1e-9,
    "loaves": 7,
    "grains": LARGE,
    "tokens": 12,
    "by/day": 3,
    "is_fresh": True,
    "no_number": math.nan,
    "endless": -math.inf,
    "digits": dg.MetadataValue.int(10**400),
    "pin_password": 1234,
    "baker": "Ana",
    "baked_at": dg.MetadataValue.timestamp(1_700_000_000.0),
    "dagster/row_count": 5,
    "dagster/partition_row_count": 5,
}
NUMBERS = {"accuracy": 0.25, "rate": 1e-9, "loaves": 7, "grains": LARGE, "tokens": 12, "by/day": 3}


@dg.asset(metadata={"not_of_a_materialisation": 1})
def bread() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata=METADATA)


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
def flour(context: dg.AssetExecutionContext) -> None:
    for position, day in enumerate(context.partition_keys):
        context.add_asset_metadata({"sacks": 2 + position, "mills": 1}, partition_key=day)


@dg.asset_check(asset=bread)
def is_baked() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True, metadata={"crumbs": 0.5, "burnt": False, "spread": math.nan})


TAGS = {
    "team": "ovens",
    "team/shift": "night",
    "api_token": "tok-1234567890",
    "dagster/priority": "3",
    ".dagster/scheduled_execution_time": "2026-01-01",
    "dagster-k8s/config": "{}",
    "ledgerline/anything": "x",
    "traceparent": "00-11111111222243338444555555555555-1111111111111111-01",
}


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture(scope="module")
def baked(instance: dg.DagsterInstance) -> RunHistory:
    result = dg.materialize([bread, is_baked], instance=instance, tags=TAGS)
    return history_of(instance, result.run_id)


@pytest.fixture(scope="module")
def ground(instance: dg.DagsterInstance) -> RunHistory:
    """A run over two partitions, which have some numbers alike."""
    of_range = {
        "dagster/asset_partition_range_start": "monday",
        "dagster/asset_partition_range_end": "tuesday",
    }
    return history_of(instance, dg.materialize([flour], instance=instance, tags=of_range).run_id)


def history_of(instance: dg.DagsterInstance, run_id: str) -> RunHistory:
    history = read_history(instance, run_id)
    assert history is not None
    return history


def points(history: RunHistory, start: str) -> dict[str, list[tuple[int, float]]]:
    """Return the metrics of MLflow whose names have this prefix, with step and value."""
    found: dict[str, list[tuple[int, float]]] = {}
    for metric in run_metrics(history, None):
        if metric.key.startswith(start):
            found.setdefault(metric.key, []).append((metric.step, metric.value))
    return found


def attributes_of(history: RunHistory, name: str) -> Mapping[str, Any]:
    spans = run_spans(history, None, Resource({}), Links(), None)
    (found,) = [span.attributes for span in spans if span.name == name]
    assert found is not None
    return found


# Tags


def test_the_tags_of_a_run_are_in_mlflow_without_those_of_machines_and_secrets(baked: RunHistory) -> None:
    tags = run_tags(baked, Links(), "0")
    assert {name: value for name, value in tags.items() if name.startswith("dagster.tag.")} == {
        "dagster.tag.team": "ovens",
        "dagster.tag.team/shift": "night",
        "dagster.tag.api_token": REDACTED,
    }


def test_the_tags_of_a_run_are_on_its_root_span(baked: RunHistory) -> None:
    attributes = attributes_of(baked, f"run {baked.title}")
    assert {name: value for name, value in attributes.items() if name.startswith("dagster.tag.")} == {
        "dagster.tag.team": "ovens",
        "dagster.tag.team/shift": "night",
        "dagster.tag.api_token": REDACTED,
    }


def test_the_tags_of_a_run_are_in_the_facet_that_openlineage_has_for_them(baked: RunHistory) -> None:
    start, *_, end = lineage.run_events(baked, "bakery")
    for event in (start, end):
        assert event.run.facets is not None
        facet = event.run.facets["tags"]
        assert [(tag.key, tag.value, tag.source) for tag in facet.tags] == [  # type: ignore[attr-defined]
            ("api_token", REDACTED, "USER"),
            ("team", "ovens", "USER"),
            ("team/shift", "night", "USER"),
        ]


def test_a_run_without_tags_of_people_has_no_facet_of_them(ground: RunHistory) -> None:
    assert all("tags" not in (event.run.facets or {}) for event in lineage.run_events(ground, "bakery"))


def test_very_many_tags_are_bounded_and_always_the_same_are_kept() -> None:
    tags = {f"tag-{number:04}": "x" for number in range(1000)}
    kept = user_tags(tags)
    assert len(kept) == MAX_TAGS
    assert kept == user_tags(dict(reversed(tags.items())))


# Numbers


def test_the_numbers_of_a_materialisation_are_metrics_with_different_names(baked: RunHistory) -> None:
    found = points(baked, "metadata/")
    by_day = next(name for name in found if "by_" in name)
    assert by_day.startswith("metadata/bread/by_/day-")  # and not that of an asset `bread/by`
    assert found == {
        **{
            f"metadata/bread/{name}": [(1, float(number))]
            for name, number in NUMBERS.items()
            if name != "by/day"
        },
        by_day: [(1, 3.0)],
    }
    assert points(baked, "rows/") == {"rows/bread": [(1, 5.0)]}


def test_the_numbers_of_a_check_are_metrics(baked: RunHistory) -> None:
    assert points(baked, "check_metadata/") == {"check_metadata/bread/is_baked/crumbs": [(1, 0.5)]}


def test_numbers_of_partitions_that_differ_are_points_and_those_alike_one(ground: RunHistory) -> None:
    assert points(ground, "metadata/") == {
        "metadata/flour/sacks": [(1, 2.0), (2, 3.0)],
        "metadata/flour/mills": [(1, 1.0)],
    }


def test_numbers_are_attributes_of_the_step_and_of_the_event_of_the_check(baked: RunHistory) -> None:
    attributes = attributes_of(baked, "bread")
    found = {name: value for name, value in attributes.items() if name.startswith("dagster.metadata.")}
    expected = {**NUMBERS, "grains": float(LARGE)}
    assert found == {f"dagster.metadata.bread/{name}": value for name, value in expected.items()}
    assert isinstance(found["dagster.metadata.bread/grains"], float)  # an integer there has 64 bits
    assert isinstance(found["dagster.metadata.bread/loaves"], int)
    checked = [
        event.attributes or {}
        for span in run_spans(baked, None, Resource({}), Links(), None)
        for event in span.events
        if event.name == "asset check"
    ]
    assert [
        {name: value for name, value in event.items() if name.startswith("dagster.metadata")}
        for event in checked
    ] == [{"dagster.metadata.crumbs": 0.5}]


def test_numbers_are_in_the_lineage_of_the_written_assets(baked: RunHistory, ground: RunHistory) -> None:
    def given(history: RunHistory, asset: str) -> list[tuple[str, float, str | None]]:
        document = json.loads(lineage.documents(history, "bakery")[f"{asset}.json"])
        facet = document["outputs"][0]["outputFacets"]["ledgerline_numbers"]
        return [(each["name"], each["value"], each.get("partition")) for each in facet["numbers"]]

    assert given(baked, "bread") == [(name, number, None) for name, number in NUMBERS.items()]
    assert given(ground, "flour") == [
        ("sacks", 2, "monday"),
        ("sacks", 3, "tuesday"),
        ("mills", 1, None),
    ]


def test_numbers_are_bounded_for_each_event_and_for_a_run() -> None:
    many = {f"number {position}": dg.MetadataValue.float(1.0) for position in range(1000)}
    assert len(numbers(many)) == MAX_NUMBERS

    @dg.multi_asset(specs=[dg.AssetSpec(f"asset_{number}") for number in range(60)])
    def writes_many():
        for number in range(60):
            metadata = {f"n{position:03}": position for position in range(MAX_NUMBERS)}
            yield dg.MaterializeResult(asset_key=f"asset_{number}", metadata=metadata)

    with dg.DagsterInstance.ephemeral() as instance:
        history = history_of(instance, dg.materialize([writes_many], instance=instance).run_id)
    written = points(history, "metadata/")
    assert sum(map(len, written.values())) == MAX_METADATA_POINTS
    assert points(history, "metadata/") == written
    of_step = attributes_of(history, "writes_many")
    assert sum(name.startswith("dagster.metadata.") for name in of_step) == MAX_NUMBERS


# Owners, which only the code has


@dg.asset(owners=["team:ovens", "ana@bakery.example"])
def cake() -> None: ...


@dg.asset
def crumbs() -> None: ...


@pytest.fixture(scope="module")
def owned(instance: dg.DagsterInstance) -> RunHistory:
    run_id = dg.materialize([cake, crumbs], instance=instance).run_id
    record = instance.get_run_record_by_id(run_id)
    assert record is not None
    tail = Tail.of(record, owners_in(dg.Definitions(assets=[cake, crumbs]).get_repository_def()))
    tail.read(instance)
    return tail.history


def test_the_owners_of_written_assets_are_in_each_projection(owned: RunHistory) -> None:
    owners = ["ana@bakery.example", "team:ovens"]
    assert list(attributes_of(owned, f"run {owned.title}")["dagster.asset.owners"]) == owners
    assert run_tags(owned, Links(), "0")["dagster.owners"] == ", ".join(owners)
    documents = lineage.documents(owned, "bakery")
    facets = {name: json.loads(content)["outputs"][0]["facets"] for name, content in documents.items()}
    assert [(owner["name"], owner["type"]) for owner in facets["cake.json"]["ownership"]["owners"]] == [
        ("team:ovens", "OWNER"),
        ("user:ana@bakery.example", "OWNER"),
    ]
    assert "ownership" not in facets["crumbs.json"]


def test_without_the_code_there_are_no_owners(baked: RunHistory) -> None:
    assert "dagster.asset.owners" not in attributes_of(baked, f"run {baked.title}")
    assert "dagster.owners" not in run_tags(baked, Links(), "0")
