"""Tests the journal: changes are detected, one writer wins, and aliases are known at any moment."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException

from ledgerline.registry.history import (
    OUTSIDE,
    PROMOTION,
    REGISTRATION,
    ROLLBACK,
    Approval,
    End,
    Entry,
    Evaluation,
    History,
    Move,
)
from ledgerline.registry.journal import (
    MAX_ENTRY_LENGTH,
    RUN_NAME,
    EntryTakenError,
    Journal,
    JournalError,
    experiment_name,
)
from ledgerline.registry.stages import JOURNAL_TAG, PRODUCTION, SEAL_TAG, STAGING
from ledgerline.testing.registry_stock import Stock
from tests.registry.racers import Racers, Task

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)

APPROVAL = Approval(NOON, 1, "e" * 64, "ada", "fine")
EVALUATION = Evaluation(NOON, 2, 1, False, ["calibrated"], "f" * 64, "a run", "the judge", "a Dagster run")
MOVE = Move(NOON, STAGING, None, 1, REGISTRATION, "Zoë “the trainer”", request="r", not_before=NOON - SECOND)


def change(stock: Stock, journal: Journal, key: str, edit: Callable[[str], str]) -> None:
    """Edit what is written in the journal, in MLflow's database."""
    with closing(sqlite3.connect(stock.uri.removeprefix("sqlite:///"))) as database, database:
        where = (journal.run_id, key)
        (text,) = database.execute(
            "SELECT value FROM params WHERE run_uuid = ? AND key = ?", where
        ).fetchone()
        assert edit(text) != text
        database.execute("UPDATE params SET value = ? WHERE run_uuid = ? AND key = ?", (edit(text), *where))


def delete(stock: Stock, journal: Journal, key: str) -> None:
    with closing(sqlite3.connect(stock.uri.removeprefix("sqlite:///"))) as database, database:
        database.execute("DELETE FROM params WHERE run_uuid = ? AND key = ?", (journal.run_id, key))


# Written and read


def test_entries_are_read_as_they_were_written(any_stock: Stock, model_name: str):
    journal = Journal.opened(any_stock.registered(model_name))

    for number, what in enumerate([EVALUATION, APPROVAL, MOVE]):
        assert journal.append(number, what) == Entry(number + 1, what)
    journal.end(3, End(NOON + SECOND, moved=True))

    entries = any_stock.history(model_name).entries
    assert [replace(entry, seal="") for entry in entries] == [
        Entry(1, EVALUATION),
        Entry(2, APPROVAL),
        Entry(3, MOVE, End(NOON + SECOND, moved=True)),
    ]


def test_an_entry_is_never_written_over(any_stock: Stock, model_name: str):
    journal = Journal.opened(any_stock.registered(model_name))
    journal.append(0, EVALUATION)

    with pytest.raises(EntryTakenError):
        journal.append(0, APPROVAL)
    with pytest.raises(EntryTakenError):
        journal.append(0, EVALUATION)
    with pytest.raises(MlflowException, match="Changing param values is not allowed"):
        any_stock.client.log_param(journal.run_id, "000001", "something else")

    assert [entry.record for entry in journal.read().entries] == [EVALUATION]


def test_the_end_of_a_move_is_recorded_once(stock: Stock, model_name: str):
    journal = Journal.opened(stock.registered(model_name))
    journal.append(0, MOVE)

    journal.end(1, End(NOON, moved=True))
    journal.end(1, End(NOON + SECOND, moved=False))

    assert journal.read().entries[0].end == End(NOON, moved=True)


def test_a_text_that_is_too_long_is_refused_before_anything_is_written(stock: Stock, model_name: str):
    journal = Journal.opened(stock.registered(model_name))

    with pytest.raises(JournalError, match=f"the limit is {MAX_ENTRY_LENGTH}. Shorten the reason"):
        journal.append(0, replace(APPROVAL, reason="ä" * MAX_ENTRY_LENGTH))

    assert journal.read().head == 0
    fits = replace(APPROVAL, reason="ä" * 5000)
    assert journal.add(fits).record == fits


def test_a_model_without_a_journal_has_none(stock: Stock):
    assert Journal.named(stock.registered("nobody wrote")) is None


# Several writers


