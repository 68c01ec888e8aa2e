"""Measures the overhead of the observer for the steps of a run, compared with bare runs and with each peer.

A new process executes each run on an instance on disk. In each round, every case is executed once.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import dagster as dg
import psutil

from benchmarks.context import Context, Result, Value
from benchmarks.observer import jobs
from benchmarks.observer.observed import (
    Backends,
    Executed,
    dead_backends,
    execute,
    following,
    live_backends,
    new_home,
)
from benchmarks.processes import cpu_seconds
from ledgerline.ledger.event_log import read_history
from ledgerline.testing.waiting import wait_until

NONE, UP, DEAD = "-", "up", "dead"
COLUMNS = (
    "run",
    "backends",
    "ops",
    "wall s",
    "x bare",
    "wall ms +/op",
    "step ms +/op",
    "CPU ms +/op",
    "observer CPU s",
    "outcome",
)
NOTES = (
    "Wall: from the request for the run until its process has ended. +/op: added for each op.",
    (
        "Step: how much longer a step takes by the event log. CPU: of the run's process. Imports are done "
        "before."
    ),
    "Observer: processor time of its process for the run.",
    "Up: a collector and an MLflow server of low priority on this machine; dead: nothing listens.",
    "All have this project's limits for calls of MLflow (2 retries); by default a call takes minutes.",
    "A peer that waits for a dead backend in each op has fewer ops, beside a bare run of as many.",
)


@dataclass(frozen=True)
class Case:
    """A row of the table: a version of the job, its backends, and whether an observer runs beside it."""

    name: str
    version: str
    backends: str
    executor: str
    ops: int
    observed: bool = False


@dataclass(frozen=True)
class Place:
    """The instance of a case, its backends and its observer."""

    home: Path
    backends: Backends
    observer: psutil.Process | None


@dataclass
class Times:
    """The measured numbers of a case, one for each round."""

    wall: list[float] = field(default_factory=list)
    step: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    observer: list[float] = field(default_factory=list)
    problem: str = ""


def measure_steps(context: Context) -> list[Result]:
    """Measure all cases with each executor."""
    backends = {UP: context.shared(live_backends), DEAD: dead_backends(), NONE: dead_backends()}
    rounds = context.pick(3, 1)
    sizes = {
        jobs.IN_PROCESS: context.pick((100, 10), (6, 3)),
        jobs.MULTIPROCESS: context.pick((10, 5), (3, 2)),
    }
    cases = [case for executor, (ops, few) in sizes.items() for case in _cases(executor, ops, few)]
    times = {case: Times() for case in cases}
    places: dict[tuple[str, str], Place] = {}
    with ExitStack() as stack:
        for case in cases:
            key = case.name, case.backends
            if key not in places:
                home, observer = new_home(context.folder / f"home-{len(places)}"), None
                if case.observed:
                    observer = stack.enter_context(_observer(home, case, backends[case.backends].environment))
                places[key] = Place(home, backends[case.backends], observer)
        for turn in range(rounds):
            for case in cases if turn % 2 == 0 else reversed(cases):
                run = _executed(case, places[case.name, case.backends], times[case])
                context.report(
                    f"{turn + 1}/{rounds}  {case.executor:<14}{case.name:<26}{case.backends:<6}"
                    f"{case.ops:>4} ops {run.seconds:8.2f} s  {times[case].problem}"
                )
    return [
        _result(executor, rounds, {case: times[case] for case in cases if case.executor == executor})
        for executor in sizes
    ]


def _cases(executor: str, ops: int, few: int) -> Iterator[Case]:
    """Return all cases for one executor, the bare ones first."""
    yield Case("bare", jobs.BARE, NONE, executor, ops)
    yield Case("bare", jobs.BARE, NONE, executor, few)
    for backends in (UP, DEAD):
        yield Case("observed", jobs.BARE, backends, executor, ops, observed=True)
        yield Case("observed + otel.span", jobs.SPAN, backends, executor, ops, observed=True)
        for version, module in jobs.PEERS.items():
            if find_spec(module) is not None:
                waits = backends == DEAD and version == jobs.OTEL
                yield Case(version, version, backends, executor, few if waits else ops)


@contextmanager
def _observer(home: Path, case: Case, environment: Mapping[str, str]) -> Iterator[psutil.Process]:
    """Start an observer that has exported a run before, and suspend it until its case is measured."""
    log = home / "observer.log"
    execute(case.version, 1, jobs.IN_PROCESS, home, environment)  # This creates the instance's tables.
    with following(home, environment) as observer:
        tried = ("  traces  ", "  mlflow  ")
        wait_until(lambda: all(name in log.read_text() for name in tried), "the observer has tried both")
        observer.suspend()
        yield observer


def _executed(case: Case, place: Place, times: Times) -> Executed:
    environment = place.backends.environment
    before = 0.0
    if place.observer is not None:
        place.observer.resume()
        before = cpu_seconds([place.observer])
    run = execute(case.version, case.ops, case.executor, place.home, environment)
    if place.observer is not None:
        if case.backends == UP and run.run_id is not None:
            run_id = run.run_id
            wait_until(lambda: place.backends.have(run_id), "the backends have the run")
        times.observer.append(cpu_seconds([place.observer]) - before)
    _note(times, place.home, run)
    if place.observer is not None:
        place.observer.suspend()  # last, because a suspended observer may hold a lock of the instance
    return run


def _note(times: Times, home: Path, run: Executed) -> None:
    times.wall.append(run.seconds)
    if run.cpu_seconds is not None:
        times.cpu.append(run.cpu_seconds)
    if run.problem is not None:
        times.problem = run.problem
    if run.run_id is None:
        return
    with dg.DagsterInstance.from_config(str(home)) as instance:
        history = read_history(instance, run.run_id)
    assert history is not None
    steps = [attempt.seconds or 0.0 for attempt in history.attempts if not attempt.failed]
    if steps:
        times.step.append(sum(steps) / len(steps))
    if history.error is not None:
        errors = [attempt.error for attempt in history.attempts if attempt.error is not None]
        times.problem = f"{run.problem}: {(errors[0] if errors else history.error).root.type}"


def _result(executor: str, rounds: int, times: Mapping[Case, Times]) -> Result:
    bare = {case.ops: each for case, each in times.items() if case.name == "bare"}
    rows = [_row(case, each, bare[case.ops]) for case, each in times.items()]
    problems = [
        f"{case.name}, {case.backends}: {each.problem}." for case, each in times.items() if each.problem
    ]
    missing = [version for version, module in jobs.PEERS.items() if find_spec(module) is None]
    if missing:
        problems.append(f"Not installed and not measured: {', '.join(missing)} (requirements/bench.lock).")
    return Result(
        f"Under {executor}: medians of {rounds} rounds, in turns", COLUMNS, rows, [*NOTES, *problems]
    )


def _row(case: Case, times: Times, bare: Times) -> Sequence[Value]:
    wall = statistics.median(times.wall)
    cost: Sequence[Value] = (None,) * 4
    if not times.problem:
        in_process = case.executor == jobs.IN_PROCESS
        cost = (
            wall / statistics.median(bare.wall),
            _added(times.wall, bare.wall) / case.ops,
            _added(times.step, bare.step),
            _added(times.cpu, bare.cpu) / case.ops if in_process else None,
        )
    observer = statistics.median(times.observer) if times.observer else None
    return case.name, case.backends, case.ops, wall, *cost, observer, "failed" if times.problem else "ok"


def _added(seconds: Sequence[float], bare: Sequence[float]) -> float:
    """Return the difference between two durations in milliseconds."""
    return 1000 * (statistics.median(seconds) - statistics.median(bare))
