"""Tests moves of an alias: killed at any point and continued, made externally, and during outages."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from ledgerline.registry import moves
from ledgerline.registry.history import OUTSIDE, PROMOTION, Move
from ledgerline.registry.moves import UNDER_WAY, MoveRefusedError, UnderWayError
from ledgerline.registry.stages import (
    ARCHIVED_AT_TAG,
    JOURNAL_TAG,
    PRODUCTION,
    PROMOTED_AT_TAG,
    STAGE_TAG,
    STAGING,
)
from ledgerline.registry.versions import UnknownModelError
from ledgerline.testing.loopback_servers import Refusal, listening
from ledgerline.testing.registry_stock import Stock, request
from tests.integration.proxies import Proxy
from tests.registry.racers import Outcome, Racers, Task

TIMES = {ARCHIVED_AT_TAG, PROMOTED_AT_TAG}
MAX_WRITES = 60  # of a promotion

WRITES = ("log-parameter", "registered-models/alias", "set-tag", "delete-tag")


def state_of(stock: Stock, name: str) -> object:
    """Return the state of a registry after a move, without times."""
    history = stock.history(name)
    moved = [
        (move.alias, move.from_version, move.to_version, move.cause, move.by, entry.end and entry.end.moved)
        for entry in history.entries
        if isinstance(move := entry.record, Move)
    ]
    tags = {
        version.number: {tag: "a time" if tag in TIMES else value for tag, value in version.tags.items()}
        for version in stock.registered(name).versions()
    }
    return stock.aliases(name), moved, tags, stock.registered(name).reconcile().history.head


def waiting(stock: Stock, name: str, *, by: str = "a dead process", ago: timedelta) -> Move:
    """A move of production to version 2 that was written down only."""
    journal = stock.journal(name)
    move = Move(
        at=datetime.now(UTC) - ago,
        alias=PRODUCTION,
        from_version=journal.read().version_with_alias(PRODUCTION),
        to_version=2,
        cause=PROMOTION,
        by=by,
        request="the dead one's",
    )
    journal.append(journal.read().head, move)
    return move


@pytest.fixture
def served(stock: Stock, model_name: str) -> str:
    """A model whose version 1 is in production, and 2 in staging, evaluated and passed."""
    stock.model(model_name, 2)
    stock.stage(model_name, 1)
    stock.serve(model_name, 1)
    stock.stage(model_name, 2)
    stock.evaluate(model_name, 2, against=1)
    return model_name


# Killed


def test_a_promotion_killed_anywhere_is_finished_by_the_same_request(
    stock: Stock, served: str, racers: Racers, tmp_path: Path
):
    """Kill it before each of its writes: deaths between the same two writes are equal for the registry."""
    source = Path(stock.uri.removeprefix("sqlite:///"))

    def copy(number: int) -> str:
        shutil.copyfile(source, tmp_path / f"{number}.db")
        return f"sqlite:///{tmp_path}/{number}.db"

    tasks: list[Task] = []
    outcomes: list[Outcome] = []
    while not (outcomes and outcomes[-1].returned):
        assert len(tasks) < MAX_WRITES, "it writes ever more"
        # The first does not die.
        numbers = range(len(tasks), len(tasks) + 10)
        batch = [Task("promote", copy(n), served, 2, "r", n, writes_only=True) for n in numbers]
        tasks += batch
        outcomes += racers.run(batch)
        again = racers.run([replace(task, dies_before=0) for task in batch])
        assert [outcome.message for outcome in again] == [""] * len(batch)

    lived = [number for number, outcome in enumerate(outcomes) if not outcome.died]
    assert lived[1] > 10, "a promotion writes more than that"
    assert lived == [0, *range(lived[1], len(tasks))], "none was passed over"
    expected = None
    for task in tasks[: lived[1]]:
        found = Stock(task.uri, stock.artifacts)
        found.require_agreement(served)
        expected = expected or state_of(found, served)
        assert state_of(found, served) == expected, f"killed before write {task.dies_before}"


@pytest.mark.parametrize("dies_before", [2, 3, 4])
def test_a_promotion_killed_before_it_writes_is_finished_by_the_same_request(
    any_stock: Stock, model_name: str, racers: Racers, dies_before: int
):
    any_stock.model(model_name)
    any_stock.stage(model_name, 1)
    any_stock.evaluate(model_name, 1)
    task = Task("promote", any_stock.uri, model_name, 1, "r", dies_before, writes_only=True)

    (killed,) = racers.run([task])
    (again,) = racers.run([replace(task, dies_before=0)])

    assert killed.died
    assert again.message == ""
    any_stock.require_agreement(model_name)
    assert any_stock.aliases(model_name) == {PRODUCTION: 1}
    assert len(any_stock.history(model_name).moves(PRODUCTION)) == 1


@pytest.mark.parametrize("dies_before", [2, 3], ids=["before the alias moved", "after the alias moved"])
def test_another_request_waits_for_a_move_whose_process_may_be_alive(
    any_stock: Stock, model_name: str, racers: Racers, dies_before: int
):
    any_stock.model(model_name)
    any_stock.evaluate(model_name, 1)
    racers.run([Task("promote", any_stock.uri, model_name, 1, "r", dies_before, writes_only=True)])
    before = any_stock.aliases(model_name)

    with pytest.raises(UnderWayError, match=r"racer r is moving production of .* to version 1 since"):
        any_stock.promote(model_name, 1)
    with pytest.raises(UnderWayError):
        any_stock.rollback(model_name)
    with pytest.raises(UnderWayError):
        any_stock.registered(model_name).reconcile()

    assert any_stock.aliases(model_name) == before


def test_a_move_whose_process_must_have_died_is_finished_by_the_next_process(stock: Stock, served: str):
    waiting(stock, served, ago=UNDER_WAY)

    stock.registered(served).reconcile()

    assert stock.aliases(served) == {PRODUCTION: 2, STAGING: 2}
    stock.require_agreement(served)
    assert stock.tags(served, 2)["promoted_by"] == "a dead process"


def test_a_move_that_moved_the_alias_and_died_is_not_an_external_change(stock: Stock, served: str):
    waiting(stock, served, ago=UNDER_WAY)
    stock.client.set_registered_model_alias(served, PRODUCTION, "2")

    history = stock.registered(served).reconcile().history

    assert [move.cause for _, move, _ in history.moves(PRODUCTION)] == [PROMOTION, PROMOTION]
    stock.require_agreement(served)


def test_a_dead_move_does_not_undo_a_later_change(stock: Stock, served: str):
    stock.version(served)
    waiting(stock, served, ago=UNDER_WAY)
    stock.client.set_registered_model_alias(served, PRODUCTION, "3")

    history = stock.registered(served).reconcile().history

    assert stock.aliases(served)[PRODUCTION] == 3
    assert [(m.cause, m.to_version) for _, m, _ in history.moves(PRODUCTION)] == [
        (PROMOTION, 1),
        (OUTSIDE, 3),
    ]
    stock.require_agreement(served)


def test_a_dead_move_to_a_deleted_version_is_abandoned(stock: Stock, served: str):
    waiting(stock, served, ago=UNDER_WAY)
    stock.client.delete_model_version(served, "2")

    history = stock.registered(served).reconcile().history

    assert stock.aliases(served) == {PRODUCTION: 1}
    assert history.version_with_alias(STAGING) is None
    stock.require_agreement(served)


def test_five_processes_finish_a_dead_move_once(any_stock: Stock, model_name: str, racers: Racers):
    any_stock.model(model_name, 2)
    any_stock.serve(model_name, 1)
    waiting(any_stock, model_name, ago=UNDER_WAY)

    outcomes = racers.run([Task("settle", any_stock.uri, model_name) for _ in range(5)])

    assert [outcome.message for outcome in outcomes] == [""] * 5
    assert any_stock.aliases(model_name) == {PRODUCTION: 2}
    assert len(any_stock.history(model_name).moves(PRODUCTION)) == 2
    any_stock.require_agreement(model_name)


# Outside


def test_five_processes_note_a_change_outside_once(any_stock: Stock, model_name: str, racers: Racers):
    any_stock.model(model_name, 2)
    any_stock.serve(model_name, 1)
    any_stock.client.set_registered_model_alias(model_name, PRODUCTION, "2")
    any_stock.client.set_registered_model_alias(model_name, STAGING, "1")

    outcomes = racers.run([Task("settle", any_stock.uri, model_name) for _ in range(5)])

    assert [outcome.message for outcome in outcomes] == [""] * 5
    history = any_stock.history(model_name)
    noted = [
        (entry.record.alias, entry.record.from_version, entry.record.to_version, entry.record.by)
        for entry in history.entries
        if isinstance(entry.record, Move) and entry.record.cause == OUTSIDE
    ]
    assert noted == [(STAGING, None, 1, "unknown"), (PRODUCTION, 1, 2, "unknown")]
    any_stock.require_agreement(model_name)
    assert any_stock.tags(model_name, 2)[STAGE_TAG] == PRODUCTION


def test_an_external_change_has_the_time_of_the_last_poll_without_it(stock: Stock, served: str):
    stock.client.set_registered_model_alias(served, PRODUCTION, "2")
    seen = datetime.now(UTC) - timedelta(seconds=3)

    history = stock.registered(served).reconcile(seen).history

    (noted,) = [move for _, move, _ in history.moves(PRODUCTION) if move.cause == OUTSIDE]
    assert noted.not_before is not None
    assert abs(noted.not_before - seen) < timedelta(milliseconds=1)


@pytest.mark.parametrize("how", ["alias", "version"])
def test_a_removed_alias_is_recorded(any_stock: Stock, model_name: str, how: str):
    any_stock.model(model_name, 2)
    any_stock.serve(model_name, 1)
    if how == "alias":
        any_stock.client.delete_registered_model_alias(model_name, PRODUCTION)
    else:
        any_stock.client.delete_model_version(model_name, "1")

    history = any_stock.registered(model_name).reconcile().history

    assert history.version_with_alias(PRODUCTION) is None
    assert history.moves(PRODUCTION)[-1][1].cause == OUTSIDE
    any_stock.require_agreement(model_name)
    any_stock.serve(model_name, 2)
    assert any_stock.aliases(model_name) == {PRODUCTION: 2}


def test_a_model_moved_by_hand_for_years_gets_its_journal_at_the_first_poll(stock: Stock, model_name: str):
    stock.model(model_name, 2)
    stock.client.set_registered_model_alias(model_name, PRODUCTION, "1")
    stock.client.set_registered_model_alias(model_name, STAGING, "2")
    stock.client.set_registered_model_alias(model_name, "of-no-concern", "2")

    history = stock.registered(model_name).reconcile().history

    assert (history.version_with_alias(PRODUCTION), history.version_with_alias(STAGING), history.head) == (
        1,
        2,
        2,
    )
    stock.require_agreement(model_name)


def test_an_unknown_model_gets_no_journal(stock: Stock):
    with pytest.raises(UnknownModelError, match="ledgerline registry list"):
        stock.registered("nobody registered").reconcile()

    assert [
        found.name for found in stock.client.search_experiments(filter_string="name LIKE 'nobody%'")
    ] == []


# At once


def test_a_move_from_an_outdated_version_is_refused(stock: Stock, served: str):
    model = stock.registered(served).reconcile()
    stock.promote(served, 2)

    with pytest.raises(MoveRefusedError, match=r"staging of .* is now no version, and not version 2"):
        moves.move(model, stock.staging(1, 2))


def test_a_move_goes_on_when_something_else_was_written_meanwhile(stock: Stock, served: str):
    model = stock.registered(served).reconcile()
    stock.evaluate(served, 2, against=1)

    moves.move(model, stock.staging(1, 2))

    assert stock.aliases(served)[STAGING] == 1
    stock.require_agreement(served)


def test_a_move_does_not_begin_while_another_is_under_way(stock: Stock, served: str):
    waiting(stock, served, ago=timedelta(0))
    journal = stock.journal(served)
    model = moves.ReconciledModel(stock.registered(served), journal, journal.read())

    with pytest.raises(UnderWayError):
        moves.move(model, stock.staging(1, 2))

    assert stock.history(served).head == model.history.head


def test_a_late_write_of_tags_leaves_the_newest(stock: Stock, served: str):
    late = stock.registered(served).reconcile()
    stock.promote(served, 2)
    stock.client.set_registered_model_tag(served, JOURNAL_TAG, "0")

    moves.show(replace(late, tagged=0))

    stock.require_agreement(served)


# The registry becomes unavailable


@pytest.mark.parametrize("refused", [2, 3, 8])
def test_a_promotion_that_loses_the_server_is_finished_when_it_is_back(
    mlflow_server: str, model_name: str, monkeypatch: pytest.MonkeyPatch, refused: int
):
    direct = Stock(mlflow_server, None)
    direct.model(model_name, 2)
    direct.serve(model_name, 1)
    direct.stage(model_name, 2)
    direct.evaluate(model_name, 2, against=1)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    writes = 0

    def is_gone(path: str) -> Refusal | None:
        nonlocal writes
        writes += any(part in path for part in WRITES)
        return Refusal(503) if writes >= refused else None

    asked = request()
    with listening(Proxy(target=mlflow_server)) as proxy:
        stock = Stock(proxy.url, None)
        proxy.refuses = is_gone
        with pytest.raises(MlflowException, match="503"):
            stock.promote(model_name, 2, asked)
        proxy.reset()

        assert direct.aliases(model_name)[PRODUCTION] == (1 if refused <= 2 else 2)
        moved = stock.promote(model_name, 2, asked)

    assert (moved.version, moved.before) == (2, 1)
    direct.require_agreement(model_name)
    assert direct.aliases(model_name) == {PRODUCTION: 2}
    assert len(direct.history(model_name).moves(PRODUCTION)) == 2
