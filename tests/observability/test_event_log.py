"""Tests the histories of runs, read from event logs in any number of portions and of any executor."""

from collections.abc import Sequence
from itertools import pairwise

import dagster as dg
import pytest
from dagster import DagsterEventType
from hypothesis import given, settings
from hypothesis import strategies as st

from ledgerline.ledger.event_log import HistoryReader, read_history
from ledgerline.ledger.history import Attempt, Outcome, RunStatus
from ledgerline.testing.recordings import Recording, Recordings
from tests.observability.histories import IN_A_PROCESS, RETRY, SUCCESS, check_times, outline, type_of

# For every log


def test_a_history_does_not_depend_on_the_portions_in_which_it_is_read(recording: Recording) -> None:
    records = recording.records

    @settings(max_examples=25, deadline=None, database=None)
    @given(cuts=st.sets(st.integers(1, len(records))))
    def read_in_portions(cuts: set[int]) -> None:
        reader = HistoryReader(recording.run)
        so_far = []
        for start, end in pairwise([0, *sorted(cuts), len(records)]):
            reader.feed(records[start:end])
            so_far.append((end, reader.history()))
        # Checked afterwards: earlier histories must not change with later records.
        for end, history in so_far:
            assert history == recording.history_of(records[:end])

    read_in_portions()


def test_unchanged_parts_are_the_same_objects_as_before(recording: Recording) -> None:
    reader = HistoryReader(recording.run)
    before: Sequence[Attempt] = ()
    for record in recording.records:
        reader.feed([record])
        history = reader.history()
        for earlier, now in zip(before, history.attempts, strict=False):
            assert now is earlier or now != earlier or now.ended is None
        before = history.attempts
        assert all(again is now for again, now in zip(reader.history().attempts, before, strict=True))


def test_the_attempts_that_ended_between_two_histories_are_returned_once(recording: Recording) -> None:
    reader = HistoryReader(recording.run)
    before, returned = None, []
    for record in recording.records:
        reader.feed([record])
        now = reader.history()
        returned += now.ended_since(before)
        before = now
    assert sorted(returned, key=_ended) == sorted(recording.history.attempts, key=_ended)


def test_times_are_in_order(recording: Recording) -> None:
    check_times(recording.history)


def test_the_attempts_at_a_step_are_numbered_from_one(recording: Recording) -> None:
    attempts = recording.history.attempts
    for step in {attempt.step for attempt in attempts}:
        numbers = [attempt.number for attempt in attempts if attempt.step == step]
        assert numbers == list(range(1, len(numbers) + 1))


def test_a_run_that_has_ended_has_no_attempt_that_goes_on(recording: Recording) -> None:
    history = recording.history
    assert history.finished
    assert history.status in (RunStatus.SUCCESS, RunStatus.FAILURE, RunStatus.CANCELED)
    assert (history.error is None) == (history.status is RunStatus.SUCCESS)
    for attempt in history.attempts:
        assert attempt.ended is not None
        assert attempt.outcome is not Outcome.RUNNING
        assert attempt.failed == (attempt.outcome is not SUCCESS)


def test_a_phase_has_its_name_to_itself(recording: Recording) -> None:
    for attempt in recording.history.attempts:
        names = [phase.name for phase in attempt.phases]
        assert len(names) == len(set(names))


def test_the_history_of_a_stored_run_is_read_as_a_whole(
    instance_of_runs: dg.DagsterInstance, recording: Recording
) -> None:
    assert read_history(instance_of_runs, recording.run.run_id) == recording.history_with_reads


def test_an_unknown_run_has_no_history(instance_of_runs: dg.DagsterInstance) -> None:
    assert read_history(instance_of_runs, "00000000-0000-0000-0000-000000000000") is None


def _ended(attempt: Attempt) -> tuple[float, str]:
    return attempt.ended or 0.0, attempt.step


# Executors


def test_steps_in_one_process_share_the_resources_of_their_run(recorded: Recordings) -> None:
    history = recorded["ops"].history
    assert (history.status, history.title, history.error) == (RunStatus.SUCCESS, "counting", None)
    assert outline(history) == [
        ("fetch", 1, SUCCESS, ("compute", "store result")),
        ("count", 1, SUCCESS, ("load rows", "compute", "store result")),
    ]
    assert [attempt.inputs for attempt in history.attempts] == [(), ("rows",)]
    assert [phase.name for phase in history.phases] == ["resources"]
    assert (history.planned, history.skipped, history.materialisations) == ((), (), [])


def test_the_only_step_of_a_run_has_the_resources_to_itself(recorded: Recordings) -> None:
    history = recorded["one op"].history
    assert outline(history) == [("fetch", 1, SUCCESS, ("resources", "compute", "store result"))]
    assert history.phases == ()


