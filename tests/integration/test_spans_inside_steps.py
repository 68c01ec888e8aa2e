"""Tests that spans from inside steps reach the collector from their processes, at the right place."""

import os
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterEventType

from ledgerline.dagster.resources import projections_of
from ledgerline.dagster.settings import Settings
from ledgerline.dagster.tracing import OTelResource
from ledgerline.ledger import ids
from ledgerline.ledger.event_log import SPANS_METADATA
from ledgerline.ledger.observer import Observer
from ledgerline.testing.loopback_servers import listening
from ledgerline.testing.otlp_receivers import Receiver
from ledgerline.testing.ports import HOST
from ledgerline.testing.received_traces import ReceivedSpan, ReceivedTrace
from ledgerline.testing.waiting import wait_until
from ledgerline.traces import attributes as names
from tests.integration import observed_jobs as jobs
from tests.integration.observed_runs import ObservedRuns
from tests.integration.run_workers import Gate, Job, RunWorkers

STEPS = {"grain": "harvest", "flour": "grind", "bread": "knead"}
OF_A_STEP = 3  # spans

MAX_STEP_SECONDS = 60  # a step here takes a tenth of a second; one that waits for a target takes minutes

# If half of all traces are kept: what counts are the last 14 digits.
KEPT, NOT_KEPT = "00000000-0000-4000-80ff-000000000000", "00000000-0000-4000-bf00-ffffffffffff"

