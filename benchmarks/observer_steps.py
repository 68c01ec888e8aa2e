"""What observing costs the steps of a run: wall-clock time, beside bare runs and beside each peer.

Each run is executed by a fresh process on an instance on disk, in turns: every case once, then again.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

import dagster as dg
import psutil
from rich.console import Console

from benchmarks import observed_jobs as jobs
from benchmarks import processes
from benchmarks.backends import Backends, dead_backends
from benchmarks.processes import BenchmarkError, Executed
from benchmarks.results import Result, Value
from ledgerline.ledger.event_log import read_history

NONE, UP, DEAD = "-", "up", "dead"

OURS, OURS_SPAN = "ours", "ours + otel.span"
NAMES = {
    jobs.OTEL: "dagster-otel",
    jobs.MLFLOW: "dagster-mlflow",
    jobs.MLFLOW_METRICS: "dagster-mlflow + metric",
}
SHOWN_SECONDS = 60.0

COLUMNS = (
    "what",
    "backends",
    "ops",
    "wall s",
    "x bare",
    "wall ms +/op",
    "own ms +/op",
    "CPU ms +/op",
    "observer CPU s",
    "outcome",
)

NOTES = (
    "Wall: from asking for the run until all is done that its process does at exit. +/op: added for each op.",
    "Own: what a step itself took longer, by the event log. CPU: of the process of the run.",
    "Imports are done before.",
    "Observer: its processor time for the run, in a process of its own.",
    "Up: a collector and an MLflow server, nice, on this machine; dead: nothing listens at either address.",
    "Ours sends to both, dagster-otel to the collector (OTLP over HTTP), dagster-mlflow to MLflow.",
    "All have this project's limits for MLflow calls (2 retries). With MLflow's own, a call takes minutes.",
)


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        rounds: How often each case is executed.
        ops: In one job, by executor.
        ops_of_slow: The same for peers that wait for a dead backend in each op.
    """

    rounds: int
    ops: Mapping[str, int]
    ops_of_slow: Mapping[str, int]


FULL = Size(
    rounds=3,
    ops={jobs.IN_PROCESS: 100, jobs.MULTIPROCESS: 10},
    ops_of_slow={jobs.IN_PROCESS: 10, jobs.MULTIPROCESS: 5},
)
QUICK = Size(
    rounds=1,
    ops={jobs.IN_PROCESS: 6, jobs.MULTIPROCESS: 3},
    ops_of_slow={jobs.IN_PROCESS: 3, jobs.MULTIPROCESS: 2},
)


@dataclass(frozen=True)
class Case:
    """A row of the table.

    Attributes:
        name: What it is called there.
        version: Of the job.
        backends: NONE, UP or DEAD.
        executor: Where the steps run.
        ops: How many there are.
        observed: Whether our observer runs beside it.
    """

    name: str
    version: str
    backends: str
    executor: str
    ops: int
    observed: bool = False


@dataclass(frozen=True)
class Place:
    """Where the runs of a case are kept, where they are shown, and by which observer of ours."""

    home: Path
    backends: Backends
    observer: psutil.Process | None


@dataclass
class Times:
    """What was measured of a case, a value for each round."""

    seconds: list[float] = field(default_factory=list)
    step_seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    observer_seconds: list[float] = field(default_factory=list)
    problem: str = ""


def measure(console: Console, folder: Path, live: Backends, size: Size) -> list[Result]:
    """A table for each executor."""
    backends = {UP: live, DEAD: dead_backends(), NONE: dead_backends()}
    cases = [case for executor in size.ops for case in cases_of(executor, size)]
    times = {case: Times() for case in cases}
    with ExitStack() as stack:
        places: dict[tuple[str, str], Place] = {}
        for case in cases:
            key = case.name, case.backends
            if key not in places:
                home = processes.new_home(folder / f"steps-{len(places)}")
                observer = None
                if case.observed:
                    console.print(f"Starting the observer of “{case.name}”, backends {case.backends} …")
                    environment = backends[case.backends].environment
                    observer = stack.enter_context(_observer(home, case, environment))
                places[key] = Place(home, backends[case.backends], observer)
        for turn in range(size.rounds):
            for case in cases if turn % 2 == 0 else reversed(cases):
                executed = _executed(case, places[case.name, case.backends], times[case])
                console.print(
                    f"{turn + 1}/{size.rounds}  {case.executor:<14}{case.name:<26}{case.backends:<6}"
                    f"{case.ops:>4} ops {executed.seconds:8.2f} s  {times[case].problem}",
                    markup=False,
                    highlight=False,
                )
    return [
        _result(executor, size, {case: each for case, each in times.items() if case.executor == executor})
        for executor in size.ops
    ]


