"""Measures the overhead of the observer for the steps of a run, compared with bare runs and with each peer.

A new process executes each run on an instance on disk. In each round, every case is executed once.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import psutil

from benchmarks.context import Context, Result, Value
from benchmarks.observer import jobs
from benchmarks.observer.observed import (
    Backends,
    dead_backends,
    execute,
    following,
    history_of,
    live_backends,
    new_home,
)
from benchmarks.processes import cpu_seconds
from ledgerline.testing.waiting import wait_until

NONE, UP, DEAD = "-", "up", "dead"
COLUMNS = (
    *("run", "backends", "ops", "wall s", "x bare", "wall ms +/op", "step ms +/op", "CPU ms +/op"),
    *("observer CPU s", "outcome"),
)
NOTES = (
    "Wall: from the request for the run until its process has ended. +/op: added for each op.",
    "Step: how much longer a step takes by the event log. CPU: of the run's process.",
    "Imports are done before.",
    "Observer: processor time of its process for the run.",
    "Up: a collector and an MLflow server of low priority on this machine; dead: nothing listens.",
    "All have this project's limits for calls of MLflow (2 retries); by default a call takes minutes.",
    "A peer that waits for a dead backend in each op has fewer ops, beside a bare run of as many.",
)


@dataclass(frozen=True)
class Place:
    """A version of the job with its backends, its instance and, if it is observed, its observer."""

    name: str
    version: str
    kind: str
    backends: Backends
    home: Path
    observer: psutil.Process | None


@dataclass(frozen=True, eq=False)
class Case:
    """A row of the table, and what was measured in each round, in seconds."""

    place: Place
    executor: str
    ops: int
    wall: list[float] = field(default_factory=list)
    step: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    observer: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def measure_steps(context: Context) -> list[Result]:
    """Measure all cases with each executor."""
    rounds = context.pick(3, 1)
    sizes = {
        jobs.IN_PROCESS: context.pick((100, 10), (6, 3)),
        jobs.MULTIPROCESS: context.pick((10, 5), (3, 2)),
    }
    with ExitStack() as until:
        places = list(_places(context, until))
        cases = {
            executor: [Case(place, executor, ops) for place in places for ops in _ops(place, *counts)]
            for executor, counts in sizes.items()
        }
        in_order = [case for of_executor in cases.values() for case in of_executor]
        for turn in range(rounds):
            for case in in_order if turn % 2 == 0 else reversed(in_order):
                _execute(case)
                context.report(
                    f"{turn + 1}/{rounds}  {case.executor:<14}{case.place.name:<26}{case.place.kind:<6}"
                    f"{case.ops:>4} ops {case.wall[-1]:8.2f} s  {''.join(case.problems[-1:])}"
                )
    return [_result(executor, rounds, of_executor) for executor, of_executor in cases.items()]


def _places(context: Context, until: ExitStack) -> Iterator[Place]:
    """Return all places, the one of bare runs first."""
    observed = {"observed": jobs.BARE, "observed + otel.span": jobs.SPAN}
    peers = {version: version for version, module in jobs.PEERS.items() if find_spec(module) is not None}
    backends = {UP: context.shared(live_backends), DEAD: dead_backends()}
    yield Place("bare", jobs.BARE, NONE, backends[DEAD], new_home(context.folder / "bare"), None)
    for kind, each in backends.items():
        for number, (name, version) in enumerate((observed | peers).items()):
            home, observer = new_home(context.folder / f"{kind}-{number}"), None
            if name in observed:
                observer = until.enter_context(_observer(home, version, each.environment))
            yield Place(name, version, kind, each, home, observer)


def _ops(place: Place, many: int, few: int) -> Sequence[int]:
    if place.name == "bare":
        return many, few
    return (few if place.kind == DEAD and place.version == jobs.OTEL else many,)


@contextmanager
def _observer(home: Path, version: str, environment: Mapping[str, str]) -> Iterator[psutil.Process]:
    """Start an observer that has exported a run before, and suspend it until its case is measured."""
    log = home / "observer.log"
    execute(version, 1, jobs.IN_PROCESS, home, environment)  # This creates the instance's tables.
    with following(home, environment) as observer:
        tried = ("  traces  ", "  mlflow  ")
        wait_until(lambda: all(name in log.read_text() for name in tried), "the observer has tried both")
        observer.suspend()
        yield observer


def _execute(case: Case) -> None:
    place, observer = case.place, case.place.observer
    before = 0.0
    if observer is not None:
        observer.resume()
        before = cpu_seconds([observer])
    run = execute(place.version, case.ops, case.executor, place.home, place.backends.environment)
    if observer is not None:
        if place.kind == UP and run.run_id is not None:
            run_id = run.run_id
            wait_until(lambda: place.backends.have(run_id), "the backends have the run")
        case.observer.append(cpu_seconds([observer]) - before)
    case.wall.append(run.seconds)
    if run.cpu_seconds is not None:
        case.cpu.append(run.cpu_seconds)
    problem = run.problem
    if run.run_id is not None:
        history = history_of(place.home, run.run_id)
        steps = [attempt.seconds or 0.0 for attempt in history.attempts if not attempt.failed]
        if steps:
            case.step.append(sum(steps) / len(steps))
        if history.error is not None:
            errors = [attempt.error for attempt in history.attempts if attempt.error is not None]
            problem = f"{run.problem}: {[*errors, history.error][0].root.type}"
    if problem is not None:
        case.problems.append(problem)
    if observer is not None:
        observer.suspend()  # last, because a suspended observer may hold a lock of the instance


def _result(executor: str, rounds: int, cases: Sequence[Case]) -> Result:
    bare = {case.ops: case for case in cases if case.place.name == "bare"}
    rows = [_row(case, bare[case.ops]) for case in cases]
    notes = [f"{case.place.name}, {case.place.kind}: {case.problems[-1]}." for case in cases if case.problems]
    missing = [version for version, module in jobs.PEERS.items() if find_spec(module) is None]
    if missing:
        notes.append(f"Not installed and not measured: {', '.join(missing)} (requirements/bench.lock).")
    return Result(f"Under {executor}: medians of {rounds} rounds, in turns", COLUMNS, rows, [*NOTES, *notes])


def _row(case: Case, bare: Case) -> Sequence[Value]:
    wall = statistics.median(case.wall)
    cost: Sequence[Value] = (None,) * 4
    if not case.problems:
        cost = (
            wall / statistics.median(bare.wall),
            _added(case.wall, bare.wall) / case.ops,
            _added(case.step, bare.step),
            _added(case.cpu, bare.cpu) / case.ops if case.executor == jobs.IN_PROCESS else None,
        )
    observer = statistics.median(case.observer) if case.observer else None
    name, outcome = (case.place.name, case.place.kind), "failed" if case.problems else "ok"
    return *name, case.ops, wall, *cost, observer, outcome


def _added(seconds: Sequence[float], bare: Sequence[float]) -> float:
    """Return the difference between two durations in milliseconds."""
    return 1000 * (statistics.median(seconds) - statistics.median(bare))
