"""Tests inconsistencies of aliases and tags with the journal: detected, named, and not changed."""

from datetime import timedelta

import pytest

from ledgerline.registry.stages import PRODUCTION, STAGE_TAG, STAGING
from ledgerline.registry.versions import UnknownModelError
from ledgerline.testing.registry_stock import Stock
from tests.registry.test_moves import waiting


@pytest.fixture
def served(stock: Stock, model_name: str) -> str:
    """A model with version 1 archived, 2 in production, 3 in staging, and 4."""
    stock.model(model_name, 4)
    stock.serve(model_name, 1)
    stock.serve(model_name, 2)
    stock.stage(model_name, 3)
    return model_name


def test_a_consistent_registry_has_no_inconsistencies(stock: Stock, served: str):
    assert stock.registered(served).inconsistencies() == []


def test_each_change_by_hand_is_an_inconsistency(stock: Stock, served: str):
    client = stock.client
    client.set_registered_model_alias(served, PRODUCTION, "4")
    client.delete_registered_model_alias(served, STAGING)
    client.set_model_version_tag(served, "1", STAGE_TAG, "production")
    client.delete_model_version_tag(served, "2", STAGE_TAG)
    client.set_model_version_tag(served, "4", STAGE_TAG, "staging")

    for _ in range(2):  # and not mended by looking
        assert stock.registered(served).inconsistencies() == [
            "staging is no version, the journal says version 3",
            "production is version 4, the journal says version 2",
            "version 1 has the tag stage=production, the journal says archived",
            "version 2 has the tag stage=None, the journal says production",
            "version 4 has the tag stage=staging, the journal says None",
        ]


def test_a_recorded_change_of_aliases_is_not_an_inconsistency(stock: Stock, served: str):
    stock.client.set_registered_model_alias(served, PRODUCTION, "4")

    stock.registered(served).reconcile()

    assert stock.registered(served).inconsistencies() == []


def test_a_deleted_version_has_no_alias_any_more(stock: Stock, served: str):
    stock.client.delete_model_version(served, "2")

    assert stock.registered(served).inconsistencies() == [
        "production is no version, the journal says version 2"
    ]


def test_a_move_in_progress_is_not_an_inconsistency(stock: Stock, served: str):
    waiting(stock, served, ago=timedelta(0))
    stock.client.set_registered_model_alias(served, PRODUCTION, "3")

    assert stock.registered(served).inconsistencies() == []


def test_aliases_of_a_model_without_a_journal_are_reported(stock: Stock, model_name: str):
    stock.model(model_name, 2)
    assert stock.registered(model_name).inconsistencies() == []
    stock.client.set_registered_model_alias(model_name, PRODUCTION, "2")

    assert stock.registered(model_name).inconsistencies() == ["production is version 2; there is no journal"]


def test_an_unknown_model_is_named(stock: Stock):
    with pytest.raises(UnknownModelError):
        stock.registered("nobody registered").inconsistencies()


def test_a_deleted_or_changed_journal_is_reported(stock: Stock, model_name: str):
    stock.model(model_name)
    stock.stage(model_name, 1)
    stock.client.delete_run(stock.journal(model_name).run_id)

    (reported,) = stock.registered(model_name).inconsistencies()
    assert "mlflow runs restore" in reported


def test_it_is_the_same_on_each_kind_of_store(any_stock: Stock, model_name: str):
    any_stock.model(model_name, 2)
    any_stock.serve(model_name, 1)
    any_stock.stage(model_name, 2)
    assert any_stock.registered(model_name).inconsistencies() == []

    any_stock.client.set_registered_model_alias(model_name, STAGING, "1")

    assert any_stock.registered(model_name).inconsistencies() == [
        "staging is version 1, the journal says version 2"
    ]
