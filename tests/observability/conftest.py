"""Event logs of real runs, each executed on first use. Their jobs are in recorded_jobs.py."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

import dagster as dg
import pytest
from dagster import DagsterEvent, DagsterEventType
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.definitions.observe import observe
from dagster._core.execution.api import execute_run
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from opentelemetry import trace
from opentelemetry.util._once import Once

from ledgerline.ledger.history import RunHistory
from ledgerline.ledger.observer import Observer
from ledgerline.testing.recordings import Recording, Recordings
from ledgerline.testing.written_runs import Clock, FakeTarget, clock_to_put_forward
from tests.observability import recorded_jobs as jobs
from tests.observability import traced_jobs
from tests.observability.fake_exporter import Export, FakeExporter
from tests.observability.lineage_events import history_of
from tests.observability.lineage_jobs import RANGE, observe_weather
from tests.observability.timed_runs import TIMED_RUNS

MONDAY_AND_TUESDAY = {
    "dagster/asset_partition_range_start": "monday",
    "dagster/asset_partition_range_end": "tuesday",
}

# Only a run that another process could find may wait in a queue.
ORIGIN = RemoteJobOrigin(
    RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("tests"), "__repository__"), "counting"
)

Execute = Callable[[dg.DagsterInstance], str]


def executed(job: Callable[..., dg.JobDefinition], **ops: object) -> Execute:
    """Return a function that executes a job with its executor."""

    def execute(instance: dg.DagsterInstance) -> str:
        config = {"ops": {op: {"config": values} for op, values in ops.items()}}
        return dg.execute_job(dg.reconstructable(job), instance, run_config=config).run_id

    return execute


def read_afterwards(job: Callable[..., dg.JobDefinition]) -> Execute:
    """Return a function that executes a job and reads its outputs, which initialises its resources again."""

    def execute(instance: dg.DagsterInstance) -> str:
        with dg.execute_job(dg.reconstructable(job), instance) as result:
            assert result.output_for_node("fetch") == [1, 2, 3]
        return result.run_id

    return execute


def materialized(
    *assets: dg.AssetsDefinition | dg.AssetChecksDefinition,
    selection: Sequence[str] | None = None,
    io_manager: dg.IOManager | None = None,
    tags: Mapping[str, str] | None = None,
) -> Execute:
    """Assets, in the process of the tests."""

    def execute(instance: dg.DagsterInstance) -> str:
        return dg.materialize(
            assets,
            instance=instance,
            selection=selection,
            resources={"io_manager": io_manager} if io_manager is not None else None,
            tags=tags,
            raise_on_error=False,
        ).run_id

    return execute


def observed(instance: dg.DagsterInstance) -> str:
    return observe([jobs.tower], instance=instance).run_id


def queued(instance: dg.DagsterInstance) -> str:
    """A run that waits in a queue first: the events are those of the daemon that takes it out."""
    run = instance.create_run_for_job(jobs.counting, remote_job_origin=ORIGIN)
    _report(instance, run, DagsterEventType.PIPELINE_ENQUEUED)
    _report(instance, run, DagsterEventType.PIPELINE_STARTING)
    execute_run(InMemoryJob(jobs.counting), run, instance)
    return run.run_id


def canceled_in_the_queue(instance: dg.DagsterInstance) -> str:
    run = instance.create_run_for_job(jobs.counting, remote_job_origin=ORIGIN)
    _report(instance, run, DagsterEventType.PIPELINE_ENQUEUED)
    instance.report_run_canceled(run, "Taken out of the queue.")
    return run.run_id


def killed(instance: dg.DagsterInstance) -> str:
    """A run whose process dies, until the monitoring of runs notices."""
    run = instance.create_run_for_job(jobs.dying)
    process = multiprocessing.get_context("forkserver").Process(
        target=jobs.execute, args=(instance.get_ref(), run.run_id)
    )
    process.start()
    process.join()
    assert process.exitcode == jobs.EXIT_CODE
    instance.report_run_failed(run, "The process of the run is gone.")
    return run.run_id


def _report(instance: dg.DagsterInstance, run: dg.DagsterRun, event: DagsterEventType) -> None:
    instance.report_dagster_event(DagsterEvent(event.value, job_name=run.job_name), run_id=run.run_id)


RUNS: Mapping[str, Execute] = {
    "ops": executed(jobs.counting),
    "one op": executed(jobs.fetching),
    "ops, read afterwards": read_afterwards(jobs.counting),
    "one op, read afterwards": read_afterwards(jobs.fetching),
    "mapped": executed(jobs.mapping),
    "delegated": executed(jobs.delegating),
    "processes": executed(jobs.fleet_job),
    "crash": executed(jobs.crashing),
    "no resource": executed(jobs.asking),
    "no resource for two steps": executed(jobs.asking_twice),
    "no resource in a process": executed(jobs.asking_in_a_process),
    "errors": executed(jobs.failing),
    "retries": executed(jobs.retrying),
    "skipped": executed(jobs.sorting),
    "unreadable": materialized(jobs.planes, jobs.fleet, io_manager=jobs.Unreadable()),
    "unwritable": materialized(jobs.planes, jobs.fleet, io_manager=jobs.Unwritable()),
    "some outputs": materialized(jobs.movements, selection=["departures", "diversions"]),
    "half an output": materialized(jobs.halves),
    "graph asset": materialized(jobs.oldest_plane, jobs.retired),
    "checks": materialized(jobs.checked, jobs.plausible_values, jobs.unique_key, jobs.after_checked),
    "partitions": materialized(
        jobs.flights, jobs.weather, jobs.delays, io_manager=jobs.Memory(), tags=MONDAY_AND_TUESDAY
    ),
    "observed": observed,
    "queued": queued,
    "canceled in the queue": canceled_in_the_queue,
    "canceled": executed(jobs.canceling, cancel_the_run={"process": os.getpid()}),
    "canceled in a process": executed(jobs.canceling_a_process, cancel_the_run={"process": os.getpid()}),
    "killed": killed,
    "traced": executed(traced_jobs.tracing),
}


@pytest.fixture(scope="session")
def instance_of_runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """The instance with all of the runs; to be read only."""
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("recorded"))) as instance:
        yield instance


@pytest.fixture(scope="session")
def recorded(instance_of_runs: dg.DagsterInstance) -> Recordings:
    """The event log of any of the runs, by name."""
    return Recordings(instance_of_runs, RUNS)


@pytest.fixture(scope="session", params=list(RUNS))
def recording(request: pytest.FixtureRequest, recorded: Recordings) -> Recording:
    """Each of the event logs in turn."""
    return recorded[request.param]


@pytest.fixture
def clock() -> Iterator[Clock]:
    """Python's monotonic clock, which stands still until a test puts it forward."""
    with clock_to_put_forward() as clock:
        yield clock


