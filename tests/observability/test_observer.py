"""Following runs: all of them, each record at least once, in order, whatever a target or a process does."""

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import dagster as dg
import pytest

from ledgerline.ledger.cursors import OVERLAP_SECONDS, Cursors
from ledgerline.ledger.observer import (
    FIRST_POLL_SECONDS,
    LINGER_SECONDS,
    LONGEST_PAUSE_SECONDS,
    RUNS_AT_ONCE,
    Observer,
)
from ledgerline.ledger.projection import NotYetError, TargetUnavailableError
from ledgerline.ledger.tail import STABLE_SECONDS
from ledgerline.testing.written_runs import (
    Clock,
    FakeTarget,
    begin,
    words_of,
)
from tests.observability.followed_runs import AWAY, BUDGET, refusing

HOUR = 3600.0


@pytest.fixture(params=["one table", "a file for each run"])
def any_instance(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """Dagster's event log in both of its shapes; the second is the default."""
    if request.param == "one table":
        yield request.getfixturevalue("instance")
        return
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


def followed(instance: dg.DagsterInstance, target: FakeTarget) -> list[str]:
    cursors = Cursors.load(instance.run_storage, target.name)
    assert cursors is not None
    return list(cursors.active)


# Selection of runs


def test_the_first_tick_finds_runs_that_are_under_way_however_old_they_are(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    run = begin(instance, "a word", seconds_ago=24 * HOUR)
    observer.tick(instance, BUDGET)
    assert target.new_words_of(run) == [["a word"]]


def test_the_first_tick_finds_runs_that_ended_within_the_first_look_and_none_before(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    begin(instance, seconds_ago=2 * HOUR).end(seconds_ago=FIRST_POLL_SECONDS + OVERLAP_SECONDS + 60)
    lately = begin(instance, "a word", seconds_ago=2 * HOUR)
    lately.end(seconds_ago=FIRST_POLL_SECONDS - 60)
    report = observer.tick(instance, BUDGET)
    assert target.offered == [lately.run_id]
    assert (report.runs, report.written, report.waiting) == (1, 1, 0)


def test_a_run_from_start_to_end_between_two_ticks_is_found(
    any_instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    observer.tick(any_instance, BUDGET)
    run = begin(any_instance, "a word")
    run.end()
    observer.tick(any_instance, BUDGET)
    assert target.new_words_of(run) == [["a word"]]
    assert target.exports[0].now.finished


def test_runs_of_a_machine_whose_clock_is_behind_are_found(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    begin(instance).end()
    observer.tick(instance, BUDGET)
    run = begin(instance, "a word", seconds_ago=OVERLAP_SECONDS - 5)
    run.end(seconds_ago=OVERLAP_SECONDS - 5)
    observer.tick(instance, BUDGET)
    assert target.new_words_of(run) == [["a word"]]


def test_runs_that_went_on_while_nobody_looked_are_found_however_long_that_was(
    instance: dg.DagsterInstance, target: FakeTarget
) -> None:
    begin(instance, seconds_ago=48 * HOUR).end(seconds_ago=48 * HOUR)
    cursors = Cursors(target.name, updated=time.time() - 48 * HOUR)
    cursors.save(instance.run_storage)
    run = begin(instance, "a word", seconds_ago=24 * HOUR)
    run.end(seconds_ago=24 * HOUR)
    Observer(target).tick(instance, BUDGET)
    assert target.new_words_of(run) == [["a word"]]


def test_more_runs_than_are_looked_at_together_are_all_shown(
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


def test_each_part_of_several_runs_is_shown_once_and_in_order(
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
    assert [shown.now.finished for shown in target.of(one)] == [False, True]


def test_what_was_shown_before_is_exactly_that(
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


def test_nothing_is_shown_when_nothing_is_new(
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


def test_the_last_words_of_a_run_that_has_ended_are_shown(
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


def test_last_words_are_waited_for_by_the_next_process_too(
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


def test_a_finished_run_that_is_changed_once_more_is_shown_once_more(
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


def test_a_run_that_is_deleted_is_forgotten(
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


# Targets that do not take it


def test_a_target_that_is_away_ends_the_tick_and_is_named(
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


def test_what_a_target_did_not_take_is_shown_when_it_is_back(
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


def test_nothing_is_lost_if_the_process_ends_while_the_target_is_away(
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


def test_a_run_that_the_target_never_takes_keeps_no_other_waiting(
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


def test_while_a_target_is_away_only_so_many_runs_are_noted_and_later_all_are_shown(
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
    assert {shown.run_id for shown in target.exports} == {run.run_id for run in runs}


def test_a_run_that_cannot_be_shown_keeps_no_other_waiting(
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


def test_a_run_whose_end_is_to_be_shown_later_is_no_failure_and_is_tried_in_every_tick(
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


def test_a_run_that_cannot_be_shown_is_tried_again_ever_less_often(
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


def test_what_a_run_wrote_while_it_could_not_be_shown_is_shown_after_what_was(
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


def test_when_its_time_is_over_a_tick_ends_and_the_next_ones_show_the_rest(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget, clock: Clock
) -> None:
    runs = [begin(instance) for _ in range(7)]
    target.before_export = lambda key: clock.forward(1.0)  # takes a second, and refuses nothing
    shown = []
    for _ in range(3):
        report = observer.tick(instance, budget=2.5)
        assert report.waiting == len(runs)
        shown.append(report.runs)
    assert shown == [3, 3, 1]
    assert len(target.offered) == len(set(target.offered)) == len(runs)


def test_runs_that_always_have_news_keep_a_new_one_waiting_for_one_round_only(
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


# Another process


def test_the_next_process_shows_nothing_again_that_has_settled(
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


def test_the_next_process_shows_again_at_most_what_had_not_settled(
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


def test_projections_have_cursors_of_their_own(instance: dg.DagsterInstance) -> None:
    run = begin(instance, "a word")
    traces, runs = FakeTarget("traces"), FakeTarget("runs", before_export=refusing(AWAY))
    for target in (traces, runs):
        Observer(target).tick(instance, BUDGET)
    runs.before_export = refusing(AWAY, "nobody")
    Observer(runs).tick(instance, BUDGET)
    assert traces.new_words_of(run) == runs.new_words_of(run) == [["a word"]]


# One run, when somebody asks for it


def test_a_run_that_somebody_asks_for_is_shown_from_its_beginning(
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


def test_a_finished_run_that_was_asked_for_is_not_shown_again(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    observer.tick(instance, BUDGET)
    run = begin(instance, seconds_ago=60)
    run.end(seconds_ago=LINGER_SECONDS + 1)
    observer.export_run(instance, run.record)
    observer.tick(instance, BUDGET)
    assert len(target.exports) == 1
    assert followed(instance, target) == []


def test_last_words_are_shown_of_a_run_that_was_asked_for_when_it_had_just_ended(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    observer.tick(instance, BUDGET)
    run = begin(instance)
    run.end()
    observer.export_run(instance, run.record)
    run.write("a last word")
    observer.tick(instance, BUDGET)
    assert words_of(target.exports[-1].now) == ["a last word"]


def test_asking_for_a_run_is_no_first_look(
    instance: dg.DagsterInstance, observer: Observer, target: FakeTarget
) -> None:
    before = begin(instance, "a word", seconds_ago=60)
    before.end(seconds_ago=30)
    asked = begin(instance, seconds_ago=40)
    asked.end(seconds_ago=20)
    observer.export_run(instance, asked.record)
    observer.tick(instance, BUDGET)
    assert target.new_words_of(before) == [["a word"]]


def test_a_run_that_was_asked_for_in_vain_is_shown_later(
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
