"""Tests faults between a run and its exports: no part of the run is lost or duplicated."""

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import dagster as dg
import pytest
from dagster import DagsterRunStatus
from mlflow import MlflowClient
from mlflow.entities import TraceState

from ledgerline.dagster.resources import projections_of
from ledgerline.dagster.settings import Settings
from ledgerline.ledger.cursors import Cursors
from ledgerline.ledger.observer import Observer
from ledgerline.testing.loopback_servers import Refusal, listening
from ledgerline.testing.otlp_receivers import Batch, Receiver
from ledgerline.testing.waiting import wait_until
from ledgerline.traces import attributes as names
from tests.integration import observed_jobs as jobs
from tests.integration.deployments import Deployment, deployed
from tests.integration.observed_runs import ObservedRuns, mlflow_run_once_whole, mlflow_runs
from tests.integration.proxies import Proxy
from tests.integration.run_workers import Gate, RunWorkers
from tests.project import PROJECT_ROOT

LEDGERLINE = Path(sys.executable).with_name("ledgerline")
PATIENCE_SECONDS = 180
CLOCK_BEHIND_SECONDS = 5  # clock_behind.py

# A run of the bakery has 53 records; it has a process from the sixth on, and works until the 49th.
EARLY, LATE = range(6, 24), range(24, 42)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A collector, where traces are sent."""
    with listening(Receiver()) as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        yield receiver


@pytest.fixture(scope="module")
def proxy_of_all_tests(mlflow_server: str) -> Iterator[Proxy]:
    """MLflow's client remembers by the id of a run where its artifacts go, so the address stays the same."""
    with listening(Proxy(target=mlflow_server)) as proxy:
        yield proxy


