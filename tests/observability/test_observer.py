"""Tests which runs an observer exports, and which of their records, in which order."""

import time

import dagster as dg

from ledgerline.ledger.cursors import OVERLAP_SECONDS, Cursors
from ledgerline.ledger.observer import FIRST_POLL_SECONDS, LINGER_SECONDS, RUNS_AT_ONCE, Observer
from ledgerline.ledger.tail import STABLE_SECONDS
from ledgerline.testing.written_runs import Clock, FakeTarget, begin
from tests.observability.followed_runs import BUDGET, HOUR, followed

# Selection of runs


def test_the_first_tick_exports_runs_in_progress_of_any_age(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    run = begin(instance, "a word", seconds_ago=24 * HOUR)
    observer.tick(instance, BUDGET)
    assert target.new_words_of(run) == [["a word"]]


def test_the_first_tick_exports_runs_that_ended_within_the_first_poll_and_none_before(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    begin(instance, seconds_ago=2 * HOUR).end(seconds_ago=FIRST_POLL_SECONDS + OVERLAP_SECONDS + 60)
    lately = begin(instance, "a word", seconds_ago=2 * HOUR)
    lately.end(seconds_ago=FIRST_POLL_SECONDS - 60)
    report = observer.tick(instance, BUDGET)
    assert target.offered == [lately.run_id]
    assert (report.runs, report.written, report.waiting) == (1, 1, 0)


def test_a_run_that_starts_and_ends_between_two_ticks_is_exported(
    any_instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    observer.tick(any_instance, BUDGET)
    run = begin(any_instance, "a word")
    run.end()
    observer.tick(any_instance, BUDGET)
    assert target.new_words_of(run) == [["a word"]]
    assert target.exports[0].now.finished


def test_runs_of_a_machine_whose_clock_is_behind_are_exported(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    begin(instance).end()
    observer.tick(instance, BUDGET)
    run = begin(instance, "a word", seconds_ago=OVERLAP_SECONDS - 5)
    run.end(seconds_ago=OVERLAP_SECONDS - 5)
    observer.tick(instance, BUDGET)
    assert target.new_words_of(run) == [["a word"]]


def test_runs_are_exported_after_a_pause_of_the_observer_of_any_length(
    instance: dg.DagsterInstance, target: FakeTarget
) -> None:
    begin(instance, seconds_ago=48 * HOUR).end(seconds_ago=48 * HOUR)
    cursors = Cursors(target.name, updated=time.time() - 48 * HOUR)
    cursors.save(instance.run_storage)
    run = begin(instance, "a word", seconds_ago=24 * HOUR)
    run.end(seconds_ago=24 * HOUR)
    Observer(target).tick(instance, BUDGET)
    assert target.new_words_of(run) == [["a word"]]


def test_more_runs_than_are_read_together_are_all_exported(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    runs = [begin(instance, "a word") for _ in range(2 * RUNS_AT_ONCE + RUNS_AT_ONCE // 2)]
    for run in runs[::2]:
        run.end(seconds_ago=2 * LINGER_SECONDS)
    observer.tick(instance, BUDGET)
    assert {run.run_id: 1 for run in runs} == {
        run_id: target.offered.count(run_id) for run_id in set(target.offered)
    }
    assert set(followed(instance, target)) == {run.run_id for run in runs[1::2]}
    observer.tick(instance, BUDGET)
    assert len(target.exports) == len(runs)


# Contents of exports


def test_each_record_of_several_runs_is_exported_once_and_in_order(
    any_instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    one, other = begin(any_instance, "one 1", "one 2"), begin(any_instance)
    observer.tick(any_instance, BUDGET)
    other.write("other 1")
    observer.tick(any_instance, BUDGET)
    one.write("one 3")
    other.write("other 2", "other 3")
    one.end()
    observer.tick(any_instance, BUDGET)
    assert target.new_words_of(one) == [["one 1", "one 2"], ["one 3"]]
    assert target.new_words_of(other) == [[], ["other 1"], ["other 2", "other 3"]]
    assert [export.now.finished for export in target.of(one)] == [False, True]


def test_the_history_before_is_the_one_exported_last(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget, clock: Clock
) -> None:
    run = begin(instance)
    for word in ("one", "two", "three"):
        run.write(word)
        observer.tick(instance, BUDGET)
        clock.forward(STABLE_SECONDS)
    first, second, third = target.of(run)
    assert first.before is None
    assert second.before is first.now
    assert third.before is second.now


def test_nothing_is_exported_when_nothing_is_new(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget, clock: Clock
) -> None:
    begin(instance, "a word")
    begin(instance).end()
    observer.tick(instance, BUDGET)
    for _ in range(4):
        clock.forward(STABLE_SECONDS)
        report = observer.tick(instance, BUDGET)
        assert (report.runs, report.written) == (0, 0)
    assert len(target.exports) == 2


# The end of a run


def test_a_run_that_has_ended_is_followed_for_a_while_and_then_no_more(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget, clock: Clock
) -> None:
    run = begin(instance)
    run.end()
    assert observer.tick(instance, BUDGET).waiting == 1
    clock.forward(LINGER_SECONDS - 1)
    assert observer.tick(instance, BUDGET).waiting == 1
    clock.forward(2)
    assert observer.tick(instance, BUDGET).waiting == 0
    assert followed(instance, target) == []
    observer.tick(instance, BUDGET)
    assert len(target.of(run)) == 1


def test_records_after_the_end_of_a_run_are_exported(
    any_instance: dg.DagsterInstance, observer: Observer, target: FakeTarget, clock: Clock
) -> None:
    run = begin(any_instance)
    run.end()
    observer.tick(any_instance, BUDGET)
    for word in ("a last word", "the very last"):
        clock.forward(LINGER_SECONDS - 1)
        run.write(word)
        observer.tick(any_instance, BUDGET)
    assert target.new_words_of(run) == [[], ["a last word"], ["the very last"]]


def test_records_after_the_end_are_waited_for_by_the_next_process_too(
    instance: dg.DagsterInstance, target: FakeTarget, clock: Clock
) -> None:
    run = begin(instance)
    first = Observer(target)
    run.end()
    first.tick(instance, BUDGET)
    clock.forward(STABLE_SECONDS)
    first.tick(instance, BUDGET)
    second = Observer(target)
    second.tick(instance, BUDGET)
    run.write("a last word")
    second.tick(instance, BUDGET)
    assert target.new_words_of(run) == [[], ["a last word"]]


def test_a_run_that_ended_long_ago_is_not_waited_for(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    begin(instance, seconds_ago=600).end(seconds_ago=LINGER_SECONDS + 1)
    assert observer.tick(instance, BUDGET).waiting == 0
    assert len(target.exports) == 1


def test_a_finished_run_that_changes_is_exported_again(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    run = begin(instance, "a word")
    run.end(seconds_ago=LINGER_SECONDS + 1)
    observer.tick(instance, BUDGET)
    instance.add_run_tags(run.run_id, {"looked at": "by somebody"})
    observer.tick(instance, BUDGET)
    assert target.new_words_of(run) == [["a word"], ["a word"]]
    assert target.exports[1].now.run.tags["looked at"] == "by somebody"
    observer.tick(instance, BUDGET)
    assert len(target.exports) == 2


def test_a_deleted_run_is_not_followed(
    any_instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    deleted, kept = begin(any_instance), begin(any_instance)
    observer.tick(any_instance, BUDGET)
    any_instance.delete_run(deleted.run_id)
    kept.write("a word")
    report = observer.tick(any_instance, BUDGET)
    assert followed(any_instance, target) == [kept.run_id]
    assert (report.failures, report.unavailable) == ({}, None)
    assert target.new_words_of(kept) == [[], ["a word"]]