USELESS_SETTINGS = {
    "OTEL_EXPORTER_OTLP_HEADERS": "no header;;==,\n",
    "OTEL_EXPORTER_OTLP_TIMEOUT": "abc",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "pigeon",
    "OTEL_EXPORTER_OTLP_COMPRESSION": "squeeze",
    "OTEL_TRACES_EXPORTER": "zipkin",
    "OTEL_TRACES_SAMPLER": "nonsense",
    "OTEL_TRACES_SAMPLER_ARG": "much",
    "OTEL_RESOURCE_ATTRIBUTES": "no pair",
    "OTEL_BSP_SCHEDULE_DELAY": "soon",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1000000",
    "OTEL_PROPAGATORS": "nonsense",
    "OTEL_PYTHON_CONTEXT": "nonsense",
    "OTEL_PYTHON_TRACER_PROVIDER": "nonsense",
    "OTEL_PYTHON_ID_GENERATOR": "nonsense",
}


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch, mlflow_database: str) -> Iterator[Receiver]:
    """A collector, where traces are sent."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_database)
    with listening(Receiver()) as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        yield receiver


@pytest.fixture
def instance(stored_instance: dg.DagsterInstance) -> dg.DagsterInstance:
    return stored_instance


@pytest.fixture
def workers(instance: dg.DagsterInstance, receiver: Receiver) -> RunWorkers:
    return RunWorkers(instance)


@pytest.fixture
def observed(instance: dg.DagsterInstance, receiver: Receiver) -> ObservedRuns:
    return observed_with(os.environ, instance, receiver)


def observed_with(
    environment: Mapping[str, str], instance: dg.DagsterInstance, receiver: Receiver
) -> ObservedRuns:
    """The traces of runs, and nothing else, by these settings."""
    projections = projections_of(Settings.from_environment(environment))
    traces = [Observer(projection) for projection in projections if projection.name == "traces"]
    return ObservedRuns(instance, receiver, traces)


@pytest.fixture
def silent_server() -> Iterator[socket.socket]:
    """A URL without a server."""
    with socket.create_server((HOST, 0)) as server:
        server.setblocking(False)
        yield server


# Positions of spans


@pytest.mark.parametrize("job", [jobs.baking_here, jobs.baking])
def test_steps_and_libraries_trace_below_the_attempt_they_are_in(
    job: Job, workers: RunWorkers, observed: ObservedRuns
) -> None:
    run_id = workers.execute(job, bread="raises")

    observed.catch_up()

    trace = observed.trace(run_id)
    assert trace.attempts.keys() == {("grain", 1), ("flour", 1), ("bread", 1), ("bread", 2)}
    assert trace.attempts["bread", 2].problem == "ValueError: weevils"
    for (step, number), attempt in trace.attempts.items():
        what = STEPS[str(step)]
        own, inside, before = (
            of_attempt(trace.all_named(name), number)
            for name in (what, f"{what}, by a library", f"before {what}")
        )
        assert own.scope == "ledgerline.steps"
        assert inside.scope == before.scope == jobs.LIBRARY
        compute, *above = trace.above(own)
        assert (compute.name, above) == ("compute", [attempt, trace.root])
        assert trace.above(inside) == [own, *trace.above(own)]
        assert trace.above(before) == trace.above(own)
    assert trace.repeated == []


def of_attempt(spans: Sequence[ReceivedSpan], number: object) -> ReceivedSpan:
    (span,) = [span for span in spans if span.attributes[names.ATTEMPT] == number]
    return span


@pytest.mark.parametrize("at_once", [False, True], ids=["one after the other", "at once"])
def test_two_runs_in_one_process_have_separate_traces(
    at_once: bool, workers: RunWorkers, observed: ObservedRuns
) -> None:
    fault = "meets the other run" if at_once else "none"
    runs = [workers.plan(jobs.baking_here, flour=fault) for _ in range(2)]
    with workers.executing(*runs, at_once=at_once):
        pass

    observed.catch_up()

    first, second = (observed.trace(run.run_id) for run in runs)
    for trace, run in ((first, runs[0]), (second, runs[1])):
        own = own_spans(trace)
        assert len(own) == OF_A_STEP * len(STEPS)
        assert {span.attributes[names.RUN_ID] for span in own} == {run.run_id}
        assert trace.repeated == []
    assert not first.by_id.keys() & second.by_id.keys()


def own_spans(trace: ReceivedTrace) -> list[ReceivedSpan]:
    """Return the spans from inside the steps."""
    return [span for span in trace.spans if span.scope != "ledgerline"]


def test_threads_nest_if_they_have_the_context(workers: RunWorkers, observed: ObservedRuns) -> None:
    run_id = workers.execute(jobs.threading_here)

    observed.catch_up()

    trace = observed.trace(run_id)
    around = trace.named("around threads")
    for name in ("thread with all", "thread with a trace"):
        assert trace.above(trace.named(name))[0] == around
        assert trace.above(trace.named(f"{name}, by a library"))[0] == trace.named(name)
    assert trace.all_named("thread with nothing") == []
    assert len(own_spans(trace)) == 5


def test_processes_that_a_step_starts_inherit_its_span(workers: RunWorkers, observed: ObservedRuns) -> None:
    run_id = workers.execute(jobs.calling)

    observed.catch_up()

    trace = observed.trace(run_id)
    texts = texts_of(observed.instance, run_id)
    calling, piping = trace.named("calling"), trace.named("piping")
    compute = trace.above(calling)[0]
    assert texts["child_process"] == {
        "inside": traceparent(calling),
        "outside": traceparent(compute),
    }
    assert texts["piped_process"] == {"environment": traceparent(piping), "extras": traceparent(piping)}


def traceparent(span: ReceivedSpan) -> str:
    return f"00-{span.trace_id}-{span.span_id}-01"


def texts_of(instance: dg.DagsterInstance, run_id: str) -> Mapping[str, Mapping[str, object]]:
    """The text in the metadata of what a run materialised."""
    logged = instance.all_logs(run_id, of_type=DagsterEventType.ASSET_MATERIALIZATION)
    texts = {}
    for entry in logged:
        materialisation = entry.asset_materialization
        assert materialisation is not None
        texts[materialisation.asset_key.to_user_string()] = {
            key: value.value
            for key, value in materialisation.metadata.items()
            if isinstance(value, dg.TextMetadataValue)
        }
    return texts


def test_a_run_that_was_launched_by_something_traced_links_to_it(
    workers: RunWorkers, observed: ObservedRuns
) -> None:
    caller = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")

    run_id = workers.execute(jobs.baking_here, {"traceparent": f"00-{caller[0]}-{caller[1]}-01"})
    observed.catch_up()

    assert observed.trace(run_id).root.links == [caller]


def test_outside_of_a_run_nothing_is_traced(receiver: Receiver) -> None:
    otel = OTelResource(endpoint=receiver.url)
    with otel.span("nowhere", rows=1) as span:
        assert not span.is_recording()
        assert otel.environment() == {}
    assert receiver.requests == 0


def test_spans_of_a_step_before_it_was_killed_are_exported(
    workers: RunWorkers, observed: ObservedRuns, tmp_path: Path
) -> None:
    gate = Gate(tmp_path)
    run = workers.plan(jobs.baking, gate.tags, flour="waits")
    with workers.executing(run):
        process = gate.wait_for_the_step()
        wait_until(lambda: steps_in_event_log(observed.instance, run.run_id) >= {"flour"}, "it is written")
        os.kill(process, signal.SIGKILL)

    observed.catch_up()

    trace = observed.trace(run.run_id)
    assert trace.above(trace.named("grind"))[1] == trace.attempts["flour", 1]
    assert trace.attempts["flour", 1].failed


def steps_in_event_log(instance: dg.DagsterInstance, run_id: str) -> set[str | None]:
    """The steps whose spans are in the event log."""
    events = [
        entry.dagster_event for entry in instance.all_logs(run_id, of_type=DagsterEventType.ENGINE_EVENT)
    ]
    return {
        event.step_key
        for event in events
        if event is not None and SPANS_METADATA in event.engine_event_data.metadata
    }


# Settings


@pytest.mark.parametrize("job", [jobs.baking_here, jobs.baking])
def test_settings_that_are_all_wrong_change_nothing_for_the_step(
    job: Job, workers: RunWorkers, observed: ObservedRuns, silent_server: socket.socket
) -> None:
    silent = f"http://{HOST}:{silent_server.getsockname()[1]}"
    wrong = {**USELESS_SETTINGS, "OTEL_EXPORTER_OTLP_ENDPOINT": silent}

    run_id = RunWorkers(observed.instance, wrong).execute(job)

    assert_unharmed(observed.instance, run_id)
    assert steps_in_event_log(observed.instance, run_id) == STEPS.keys()
    with pytest.raises(BlockingIOError):  # no connection arrived
        silent_server.accept()
    observed.catch_up()
    assert len(own_spans(observed.trace(run_id))) == OF_A_STEP * len(STEPS)


@pytest.mark.parametrize("endpoint", ["garbage", "http://nowhere.invalid:4318", "http://:0"])
def test_an_invalid_endpoint_does_not_affect_the_step_and_loses_nothing(
    endpoint: str, workers: RunWorkers, observed: ObservedRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = RunWorkers(observed.instance, {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}).execute(
        jobs.baking_here
    )
    assert_unharmed(observed.instance, run_id)

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    (report,) = observed_with(os.environ, observed.instance, observed.receiver).tick()
    assert report.unavailable is not None
    assert endpoint in report.unavailable
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", observed.receiver.url)
    observed.catch_up()

    assert len(own_spans(observed.trace(run_id))) == OF_A_STEP * len(STEPS)


@pytest.mark.parametrize(
    "setting", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}], ids=str
)
def test_tracing_that_is_switched_off_changes_nothing_else(
    setting: Mapping[str, str], observed: ObservedRuns
) -> None:
    workers = RunWorkers(observed.instance, setting)

    run_id = workers.execute(jobs.calling)

    assert_unharmed(observed.instance, run_id)
    assert steps_in_event_log(observed.instance, run_id) == set()
    texts = texts_of(observed.instance, run_id)
    assert texts["child_process"] == {"inside": "nothing", "outside": "nothing"}
    assert texts["piped_process"] == {"environment": "nothing", "extras": "nothing"}
    assert observed_with({**os.environ, **setting}, observed.instance, observed.receiver).observers == []


def assert_unharmed(instance: dg.DagsterInstance, run_id: str) -> None:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    assert run.is_success
    for step in instance.get_run_step_stats(run_id):
        assert step.start_time is not None
        assert step.end_time is not None
        assert step.end_time - step.start_time < MAX_STEP_SECONDS


@pytest.mark.parametrize(("share", "kept"), [("0", set()), ("0.5", {KEPT}), ("1", {KEPT, NOT_KEPT})])
def test_a_trace_is_kept_with_all_that_its_steps_traced_or_not_at_all(
    share: str, kept: set[str], instance: dg.DagsterInstance, receiver: Receiver
) -> None:
    setting = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": share}
    workers = RunWorkers(instance, setting)
    with workers.executing(*[workers.plan(jobs.baking_here, run_id=run_id) for run_id in (KEPT, NOT_KEPT)]):
        pass
    observed = observed_with({**os.environ, **setting}, instance, receiver)

    observed.catch_up()

    assert receiver.trace_ids == {f"{ids.trace_id(run_id):032x}" for run_id in kept}
    for run_id in (KEPT, NOT_KEPT):
        assert_unharmed(instance, run_id)
        assert steps_in_event_log(instance, run_id) == (STEPS.keys() if run_id in kept else set())
        if run_id in kept:
            assert len(own_spans(observed.trace(run_id))) == OF_A_STEP * len(STEPS)