@pytest.fixture
def proxy(proxy_of_all_tests: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """MLflow, in front of which something can go wrong."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy_of_all_tests.url)
    yield proxy_of_all_tests
    proxy_of_all_tests.reset()


@pytest.fixture
def client(mlflow_server: str) -> MlflowClient:
    """A client that reads what MLflow has."""
    return MlflowClient(mlflow_server)


@pytest.fixture
def instance(stored_instance: dg.DagsterInstance) -> dg.DagsterInstance:
    return stored_instance


@pytest.fixture
def workers(instance: dg.DagsterInstance) -> RunWorkers:
    return RunWorkers(instance)


@pytest.fixture
def observed(instance: dg.DagsterInstance, receiver: Receiver, proxy: Proxy) -> ObservedRuns:
    """Runs of this test's own instance."""
    return observed_at(instance, receiver)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployed(tmp_path_factory.mktemp("deployment")) as deployment:
        yield deployment


@pytest.fixture
def observed_deployment(deployment: Deployment, receiver: Receiver, proxy: Proxy) -> ObservedRuns:
    """Runs of the deployment."""
    return observed_at(deployment.instance, receiver)


def observed_at(instance: dg.DagsterInstance, receiver: Receiver) -> ObservedRuns:
    projections = projections_of(Settings.from_environment(os.environ))
    return ObservedRuns(instance, receiver, [Observer(projection) for projection in projections])


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


# Faults of a step


@pytest.mark.parametrize("fault", ["exits", "is killed"])
def test_a_step_whose_process_has_died_is_exported_as_failed(
    fault: str, workers: RunWorkers, observed: ObservedRuns, client: MlflowClient
) -> None:
    run_id = workers.execute(jobs.baking, flour=fault)

    observed.catch_up()

    trace = observed.trace(run_id)
    assert trace.attempts.keys() == {("grain", 1), ("flour", 1)}
    assert "ChildProcessCrashException" in trace.attempts["flour", 1].problem
    assert trace.repeated == []
    assert observed.mlflow_run(client, run_id).info.status == "FAILED"


def test_a_step_that_is_killed_and_tried_again_has_two_attempts_in_a_good_run(
    workers: RunWorkers, observed: ObservedRuns, client: MlflowClient
) -> None:
    run_id = workers.execute(jobs.baking, bread="is killed once")

    observed.catch_up()

    trace = observed.trace(run_id)
    killed, retried = trace.attempts["bread", 1], trace.attempts["bread", 2]
    assert (killed.failed, retried.failed) == (True, False)
    assert retried.links == [(trace.trace_id, killed.span_id)]
    assert trace.above(trace.named("knead"))[1] == retried
    assert trace.repeated == []
    assert observed.mlflow_run(client, run_id).info.status == "FINISHED"


def test_a_step_whose_clock_is_behind_is_exported_at_its_true_time(
    workers: RunWorkers, observed: ObservedRuns, client: MlflowClient
) -> None:
    run_id = workers.execute(jobs.baking_behind)

    observed.catch_up()

    trace = observed.trace(run_id)
    for span in trace.attempts.values():
        # The start time of the process hides a part of the lag, most of it for the first process.
        assert 0 <= float(str(span.attributes.get(names.CLOCK_BEHIND, 0))) <= CLOCK_BEHIND_SECONDS
    assert names.CLOCK_BEHIND in trace.attempts["bread", 1].attributes
    for span in trace.spans:
        for around in trace.above(span):
            assert around.started <= span.started
            assert span.ended <= around.ended
    assert trace.repeated == []
    observed.mlflow_run(client, run_id)


# Faults of a run


@pytest.mark.parametrize("moments", [EARLY, LATE], ids=["early", "late"])
def test_a_run_whose_worker_is_killed_at_any_moment_is_exported_to_its_last_step(
    moments: range, deployment: Deployment, observed_deployment: ObservedRuns, client: MlflowClient
) -> None:
    # Drawn here, not among the parameters: processes that share the tests have to agree on their names.
    records = random.SystemRandom().choice(moments)
    print(f"The worker is killed after {records} records.")  # noqa: T201 (printed if the test fails)
    with observed_deployment.followed():
        run_id = deployment.launch("baking")
        worker = deployment.worker_of(run_id)
        wait_until(lambda: len(deployment.instance.all_logs(run_id)) >= records, f"{records} records")
        worker.kill()
        assert deployment.wait_for_the_end(run_id) is DagsterRunStatus.FAILURE
    observed_deployment.catch_up()

    trace = observed_deployment.trace(run_id)
    for attempt in trace.attempts.values():
        own = [span for span in trace.spans if span.of == attempt.of and span.scope != attempt.scope]
        assert attempt.failed or len(own) == 3
    # A step continues without its run, and records its end after both have been failed.
    assert len({span.of for span in trace.repeated if span.is_attempt}) <= 1
    assert observed_deployment.mlflow_run(client, run_id).info.status == "FAILED"


@pytest.mark.parametrize("policy", ["SAFE_TERMINATE", "MARK_AS_CANCELED_IMMEDIATELY"])
def test_a_terminated_run_is_exported_as_canceled(
    policy: str, deployment: Deployment, observed_deployment: ObservedRuns, client: MlflowClient, gate: Gate
) -> None:
    run_id = deployment.launch("baking", gate.tags, flour="waits")
    gate.wait_for_the_step()
    observed_deployment.tick()
    deployment.terminate(run_id, policy)

    assert deployment.wait_for_the_end(run_id) is DagsterRunStatus.CANCELED
    observed_deployment.catch_up()

    trace = observed_deployment.trace(run_id)
    assert trace.root.attributes[names.RUN_STATUS] == "CANCELED"
    assert trace.attempts["flour", 1].failed
    assert trace.above(trace.named("grind"))[1] == trace.attempts["flour", 1]
    assert trace.repeated == []
    assert observed_deployment.mlflow_run(client, run_id).info.status == "KILLED"


def test_a_run_whose_machine_is_lost_is_exported_once_the_monitoring_ends_it(
    deployment: Deployment, observed_deployment: ObservedRuns, client: MlflowClient, gate: Gate
) -> None:
    run_id = deployment.launch("baking", {**gate.tags, "dagster/max_runtime": "15"}, flour="waits")
    gate.wait_for_the_step()
    observed_deployment.tick()
    lost = deployment.processes_of_runs()
    deployment.kill("code server")
    for process in lost:
        process.kill()

    try:
        assert deployment.wait_for_the_end(run_id) is DagsterRunStatus.FAILURE
    finally:
        deployment.start("code server")
    observed_deployment.catch_up()

    trace = observed_deployment.trace(run_id)
    assert trace.attempts["flour", 1].attributes[names.OUTCOME] == "interrupted"
    assert trace.repeated == []
    assert observed_deployment.mlflow_run(client, run_id).info.status == "FAILED"


# Faults of a target


def test_a_collector_that_is_down_for_the_whole_run_has_the_trace_when_it_is_back(
    workers: RunWorkers, observed: ObservedRuns, client: MlflowClient
) -> None:
    observed.receiver.stop()
    run_id = workers.execute(jobs.baking_here)
    for _ in range(2):
        tracked, traced = observed.tick()
        assert tracked.unavailable is None
        assert traced.unavailable is not None
        assert observed.receiver.url in traced.unavailable
    observed.mlflow_run(client, run_id)  # that is there already

    observed.receiver.start()
    observed.catch_up()

    assert observed.trace(run_id).repeated == []


@pytest.mark.parametrize("refusal", [Refusal(500), Refusal(503), Refusal(429, retry_after=1)], ids=str)
def test_a_collector_that_refuses_for_a_while_has_everything_afterwards(
    refusal: Refusal, workers: RunWorkers, observed: ObservedRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
    run_id = workers.execute(jobs.baking_here)
    observed.receiver.refuses = lambda batch: refusal
    _, refused = observed.tick()
    assert refused.unavailable is not None
    assert observed.receiver.trace_ids == set()

    observed.receiver.refuses = lambda batch: None
    observed.catch_up()

    assert observed.trace(run_id).repeated == []


def test_a_run_that_the_collector_never_accepts_does_not_delay_others(
    workers: RunWorkers, observed: ObservedRuns
) -> None:
    refused_id = workers.execute(jobs.baking_here)
    trace_id = observed.receiver.trace(refused_id).trace_id
    observed.receiver.refuses = lambda batch: Refusal(400) if batch[0].trace_id == trace_id else None
    observed.tick()

    others = [workers.execute(jobs.baking_here) for _ in range(2)]
    for _ in range(3):
        observed.tick()

    for run_id in others:
        observed.trace(run_id)


def test_an_mlflow_that_is_down_for_the_whole_run_has_it_when_it_is_back(
    workers: RunWorkers, observed: ObservedRuns, proxy: Proxy, client: MlflowClient
) -> None:
    proxy.stop()
    run_id = workers.execute(jobs.baking_here)
    tracked, traced = observed.tick()
    assert tracked.unavailable is not None
    assert proxy.url in tracked.unavailable
    assert traced.unavailable is None
    observed.trace(run_id)  # that is there already

    proxy.start()
    observed.catch_up()

    observed.mlflow_run(client, run_id)
    assert observed.trace(run_id).repeated == []


def test_without_a_collector_the_trace_is_in_mlflow_when_that_is_back(
    workers: RunWorkers, instance: dg.DagsterInstance, proxy: Proxy, client: MlflowClient
) -> None:
    run_id = workers.execute(jobs.baking_here, bread="raises")
    (_, traces) = projections_of(Settings.from_environment(os.environ))
    observer = Observer(traces)
    proxy.stop()
    assert observer.tick(instance, 30).unavailable is not None
    proxy.start()
    report = observer.tick(instance, 30)
    assert report.unavailable is None

    trace = client.get_trace(f"tr-{UUID(run_id).hex}")
    assert trace.info.state == TraceState.ERROR
    assert len(trace.data.spans) == len({span.span_id for span in trace.data.spans}) == report.written


def test_an_mlflow_that_refuses_half_of_the_calls_for_a_while_has_everything_once(
    workers: RunWorkers, observed: ObservedRuns, proxy: Proxy, client: MlflowClient
) -> None:
    run_id = workers.execute(jobs.baking_here)
    for path, refusal in {
        "/mlflow/runs/log-batch": Refusal(500),
        "/mlflow-artifacts/": Refusal(429, retry_after=1),
        "/mlflow/runs/update": Refusal(503),
    }.items():
        proxy.refuses = lambda asked, path=path, refusal=refusal: refusal if path in asked else None
        tracked, _ = observed.tick()
        assert tracked.unavailable is not None, (path, proxy.refused)
        assert any(path in refused for refused in proxy.refused)

    proxy.refuses = lambda path: None
    observed.catch_up()

    run = observed.mlflow_run(client, run_id)
    for metric in run.data.metrics:
        assert len(client.get_metric_history(run.info.run_id, metric)) == 1
    assert run.inputs is not None
    assert len(run.inputs.dataset_inputs) == 3


# Faults of the observer


@pytest.mark.parametrize("answered", [False, True], ids=["before the answer", "after the answer"])
def test_an_observer_killed_before_it_stores_its_cursor_sends_the_same_ids_again(
    answered: bool,
    workers: RunWorkers,
    observed: ObservedRuns,
    proxy: Proxy,
    client: MlflowClient,
) -> None:
    run_id = workers.execute(jobs.baking_here)
    traced, created, killed = threading.Event(), threading.Event(), threading.Event()

    def on_batch(batch: Batch) -> None:
        traced.set()
        assert answered or killed.wait(PATIENCE_SECONDS)

    def on_call(path: str) -> None:
        if path.endswith("/mlflow/runs/create"):
            created.set()
            assert answered or killed.wait(PATIENCE_SECONDS)

    observed.receiver.taken, proxy.answered = on_batch, on_call
    with following(observed.instance) as observer:
        assert traced.wait(PATIENCE_SECONDS)
        assert created.wait(PATIENCE_SECONDS)
        observer.kill()
        observer.wait()
        killed.set()

    with following(observed.instance) as observer:
        for projection in ("traces", "mlflow"):
            wait_until(
                lambda name=projection: Cursors.load(observed.instance.run_storage, name),
                f"it notes {projection}",
            )
        observer.send_signal(signal.SIGTERM)
        assert observer.wait(PATIENCE_SECONDS) == 0

    trace = observed.trace(run_id)
    assert set(trace.times.values()) <= {1, 2}
    observed.mlflow_run(client, run_id)


@contextmanager
def following(instance: dg.DagsterInstance) -> Iterator[subprocess.Popen[bytes]]:
    """`ledgerline observe --follow` on an instance."""
    with subprocess.Popen(
        [LEDGERLINE, "observe", "--follow", "--dagster-home", instance.root_directory],
        cwd=PROJECT_ROOT,
        stdout=subprocess.DEVNULL,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_sensors_whose_code_server_is_killed_during_a_run_continue(
    deployment: Deployment, observed_deployment: ObservedRuns, client: MlflowClient, gate: Gate
) -> None:
    receiver = observed_deployment.receiver
    deployment.restart("code server")  # with the addresses of this test
    with deployment.sensors_on("trace_runs", "track_runs"):
        run_id = deployment.launch("baking", gate.tags, flour="waits")
        gate.wait_for_the_step()
        wait_until(lambda: receiver.trace(run_id).attempts, "the first step is shown")
        wait_until(lambda: mlflow_runs(client, run_id), "the run is shown")

        deployment.restart("code server")
        gate.open()

        assert deployment.wait_for_the_end(run_id) is DagsterRunStatus.SUCCESS
        wait_until(lambda: receiver.trace(run_id).roots, "the end of the run is shown")
        mlflow_run_once_whole(client, observed_deployment.instance, run_id)

    trace = observed_deployment.trace(run_id)
    assert trace.attempts.keys() == {("grain", 1), ("flour", 1), ("bread", 1)}
    observed_deployment.mlflow_run(client, run_id)
