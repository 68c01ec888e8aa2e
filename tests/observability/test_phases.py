"""Tests the phases of attempts, in logs of real runs whose events are given times."""

import io
from itertools import pairwise

import pytest
from dagster import DagsterEventType as Event
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from ledgerline.cli.trace_tree import trace_tree
from ledgerline.ledger.history import RunHistory
from ledgerline.testing.recordings import Recording, Recordings
from tests.observability.exported_spans import attempt_span, spans_of, times_of
from tests.observability.histories import attempt_at, failed_phases
from tests.observability.timed_runs import ROUNDING, TIMED_RUNS, lengths, metrics, with_gaps, with_times

LONG = 10.0  # seconds; longer than Dagster takes to record anything


@pytest.fixture(scope="module", params=list(TIMED_RUNS))
def run(request: pytest.FixtureRequest, timed_runs: Recordings) -> Recording:
    """Each of them in turn."""
    return timed_runs[request.param]


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


def test_the_phases_of_every_order_of_computing_and_storing_add_up(run: Recording) -> None:
    check_phases(run.history)


def test_the_phases_add_up_however_long_each_event_takes(run: Recording) -> None:
    count = len(run.records)

    @settings(max_examples=25, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
    @given(seconds=st.lists(st.floats(0, 1_000), min_size=count, max_size=count))
    def take(seconds: list[float]) -> None:
        check_phases(with_times(run, seconds))

    take()


def test_the_phases_of_a_run_interrupted_at_any_moment_add_up(run: Recording) -> None:
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
def test_storing_during_a_computation_is_not_computation(timed_runs: Recordings, step: str) -> None:
    history = with_gaps(
        timed_runs["outputs"],
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


def test_time_after_the_last_output_is_computation_unless_it_is_short(timed_runs: Recordings) -> None:
    for seconds, phases in ((0.01, []), (0.5, [("compute #2", 0.5)])):
        history = with_gaps(
            timed_runs["assets"],
            {("seats", Event.HANDLED_OUTPUT, 1): 2.0, ("seats", Event.STEP_SUCCESS, 1): seconds},
        )
        recording = 0.0 if phases else seconds
        assert lengths(attempt_at(history, "seats")) == [("store result", 2.0 + recording), *phases]


def test_an_output_that_is_not_stored_has_no_store_phase(timed_runs: Recordings) -> None:
    step = "yield_nothing_between"
    history = with_gaps(
        timed_runs["outputs"],
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


def test_checks_and_materialisations_between_are_a_part_of_the_computation(timed_runs: Recordings) -> None:
    history = with_gaps(
        timed_runs["assets"],
        {
            ("movements", Event.ASSET_MATERIALIZATION, 1): 1.0,
            ("movements", Event.ASSET_CHECK_EVALUATION, 1): 2.0,
            ("movements", Event.ASSET_MATERIALIZATION, 2): 4.0,
            ("movements", Event.STEP_SUCCESS, 1): 8.0,
        },
    )
    assert lengths(attempt_at(history, "movements")) == [("compute", 15.0)]


def test_phases_of_dynamic_outputs_and_of_fan_in_inputs_have_different_names(timed_runs: Recordings) -> None:
    history = with_gaps(
        timed_runs["outputs"],
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
    timed_runs: Recordings, run_of: str, step: str, number: int, failed: str
) -> None:
    history = with_gaps(timed_runs[run_of], {}) if run_of != "dying" else timed_runs[run_of].history
    attempt = attempt_at(history, step, number)
    assert attempt.failed
    assert failed_phases(attempt) == [failed]
