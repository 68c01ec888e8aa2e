"""Measures the time from the end of a step to the arrival of its span, and the cost of idle sensors."""

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.context import Context, Result, Value
from benchmarks.observer import jobs
from benchmarks.observer.observed import (
    Backends,
    executed_bare,
    following,
    history_of,
    live_backends,
    new_home,
)
from benchmarks.processes import SCRIPTS, cpu_seconds, family_of, spread, started, unused_port
from ledgerline.ledger import ids
from ledgerline.testing.waiting import wait_until

COLUMNS = ("spans by", "steps", "median s", "95 % s", "longest s", "end of run s")


def measure_latency(context: Context) -> list[Result]:
    """Measure `ledgerline observe --follow`."""
    live, home = context.shared(live_backends), new_home(context.folder / "home")
    executed_bare(home, 1, jobs.IN_PROCESS, 0.0)  # This creates the instance's tables.
    with following(home, live.environment):
        _executed(live, home, 1)  # This excludes initialisation from the measurement.
        row = ("observe --follow", *_latencies(context, live, home))
    note = "Goal: 2 s. Each step is a process and takes a second; an MLflow server receives the runs, too."
    return [Result("From STEP_SUCCESS to the step's span at the collector", COLUMNS, [row], (note,))]


def measure_dev(context: Context) -> list[Result]:
    """Measure `ledgerline dev` with its sensors and without them."""
    live, idle_seconds = context.shared(live_backends), context.pick(60.0, 5.0)
    rows: list[Sequence[Value]] = []
    for name, observer in (("dev with sensors", "sensors"), ("dev without", "service")):
        home = context.folder / observer
        home.mkdir()
        context.report(f"Starting {name} …")
        environment = {
            **live.environment,
            "LEDGERLINE_HOME": str(home / "ledgerline"),
            "DAGSTER_HOME": str(home),
            "LEDGERLINE_DAGSTER_PORT": str(unused_port()),
            "LEDGERLINE_OBSERVER": observer,
        }
        command, ready = [SCRIPTS / "ledgerline", "dev"], "Ctrl-C ends everything"
        with started(command, environment, home / "dev.log", ready) as process:
            latencies: Sequence[Value] = (None,) * 5
            if observer == "sensors":
                _executed(live, home, 1)
                latencies = _latencies(context, live, home)
            else:
                executed_bare(home, context.pick(10, 3), jobs.MULTIPROCESS, 1.0)
            time.sleep(context.pick(30.0, 5.0))  # The work that the runs have caused ends in this time.
            rows.append((name, *latencies, *_idle(process.pid, idle_seconds)))
    columns = (*COLUMNS, "processes", "idle CPU %", "RSS MB")
    note = f"Goal: a span within 10 s. Idle: all processes over {idle_seconds:.0f} s, % of one processor."
    return [Result("The sensors of `ledgerline dev`", columns, rows, (note,))]


def _latencies(context: Context, live: Backends, home: Path) -> Sequence[Value]:
    steps: list[float] = []
    runs: list[float] = []
    for _ in range(context.pick(2, 1)):
        run_id = _executed(live, home, context.pick(10, 3))
        history = history_of(home, run_id)
        assert history.ended is not None
        arrived = live.arrivals(run_id)
        for attempt in history.attempts:
            assert attempt.ended is not None
            steps.append(arrived[ids.attempt_span_id(run_id, attempt.step, attempt.number)] - attempt.ended)
        runs.append(arrived[ids.run_span_id(run_id)] - history.ended)
    return *spread(steps), max(steps), statistics.median(runs)


def _executed(live: Backends, home: Path, steps: int) -> str:
    run_id = executed_bare(home, steps, jobs.MULTIPROCESS, 1.0)
    wait_until(lambda: live.have(run_id), f"the backends have run {run_id}")
    return run_id


def _idle(pid: int, seconds: float) -> Sequence[Value]:
    before, begun = cpu_seconds(family_of(pid)), time.monotonic()
    time.sleep(seconds)
    family = family_of(pid)
    percent = (cpu_seconds(family) - before) / (time.monotonic() - begun) * 100
    return len(family), percent, sum(member.memory_info().rss for member in family) / 1e6