def test_one_of_ten_processes_that_write_the_same_entry_succeeds(
    any_stock: Stock, model_name: str, racers: Racers
):
    Journal.opened(any_stock.registered(model_name)).append(0, EVALUATION)

    outcomes = racers.run([Task("append", any_stock.uri, model_name, number=1) for _ in range(10)])

    assert sorted(outcome.raised[:1] for outcome in outcomes) == [[], *[["EntryTakenError"]] * 9]
    assert any_stock.history(model_name).head == 2


def test_entries_of_eight_concurrent_processes_are_all_stored(
    any_stock: Stock, model_name: str, racers: Racers
):
    outcomes = racers.run([Task("add", any_stock.uri, model_name, number=n) for n in range(1, 9)])

    assert sorted(outcome.returned for outcome in outcomes) == list(range(1, 9)), outcomes
    entries = any_stock.history(model_name).entries
    written = [entry.record.version for entry in entries if isinstance(entry.record, Approval)]
    assert sorted(written) == list(range(1, 9))


def test_ten_processes_that_open_a_journal_open_the_same(any_stock: Stock, model_name: str, racers: Racers):
    outcomes = racers.run([Task("open", any_stock.uri, model_name) for _ in range(10)])

    (run_id,) = {outcome.returned for outcome in outcomes}
    assert any_stock.journal(model_name).run_id == run_id
    experiments = any_stock.client.search_experiments(filter_string=f"name LIKE '{model_name}%'")
    assert [experiment.name for experiment in experiments] == [experiment_name(model_name)]


# Deleted and edited entries


def test_a_deleted_journal_stops_everything_until_it_is_restored(any_stock: Stock, model_name: str):
    journal = Journal.opened(any_stock.registered(model_name))
    journal.append(0, EVALUATION)
    client = any_stock.client
    experiment = client.get_run(journal.run_id).info.experiment_id

    for take, give_back, id_ in (
        (client.delete_experiment, client.restore_experiment, experiment),
        (client.delete_run, client.restore_run, journal.run_id),
    ):
        take(id_)
        for look in (Journal.named, Journal.opened):
            with pytest.raises(JournalError, match=r"restore it .`mlflow experiments restore`"):
                look(any_stock.registered(model_name))
        give_back(id_)
        assert any_stock.history(model_name).head == 1


def test_a_journal_with_two_runs_is_refused(stock: Stock, model_name: str):
    journal = Journal.opened(stock.registered(model_name))
    experiment = stock.client.get_run(journal.run_id).info.experiment_id
    stock.client.create_run(experiment, run_name="something else")
    assert stock.journal(model_name).run_id == journal.run_id

    stock.client.create_run(experiment, run_name=RUN_NAME)

    with pytest.raises(JournalError, match="should have exactly one run named 'journal'"):
        Journal.named(stock.registered(model_name))


def test_a_deleted_journal_is_not_a_conflict_of_entries(any_stock: Stock, model_name: str):
    journal = Journal.opened(any_stock.registered(model_name))
    any_stock.client.delete_run(journal.run_id)

    with pytest.raises(JournalError, match=r"cannot be written: .* restore it"):
        journal.add(APPROVAL)


def test_an_entry_edited_in_the_database_is_noticed(stock: Stock, model_name: str):
    journal = Journal.opened(stock.registered(model_name))
    for _ in range(3):
        journal.add(EVALUATION)

    change(stock, journal, "000002", lambda text: text.replace('"passed":false', '"passed":true'))

    with pytest.raises(JournalError, match=r"Entry 3 does not follow .* Restore it from a backup"):
        journal.read()


@pytest.mark.parametrize("key", ["000001", "000002"])
def test_an_entry_deleted_in_the_database_is_noticed(stock: Stock, model_name: str, key: str):
    journal = Journal.opened(stock.registered(model_name))
    for _ in range(3):
        journal.add(EVALUATION)

    delete(stock, journal, key)

    with pytest.raises(JournalError, match="Entries are missing"):
        journal.read()


