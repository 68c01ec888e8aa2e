"""Measures the duration of operations of the registry: polls of sensors, reads of a journal, and promotions.

The registry is an MLflow server with SQLite; the journal is read from its database as well.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import partial

from mlflow import MlflowClient

from benchmarks.context import Context, Result, Value
from benchmarks.processes import milliseconds, mlflow_server, spread
from ledgerline.mlflow_store import store
from ledgerline.registry import promotion, stages
from ledgerline.registry.history import PROMOTION, Approval, End, Move
from ledgerline.registry.journal import Journal
from ledgerline.registry.registry import Registry
from ledgerline.registry.stages import JOURNAL_TAG, PRODUCTION
from ledgerline.testing.registry_stock import Stock

VERSIONS = 3  # number of versions of each model
COLUMNS = ("call", "times", "median, ms", "p95, ms")


def server(context: Context) -> AbstractContextManager[tuple[str, str]]:
    """Start an MLflow server; yield its URL and the URI of its database."""
    return mlflow_server(context.folder / "mlflow")


def measure_polls(context: Context) -> list[Result]:
    """Measure polls of many models."""
    url, database = context.shared(server)
    count, times, rounds = context.pick((100, 50, 9), (10, 5, 2))
    direct, client = store.connect(database), store.connect(url)
    names = [f"model {number}" for number in range(count)]
    for name in names:
        _register(direct, name)
        client.set_registered_model_alias(name, PRODUCTION, "1")
        client.set_registered_model_alias(name, stages.STAGING, str(VERSIONS))
        client.set_registered_model_tag(name, JOURNAL_TAG, "1")
    assert set(names) <= set(stages.alias_states(client))

    def one_by_one() -> None:
        for name in names:
            client.get_registered_model(name)

    rows = [
        ("alias_states(): one call", *spread(milliseconds(lambda: stages.alias_states(client), times))),
        ("get_registered_model for each", *spread(milliseconds(one_by_one, rounds))),
        ("connect(), at the beginning of a tick", *spread(milliseconds(lambda: store.connect(url), times))),
    ]
    title = f"A poll of {count} models with {VERSIONS} versions and 2 aliases each"
    return [Result(title, COLUMNS, rows, ("Goal: a tick of a sensor under 150 ms.",))]


def measure_journal(context: Context) -> list[Result]:
    """Measure a journal of many promotions: finding the version at a time, and adding an entry."""
    url, database = context.shared(server)
    count, rounds = context.pick((1000, 9), (20, 2))
    model, direct = "of many promotions", store.connect(database)
    _register(direct, model)
    begun = datetime.now(UTC) - timedelta(days=count)
    journal = Journal.opened(Registry(direct).model(model))
    before = None
    for number in range(count):
        at, to = begun + timedelta(days=number), 1 + number % VERSIONS
        move = Move(at, PRODUCTION, before, to, PROMOTION, "a benchmark", evidence="e" * 64, request="r")
        journal.append(number, move)
        journal.end(number + 1, End(at + timedelta(seconds=1), moved=True))
        before = to
    direct.set_registered_model_alias(model, PRODUCTION, str(before))
    direct.set_registered_model_tag(model, JOURNAL_TAG, str(count))
    Registry(direct).model(model).reconcile()
    middle = begun + timedelta(days=count // 2, hours=1)
    approval = Approval(begun, 1, "e" * 64, "a benchmark")

    def read(uri: str) -> None:
        """Read the journal as `ledgerline registry history --at` does after its imports."""
        assert len(Registry(store.connect(uri)).model(model).snapshot().history.periods_at(middle)) == 1

    def add(client: MlflowClient) -> None:
        Journal.opened(Registry(client).model(model)).add(approval)

    rows: list[Sequence[Value]] = []
    for place, uri in (("server", url), ("database", database)):
        rows.append((f"history --at ({place})", *spread(milliseconds(partial(read, uri), rounds))))
        adding = milliseconds(partial(add, store.connect(uri)), rounds)
        rows.append((f"one more entry ({place})", *spread(adding)))
    note = "With opening the client. Goal: 500 ms for a query."
    return [Result(f"A journal of {count:,} promotions", COLUMNS, rows, (note,))]


def measure_promotions(context: Context) -> list[Result]:
    """Measure promotions from the request to the last tag."""
    url, _ = context.shared(server)
    stock, count = Stock(url, None), context.pick(20, 3)
    name = stock.model("promoted", 0)
    recording: list[float] = []
    promoting: list[float] = []
    for number in range(1, count + 1):
        stock.version(name)
        evaluation = stock.evaluation(number, against=number - 1 or None)
        record = partial(promotion.record_evaluation, stock.registered(name), evaluation)
        recording += milliseconds(record)
        promoting += milliseconds(partial(stock.promote, name, number))
    rows = [
        ("an evaluation is recorded", *spread(recording)),
        ("a promotion, with checking evidence and files", *spread(promoting)),
    ]
    note = "The files of a version have a few bytes; a larger model adds the time of its download."
    return [Result(f"{count} promotions, one after the other", COLUMNS, rows, (note,))]


def _register(client: MlflowClient, name: str) -> None:
    client.create_registered_model(name)
    for _ in range(VERSIONS):
        client.create_model_version(name, "mlflow-artifacts:/nowhere", await_creation_for=0)
