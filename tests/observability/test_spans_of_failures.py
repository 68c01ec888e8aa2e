"""Tests the spans of runs and steps that fail, are retried or are interrupted."""

from collections.abc import Sequence

import dagster as dg
import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

from ledgerline.ledger.event_log import read_history
from ledgerline.testing.recordings import Recordings
from ledgerline.traces import attributes as names
from tests.observability.exported_spans import (
    attempt_span,
    exceptions,
    key_of,
    links_of,
    named,
    root_of,
    spans_of,
    times_of,
    trace_of,
)


def stack_of(span: ReadableSpan) -> str:
    (stack,) = [
        (event.attributes or {})["exception.stacktrace"] for event in span.events if event.name == "exception"
    ]
    assert isinstance(stack, str)
    return stack


def test_an_error_has_its_causes(recorded: Recordings) -> None:
    trace = trace_of(recorded["errors"])
    chained = attempt_span(trace, "chained")
    assert (chained.attributes or {})["error.type"] == "RuntimeError"
    assert chained.status.status_code is StatusCode.ERROR
    assert chained.status.description == "The features were not made."
    assert exceptions(chained) == [("RuntimeError", "The features were not made.")]
    stack = stack_of(chained)
    assert "in chained" in stack
    assert stack.index("Caused by ValueError: row 7 has no plane") < stack.index(
        "Caused by KeyError: 'tailnum'"
    )
    assert "Caused by KeyError" in stack_of(attempt_span(trace, "during_another"))
    assert named_phase(trace, chained, "compute").status.status_code is StatusCode.ERROR


def test_an_error_without_a_message_has_its_type_instead(recorded: Recordings) -> None:
    span = attempt_span(trace_of(recorded["errors"]), "without_a_message")
    assert span.status.description == "NotImplementedError"
    assert exceptions(span) == [("NotImplementedError", "")]


def test_a_run_with_several_failed_steps_has_the_error_of_the_first(recorded: Recordings) -> None:
    recording = recorded["errors"]
    failed = [attempt.error for attempt in recording.history.attempts if attempt.error]
    run_error = recording.history.error
    assert run_error is not None
    root = root_of(trace_of(recording))
    first = (failed[0].type, failed[0].message)
    errors = [(run_error.type, run_error.message), first]
    assert exceptions(root) == list(dict.fromkeys(errors))
    assert (root.attributes or {})[names.OUTPUTS] == (
        "FAILURE: " + ", ".join(attempt.step for attempt in recording.history.attempts)
    )


def test_the_error_of_a_run_is_not_that_of_a_step_that_succeeded_in_the_end(recorded: Recordings) -> None:
    root = root_of(trace_of(recorded["retries"]))
    assert exceptions(root) == [("ConnectionError", "nobody answers")]
    assert (root.attributes or {})[names.OUTPUTS] == "FAILURE: fail_always"
    assert (root.attributes or {})["error.type"] == "ConnectionError"


def test_every_attempt_links_to_the_one_before(recorded: Recordings) -> None:
    trace = trace_of(recorded["retries"])
    first, second, third = (attempt_span(trace, "fail_always", number) for number in (1, 2, 3))
    assert links_of(first) == []
    assert links_of(second) == [(*key_of(first), "previous attempt")]
    assert links_of(third) == [(*key_of(second), "previous attempt")]
    outcomes = [(span.attributes or {})[names.OUTCOME] for span in (first, second, third)]
    assert outcomes == ["retry", "retry", "failure"]
    for span in (first, second, third):
        assert exceptions(span) == [("ConnectionError", "nobody answers")]
        assert "Caused by OSError: no route" in stack_of(span)


@pytest.mark.parametrize(
    ("run", "step", "phase"),
    [
        ("unreadable", "fleet", "load"),
        ("unwritable", "planes", "store result"),
        ("no resource in a process", "ask", "resources"),
        ("crash", "crash", "compute"),
    ],
)
def test_the_phase_in_which_a_step_failed_is_an_error_and_no_other(
    recorded: Recordings, run: str, step: str, phase: str
) -> None:
    trace = trace_of(recorded[run])
    span = attempt_span(trace, step)
    failed = [
        each.name
        for each in trace
        if each.parent == span.context and each.status.status_code is StatusCode.ERROR
    ]
    assert failed == [phase]


def test_a_run_that_failed_before_its_first_step_has_no_attempts(recorded: Recordings) -> None:
    trace = trace_of(recorded["no resource for two steps"])
    assert [span.name for span in trace] == ["launch", "resources", "run asking_twice"]
    assert named(trace, "resources").status.status_code is StatusCode.ERROR
    assert exceptions(root_of(trace)) == [("ConnectionError", "nobody answers")]


@pytest.mark.parametrize("run", ["canceled", "canceled in a process"])
def test_a_run_that_was_canceled_is_an_error_and_so_is_its_step(recorded: Recordings, run: str) -> None:
    trace = trace_of(recorded[run])
    root, step = root_of(trace), attempt_span(trace, "cancel_the_run")
    assert (root.attributes or {})[names.RUN_STATUS] == "CANCELED"
    assert root.status.status_code is StatusCode.ERROR
    interrupted = "dagster._core.errors.DagsterExecutionInterruptedError"
    assert exceptions(step)[0][0] == interrupted
    assert step.status.description == interrupted
    assert (root.attributes or {})[names.OUTPUTS] == "CANCELED: cancel_the_run"


def test_an_interrupted_step_has_the_reason_for_the_end_of_its_run(recorded: Recordings) -> None:
    trace = trace_of(recorded["killed"])
    root, step = root_of(trace), attempt_span(trace, "die")
    assert (step.attributes or {})[names.OUTCOME] == "interrupted"
    why = "The run ended before this step did. The process of the run is gone."
    assert exceptions(step) == [("dagster.StepInterrupted", why)]
    assert step.status.description == why
    assert exceptions(root) == [("dagster.RunFailure", "The process of the run is gone.")]
    assert times_of(step)[1] == times_of(root)[1]
    assert named(trace, "compute").status.status_code is StatusCode.ERROR


@dg.op
def read_an_old_disk() -> None:
    raise FileNotFoundError("caf\udce9.parquet is gone")  # as Python has what is Latin-1 on a disk


@dg.job(executor_def=dg.in_process_executor)
def reading() -> None:
    read_an_old_disk()


def test_an_error_that_is_not_utf_8_can_be_sent() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run = reading.execute_in_process(instance=instance, raise_on_error=False)
        history = read_history(instance, run.run_id)
    assert history is not None
    spans = spans_of(history)
    assert encode_spans(spans).SerializeToString()
    for span in (root_of(spans), attempt_span(spans, "read_an_old_disk")):
        assert span.status.description == r"caf\udce9.parquet is gone"
        assert exceptions(span) == [("FileNotFoundError", r"caf\udce9.parquet is gone")]


def named_phase(trace: Sequence[ReadableSpan], above: ReadableSpan, name: str) -> ReadableSpan:
    return named([span for span in trace if span.parent == above.context], name)
