"""Tests calls of promotions and queries to MLflow: versions are fetched once, and queries do not write."""

from collections import Counter
from typing import TYPE_CHECKING, Any, cast

import pytest

from ledgerline.registry.registry import Model, Registry
from ledgerline.registry.stages import PRODUCTION
from ledgerline.testing.registry_stock import Stock, request

if TYPE_CHECKING:
    from mlflow import MlflowClient

READS = ("get_", "search_", "download_")


class CountingClient:
    """A real MLflow client that counts the calls of its methods."""

    def __init__(self, client: "MlflowClient") -> None:
        self._client = client
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._client, name)
        if not callable(attribute):
            return attribute

        def call(*args: Any, **options: Any) -> Any:
            self.calls[name] += 1
            return attribute(*args, **options)

        return call

    @property
    def writes(self) -> list[str]:
        """The methods that were called and change something."""
        return [name for name in self.calls if not name.startswith(READS)]


@pytest.fixture
def counting(stock: Stock) -> CountingClient:
    return CountingClient(stock.client)


@pytest.fixture
def model(stock: Stock, counting: CountingClient, model_name: str) -> Model:
    """A model with version 1 in production, and version 2 in staging, evaluated and passed."""
    stock.model(model_name, 2)
    stock.serve(model_name, 1)
    stock.stage(model_name, 2)
    stock.evaluate(model_name, 2, against=1)
    return Registry(cast("MlflowClient", counting)).model(model_name)


def test_a_promotion_fetches_the_version_once(counting: CountingClient, model: Model):
    model.promote(2, request())

    assert counting.calls["get_model_version"] == 1
    assert counting.calls["get_registered_model"] == 2  # before the journal, and after it
    assert counting.calls["get_run"] == 4  # the journal, first and after each write
    assert counting.calls.total() <= 27


def test_a_rollback_fetches_the_version_once(stock: Stock, counting: CountingClient, model: Model):
    stock.promote(model.name, 2)

    model.rollback(None, request())

    assert counting.calls["get_model_version"] == 1


def test_queries_do_not_write(stock: Stock, counting: CountingClient, model: Model):
    before = stock.history(model.name).entries
    stock.client.set_registered_model_alias(model.name, PRODUCTION, "2")

    snapshot = model.snapshot()
    model.history()
    model.inconsistencies()
    model.versions()
    model.version_with_alias(PRODUCTION)

    assert counting.writes == []
    assert stock.history(model.name).entries == before
    assert [str(each) for each in snapshot.differences] == [
        "production is version 2, the journal says version 1"
    ]


def test_a_query_of_a_model_without_a_journal_creates_none(
    stock: Stock, counting: CountingClient, model_name: str
):
    stock.model(model_name, 1)
    stock.client.set_registered_model_alias(model_name, PRODUCTION, "1")

    snapshot = Registry(cast("MlflowClient", counting)).model(model_name).snapshot()

    assert counting.writes == []
    assert (snapshot.has_journal, snapshot.history.entries) == (False, [])
    assert [each.current for each in snapshot.differences] == [1]
