"""Measures the duration and the memory of the project's commands, and the import of its definitions."""

import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from benchmarks.context import BenchmarkError, Context, Result, Value
from benchmarks.processes import PROJECT_ROOT, SCRIPTS, environment_of, family_of

SAMPLE_SECONDS = 0.25
DEFINITIONS = "pipelines.definitions"
# Values of LEDGERLINE_EXECUTOR, with the name in the table.
EXECUTORS = {
    "multiprocess_spawn": "Dagster's (spawn)",
    "multiprocess": "ours (forkserver)",
    "in_process": "in_process",
}


def measure_commands(context: Context) -> list[Result]:
    """Measure `ledgerline run` twice, and backfills of a year."""
    year = ("backfill", "ingest_flights", "--from", "2013-01-01", "--to", "2013-12-31")
    months = ("backfill", "train_delay_model", "--from", "2013-02", "--to", "2013-12")
    rows: list[Sequence[Value]] = []
    for arguments in context.pick((("run",), ("run",), year, months), (("run",),)):
        seconds, megabytes = _measured(arguments, context.folder)
        rows.append((f"ledgerline {' '.join(arguments)}", seconds, megabytes))
        context.report(f"{rows[-1][0]}: {seconds:.1f} s")
    for module in ("dagster", DEFINITIONS):
        seconds = statistics.median(_imports(module, context.pick(15, 1)))
        rows.append((f"import {module}", seconds, None))
    note = "Memory: the highest sum of PSS over all processes."
    return [Result("Commands and imports", ("command", "seconds", "MB"), rows, (note,))]


def measure_executors(context: Context) -> list[Result]:
    """Measure `ledgerline run --fresh` under each executor, on copies of the same state."""
    template, home, rounds = context.folder / "template", context.folder / "home", context.pick(3, 1)
    _measured(("run",), template)
    taken: dict[str, list[float]] = {executor: [] for executor in EXECUTORS}
    for _ in range(rounds):
        for executor in EXECUTORS:
            # The copies are in the same folder in turn, because paths are part of the state.
            shutil.rmtree(home, ignore_errors=True)
            shutil.copytree(template, home, symlinks=True)
            taken[executor].append(_measured(("run", "--fresh"), home, LEDGERLINE_EXECUTOR=executor)[0])
            context.report(f"{executor}: {taken[executor][-1]:.1f} s")
    medians = {executor: statistics.median(seconds) for executor, seconds in taken.items()}
    ours = medians["multiprocess"]
    rows = [(EXECUTORS[executor], seconds, seconds / ours) for executor, seconds in medians.items()]
    title = f"`ledgerline run --fresh`: medians of {rounds} rounds, in turns"
    return [Result(title, ("executor", "seconds", "x ours"), rows)]


def _measured(arguments: Sequence[str], home: Path, **settings: str) -> tuple[float, float]:
    """Run a command on the state in `home`; return its duration in seconds and its memory in MB."""
    begun, highest = time.perf_counter(), 0.0
    environment = environment_of({"LEDGERLINE_HOME": str(home), **settings})
    command = [SCRIPTS / "ledgerline", *arguments]
    with subprocess.Popen(command, env=environment, cwd=PROJECT_ROOT, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            highest = max(highest, _megabytes(process.pid))
            time.sleep(SAMPLE_SECONDS)
    if process.returncode:
        raise BenchmarkError(f"ledgerline {' '.join(arguments)} ended with code {process.returncode}.")
    return time.perf_counter() - begun, highest


def _megabytes(pid: int) -> float:
    total = 0
    for member in family_of(pid):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            total += member.memory_full_info().pss
    return total / 1e6


def _imports(module: str, times: int) -> list[float]:
    """Return the seconds that the import of a module takes in new interpreters."""
    script = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    command = [sys.executable, "-c", script]
    return [
        float(subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, check=True).stdout)
        for _ in range(times)
    ]
