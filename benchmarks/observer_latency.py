"""How long after a step has ended its span is at the collector: from the service, and from the sensors.

And what the sensors take while nothing happens, beside a `dagster dev` without them.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

import dagster as dg
from rich.console import Console

from benchmarks import observed_jobs as jobs
from benchmarks import processes
from benchmarks.backends import Backends
from benchmarks.results import Result, Value
from ledgerline.ledger import ids
from ledgerline.ledger.event_log import read_history

SHOWN_SECONDS = 120.0
ENDED = "Ctrl-C ends everything"


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        steps: Of one run, each a second long.
        runs: How many, one after the other.
        settle_seconds: Before it counts as idle.
        idle_seconds: How long idle processes are measured.
    """

    steps: int
    runs: int
    settle_seconds: float
    idle_seconds: float


FULL = Size(steps=10, runs=2, settle_seconds=30.0, idle_seconds=60.0)
QUICK = Size(steps=3, runs=1, settle_seconds=5.0, idle_seconds=5.0)


@dataclass(frozen=True)
class Latencies:
    """Seconds from an event until the span that tells of it had arrived.

    Attributes:
        steps: Of all steps.
        runs: Of the end of each run.
    """

    steps: Sequence[float]
    runs: Sequence[float]


def measure(console: Console, folder: Path, live: Backends, size: Size) -> list[Result]:
    """One table: of `ledgerline observe --follow`."""
    home = processes.new_home(folder / "latency")
    with processes.following(home, live.environment):
        _execute(live, home, 1)  # what is done only once
        console.print("Runs beside observe --follow …")
        found = _latencies(live, home, size)
    return [
        Result(
            "latency",
            f"From STEP_SUCCESS to the step's span at the collector: {size.runs} runs of {size.steps} x 1 s",
            ("what shows it", *_COLUMNS),
            [("observe --follow", *_row(found))],
            ("Goal: 2 s. Steps are processes of their own; an MLflow server is up and written to, too.",),
        )
    ]


def measure_dev(console: Console, folder: Path, live: Backends, size: Size) -> list[Result]:
    """One table: of `ledgerline dev` with its sensors, and without."""
    rows: list[Sequence[Value]] = []
    for name, observer in (("dev with sensors", "sensors"), ("dev without", "service")):
        home = folder / f"dev-{observer}"
        home.mkdir()
        console.print(f"Starting {name} …")
        with _dev(home, live, observer) as process:
            log = home / "dev.log"
            processes.wait_until(lambda log=log: ENDED in log.read_text(), name, process, log)
            if observer == "sensors":
                _execute(live, home, 1)
                console.print("Runs beside it …")
                latencies = _row(_latencies(live, home, size))
            else:
                processes.execute(jobs.BARE, size.steps, jobs.MULTIPROCESS, home, op_seconds=1.0)
                latencies = (None,) * len(_COLUMNS)
            console.print(f"Nothing beside it, for {size.settle_seconds + size.idle_seconds:.0f} s …")
            time.sleep(size.settle_seconds)
            rows.append((name, *latencies, *_idle(process, size.idle_seconds)))
    return [
        Result(
            "dev",
            f"The sensors of `ledgerline dev`: {size.runs} runs of {size.steps} x 1 s, then nothing",
            ("what shows it", *_COLUMNS, "processes", "idle CPU %", "RSS MB"),
            rows,
            (
                "Goal: a span within 10 s.",
                f"Idle: all processes of dev over {size.idle_seconds:.0f} s, in percent of one processor.",
            ),
        )
    ]


_COLUMNS = ("steps", "median s", "95 % s", "longest s", "end of run s")


def _dev(home: Path, live: Backends, observer: str) -> AbstractContextManager[Popen[bytes]]:
    environment: Mapping[str, str] = {
        **live.environment,
        "LEDGERLINE_HOME": str(home / "ledgerline"),
        "DAGSTER_HOME": str(home),
        "LEDGERLINE_DAGSTER_PORT": str(processes.free_port()),
        "LEDGERLINE_OBSERVER": observer,
    }
    command = [str(processes.SCRIPTS / "ledgerline"), "dev"]
    return processes.started(command, processes.environment_of(environment), home / "dev.log")


def _latencies(live: Backends, home: Path, size: Size) -> Latencies:
    steps: list[float] = []
    runs: list[float] = []
    for _ in range(size.runs):
        run_id = _execute(live, home, size.steps)
        with dg.DagsterInstance.from_config(str(home)) as instance:
            history = read_history(instance, run_id)
        assert history is not None
        assert history.ended is not None
        arrived = live.arrivals(run_id)
        for attempt in history.attempts:
            assert attempt.ended is not None
            steps.append(arrived[ids.attempt_span_id(run_id, attempt.step, attempt.number)] - attempt.ended)
        runs.append(arrived[ids.run_span_id(run_id)] - history.ended)
    return Latencies(steps, runs)


def _execute(live: Backends, home: Path, steps: int) -> str:
    executed = processes.execute(jobs.BARE, steps, jobs.MULTIPROCESS, home, op_seconds=1.0)
    run_id = executed.run_id
    if executed.problem is not None or run_id is None:
        raise processes.BenchmarkError(f"A run of {steps} steps: {executed.problem}")
    processes.wait_until(lambda: live.has_all_of(run_id), f"run {run_id} to be shown", seconds=SHOWN_SECONDS)
    return run_id


def _row(found: Latencies) -> Sequence[Value]:
    late = sorted(found.steps)
    nearly_all = late[min(len(late) - 1, round(0.95 * len(late)))]
    return len(late), statistics.median(late), nearly_all, late[-1], statistics.median(found.runs)


def _idle(process: Popen[bytes], seconds: float) -> Sequence[Value]:
    before, started = processes.cpu_seconds(processes.family_of(process.pid)), time.monotonic()
    time.sleep(seconds)
    family = processes.family_of(process.pid)
    percent = (processes.cpu_seconds(family) - before) / (time.monotonic() - started) * 100
    return len(family), percent, sum(member.memory_info().rss for member in family) / 1e6
