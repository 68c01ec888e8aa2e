"""Tests that `ledgerline dev` follows the registry: changes in MLflow are in Dagster within seconds."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from assets.delay_model import MODEL_NAME
from ledgerline.testing.loopback_servers import listening
from ledgerline.testing.ports import unused_port
from ledgerline.testing.registry_stock import Stock
from ledgerline.testing.waiting import wait_until
from tests.integration.test_dev import Dev, started
from tests.resources.alert_address import AlertAddress

# A tick is every 5 seconds; the rest is for a machine that is busy.
SECONDS = 180  # until a test is given up

MATERIALISATIONS = """
{ assetNodeOrError(assetKey: {path: ["production_flight_delay"]}) { ... on AssetNode {
  assetMaterializations(limit: 10) { description runId metadataEntries {
    label ... on IntMetadataEntry { intValue } ... on TextMetadataEntry { text }
    ... on TimestampMetadataEntry { timestamp } } } } } }
"""
RELEASES = """
{ runsOrError(filter: {pipelineName: "release_flight_delay"}) { ... on Runs { results {
  runConfig tags { key value } } } } }
"""


@pytest.fixture(scope="module")
def address() -> Iterator[AlertAddress]:
    with listening(AlertAddress()) as server:
        yield server


@pytest.fixture(scope="module")
def dev(
    tmp_path_factory: pytest.TempPathFactory,
    environment: Callable[..., dict[str, str]],
    address: AlertAddress,
) -> Iterator[Dev]:
    home = tmp_path_factory.mktemp("home")
    variables = environment(home, LEDGERLINE_ALERT_URL=f"{address.url}/secret")
    with started(home, variables, (unused_port(), unused_port())) as running:
        yield running


@pytest.fixture(scope="module")
def stock(dev: Dev) -> Stock:
    """Three versions, of which the first is in production, also in Dagster."""
    stock = Stock(dev.mlflow, None)
    stock.model(MODEL_NAME, 3)
    stock.client.set_registered_model_alias(MODEL_NAME, "production", "1")
    dev.wait_for(lambda: len(materialisations(dev)) == 1, "the first look")
    return stock


def materialisations(dev: Dev) -> list[dict[str, Any]]:
    """Return the changes of production that Dagster was notified of, the earliest first."""
    found = dev.ask(MATERIALISATIONS)["assetNodeOrError"]["assetMaterializations"]
    return [
        {"description": each["description"], "run": each["runId"]}
        | {entry.pop("label"): next(iter(entry.values())) for entry in each["metadataEntries"]}
        for each in reversed(found)
    ]


def seconds_until(condition: Callable[[], bool], what: str) -> float:
    started_at = time.monotonic()
    wait_until(condition, what, SECONDS)
    return time.monotonic() - started_at


def test_an_alias_moved_in_mlflow_is_materialised_and_alerted_within_seconds(
    dev: Dev, stock: Stock, address: AlertAddress, record_property: Callable[[str, object], None]
) -> None:
    stock.client.set_registered_model_alias(MODEL_NAME, "production", "2")
    taken = seconds_until(lambda: len(materialisations(dev)) == 2, "the materialisation")
    record_property("seconds until it is shown", round(taken, 2))
    event = materialisations(dev)[-1]
    assert event["description"] == "changed outside, no evidence"
    assert (event["from_version"], event["version"], event["cause"]) == (1, 2, "outside")
    assert event["not_before"] <= event["moved_at"]
    assert not event["run"]
    (message,) = address.messages
    assert (message["from_version"], message["to_version"]) == (1, 2)


def test_a_version_set_to_staging_in_mlflow_is_compared_within_seconds(
    dev: Dev, stock: Stock, record_property: Callable[[str, object], None]
) -> None:
    def releases() -> list[dict[str, Any]]:
        return dev.ask(RELEASES)["runsOrError"]["results"]

    stock.client.set_registered_model_alias(MODEL_NAME, "staging", "3")
    taken = seconds_until(lambda: len(releases()) > 0, "the run")
    record_property("seconds until the run is launched", round(taken, 2))
    (run,) = releases()
    assert run["runConfig"]["ops"]["comparison_flight_delay"] == {"config": {"version": 3}}
    assert {"key": "dagster/sensor_name", "value": "staging_changed_flight_delay"} in run["tags"]