def cases_of(executor: str, size: Size) -> list[Case]:
    """All cases under one executor, the bare ones first."""
    ops, few = size.ops[executor], size.ops_of_slow[executor]
    cases = [Case("bare", jobs.BARE, NONE, executor, ops), Case("bare", jobs.BARE, NONE, executor, few)]
    for backends in (UP, DEAD):
        cases += [
            Case(OURS, jobs.BARE, backends, executor, ops, observed=True),
            Case(OURS_SPAN, jobs.SPAN, backends, executor, ops, observed=True),
        ]
        for version, module in jobs.PEERS.items():
            waits = backends == DEAD and version == jobs.OTEL
            same = backends == DEAD and version == jobs.MLFLOW_METRICS  # no op is reached
            if find_spec(module) is not None and not same:
                cases.append(Case(NAMES[version], version, backends, executor, few if waits else ops))
    return cases


@contextmanager
def _observer(home: Path, case: Case, environment: Mapping[str, str]) -> Iterator[psutil.Process]:
    """An observer that has been at work before, as it is for weeks; asleep until its case is measured."""
    with processes.following(home, environment) as observer:
        processes.execute(case.version, 1, jobs.IN_PROCESS, home, environment)
        processes.wait_until(lambda: processes.has_tried_everything(home), "the observer's first run")
        observer.suspend()
        yield observer


def _executed(case: Case, place: Place, times: Times) -> Executed:
    environment = place.backends.environment
    if place.observer is None:
        executed = processes.execute(case.version, case.ops, case.executor, place.home, environment)
        _note(times, place.home, executed)
        return executed
    place.observer.resume()
    before = processes.cpu_seconds([place.observer])
    executed = processes.execute(case.version, case.ops, case.executor, place.home, environment)
    run_id = executed.run_id
    if case.backends == UP and run_id is not None:
        try:
            processes.wait_until(lambda: place.backends.has_all_of(run_id), "the run", seconds=SHOWN_SECONDS)
        except BenchmarkError:
            executed = replace(executed, problem=f"the run was not shown within {SHOWN_SECONDS:.0f} s")
    times.observer_seconds.append(processes.cpu_seconds([place.observer]) - before)
    _note(times, place.home, executed)
    place.observer.suspend()  # the last: asleep it may hold a lock of the instance
    return executed


def _note(times: Times, home: Path, executed: Executed) -> None:
    times.seconds.append(executed.seconds)
    if executed.cpu_seconds is not None:
        times.cpu_seconds.append(executed.cpu_seconds)
    if executed.problem is not None:
        times.problem = executed.problem
    if executed.run_id is None:
        return
    with dg.DagsterInstance.from_config(str(home)) as instance:
        history = read_history(instance, executed.run_id)
    assert history is not None
    steps = [attempt.seconds or 0.0 for attempt in history.attempts if not attempt.failed]
    if steps:
        times.step_seconds.append(sum(steps) / len(steps))
    if history.error is not None:
        errors = [attempt.error for attempt in history.attempts if attempt.error is not None]
        reason = (errors[0] if errors else history.error).root.type
        times.problem = f"{executed.problem}: {reason}, {len(steps)} steps done"


def _result(executor: str, size: Size, times: Mapping[Case, Times]) -> Result:
    bare = {case.ops: each for case, each in times.items() if case.version == jobs.BARE and not case.observed}
    rows = [_row(case, each, bare[case.ops]) for case, each in times.items()]
    few = size.ops_of_slow[executor]
    notes = [
        *NOTES,
        f"What waits for a dead backend in each op is measured with {few} ops, beside a bare run of as many.",
    ]
    notes += [
        f"{case.name}, backends {case.backends}: {each.problem}."
        for case, each in times.items()
        if each.problem
    ]
    missing = [version for version, module in jobs.PEERS.items() if find_spec(module) is None]
    if missing:
        notes.append(f"Not installed, hence not measured: {', '.join(missing)} (requirements/bench.lock).")
    return Result(
        "steps",
        f"The same job under {executor}: medians of {size.rounds} rounds, taken in turns",
        COLUMNS,
        rows,
        notes,
    )


def _row(case: Case, times: Times, bare: Times) -> Sequence[Value]:
    wall = statistics.median(times.seconds)
    cost: Sequence[Value] = (None,) * 4
    if not times.problem:
        cpu = None
        if case.executor == jobs.IN_PROCESS:
            cpu = _added(times.cpu_seconds, bare.cpu_seconds) / case.ops
        cost = (
            wall / statistics.median(bare.seconds),
            _added(times.seconds, bare.seconds) / case.ops,
            _added(times.step_seconds, bare.step_seconds),
            cpu,
        )
    observer = statistics.median(times.observer_seconds) if times.observer_seconds else None
    return (case.name, case.backends, case.ops, wall, *cost, observer, "failed" if times.problem else "ok")


def _added(seconds: Sequence[float], bare: Sequence[float]) -> float:
    """Milliseconds that one takes longer than the other."""
    return (statistics.median(seconds) - statistics.median(bare)) * 1000
