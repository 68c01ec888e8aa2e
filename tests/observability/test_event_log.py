"""The histories of real runs, for any executor, any failure, and any number of portions of the event log."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import pairwise

import dagster as dg
import pytest
from dagster import DagsterEvent, DagsterEventType, EventLogRecord
from dagster._core.execution.plan.objects import StepFailureData
from dagster_shared.error import SerializableErrorInfo
from hypothesis import given, settings
from hypothesis import strategies as st

from ledgerline.ledger.event_log import HistoryReader, read_history
from ledgerline.ledger.history import (
    COMPUTE,
    STORE,
    Attempt,
    Error,
    Outcome,
    Phase,
    Run,
    RunHistory,
    RunStatus,
)
from ledgerline.testing.recordings import Recording, Recordings

SUCCESS, FAILURE, RETRY, INTERRUPTED = Outcome.SUCCESS, Outcome.FAILURE, Outcome.RETRY, Outcome.INTERRUPTED
IN_A_PROCESS = ("start worker", "resources")  # what a step goes through before it begins

ROUNDING = 1e-6  # seconds: times are floats since 1970
SKEW = 30.0  # seconds; longer than any process here takes to start


def outline(history: RunHistory) -> list[tuple[str, int, Outcome, tuple[str, ...]]]:
    """Return its attempts: step, number, outcome, names of phases."""
    return [
        (attempt.step, attempt.number, attempt.outcome, tuple(phase.name for phase in phases_of(attempt)))
        for attempt in history.attempts
    ]


def phases_of(attempt: Attempt) -> Sequence[Phase]:
    """Return an attempt's phases up to the last output: on a busy machine, recording it may take long."""
    if attempt.outcome is SUCCESS and [phase.kind for phase in attempt.phases[-2:]] == [STORE, COMPUTE]:
        return attempt.phases[:-1]
    return attempt.phases


def attempt_at(history: RunHistory, step: str, number: int = 1) -> Attempt:
    (found,) = [each for each in history.attempts if (each.step, each.number) == (step, number)]
    return found


def failed_phases(attempt: Attempt) -> list[str]:
    return [phase.name for phase in attempt.phases if phase.failed]


def words(error: Error | None) -> list[str]:
    """The error and its causes, as a traceback would end."""
    assert error is not None
    return [f"{each.type}: {each.message}" for each in (error, *error.causes)]


# For every log


def test_a_history_is_the_same_in_whatever_portions_it_is_read(recording: Recording) -> None:
    records = recording.records

    @settings(max_examples=25, deadline=None, database=None)
    @given(cuts=st.sets(st.integers(1, len(records))))
    def read_in_portions(cuts: set[int]) -> None:
        reader = HistoryReader(recording.run)
        so_far = []
        for start, end in pairwise([0, *sorted(cuts), len(records)]):
            reader.feed(records[start:end])
            so_far.append((end, reader.history()))
        # Afterwards: what was said before must not change with what is fed later.
        for end, history in so_far:
            assert history == recording.history_of(records[:end])

    read_in_portions()


def test_what_did_not_change_is_the_same_object_as_before(recording: Recording) -> None:
    reader = HistoryReader(recording.run)
    before: Sequence[Attempt] = ()
    for record in recording.records:
        reader.feed([record])
        history = reader.history()
        for earlier, now in zip(before, history.attempts, strict=False):
            assert now is earlier or now != earlier or now.ended is None
        before = history.attempts
        assert all(again is now for again, now in zip(reader.history().attempts, before, strict=True))


def test_the_attempts_that_ended_between_two_histories_are_told_once(recording: Recording) -> None:
    reader = HistoryReader(recording.run)
    before, told = None, []
    for record in recording.records:
        reader.feed([record])
        now = reader.history()
        told += now.ended_since(before)
        before = now
    assert sorted(told, key=_ended) == sorted(recording.history.attempts, key=_ended)


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


def test_a_run_that_nobody_knows_has_no_history(instance_of_runs: dg.DagsterInstance) -> None:
    assert read_history(instance_of_runs, "00000000-0000-0000-0000-000000000000") is None


