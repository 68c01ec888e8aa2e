"""Tests the alias state of every model, read in one call, on each kind of store."""

from datetime import UTC, datetime

import pytest

from ledgerline.registry import stages
from ledgerline.registry.stages import JOURNAL_TAG, PRODUCTION, SEAL_TAG, STAGING, AliasState, alias_states
from ledgerline.testing.registry_stock import Stock


def test_the_alias_state_of_a_model_is_the_same_on_each_kind_of_store(any_stock: Stock, model_name: str):
    any_stock.model(model_name, 2)
    any_stock.serve(model_name, 1)
    any_stock.stage(model_name, 2)

    found = alias_states(any_stock.client)[model_name]

    assert found == any_stock.registered(model_name).alias_state()
    assert found.aliases == {PRODUCTION: 1, STAGING: 2}
    assert all(type(number) is int for number in found.aliases.values())
    assert found.journal_entry == any_stock.history(model_name).head == 3
    assert found.journal_seal == any_stock.history(model_name).entries[-1].seal


def test_a_model_without_moves_has_no_alias_state(stock: Stock, model_name: str):
    stock.model(model_name)

    assert alias_states(stock.client) == {model_name: AliasState({}, 0)}


def test_more_models_than_a_page_has_are_all_found(stock: Stock, monkeypatch: pytest.MonkeyPatch):
    names = {f"model {number}" for number in range(7)}
    for name in names:
        stock.client.create_registered_model(name)
    monkeypatch.setattr(stages, "PAGE_SIZE", 3)

    assert set(alias_states(stock.client)) == names


@pytest.mark.parametrize("value", ["", "many", "-1", "1.5"])
def test_an_overwritten_tag_does_not_stop_the_others(stock: Stock, model_name: str, value: str):
    stock.model(model_name)
    stock.stage(model_name, 1)
    stock.client.set_registered_model_tag(model_name, JOURNAL_TAG, value)
    stock.client.delete_registered_model_tag(model_name, SEAL_TAG)

    assert alias_states(stock.client)[model_name] == AliasState({STAGING: 1}, 0)

    stock.registered(model_name).reconcile()
    stock.require_agreement(model_name)


def test_the_stage_of_a_version_is_the_last_it_had(stock: Stock, model_name: str):
    stock.model(model_name, 3)
    assert stock.registered(model_name).reconcile().history.stage_of(1) is None
    stock.stage(model_name, 1)
    stock.serve(model_name, 1)
    stock.stage(model_name, 2)
    stock.stage(model_name, 3)

    history = stock.history(model_name)

    assert [history.stage_of(number) for number in (1, 2, 3)] == [PRODUCTION, "archived", STAGING]
    assert datetime.fromisoformat(stock.tags(model_name, 2)["archived_at"]) <= datetime.now(UTC)