@pytest.mark.parametrize(
    ("key", "edit"),
    [
        ("000002", lambda text: text.replace("ada", "eve")),
        ("000001.end", lambda text: text.replace('"moved":true', '"moved":false')),
    ],
    ids=["the last entry", "how a move ended"],
)
def test_the_last_entry_is_sealed_by_the_model(
    stock: Stock, model_name: str, key: str, edit: Callable[[str], str]
):
    stock.model(model_name)
    stock.stage(model_name, 1)
    journal = stock.journal(model_name)
    journal.add(APPROVAL)
    stock.registered(model_name).reconcile()

    change(stock, journal, key, edit)

    with pytest.raises(JournalError, match="do not match the seal in the model's tag"):
        stock.registered(model_name).reconcile()


def test_a_last_entry_deleted_in_the_database_is_noticed(stock: Stock, model_name: str):
    stock.model(model_name)
    stock.stage(model_name, 1)
    journal = stock.journal(model_name)
    journal.add(APPROVAL)
    stock.registered(model_name).reconcile()

    delete(stock, journal, "000002")

    with pytest.raises(JournalError, match=r"up to 2, .* do not match the seal in the model's tag"):
        stock.registered(model_name).reconcile()


@pytest.mark.parametrize("text", ["", "[]", "{}", "no JSON", '{"previous":"","kind":"strange","id":""}'])
def test_an_entry_that_cannot_be_read_is_named(stock: Stock, model_name: str, text: str):
    journal = Journal.opened(stock.registered(model_name))
    journal.add(EVALUATION)

    change(stock, journal, "000001", lambda _: text)

    with pytest.raises(JournalError, match="Entry 1 cannot be read"):
        journal.read()


def test_a_deleted_journal_is_not_replaced_by_a_new_one(stock: Stock, model_name: str):
    stock.model(model_name)
    stock.stage(model_name, 1)
    experiment = stock.client.get_run(stock.journal(model_name).run_id).info.experiment_id
    stock.client.rename_experiment(experiment, "my notes")
    stock.client.delete_experiment(experiment)

    with pytest.raises(JournalError, match=f"Restore .* that was named '{experiment_name(model_name)}'"):
        stock.registered(model_name).reconcile()

    stock.client.restore_experiment(experiment)
    assert stock.registered(model_name).reconcile().history.head == 1


def test_other_metrics_in_the_run_of_the_journal_are_ignored(stock: Stock, model_name: str):
    journal = Journal.opened(stock.registered(model_name))
    journal.add(EVALUATION)
    for name in ("note", "7", "note.end", "x000002"):
        stock.client.log_param(journal.run_id, name, "hello")

    assert journal.add(APPROVAL).number == 2
    assert journal.read().head == 2


def test_deleted_tags_of_the_model_are_written_again(stock: Stock, model_name: str):
    stock.model(model_name)
    stock.stage(model_name, 1)
    for tag in (JOURNAL_TAG, SEAL_TAG):
        stock.client.delete_registered_model_tag(model_name, tag)

    stock.registered(model_name).reconcile()

    stock.require_agreement(model_name)


# Periods of an alias


def move(
    at: float,
    to: int | None,
    *,
    cause: str = PROMOTION,
    before: int | None = None,
    unseen_since: float | None = None,
) -> Move:
    not_before = None if unseen_since is None else NOON + unseen_since * SECOND
    return Move(NOON + at * SECOND, PRODUCTION, before, to, cause, "ada", not_before=not_before)


def history(*moved: tuple[Move, float | None]) -> History:
    """Moves, each with the second in which it ended, if it did."""
    return History(
        [
            Entry(number, what, None if ended is None else End(NOON + ended * SECOND, moved=True))
            for number, (what, ended) in enumerate(moved, start=1)
        ]
    )


def at(written: History, second: float) -> list[int | None]:
    return [holding.version for holding in written.periods_at(NOON + second * SECOND)]


def test_no_version_is_known_before_the_first_move_and_the_new_one_afterwards():
    written = history((move(0, 1), 1))

    assert [at(written, second) for second in (-0.001, 0, 1, 1000)] == [[], [1], [1], [1]]


def test_while_it_moves_it_is_one_of_two():
    written = history((move(0, 1), 1), (move(10, 2), 11))

    assert at(written, 9.999) == [1]
    assert at(written, 10) == [1, 2]
    assert at(written, 10.999) == [1, 2]
    assert at(written, 11) == [2]


