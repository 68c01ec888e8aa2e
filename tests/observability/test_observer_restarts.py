"""Tests which records the next process exports, and runs that are exported on request."""

import dagster as dg
import pytest

from ledgerline.ledger.observer import LINGER_SECONDS, Observer
from ledgerline.ledger.projection import TargetUnavailableError
from ledgerline.ledger.tail import STABLE_SECONDS
from ledgerline.testing.written_runs import Clock, FakeTarget, begin, words_of
from tests.observability.followed_runs import AWAY, BUDGET, followed, refusing

# Another process


def test_the_next_process_exports_no_stable_record_again(
    any_instance: dg.DagsterInstance, target: FakeTarget, clock: Clock
) -> None:
    run, ended = begin(any_instance, "one"), begin(any_instance)
    ended.end(seconds_ago=LINGER_SECONDS + 1)
    first = Observer(target)
    first.tick(any_instance, BUDGET)
    run.write("two")
    first.tick(any_instance, BUDGET)
    clock.forward(STABLE_SECONDS)
    first.tick(any_instance, BUDGET)
    settled = target.of(run)[-1].now

    second = Observer(target)
    assert second.tick(any_instance, BUDGET).runs == 0
    run.write("three")
    run.end()
    second.tick(any_instance, BUDGET)
    assert target.new_words_of(run) == [["one"], ["two"], ["three"]]
    assert target.of(run)[-1].before == settled
    assert len(target.of(ended)) == 1


def test_the_next_process_exports_again_at_most_records_that_were_not_stable(
    instance: dg.DagsterInstance, target: FakeTarget, clock: Clock
) -> None:
    run = begin(instance, "one")
    first = Observer(target)
    first.tick(instance, BUDGET)
    clock.forward(STABLE_SECONDS)
    run.write("two")
    first.tick(instance, BUDGET)
    run.write("three")
    Observer(target).tick(instance, BUDGET)
    assert target.new_words_of(run) == [["one"], ["two"], ["two", "three"]]


def test_projections_have_separate_cursors(instance: dg.DagsterInstance) -> None:
    run = begin(instance, "a word")
    traces, runs = FakeTarget("traces"), FakeTarget("runs", before_export=refusing(AWAY))
    for target in (traces, runs):
        Observer(target).tick(instance, BUDGET)
    runs.before_export = refusing(AWAY, "nobody")
    Observer(runs).tick(instance, BUDGET)
    assert traces.new_words_of(run) == runs.new_words_of(run) == [["a word"]]


# One requested run


def test_a_requested_run_is_exported_from_its_beginning(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    run = begin(instance, "one")
    observer.tick(instance, BUDGET)
    run.write("two")
    assert observer.export_run(instance, run.record) == 1
    assert target.new_words_of(run) == [["one"], ["one", "two"]]
    assert target.exports[-1].before is None
    assert followed(instance, target) == [run.run_id]
    observer.tick(instance, BUDGET)
    assert target.new_words_of(run)[-1] == ["two"]


def test_a_finished_run_that_was_requested_is_not_exported_again(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    observer.tick(instance, BUDGET)
    run = begin(instance, seconds_ago=60)
    run.end(seconds_ago=LINGER_SECONDS + 1)
    observer.export_run(instance, run.record)
    observer.tick(instance, BUDGET)
    assert len(target.exports) == 1
    assert followed(instance, target) == []


def test_records_after_the_end_of_a_requested_run_are_exported(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    observer.tick(instance, BUDGET)
    run = begin(instance)
    run.end()
    observer.export_run(instance, run.record)
    run.write("a last word")
    observer.tick(instance, BUDGET)
    assert words_of(target.exports[-1].now) == ["a last word"]


def test_a_requested_run_is_not_a_first_poll(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    before = begin(instance, "a word", seconds_ago=60)
    before.end(seconds_ago=30)
    asked = begin(instance, seconds_ago=40)
    asked.end(seconds_ago=20)
    observer.export_run(instance, asked.record)
    observer.tick(instance, BUDGET)
    assert target.new_words_of(before) == [["a word"]]


def test_a_run_whose_requested_export_failed_is_exported_later(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    observer.tick(instance, BUDGET)
    run = begin(instance, "a word")
    run.end(seconds_ago=LINGER_SECONDS + 1)
    target.before_export = refusing(AWAY)
    with pytest.raises(TargetUnavailableError, match=r"collector\.example"):
        observer.export_run(instance, run.record)
    target.before_export = refusing(AWAY, "nobody")
    observer.tick(instance, BUDGET)
    assert target.new_words_of(run) == [["a word"]]
