"""Tests where the time of an attempt goes: logs of real runs, in which events are given times."""

import io
import logging
from collections.abc import Callable, Mapping
from itertools import accumulate, pairwise

import dagster as dg
import pytest
from dagster import DagsterEventType as Event
from dagster._core.definitions.dependency import NodeHandle
from dagster._core.events import EngineEventData
from dagster._core.execution.plan.handle import StepHandle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.trace import StatusCode
from rich.console import Console

from ledgerline.cli.trace_tree import trace_tree
from ledgerline.ledger.history import Attempt, HookOutcome, Outcome, RunHistory, RunStatus
from ledgerline.mlflow_runs.metrics import run_metrics
from ledgerline.mlflow_runs.timeline import timeline
from ledgerline.testing.recordings import Recording, Recordings
from ledgerline.traces import attributes as names
from tests.observability import phase_jobs as jobs
from tests.observability.exported_spans import attempt_span, spans_of, times_of

ROUNDING = 1e-5  # seconds: times are floats since 1970, and are added up
SECOND = 1_000_000_000
LONG = 10.0  # seconds; longer than Dagster takes to record anything

# The time before an event: the step, which of its events, and which of that kind.
Gaps = Mapping[tuple[str, Event, int], float]


def executed(job: Callable[..., dg.JobDefinition]) -> Callable[[dg.DagsterInstance], str]:
    return lambda instance: dg.execute_job(dg.reconstructable(job), instance).run_id


def of_assets(instance: dg.DagsterInstance) -> str:
    return dg.materialize([jobs.movements, jobs.seats], instance=instance).run_id


def waiting_for_a_pool(instance: dg.DagsterInstance) -> str:
    """A run whose pool is taken by another one."""
    storage = instance.event_log_storage
    storage.set_concurrency_slots(jobs.POOL, 1)
    assert storage.claim_concurrency_slot(jobs.POOL, jobs.OTHER_RUN, jobs.OTHER_STEP).is_claimed
    return executed(jobs.querying)(instance)


RUNS = {
    "outputs": executed(jobs.outputs),
    "io": executed(jobs.io_failures),
    "assets": of_assets,
    "dying": executed(jobs.dying),
    "hooks": executed(jobs.hooked),
    "pool": waiting_for_a_pool,
}


@pytest.fixture(scope="module")
def runs(instance_of_runs: dg.DagsterInstance) -> Recordings:
    """The event log of any of the runs here, by name."""
    return Recordings(instance_of_runs, RUNS)


@pytest.fixture(scope="module", params=list(RUNS))
def run(request: pytest.FixtureRequest, runs: Recordings) -> Recording:
    """Each of them in turn."""
    return runs[request.param]


def with_gaps(recording: Recording, gaps: Gaps) -> RunHistory:
    """The history of a run in which time only passes before the events that are named."""
    left, seen, seconds = dict(gaps), dict[tuple[str, Event], int](), []
    for record in recording.records:
        entry = record.event_log_entry
        gap = 0.0
        if entry.dagster_event is not None and entry.step_key is not None:
            kind = entry.step_key, entry.dagster_event.event_type
            seen[kind] = seen.get(kind, 0) + 1
            gap = left.pop((*kind, seen[kind]), 0.0)
        seconds.append(gap)
    assert not left, f"{left} are not in {list(seen)}"
    return with_times(recording, seconds)


def with_times(recording: Recording, seconds: list[float]) -> RunHistory:
    """The history of a run with other seconds between its events."""
    start = recording.records[0].timestamp
    return recording.history_of(
        [
            record._replace(event_log_entry=record.event_log_entry._replace(timestamp=start + time))
            for record, time in zip(recording.records, accumulate(seconds), strict=True)
        ]
    )


def attempt_at(history: RunHistory, step: str, number: int = 1) -> Attempt:
    (found,) = [each for each in history.attempts if (each.step, each.number) == (step, number)]
    return found


def lengths(attempt: Attempt) -> list[tuple[str, float]]:
    """Return an attempt's phases that take time, in order."""
    return [(phase.name, round(phase.seconds, 4)) for phase in attempt.phases if phase.seconds > ROUNDING]


def failed_phases(attempt: Attempt) -> list[str]:
    return [phase.name for phase in attempt.phases if phase.failed]


def metrics(history: RunHistory) -> dict[str, float]:
    return {metric.key: metric.value for metric in run_metrics(history, None)}