@pytest.mark.parametrize("run", ["ops", "one op"])
def test_reading_the_outputs_of_a_run_afterwards_adds_nothing_to_it(recorded: Recordings, run: str) -> None:
    read = recorded[f"{run}, read afterwards"]
    assert read.records[-2].event_log_entry.timestamp > (read.history.ended or 0)
    assert outline(read.history) == outline(recorded[run].history)
    assert len(read.history.phases) == len(recorded[run].history.phases)


def test_a_run_without_a_queue_is_launched_when_it_is_created(recorded: Recordings) -> None:
    recording = recorded["ops"]
    (launch,) = recording.history.waits
    assert (launch.name, launch.started, launch.ended) == (
        "launch",
        recording.run.created,
        recording.history.started,
    )


def test_steps_in_separate_processes_have_separate_resources(recorded: Recordings) -> None:
    history = recorded["processes"].history
    assert history.status is RunStatus.SUCCESS
    assert sorted(outline(history)) == [
        ("airlines", 1, RETRY, (*IN_A_PROCESS, "compute")),
        ("airlines", 2, SUCCESS, (*IN_A_PROCESS, "compute", "store result")),
        ("fleet", 1, SUCCESS, (*IN_A_PROCESS, "load planes", "compute", "store result")),
        ("planes", 1, SUCCESS, (*IN_A_PROCESS, "compute", "store result")),
    ]
    assert history.phases == ()
    pids = {attempt.pid for attempt in history.attempts}
    assert len(pids) == 4
    assert None not in pids


def test_delegated_steps_have_the_same_history_as_others(recorded: Recordings) -> None:
    history = recorded["delegated"].history
    assert history.status is RunStatus.SUCCESS
    stored = ("compute", "store result[east]", "compute #2", "store result[west]")
    assert sorted(outline(history)) == [
        ("doubled.double[east]", 1, SUCCESS, (*IN_A_PROCESS, "load number", "compute", "store result")),
        ("doubled.double[west]", 1, SUCCESS, (*IN_A_PROCESS, "load number", "compute", "store result")),
        ("split_at_last", 1, RETRY, (*IN_A_PROCESS, "compute")),
        ("split_at_last", 2, SUCCESS, (*IN_A_PROCESS, *stored)),
    ]
    assert {attempt.op for attempt in history.attempts} == {"split_at_last", "doubled.double"}


@pytest.mark.parametrize(
    "left_out",
    [
        {DagsterEventType.STEP_WORKER_STARTING},
        {DagsterEventType.STEP_WORKER_STARTING, DagsterEventType.STEP_WORKER_STARTED},
    ],
    ids=["starting", "starting and started"],
)
def test_an_executor_need_not_report_that_it_starts_a_process(
    recorded: Recordings, left_out: set[DagsterEventType]
) -> None:
    recording = recorded["delegated"]
    history = recording.history_of(
        [record for record in recording.records if type_of(record) not in left_out]
    )
    assert sorted(outline(history)) == [
        (step, number, outcome, phases[1:])
        for step, number, outcome, phases in sorted(outline(recording.history))
    ]
    assert {attempt.op for attempt in history.attempts} == {"split_at_last", "doubled.double"}
    check_times(history)


def test_a_mapped_step_is_an_op_executed_for_one_output(recorded: Recordings) -> None:
    history = recorded["mapped"].history
    assert outline(history) == [
        ("split", 1, SUCCESS, ("compute", "store result[east]", "compute #2", "store result[west]")),
        ("doubled.double[east]", 1, SUCCESS, ("load number", "compute", "store result")),
        ("doubled.double[west]", 1, SUCCESS, ("load number", "compute", "store result")),
        ("total", 1, SUCCESS, ("load numbers", "compute", "store result")),
    ]
    assert [attempt.op for attempt in history.attempts] == [
        "split",
        "doubled.double",
        "doubled.double",
        "total",
    ]
    total = history.attempts[-1]
    assert total.inputs == ("numbers",)  # one input, though it was loaded from two outputs
    assert [phase.kind for phase in total.phases] == ["load", "compute", "store"]
    assert total.phases[0].seconds > 0
    split = history.attempts[0]
    assert [phase.kind for phase in split.phases] == ["compute", "store", "compute", "store"]


def test_the_history_of_a_queued_run_has_the_time_in_the_queue(recorded: Recordings) -> None:
    history = recorded["queued"].history
    assert history.status is RunStatus.SUCCESS
    queue, launch = history.waits
    assert (queue.name, queue.started, queue.ended) == ("queued", history.enqueued, history.dequeued)
    assert (launch.name, launch.started, launch.ended) == ("launch", history.dequeued, history.started)
    assert [attempt.step for attempt in history.attempts] == ["fetch", "count"]
