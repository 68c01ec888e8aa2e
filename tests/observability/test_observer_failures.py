"""Tests an observer whose targets are unavailable or refuse a run, and whose time is limited."""

import time
from itertools import pairwise

import dagster as dg
import pytest

from ledgerline.ledger.cursors import Cursors
from ledgerline.ledger.observer import LINGER_SECONDS, RUNS_AT_ONCE, Observer
from ledgerline.ledger.pauses import LONGEST_PAUSE_SECONDS
from ledgerline.ledger.projection import NotYetError, TargetUnavailableError
from ledgerline.ledger.tail import STABLE_SECONDS
from ledgerline.testing.written_runs import Clock, FakeTarget, begin, words_of
from tests.observability.followed_runs import AWAY, BUDGET, HOUR, followed, refusing

# Unavailable targets


def test_an_unavailable_target_ends_the_tick_and_is_named(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    for _ in range(3):
        begin(instance)
    target.before_export = refusing(AWAY)
    report = observer.tick(instance, BUDGET)
    assert len(target.offered) == 1
    assert report.unavailable == str(AWAY)
    assert (report.written, report.waiting, report.failures) == (0, 3, {})
    assert "unavailable: http://collector.example does not answer" in str(report)


def test_what_a_target_did_not_accept_is_exported_when_it_is_available_again(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget, clock: Clock
) -> None:
    run = begin(instance, "one")
    observer.tick(instance, BUDGET)
    clock.forward(STABLE_SECONDS)
    observer.tick(instance, BUDGET)
    before = Cursors.load(instance.run_storage, target.name)

    target.before_export = refusing(AWAY)
    for word in ("two", "three", "four"):
        run.write(word)
        observer.tick(instance, BUDGET)
        clock.forward(STABLE_SECONDS)
    run.end()
    assert Cursors.load(instance.run_storage, target.name) == before

    target.before_export = refusing(AWAY, "nobody")
    observer.tick(instance, BUDGET)
    assert target.new_words_of(run) == [["one"], ["two", "three", "four"]]


def test_nothing_is_lost_if_the_process_ends_while_the_target_is_unavailable(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget, clock: Clock
) -> None:
    run = begin(instance, "one")
    observer.tick(instance, BUDGET)
    target.before_export = refusing(AWAY)
    run.write("two")
    run.end()
    for _ in range(3):
        observer.tick(instance, BUDGET)
        clock.forward(LINGER_SECONDS + 1)
    back = FakeTarget()
    Observer(back).tick(instance, BUDGET)
    assert words_of(back.exports[-1].now) == ["one", "two"]
    assert back.exports[-1].before is None


def test_after_a_refusal_the_next_tick_begins_with_another_run(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    runs = [begin(instance) for _ in range(3)]
    target.before_export = refusing(AWAY)
    for _ in range(4):
        observer.tick(instance, BUDGET)
    assert set(target.offered[:3]) == {run.run_id for run in runs}
    assert target.offered[3] == target.offered[0]


def test_a_run_that_the_target_never_accepts_delays_no_other(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    too_large = begin(instance)
    target.before_export = refusing(TargetUnavailableError("413 Payload Too Large"), too_large.run_id)
    observer.tick(instance, BUDGET)
    later = begin(instance, "a word")
    for _ in range(3):
        observer.tick(instance, BUDGET)
    assert target.new_words_of(later) == [["a word"]]
    assert followed(instance, target)[-1] == too_large.run_id


def test_during_an_outage_a_limited_number_of_runs_is_noted_and_all_are_exported_later(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    runs = [begin(instance) for _ in range(3 * RUNS_AT_ONCE)]
    Cursors(target.name, updated=time.time() - HOUR).save(instance.run_storage)
    target.before_export = refusing(AWAY)
    for _ in range(5):
        observer.tick(instance, BUDGET)
    assert len(followed(instance, target)) < 2 * RUNS_AT_ONCE
    target.before_export = refusing(AWAY, "nobody")
    observer.tick(instance, BUDGET)
    assert {exported.run_id for exported in target.exports} == {run.run_id for run in runs}


def test_a_run_that_cannot_be_exported_delays_no_other(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    odd, other = begin(instance), begin(instance, "a word")
    problem = ValueError("a span without a name")
    target.before_export = refusing(problem, odd.run_id)
    report = observer.tick(instance, BUDGET)
    assert target.new_words_of(other) == [["a word"]]
    assert list(report.failures.values()) == [problem]
    assert report.unavailable is None
    assert f"run {odd.run_id} cannot be exported: a span without a name" in str(report)
    assert set(followed(instance, target)) == {odd.run_id, other.run_id}


def test_a_run_whose_end_is_exported_later_is_not_a_failure_and_is_tried_in_every_tick(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    open_elsewhere, other = begin(instance, "a word"), begin(instance)
    target.before_export = refusing(NotYetError("its process is about to exit"), open_elsewhere.run_id)
    for _ in range(3):
        report = observer.tick(instance, BUDGET)
        assert (report.failures, report.unavailable) == ({}, None)
    assert target.offered.count(open_elsewhere.run_id) == 3
    assert target.offered.count(other.run_id) == 1
    target.before_export = refusing(AWAY, "nobody")
    observer.tick(instance, BUDGET)
    assert target.new_words_of(open_elsewhere) == [["a word"]]


def test_a_run_that_cannot_be_exported_is_tried_less_and_less_often(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget, clock: Clock
) -> None:
    run = begin(instance, "a word")
    target.before_export = refusing(ValueError("a span without a name"))
    seconds, tried = 0, []
    while len(tried) < 9:
        if observer.tick(instance, BUDGET).failures:
            tried.append(seconds)
        clock.forward(1)
        seconds += 1
    pauses = [later - earlier for earlier, later in pairwise(tried)]
    longest = LONGEST_PAUSE_SECONDS
    assert pauses == pytest.approx([5, 10, 20, 40, 80, 160, longest, longest], abs=2)

    target.before_export = refusing(AWAY, "nobody")
    clock.forward(LONGEST_PAUSE_SECONDS)
    observer.tick(instance, BUDGET)
    assert target.new_words_of(run) == [["a word"]]
    run.write("another")
    observer.tick(instance, BUDGET)
    assert target.new_words_of(run) == [["a word"], ["another"]]


def test_records_of_a_failed_export_are_exported_after_the_earlier_ones(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget, clock: Clock
) -> None:
    run = begin(instance, "one")
    observer.tick(instance, BUDGET)
    clock.forward(STABLE_SECONDS)
    observer.tick(instance, BUDGET)
    run.write("two")
    target.before_export = refusing(ValueError("a span without a name"))
    observer.tick(instance, BUDGET)
    target.before_export = refusing(AWAY, "nobody")
    run.write("three")
    clock.forward(10)
    observer.tick(instance, BUDGET)
    assert target.new_words_of(run) == [["one"], ["two", "three"]]


# Budget


def test_a_tick_ends_when_its_budget_is_used_and_the_next_ones_export_the_rest(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget, clock: Clock
) -> None:
    runs = [begin(instance) for _ in range(7)]
    target.before_export = lambda key: clock.forward(1.0)  # takes a second, and refuses nothing
    exported = []
    for _ in range(3):
        report = observer.tick(instance, budget=2.5)
        assert report.waiting == len(runs)
        exported.append(report.runs)
    assert exported == [3, 3, 1]
    assert len(target.offered) == len(set(target.offered)) == len(runs)


def test_runs_that_change_in_every_tick_delay_a_new_one_for_one_round_only(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget, clock: Clock
) -> None:
    busy = [begin(instance) for _ in range(4)]
    target.before_export = lambda key: clock.forward(1.0)
    observer.tick(instance, budget=BUDGET)
    new = begin(instance, "a word")
    for _ in range(4):
        for run in busy:
            run.write("more")
        observer.tick(instance, budget=1.5)
    assert target.new_words_of(new) == [["a word"]]
    assert {len(target.of(run)) for run in busy} <= {2, 3}