def check_phases(history: RunHistory) -> None:
    """Each moment of an attempt is in one of its phases: in the history, in its spans, in the metrics."""
    spans = spans_of(history)
    for attempt in history.attempts:
        assert attempt.ended is not None
        assert attempt.phases[0].started == pytest.approx(attempt.started, abs=ROUNDING)
        assert attempt.phases[-1].ended == pytest.approx(attempt.ended, abs=ROUNDING)
        for phase, following in pairwise(attempt.phases):
            assert phase.started <= phase.ended == following.started
        assert sum(phase.seconds for phase in attempt.phases) == pytest.approx(attempt.seconds, abs=ROUNDING)
        assert len({phase.name for phase in attempt.phases}) == len(attempt.phases)
        assert [phase.failed for phase in attempt.phases].count(True) == attempt.failed

        span = attempt_span(spans, attempt.step, attempt.number)
        below = sorted(times_of(each) for each in spans if each.parent == span.context)
        assert [times_of(span)[0], times_of(span)[1]] == [below[0][0], below[-1][1]]
        assert all(before[1] == after[0] for before, after in pairwise(below))

    of_steps: dict[str, float] = {}
    last = {attempt.step: attempt for attempt in history.attempts}  # metrics of one name: the last stays
    values = metrics(history)
    for name, value in values.items():
        kind, _, step = name.partition("/")
        if step and kind.endswith("_seconds") and kind not in ("step_seconds", "hook_seconds"):
            of_steps[step] = of_steps.get(step, 0.0) + value
    for step, attempt in last.items():
        if len([each for each in history.attempts if each.step == step]) == 1:
            key = step.replace("[", ":").replace("]", "")
            assert of_steps[key] == pytest.approx(values[f"step_seconds/{key}"], abs=ROUNDING)
            assert of_steps[key] == pytest.approx(attempt.seconds, abs=ROUNDING)


# Phases of every run


def test_the_phases_of_an_attempt_do_not_overlap_and_add_up_to_it(recording: Recording) -> None:
    check_phases(recording.history)


def test_so_do_those_of_every_order_of_computing_and_storing(run: Recording) -> None:
    check_phases(run.history)


