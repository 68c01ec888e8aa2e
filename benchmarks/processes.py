"""Starts the processes that scenarios measure, waits for them, and ends them with their descendants."""

import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import psutil
import requests

from benchmarks.context import BenchmarkError
from ledgerline.settings.library_defaults import MLFLOW_DEFAULTS
from ledgerline.testing.ports import HOST, unused_port
from ledgerline.testing.waiting import wait_until

PROJECT_ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = Path(sys.executable).parent
READY_SECONDS, STOP_SECONDS = 120.0, 15.0
NICE = 10


def is_setting(name: str) -> bool:
    """Return whether a variable is a setting of the measured programs. The paths of built servers are not."""
    prefixes = ("LEDGERLINE_", "DAGSTER_", "MLFLOW_", "OTEL_", "OPENLINEAGE_")
    return name.startswith(prefixes) and name != "LEDGERLINE_SERVERS"


def environment_of(additions: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of this process without settings, and with additional variables."""
    others = {name: value for name, value in os.environ.items() if not is_setting(name)}
    defaults = {"PYTHON_DOTENV_DISABLED": "true", "PYTHONUNBUFFERED": "1", "MPLBACKEND": "agg"}
    return others | MLFLOW_DEFAULTS | defaults | dict(additions)


@contextmanager
def started(
    command: Sequence[str | Path], additions: Mapping[str, str], log: Path, ready: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process in the checkout; afterwards, end it and its descendants.

    Args:
        command: Program and arguments.
        additions: Additional variables.
        log: File for its output.
        ready: URL that responds, or text in the log, once the process is ready; empty if nothing is awaited.

    Raises:
        BenchmarkError: The process ended before it was ready.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=PROJECT_ROOT,
            env=environment_of(additions),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches only this process, which then ends the others.
        )

    def is_ready() -> bool:
        if ready and process.poll() is not None:
            raise BenchmarkError(f"{command[0]} ended before it was ready: {tail(log)}")
        if not ready.startswith("http"):
            return ready in log.read_text()
        with suppress(requests.RequestException):
            return requests.get(ready, timeout=2).ok
        return False

    try:
        wait_until(is_ready, f"{command[0]} is ready", READY_SECONDS)
        yield process
    finally:
        _end(process)


@contextmanager
def spawned(target: Callable[..., None], *arguments: object) -> Iterator[tuple[BaseProcess, Connection]]:
    """Run a function in another process, with a pipe as its last argument; yield the process and the pipe."""
    spawning = multiprocessing.get_context("spawn")
    here, there = spawning.Pipe()
    process = spawning.Process(target=target, args=(*arguments, there), daemon=True)
    process.start()
    there.close()  # so that reading ends when the process has ended
    try:
        yield process, here
    finally:
        process.kill()
        process.join()


def tail(log: Path) -> str:
    """Return the last lines of a log."""
    return log.read_text(errors="replace")[-3000:]


@contextmanager
def mlflow_server(folder: Path, additions: Mapping[str, str] | None = None) -> Iterator[tuple[str, str]]:
    """Start an MLflow server on SQLite; yield its URL and the URI of its database.

    In production, it would be on another machine. A low priority prevents that it slows down the measured
    processes.
    """
    from ledgerline.cli.dev_servers import MLFLOW_SERVER_ENVIRONMENT
    from ledgerline.mlflow_store.store import connect

    folder.mkdir(parents=True, exist_ok=True)
    port, database = unused_port(), f"sqlite:///{folder}/mlflow.db"
    connect(database)  # This creates the tables before several processes try to do so.
    storage = ["--backend-store-uri", database, "--artifacts-destination", folder / "artifacts"]
    command = [SCRIPTS / "mlflow", "server", *storage, "--host", HOST, "--port", str(port), "--workers", "1"]
    environment, url = MLFLOW_SERVER_ENVIRONMENT | dict(additions or {}), f"http://{HOST}:{port}"
    with started(command, environment, folder / "mlflow.log", f"{url}/health") as process:
        for member in family_of(process.pid):
            member.nice(NICE)
        yield url, database


def family_of(pid: int) -> list[psutil.Process]:
    """Return a process and its descendants that are alive."""
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    """Return the processor time of processes and of their children that have ended."""
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def milliseconds(action: Callable[[], object], times: int = 1) -> list[float]:
    """Return the duration of each of several executions of an action in milliseconds."""
    taken: list[float] = []
    for _ in range(times):
        begun = time.perf_counter()
        action()
        taken.append(1000 * (time.perf_counter() - begun))
    return taken


def processor_seconds(action: Callable[[], object]) -> float:
    """Return the processor time of this process for an action."""
    begun = time.process_time()
    action()
    return time.process_time() - begun


def spread(values: Sequence[float]) -> tuple[int, float, float]:
    """Return the number of values, their median and their 95th percentile."""
    ordered = sorted(values)
    return len(ordered), statistics.median(ordered), ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]


def growth(times: Sequence[float], values: Sequence[float], parts: int) -> tuple[float, float, float]:
    """Return the medians of the first and the last of equal parts of a series, and its slope over time."""
    size = max(1, len(values) // parts)
    slope = np.polyfit(times, values, 1)[0]
    return statistics.median(values[:size]), statistics.median(values[-size:]), float(slope)


def members(session: int) -> list[psutil.Process]:
    """Return the processes of a session that are alive."""
    alive = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                alive.append(process)
    return alive


def kill_session(session: int) -> None:
    """Kill the processes of a session, also those that start meanwhile."""

    def gone() -> bool:
        alive = members(session)
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        return not alive

    wait_until(gone, "the processes of a session have ended")


def _end(process: "subprocess.Popen[bytes]") -> None:
    sessions = set()
    for member in family_of(process.pid):
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            sessions.add(os.getsid(member.pid))
            member.resume()  # A suspended process does not receive signals.
    process.terminate()  # Processes that a script starts in the background ignore SIGINT.
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    for session in sessions - {os.getsid(0)}:
        kill_session(session)
    process.wait(STOP_SECONDS)
