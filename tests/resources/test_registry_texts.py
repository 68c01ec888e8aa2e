"""Tests secrets in names and reasons of changes to the registry: none is in its journal or tags."""

from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.dagster.released_models.production import materialisation_of
from ledgerline.registry.journal import Journal
from ledgerline.registry.promotion import Mode, Request
from ledgerline.registry.stages import PRODUCTION, STAGING
from ledgerline.testing.registry_stock import Stock

NAME = "flight_delay"
BY = "ada, token=hunter2hunter2"
REASON = "see postgresql://me:hunter2@db/x"
CLEAN_REASON = "see postgresql://me:[redacted]@db/x"


@pytest.fixture
def stock(mlflow_database: str, tmp_path: Path) -> Stock:
    stock = Stock(mlflow_database, tmp_path / "artifacts")
    stock.model(NAME, 2)
    return stock


@pytest.fixture
def registry(stock: Stock) -> ModelRegistryResource:
    return ModelRegistryResource(tracking_uri=stock.uri)


def stored(stock: Stock) -> str:
    """Everything that the journal and the tags of the model and its versions hold."""
    journal = Journal.named(stock.registered(NAME))
    assert journal is not None
    versions = stock.client.search_model_versions(f"name = '{NAME}'")
    tags = [stock.client.get_registered_model(NAME).tags, *(version.tags for version in versions)]
    return f"{stock.client.get_run(journal.run_id).data.params} {tags}"


def request(id: str) -> Request:  # noqa: A002
    return Request(by=BY, reason=REASON, run_id="", id=id)


def test_promotions_approvals_and_rollbacks_are_written_without_secrets(
    stock: Stock, registry: ModelRegistryResource
) -> None:
    stock.evaluate(NAME, 1)
    registry.model(NAME).approve(1, BY, REASON)
    registry.model(NAME).promote(1, request("first"), Mode.approved)
    stock.evaluate(NAME, 2, against=1)
    moved = registry.model(NAME).promote(2, request("second"), Mode.automatic)
    assert registry.model(NAME).promote(2, request("second"), Mode.automatic) == moved
    registry.model(NAME).rollback(None, request("third"))
    assert "hunter2" not in stored(stock)
    assert stored(stock).count(CLEAN_REASON) == 4
    assert registry.model(NAME).history().version_with_alias(PRODUCTION) == 1


def test_a_version_is_staged_and_evaluated_without_secrets(
    stock: Stock, registry: ModelRegistryResource
) -> None:
    registry.model(NAME).stage(1, replace(request("request"), reason=""))
    evaluation = stock.evaluation(1)
    registry.model(NAME).record(replace(evaluation, by=BY))
    assert "hunter2" not in stored(stock)
    assert registry.model(NAME).history().version_with_alias(STAGING) == 1


def test_texts_of_other_programs_in_a_journal_are_read_without_secrets(
    stock: Stock, registry: ModelRegistryResource
) -> None:
    stock.evaluate(NAME, 1)
    stock.promote(NAME, 1, request("by another program"))
    assert "hunter2" in stored(stock)
    for history in (registry.model(NAME).history(), registry.model(NAME).reconcile().history):
        (_, move, _) = history.moves(PRODUCTION)[0]
        assert (move.reason, move.request) == (CLEAN_REASON, "by another program")
        assert "hunter2" not in str(history.entries)
    raw = Journal.named(stock.registered(NAME))
    assert raw is not None
    (entry, _, _) = raw.read().moves(PRODUCTION)[0]
    assert "hunter2" not in str(materialisation_of(dg.AssetKey("production_flight_delay"), entry))


def test_tags_of_a_version_are_registered_without_secrets(
    stock: Stock, registry: ModelRegistryResource
) -> None:
    run_id = stock.run()
    experiment = stock.client.get_run(run_id).info.experiment_id
    logged = stock.client.create_logged_model(experiment, "small", run_id)
    stock.client.log_model_artifact(logged.model_id, __file__)
    stock.client.finalize_logged_model(logged.model_id, "READY")
    version = registry.model(NAME).register(logged.model_id, {"month": "2013-02-01", "source": REASON})
    assert version.tags["source"] == CLEAN_REASON
    assert version.tags["month"] == "2013-02-01"


def test_a_tag_that_contradicts_the_journal_is_reported_without_its_secret(
    stock: Stock, registry: ModelRegistryResource
) -> None:
    stock.serve(NAME, 1)
    stock.client.set_model_version_tag(NAME, "1", "stage", REASON)
    found = registry.model(NAME).inconsistencies()
    assert CLEAN_REASON in str(found)
    assert "hunter2" not in str(found)