def test_the_phases_add_up_however_long_each_event_takes(run: Recording) -> None:
    count = len(run.records)

    @settings(max_examples=25, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
    @given(seconds=st.lists(st.floats(0, 1_000), min_size=count, max_size=count))
    def take(seconds: list[float]) -> None:
        check_phases(with_times(run, seconds))

    take()


def test_the_phases_of_a_run_that_is_lost_at_any_moment_add_up(run: Recording) -> None:
    ends = {Event.RUN_SUCCESS, Event.RUN_FAILURE}
    (end,) = [
        record
        for record in run.records
        if record.event_log_entry.dagster_event is not None
        and record.event_log_entry.dagster_event.event_type in ends
    ]
    lost = end._replace(event_log_entry=end.event_log_entry._replace(timestamp=end.timestamp + LONG))
    for length in range(1, len(run.records)):
        check_phases(run.history_of([*run.records[:length], lost]))


# Steps with several outputs


@pytest.mark.parametrize("step", ["yield_both", "return_both"])
def test_what_is_stored_while_a_step_computes_is_not_computed(runs: Recordings, step: str) -> None:
    history = with_gaps(
        runs["outputs"],
        {
            (step, Event.STEP_OUTPUT, 1): 1.0,
            (step, Event.HANDLED_OUTPUT, 1): 3.0,
            (step, Event.STEP_OUTPUT, 2): 0.5,
            (step, Event.HANDLED_OUTPUT, 2): 4.0,
            (step, Event.STEP_SUCCESS, 1): 1.5,
        },
    )
    assert lengths(attempt_at(history, step)) == [
        ("compute", 1.0),
        ("store first", 3.0),
        ("compute #2", 0.5),
        ("store second", 4.0),
        ("compute #3", 1.5),
    ]
    of_step = {name: value for name, value in metrics(history).items() if name.endswith(f"/{step}")}
    assert of_step == pytest.approx(
        {f"step_seconds/{step}": 10.0, f"compute_seconds/{step}": 3.0, f"store_seconds/{step}": 7.0}, abs=1e-4
    )
    console = Console(file=io.StringIO(), width=100)
    console.print(trace_tree(history))
    assert isinstance(console.file, io.StringIO)
    lines = [" ".join(line.replace("━", "").split()) for line in console.file.getvalue().splitlines()]
    at = next(index for index, line in enumerate(lines) if f"─ {step} " in line)
    assert [line.lstrip("│├└─ ") for line in lines[at : at + 6]] == [
        f"{step} 10.0 s",
        "compute 1.0 s",
        "store first 3.0 s",
        "compute #2 0.5 s",
        "store second 4.0 s",
        "compute #3 1.5 s",
    ]


def test_what_comes_after_the_last_output_is_computed_unless_it_is_short(runs: Recordings) -> None:
    for seconds, phases in ((0.01, []), (0.5, [("compute #2", 0.5)])):
        history = with_gaps(
            runs["assets"],
            {("seats", Event.HANDLED_OUTPUT, 1): 2.0, ("seats", Event.STEP_SUCCESS, 1): seconds},
        )
        recording = 0.0 if phases else seconds
        assert lengths(attempt_at(history, "seats")) == [("store result", 2.0 + recording), *phases]


def test_an_output_that_is_not_stored_takes_no_time_to_store(runs: Recordings) -> None:
    step = "yield_nothing_between"
    history = with_gaps(
        runs["outputs"],
        {
            (step, Event.STEP_OUTPUT, 1): 1.0,
            (step, Event.STEP_OUTPUT, 2): 2.0,
            (step, Event.HANDLED_OUTPUT, 1): 4.0,
            (step, Event.STEP_OUTPUT, 3): 8.0,
            (step, Event.STEP_SUCCESS, 1): 16.0,
        },
    )
    assert lengths(attempt_at(history, step)) == [
        ("compute", 3.0),
        ("store first", 4.0),
        ("compute #2", 24.0),
    ]


def test_checks_and_materialisations_between_are_a_part_of_the_computation(runs: Recordings) -> None:
    history = with_gaps(
        runs["assets"],
        {
            ("movements", Event.ASSET_MATERIALIZATION, 1): 1.0,
            ("movements", Event.ASSET_CHECK_EVALUATION, 1): 2.0,
            ("movements", Event.ASSET_MATERIALIZATION, 2): 4.0,
            ("movements", Event.STEP_SUCCESS, 1): 8.0,
        },
    )
    assert lengths(attempt_at(history, "movements")) == [("compute", 15.0)]


def test_the_parts_of_dynamic_outputs_and_of_inputs_of_many_are_told_apart(runs: Recordings) -> None:
    history = with_gaps(
        runs["outputs"],
        {
            ("fan_out", Event.STEP_OUTPUT, 1): 1.0,
            ("fan_out", Event.HANDLED_OUTPUT, 1): 2.0,
            ("fan_out", Event.STEP_OUTPUT, 2): 4.0,
            ("fan_out", Event.HANDLED_OUTPUT, 2): 8.0,
            ("fan_in", Event.LOADED_INPUT, 1): 1.0,
            ("fan_in", Event.LOADED_INPUT, 2): 2.0,
            ("fan_in", Event.LOADED_INPUT, 3): 4.0,
            ("fan_in", Event.STEP_INPUT, 1): 8.0,  # its type is checked
            ("fan_in", Event.STEP_SUCCESS, 1): 16.0,
        },
    )
    assert lengths(attempt_at(history, "fan_out")) == [
        ("compute", 1.0),
        ("store result[east]", 2.0),
        ("compute #2", 4.0),
        ("store result[west]", 8.0),
    ]
    assert lengths(attempt_at(history, "fan_in")) == [
        ("load numbers", 3.0),
        ("load other", 4.0),
        ("compute", 24.0),
    ]


@pytest.mark.parametrize(
    ("run_of", "step", "number", "failed"),
    [
        ("outputs", "fail_between", 1, "compute #2"),
        ("outputs", "fail_after_nothing", 1, "compute"),
        ("outputs", "yield_another_type", 1, "compute"),  # its type is checked before it is stored
        ("io", "store_badly", 1, "store broken"),
        ("io", "store_badly_twice", 1, "store broken"),  # where Dagster names the retry, not the storing
        ("io", "store_badly_twice", 2, "store broken"),
        ("io", "store_and_fail_on_purpose", 1, "store on_purpose"),
        ("io", "store_and_ask_for_a_retry", 1, "store once_more"),
        ("io", "load_badly_twice", 1, "load"),
        ("io", "load_badly_twice", 2, "load"),
        ("dying", "store_and_die", 1, "store result"),
    ],
)
def test_the_phase_that_failed_is_the_one_it_failed_in(
    runs: Recordings, run_of: str, step: str, number: int, failed: str
) -> None:
    history = with_gaps(runs[run_of], {}) if run_of != "dying" else runs[run_of].history
    attempt = attempt_at(history, step, number)
    assert attempt.failed
    assert failed_phases(attempt) == [failed]


# Hooks

HOOK_EVENTS = {
    HookOutcome.COMPLETED: Event.HOOK_COMPLETED,
    HookOutcome.SKIPPED: Event.HOOK_SKIPPED,
    HookOutcome.ERRORED: Event.HOOK_ERRORED,
}


def test_hooks_are_told_with_their_seconds_and_outcomes(runs: Recordings) -> None:
    # Dagster keeps the hooks of an op in a set: their order differs from process to process.
    order = [hook.outcome for hook in attempt_at(runs["hooks"].history, "succeed").hooks]
    seconds = {outcome: float(index) for index, outcome in enumerate(order, start=1)}
    gaps = {("succeed", HOOK_EVENTS[outcome], 1): length for outcome, length in seconds.items()}
    history = with_gaps(runs["hooks"], gaps)
    attempt = attempt_at(history, "succeed")
    assert attempt.outcome is Outcome.SUCCESS
    assert attempt.seconds == pytest.approx(0.0, abs=ROUNDING)  # the step is over before its hooks
    told = {hook.outcome: (hook.name, round(hook.seconds, 4)) for hook in attempt.hooks}
    assert told == {
        HookOutcome.COMPLETED: ("celebrate", seconds[HookOutcome.COMPLETED]),
        HookOutcome.SKIPPED: ("mourn", seconds[HookOutcome.SKIPPED]),
        HookOutcome.ERRORED: ("", seconds[HookOutcome.ERRORED]),  # Dagster does not say which it was
    }
    (errored,) = [hook for hook in attempt.hooks if hook.error is not None]
    assert errored.error is not None
    assert (errored.error.type, errored.error.message) == ("ConnectionError", "The pager does not answer.")

    spans = {
        span.name: span for span in spans_of(history) if (span.attributes or {}).get(names.STEP) == "succeed"
    }
    assert {name for name in spans if name.startswith("hook")} == {"hook", "hook celebrate"}
    failed = spans["hook"]
    assert (failed.status.status_code, failed.status.description) == (
        StatusCode.ERROR,
        "The pager does not answer.",
    )
    assert [event.name for event in failed.events] == ["exception"]
    started, ended = times_of(spans["hook celebrate"])
    assert (ended - started) / SECOND == pytest.approx(seconds[HookOutcome.COMPLETED], abs=ROUNDING)
    root = spans_of(history)[-1]
    assert spans["hook"].parent == spans["hook celebrate"].parent == root.context
    assert root.status.status_code is StatusCode.OK

    executed_seconds = seconds[HookOutcome.COMPLETED] + seconds[HookOutcome.ERRORED]
    assert metrics(history)["hook_seconds/succeed"] == pytest.approx(executed_seconds, abs=ROUNDING)
    assert metrics(history)["hooks_failed"] == 2  # and once more of the other step
    assert timeline(history).startswith(b"\x89PNG")


def test_a_hook_of_an_attempt_that_is_retried_belongs_to_that_attempt(runs: Recordings) -> None:
    history = runs["hooks"].history
    first, second = attempt_at(history, "fail_once", 1), attempt_at(history, "fail_once", 2)
    assert (first.outcome, {hook.outcome for hook in first.hooks}) == (Outcome.RETRY, {HookOutcome.SKIPPED})
    assert {hook.outcome for hook in second.hooks} == set(HookOutcome)


# Waits


def test_waiting_for_a_pool_is_a_phase_of_its_step(runs: Recordings) -> None:
    history = with_gaps(
        runs["pool"], {("query", Event.STEP_START, 1): 5.0, ("query", Event.STEP_SUCCESS, 1): 1.0}
    )
    assert history.status is RunStatus.SUCCESS
    query = attempt_at(history, "query")
    assert lengths(query) == [("wait for pool database", 5.0), ("compute", 1.0)]
    assert query.seconds == pytest.approx(6.0, abs=ROUNDING)
    assert metrics(history)["wait_seconds/query"] == pytest.approx(5.0, abs=ROUNDING)
    assert "wait_seconds/let_go" not in metrics(history)


def test_a_step_that_is_still_waiting_when_its_run_ends_was_interrupted(runs: Recordings) -> None:
    records = runs["pool"].records
    (start,) = [
        index
        for index, record in enumerate(records)
        if record.event_log_entry.step_key == "query"
        and record.event_log_entry.dagster_event is not None
        and record.event_log_entry.dagster_event.event_type is Event.STEP_START
    ]
    history = runs["pool"].history_of([*records[:start], records[-1]])
    query = attempt_at(history, "query")
    assert query.outcome is Outcome.INTERRUPTED
    assert [phase.name for phase in query.phases] == ["wait for pool database"]


@pytest.mark.parametrize("retried", [False, True])
def test_waiting_for_a_worker_of_celery_is_a_phase_of_its_step(runs: Recordings, retried: bool) -> None:
    """The events are those that dagster-celery writes around a step."""
    recording = runs["hooks"]
    step, number = ("fail_once", 2) if retried else ("succeed", 1)
    start = Event.STEP_RESTARTED if retried else Event.STEP_START
    (index,) = [
        index
        for index, record in enumerate(recording.records)
        if record.event_log_entry.step_key == step
        and record.event_log_entry.dagster_event is not None
        and record.event_log_entry.dagster_event.event_type is start
    ]
    record = recording.records[index]
    waited = [
        record._replace(
            event_log_entry=record.event_log_entry._replace(
                timestamp=record.timestamp - seconds,
                dagster_event=queue_event(step, data),
            )
        )
        for seconds, data in (
            (25.0, EngineEventData(marker_start="celery_queue_wait")),
            (0.0, EngineEventData(marker_end="celery_queue_wait")),
        )
    ]
    records = [*recording.records[:index], *waited, *recording.records[index:]]
    attempt = attempt_at(recording.history_of(records), step, number)
    assert attempt.phases[0].name == "wait for a worker"
    assert attempt.phases[0].seconds == pytest.approx(25.0, abs=ROUNDING)


def queue_event(step: str, data: EngineEventData) -> dg.DagsterEvent:
    return dg.DagsterEvent(
        Event.ENGINE_EVENT.value,
        job_name="hooked",
        step_handle=StepHandle(NodeHandle(step, None), step),
        event_specific_data=data,
    )


# Lost processes


def test_a_step_that_its_executor_calls_lost_ends_there_and_not_with_its_run(runs: Recordings) -> None:
    """A killed step on Celery leaves a message of the run's process; the run may go on for long."""
    records = list(runs["outputs"].records)
    (start,) = [
        index
        for index, record in enumerate(records)
        if record.event_log_entry.step_key == "yield_both"
        and record.event_log_entry.dagster_event is not None
        and record.event_log_entry.dagster_event.event_type is Event.STEP_START
    ]
    entry = records[start].event_log_entry
    said = entry._replace(
        dagster_event=None,
        step_key=None,
        level=logging.ERROR,
        user_message="Step yield_both finished without success or failure event. Downstream steps will not "
        "execute.",
        timestamp=entry.timestamp + 5.0,
    )
    message = records[start]._replace(event_log_entry=said)
    others = [record for record in records[start + 1 :] if record.event_log_entry.step_key != "yield_both"]
    history = runs["outputs"].history_of([*records[: start + 1], message, *others])
    attempt = attempt_at(history, "yield_both")
    assert attempt.outcome is Outcome.INTERRUPTED
    assert lengths(attempt) == [("compute", 5.0)]
    assert failed_phases(attempt) == ["compute"]
    assert attempt.error is not None
    assert attempt.error.type == "dagster.StepLost"
    by_the_step = message._replace(event_log_entry=said._replace(step_key="yield_both"))
    unsaid = runs["outputs"].history_of([*records[: start + 1], by_the_step, *others])
    assert attempt_at(unsaid, "yield_both").ended == unsaid.ended


def test_a_run_that_went_on_in_another_process_says_so(runs: Recordings) -> None:
    recording = runs["outputs"]
    record = recording.records[3]
    event = dg.DagsterEvent(
        Event.ENGINE_EVENT.value,
        job_name="outputs",
        message="Detected run worker status FAILED: 'gone'. Resuming run with a new worker.",
        event_specific_data=EngineEventData(),
    )
    found = record._replace(
        event_log_entry=record.event_log_entry._replace(dagster_event=event, step_key=None)
    )
    history = recording.history_of([*recording.records[:4], found, *recording.records[4:]])
    assert history.resumptions == (found.timestamp,)
    *_, root = spans_of(history)
    assert root.events[0].name == "run resumed"


@pytest.mark.parametrize("ended", [False, True])
def test_a_step_that_is_executed_again_without_a_retry_is_another_attempt(
    runs: Recordings, ended: bool
) -> None:
    """Dask does so with steps of a worker that was lost, the succeeded ones too."""
    own = [record for record in runs["outputs"].records if record.event_log_entry.step_key == "yield_both"]
    first = own if ended else own[:3]
    later = [
        record._replace(event_log_entry=record.event_log_entry._replace(timestamp=record.timestamp + 100.0))
        for record in own
    ]
    history = runs["outputs"].history_of([*first, *later])
    before, after = history.attempts
    assert [(each.number, each.outcome) for each in (before, after)] == [
        (1, Outcome.SUCCESS if ended else Outcome.INTERRUPTED),
        (2, Outcome.SUCCESS),
    ]
    assert after.started == later[0].timestamp
    assert before.error is None or before.error.type == "dagster.StepLost"