def test_a_move_that_has_not_ended_has_not_moved_anything_yet():
    written = history((move(0, 1), 1), (move(10, 2), None))

    assert at(written, 12) == [1]
    assert written.pending is not None


def test_a_move_that_was_not_carried_out_does_not_count():
    written = History([Entry(1, move(0, 1), End(NOON, moved=False))])

    assert at(written, 5) == []
    assert written.pending is None
    assert written.version_with_alias(PRODUCTION) is None


def test_an_external_change_lies_between_the_last_poll_without_it_and_the_first_with_it():
    written = history((move(0, 1), 1), (move(20, 2, cause=OUTSIDE, unseen_since=15), 20))

    assert [at(written, second) for second in (14.999, 15, 19.999, 20)] == [[1], [1, 2], [1, 2], [2]]


def test_an_external_change_without_polls_may_be_as_old_as_the_move_before():
    written = history((move(0, 1), 1), (move(20, 2, cause=OUTSIDE), 20))

    assert [at(written, second) for second in (0.5, 1, 19.999, 20)] == [[1], [1, 2], [1, 2], [2]]


def test_an_external_change_is_not_older_than_a_move_after_the_last_poll():
    written = history((move(0, 1), 1), (move(20, 2, cause=OUTSIDE, unseen_since=-100), 20))

    assert [at(written, second) for second in (-1, 0.5, 1)] == [[], [1], [1, 2]]


def test_the_age_of_a_first_external_change_is_unknown():
    written = history((move(20, 2, cause=OUTSIDE), 20))

    assert [at(written, second) for second in (19.999, 20)] == [[], [2]]
    assert written.periods()[0].since_at_earliest is None


def test_no_version_has_a_removed_alias():
    written = history((move(0, 1), 1), (move(20, None, cause=OUTSIDE, unseen_since=15), 20))

    assert at(written, 21) == [None]
    assert written.version_with_alias(PRODUCTION) is None


@given(st.lists(st.tuples(st.integers(1, 4), st.floats(0.1, 100), st.floats(0, 5)), max_size=12), st.data())
def test_at_every_moment_one_or_two_versions_are_possible_with_the_last_among_them(
    steps: list[tuple[int, float, float]], data: st.DataObject
):
    moved, second = [], 0.0
    for version, pause, taken in steps:
        moved.append((move(second + pause, version), second + pause + taken))
        second += pause + taken
    written = history(*moved)
    moment = data.draw(st.floats(-1, second + 10))

    begun = [what for what, _ in moved if what.at <= NOON + moment * SECOND]
    assert len(at(written, moment)) in ((1, 2) if begun else (0,))
    if begun:
        assert at(written, moment)[-1] == begun[-1].to_version


# The version of a rollback

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("promote"), st.integers(1, 5)),
        st.just(("rollback", 0)),
        st.tuples(st.just("back to"), st.integers(1, 5)),
    ),
    max_size=15,
)


@given(STEPS)
def test_a_rollback_undoes_the_last_promotion_that_still_counts(steps: list[tuple[str, int]]):
    """Against a stack: a promotion pushes, a rollback pops, and one to a version pops down to it."""
    stack: list[int] = []
    served: set[int] = set()
    moved: list[tuple[Move, float]] = []
    for step, version in steps:
        before = history(*moved).version_before()
        assert before == (stack[-2] if len(stack) > 1 else None)
        if step == "promote" and stack[-1:] != [version]:
            stack.append(version)
            cause = PROMOTION
        elif step == "rollback" and before is not None:
            stack.pop()
            cause = ROLLBACK
        elif step == "back to" and version in served and stack[-1:] != [version]:
            if version in stack:
                del stack[len(stack) - stack[::-1].index(version) :]
            else:  # it was taken back, and is put upon what there is now
                stack.append(version)
            cause = ROLLBACK
        else:
            continue
        served.add(stack[-1])
        moved.append((move(len(moved), stack[-1], cause=cause), len(moved)))


def test_a_rollback_passes_over_the_time_without_production():
    removed = move(20, None, cause=OUTSIDE)

    assert history((move(0, 1), 1), (removed, 20)).version_before() == 1
    assert history((move(0, 1), 1), (removed, 20), (move(30, 2), 31)).version_before() == 1