@pytest.fixture
def target() -> FakeTarget:
    """A projection that stores its exports."""
    return FakeTarget()


@pytest.fixture
def observer(target: FakeTarget) -> Observer:
    """An observer that exports to the target."""
    return Observer(target)


@pytest.fixture(scope="session")
def weather_instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """Return the instance with the runs of lineage_jobs.py."""
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("weather"))) as instance:
        yield instance


@pytest.fixture(scope="session")
def weather(weather_instance: dg.DagsterInstance) -> RunHistory:
    """Return the history of a run over three days, in which a check fails and a step is retried."""
    run = observe_weather.execute_in_process(instance=weather_instance, tags=RANGE)
    return history_of(weather_instance, run.run_id)


@pytest.fixture
def unused_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore OpenTelemetry to a process without a tracer provider; a process can set it only once."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())


@pytest.fixture
def exporter() -> FakeExporter:
    """Return an exporter that stores the spans."""
    return FakeExporter()


@pytest.fixture
def history(recorded: Recordings) -> RunHistory:
    """Return the history of a run with steps in processes of their own."""
    return recorded["processes"].history


@pytest.fixture
def export(instance_of_runs: dg.DagsterInstance) -> Export:
    """Return a function that exports a whole run with a projection of traces."""
    return lambda projection, history: projection.export(instance_of_runs, history, None)


@pytest.fixture(scope="session")
def timed_runs(instance_of_runs: dg.DagsterInstance) -> Recordings:
    """The event log of any of the runs of timed_runs.py, by name."""
    return Recordings(instance_of_runs, TIMED_RUNS)