def check_times(history: RunHistory) -> None:
    """Nothing takes less than no time, and everything lies in what it is a part of."""
    assert history.ended is not None
    for phase in (*history.phases, *history.waits):
        assert phase.seconds >= 0
    for attempt in history.attempts:
        assert attempt.ended is not None
        assert attempt.seconds is not None
        assert attempt.seconds >= 0
        for phase in attempt.phases:
            assert phase.seconds >= 0
            assert phase.started >= attempt.started - ROUNDING
            assert phase.ended <= attempt.ended + ROUNDING
        for event in (*attempt.materialisations, *attempt.observations, *attempt.checks):
            assert attempt.started - ROUNDING <= event.time <= attempt.ended + ROUNDING


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


def test_steps_in_processes_of_their_own_have_each_their_resources(recorded: Recordings) -> None:
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


def test_steps_that_an_executor_delegates_are_told_as_those_of_others(recorded: Recordings) -> None:
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
def test_an_executor_need_not_say_that_it_starts_a_process(
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
    assert total.seconds_in("load") == total.phases[0].seconds > 0
    split = history.attempts[0]
    _, east, _, west, *_ = split.phases
    assert split.seconds_in("store") == east.seconds + west.seconds


def test_a_run_that_was_queued_says_how_long_it_waited(recorded: Recordings) -> None:
    history = recorded["queued"].history
    assert history.status is RunStatus.SUCCESS
    queue, launch = history.waits
    assert (queue.name, queue.started, queue.ended) == ("queued", history.enqueued, history.dequeued)
    assert (launch.name, launch.started, launch.ended) == ("launch", history.dequeued, history.started)
    assert [attempt.step for attempt in history.attempts] == ["fetch", "count"]


# Assets


def test_a_materialisation_names_the_versions_that_it_was_made_from(recorded: Recordings) -> None:
    history = recorded["processes"].history
    assert history.planned == ("airlines", "fleet", "planes")
    written = {each.asset: each for each in history.materialisations}
    versions = {asset: each.data_version for asset, each in written.items()}
    assert len(set(versions.values())) == 3
    assert {asset: each.code_version for asset, each in written.items()} == {
        "planes": "1",
        "airlines": "2",
        "fleet": history.run.run_id,
    }
    assert [(read.asset, read.recorded) for read in written["fleet"].reads] == [
        ("airlines", versions["airlines"]),
        ("planes", versions["planes"]),
    ]
    assert (written["planes"].reads, written["airlines"].reads) == ((), ())
    assert (written["planes"].rows, written["airlines"].rows) == (3_322, None)
    # It depends on airlines without loading them.
    assert attempt_at(history, "fleet").inputs == ("planes",)


def test_a_range_of_partitions_is_one_attempt_with_a_materialisation_for_each(recorded: Recordings) -> None:
    history = recorded["partitions"].history
    assert history.title == "delays, flights, weather monday...tuesday"
    assert history.run.partition_range == ("monday", "tuesday")
    assert outline(history) == [
        ("flights", 1, SUCCESS, ("compute", "store result")),
        ("weather", 1, SUCCESS, ("compute", "store result")),
        ("delays", 1, SUCCESS, ("load flights", "load weather", "compute", "store result")),
    ]
    assert attempt_at(history, "delays").inputs == ("flights", "weather")
    flights = attempt_at(history, "flights").materialisations
    assert {(each.partition, each.rows, each.content_sha256) for each in flights} == {
        ("monday", 100, "digest of monday"),
        ("tuesday", 101, "digest of tuesday"),
    }
    assert flights[0].schema == dg.TableSchema([dg.TableColumn("tailnum", "string")])
    assert flights[0].schema is flights[1].schema
    delays = attempt_at(history, "delays").materialisations
    assert {each.partition for each in delays} == {"monday", "tuesday"}
    assert delays[0].column_lineage is delays[1].column_lineage
    assert delays[0].column_lineage is not None
    assert delays[0].column_lineage.deps_by_column["delay"][0].asset_key == dg.AssetKey("flights")
    # Dagster records one version for several partitions: a digest of their versions.
    of_flights = sha256("".join(str(each.data_version) for each in flights).encode()).hexdigest()
    for each in delays:
        reads = [(read.asset, read.recorded) for read in each.reads]
        assert reads == [("flights", of_flights), ("weather", "weather of 2013")]


def test_an_observation_is_told_with_the_attempt_that_made_it(recorded: Recordings) -> None:
    (observation,) = attempt_at(recorded["partitions"].history, "delays").observations
    assert (observation.asset, observation.partition, observation.data_version) == ("runways", "JFK", None)


def test_a_source_that_was_observed_has_the_version_that_was_seen(recorded: Recordings) -> None:
    history = recorded["observed"].history
    assert outline(history) == [("tower", 1, SUCCESS, ("resources", "compute"))]
    (observation,) = history.attempts[0].observations
    assert (observation.asset, observation.partition, observation.data_version) == ("tower", None, "open")
    assert history.materialisations == []


@pytest.mark.parametrize(
    "job",
    [
        "__ASSET_JOB",
        "__ASSET_JOB_1",
        "__ASSET_JOB_12",
        "__ephemeral_asset_job__",
        "__anonymous_asset_job_of_the_sensor",
    ],
)
def test_a_run_without_a_job_of_its_own_is_called_by_its_assets(job: str) -> None:
    run = Run("11111111-2222-4333-8444-555555555555", job, created=1_000.0)
    planned = ("flights", "planes", "weather", "airports", "airlines")
    assert RunHistory(run, planned=planned[:2]).title == "flights, planes"
    assert RunHistory(run, planned=planned).title == "flights, planes, weather and 2 more"
    selected = replace(
        run, selection=("flights", "flights has_rows"), tags={"dagster/partition": "2013-01-01"}
    )
    assert RunHistory(selected).title == "flights, flights has_rows 2013-01-01"
    assert RunHistory(run).title == "assets"
    assert RunHistory(replace(run, job=f"my{job}")).title == f"my{job}"


def test_an_observation_is_called_by_what_it_observes(recorded: Recordings) -> None:
    assert recorded["observed"].history.title == "tower"


def test_only_the_assets_that_were_selected_are_planned_and_written(recorded: Recordings) -> None:
    history = recorded["some outputs"].history
    assert history.planned == ("departures", "diversions")
    assert outline(history) == [("movements", 1, SUCCESS, ("resources", "compute"))]
    assert [(each.asset, each.rows) for each in history.materialisations] == [
        ("departures", 0),
        ("diversions", 1),
    ]


def test_what_was_written_before_a_failure_is_told(recorded: Recordings) -> None:
    history = recorded["half an output"].history
    assert history.status is RunStatus.FAILURE
    assert history.planned == ("first_half", "second_half")
    phases = ("resources", "compute", "store first_half", "compute #2")
    assert outline(history) == [("halves", 1, FAILURE, phases)]
    assert [each.asset for each in history.materialisations] == ["first_half"]
    (attempt,) = history.attempts
    assert failed_phases(attempt) == ["compute #2"]
    assert words(attempt.error) == ["ValueError: the second half is missing"]


def test_the_steps_of_a_graph_asset_are_told_and_the_last_one_writes_it(recorded: Recordings) -> None:
    history = recorded["graph asset"].history
    assert outline(history) == [
        ("oldest_plane.read_planes", 1, SUCCESS, ("compute", "store result")),
        ("oldest_plane.oldest", 1, SUCCESS, ("load planes", "compute", "store result")),
        ("retired", 1, SUCCESS, ("load oldest_plane", "compute", "store result")),
    ]
    assert [attempt.op for attempt in history.attempts] == [attempt.step for attempt in history.attempts]
    oldest, retired = history.materialisations
    assert (oldest.asset, retired.asset) == ("oldest_plane", "retired")
    assert [(read.asset, read.recorded) for read in retired.reads] == [("oldest_plane", oldest.data_version)]


def test_checks_are_told_and_a_blocking_one_fails_its_step(recorded: Recordings) -> None:
    history = recorded["checks"].history
    assert history.status is RunStatus.FAILURE
    assert outline(history) == [
        ("checked", 1, SUCCESS, ("compute",)),
        ("checked_plausible_values", 1, SUCCESS, ("compute",)),
        ("checked_unique_key", 1, FAILURE, ("compute",)),
    ]
    assert [
        (check.asset, check.name, check.passed, check.severity, check.description)
        for attempt in history.attempts
        for check in attempt.checks
    ] == [
        ("checked", "has_rows", True, "ERROR", "3 rows"),
        ("checked", "plausible_values", False, "WARN", None),
        ("checked", "unique_key", False, "ERROR", "2 rows share a key"),
    ]
    assert [each.asset for each in history.materialisations] == ["checked"]
    assert history.planned == ("after_checked", "checked")
    (error,) = words(history.attempts[-1].error)
    assert error == (
        "dagster._core.errors.DagsterAssetCheckFailedError: "
        "1 blocking asset check failed with ERROR severity:\nchecked: unique_key"
    )


def test_steps_whose_inputs_were_not_made_are_skipped(recorded: Recordings) -> None:
    history = recorded["skipped"].history
    assert history.status is RunStatus.SUCCESS
    assert outline(history) == [
        ("sort_flights", 1, SUCCESS, ("compute", "store late")),
        ("excuse", 1, SUCCESS, ("load flights", "compute", "store result")),
    ]
    assert history.skipped == ("praise", "publish")


# Failures


def test_an_error_is_told_with_what_it_came_from(recorded: Recordings) -> None:
    history = recorded["errors"].history
    assert {attempt.step: words(attempt.error) for attempt in history.attempts} == {
        "chained": [
            "RuntimeError: The features were not made.",
            "ValueError: row 7 has no plane",
            "KeyError: 'tailnum'",
        ],
        "during_another": ["ValueError: row 7 has no plane", "KeyError: 'tailnum'"],
        "without_a_message": ["NotImplementedError: "],
        "on_purpose": ["dagster._core.definitions.events.Failure: The flights of today: none."],
    }
    for attempt in history.attempts:
        assert (attempt.outcome, failed_phases(attempt)) == (FAILURE, ["compute"])
    chained = attempt_at(history, "chained").error
    assert chained is not None
    assert chained.root.type == "KeyError"
    assert 'raise RuntimeError("The features were not made.") from error' in chained.stack
    assert words(history.error) == words(chained)


def test_an_attempt_that_is_retried_has_its_own_error(recorded: Recordings) -> None:
    history = recorded["retries"].history
    assert history.status is RunStatus.FAILURE
    assert sorted(outline(history)) == [
        ("ask_for_a_retry", 1, RETRY, ("compute",)),
        ("ask_for_a_retry", 2, SUCCESS, ("compute",)),
        ("fail_always", 1, RETRY, ("compute",)),
        ("fail_always", 2, RETRY, ("compute",)),
        ("fail_always", 3, FAILURE, ("compute",)),
        ("fail_once", 1, RETRY, ("compute",)),
        ("fail_once", 2, SUCCESS, ("compute",)),
    ]
    errors = {
        "ask_for_a_retry": ["TimeoutError: 10 s are over"],
        "fail_always": ["ConnectionError: nobody answers", "OSError: no route"],
        "fail_once": ["ConnectionError: nobody answers"],
    }
    for attempt in history.attempts:
        if attempt.outcome is SUCCESS:
            assert attempt.error is None
        else:
            assert words(attempt.error) == errors[attempt.step]


def test_an_input_that_cannot_be_loaded_is_where_the_step_failed(recorded: Recordings) -> None:
    history = recorded["unreadable"].history
    assert outline(history) == [
        ("planes", 1, SUCCESS, ("compute", "store result")),
        ("fleet", 1, FAILURE, ("load",)),
    ]
    fleet = attempt_at(history, "fleet")
    assert words(fleet.error) == ["FileNotFoundError: planes.parquet is gone"]
    assert (fleet.inputs, failed_phases(fleet)) == ((), ["load"])


def test_an_output_that_cannot_be_stored_was_computed_all_the_same(recorded: Recordings) -> None:
    history = recorded["unwritable"].history
    assert outline(history) == [("planes", 1, FAILURE, ("compute", "store result"))]
    (planes,) = history.attempts
    assert failed_phases(planes) == ["store result"]
    assert words(planes.error) == [
        "RuntimeError: The rows were not written.",
        "OSError: [Errno 28] No space left on device",
    ]
    assert history.materialisations == []


def test_a_process_that_dies_fails_its_attempt(recorded: Recordings) -> None:
    history = recorded["crash"].history
    assert history.status is RunStatus.FAILURE
    assert outline(history) == [
        ("crash", 1, RETRY, (*IN_A_PROCESS, "compute")),
        ("crash", 2, FAILURE, (*IN_A_PROCESS, "compute")),
    ]
    for attempt in history.attempts:
        assert attempt.error is not None
        assert attempt.error.type.endswith(".ChildProcessCrashException")
        assert failed_phases(attempt) == ["compute"]


@pytest.mark.parametrize(
    ("run", "before"), [("no resource", ()), ("no resource in a process", ("start worker",))]
)
def test_a_step_whose_resource_cannot_be_had_computes_nothing(
    recorded: Recordings, run: str, before: tuple[str, ...]
) -> None:
    history = recorded[run].history
    assert history.status is RunStatus.FAILURE
    assert outline(history) == [("ask", 1, FAILURE, (*before, "resources"))]
    (ask,) = history.attempts
    assert failed_phases(ask) == ["resources"]
    assert words(ask.error) == ["ConnectionError: nobody answers"]


def test_a_run_whose_resource_cannot_be_had_attempts_nothing(recorded: Recordings) -> None:
    history = recorded["no resource for two steps"].history
    assert (history.status, history.attempts) == (RunStatus.FAILURE, ())
    assert [(phase.name, phase.failed) for phase in history.phases] == [("resources", True)]
    assert words(history.error) == ["ConnectionError: nobody answers"]


@pytest.mark.parametrize(
    ("run", "phases"),
    [("canceled", ("compute",)), ("canceled in a process", (*IN_A_PROCESS, "compute"))],
)
def test_a_step_under_way_when_its_run_is_canceled_says_so(
    recorded: Recordings, run: str, phases: tuple[str, ...]
) -> None:
    history = recorded[run].history
    assert history.status is RunStatus.CANCELED
    assert outline(history) == [("cancel_the_run", 1, FAILURE, phases)]
    (attempt,) = history.attempts
    assert words(attempt.error)[0] == "dagster._core.errors.DagsterExecutionInterruptedError: "
    assert failed_phases(attempt) == ["compute"]


def test_a_run_that_never_left_the_queue_has_no_attempts(recorded: Recordings) -> None:
    history = recorded["canceled in the queue"].history
    assert (history.status, history.started, history.attempts) == (RunStatus.CANCELED, None, ())
    assert history.enqueued is not None
    assert (history.dequeued, list(history.waits)) == (None, [])
    assert words(history.error) == ["dagster.RunCanceled: Taken out of the queue."]


def test_a_step_that_never_said_how_it_ended_was_interrupted_with_its_run(recorded: Recordings) -> None:
    history = recorded["killed"].history
    assert history.status is RunStatus.FAILURE
    assert words(history.error) == ["dagster.RunFailure: The process of the run is gone."]
    assert outline(history) == [("die", 1, INTERRUPTED, ("compute",))]
    (die,) = history.attempts
    assert (die.ended, die.error, failed_phases(die)) == (history.ended, None, ["compute"])


# Processes that cannot be trusted


def test_what_a_process_does_after_it_was_given_up_on_is_not_counted(recorded: Recordings) -> None:
    recording = recorded["one op"]
    (start,) = [
        index
        for index, record in enumerate(recording.records)
        if type_of(record) is DagsterEventType.STEP_START
    ]
    lost = SerializableErrorInfo("Step fetch failed health check: its pod is gone.", [], None)
    verdict = with_event(
        recording.records[start],
        lambda event: event._replace(
            event_type_value=DagsterEventType.STEP_FAILURE.value,
            event_specific_data=StepFailureData(error=lost, user_failure_data=None),
        ),
    )
    records = [*recording.records[: start + 1], verdict, *recording.records[start + 1 :]]
    history = recording.history_of(records)
    assert outline(history) == [("fetch", 1, FAILURE, ("resources", "compute"))]
    assert words(history.attempts[0].error) == ["Error: Step fetch failed health check: its pod is gone."]
    check_times(history)


@pytest.mark.parametrize(
    ("run", "step", "number"),
    [
        ("processes", "planes", 1),
        ("processes", "airlines", 1),  # its end is told by the process that started it, on another clock
        ("processes", "airlines", 2),
        ("processes", "fleet", 1),
        ("delegated", "split_at_last", 1),
        ("delegated", "doubled.double[west]", 1),
        ("no resource in a process", "ask", 1),  # so is its
    ],
)
def test_a_clock_that_is_behind_changes_nothing(
    recorded: Recordings, run: str, step: str, number: int
) -> None:
    recording = recorded[run]
    true = recording.history
    on_time = attempt_at(true, step, number)
    history = recording.history_of(with_skew(recording.records, on_time.pid, -SKEW))
    check_times(history)
    late = attempt_at(history, step, number)

    # How long the process took to start cannot be told from its clock's being behind.
    start_up = seconds_between(
        recording.records,
        on_time,
        DagsterEventType.STEP_WORKER_STARTING,
        DagsterEventType.STEP_WORKER_STARTED,
    )
    assert late.clock_behind == pytest.approx(SKEW - start_up, abs=ROUNDING * 10)
    assert late.seconds == pytest.approx(on_time.seconds, abs=start_up + ROUNDING * 10)
    assert [phase.name for phase in late.phases] == [phase.name for phase in on_time.phases]
    for phase, true_phase in zip(late.phases, on_time.phases, strict=True):
        assert phase.seconds == pytest.approx(true_phase.seconds, abs=start_up + ROUNDING * 10)
    for attempt in history.attempts:
        assert history.started is not None
        assert history.ended is not None
        assert attempt.ended is not None
        assert history.started <= attempt.started <= attempt.ended <= history.ended
    others = [attempt for attempt in true.attempts if attempt is not on_time]
    assert [attempt for attempt in history.attempts if attempt is not late] == others


def test_a_clock_that_is_ahead_makes_no_time_negative(recorded: Recordings) -> None:
    recording = recorded["processes"]
    for attempt in recording.history.attempts:
        check_times(recording.history_of(with_skew(recording.records, attempt.pid, SKEW)))


def type_of(record: EventLogRecord) -> DagsterEventType | None:
    event = record.event_log_entry.dagster_event
    return event.event_type if event is not None else None


def with_event(record: EventLogRecord, change: Callable[[DagsterEvent], DagsterEvent]) -> EventLogRecord:
    entry = record.event_log_entry
    assert entry.dagster_event is not None
    return record._replace(event_log_entry=entry._replace(dagster_event=change(entry.dagster_event)))


def seconds_between(
    records: Sequence[EventLogRecord], attempt: Attempt, first: DagsterEventType, last: DagsterEventType
) -> float:
    """The time from one event of an attempt to another."""
    times = {
        type_of(record): record.timestamp
        for record in records
        if record.event_log_entry.step_key == attempt.step
        and attempt.started <= record.timestamp <= (attempt.ended or 0.0)
    }
    return times[last] - times[first]


def with_skew(records: Sequence[EventLogRecord], pid: int | None, seconds: float) -> list[EventLogRecord]:
    """The records as they would be if the clock of one process were wrong."""
    assert pid is not None
    skewed = []
    for record in records:
        entry = record.event_log_entry
        if entry.dagster_event is not None and entry.dagster_event.pid == pid:
            entry = entry._replace(timestamp=entry.timestamp + seconds)
        skewed.append(record._replace(event_log_entry=entry))
    return skewed
