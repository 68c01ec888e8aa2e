"""Starts the processes that scenarios measure, waits for them, and ends them with their descendants."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import psutil
import requests

from benchmarks.context import BenchmarkError
from ledgerline.settings.library_defaults import MLFLOW_DEFAULTS
from ledgerline.testing.ports import HOST, unused_port
from ledgerline.testing.waiting import wait_until

PROJECT_ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = Path(sys.executable).parent
STOP_SECONDS = 15.0
NICE = 10

Returned = TypeVar("Returned")


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
    command: Sequence[str], additions: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process in the checkout; afterwards, end it and its descendants."""
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
    try:
        yield process
    finally:
        _end(process)


def wait_for(
    condition: Callable[[], object],
    what: str,
    process: "subprocess.Popen[bytes]",
    log: Path,
    seconds: float = 120,
) -> None:
    """Wait until a condition holds that a process brings about.

    Raises:
        BenchmarkError: The process has ended.
    """

    def holds() -> object:
        if process.poll() is not None:
            raise BenchmarkError(f"A process ended before {what}: {tail(log)}")
        return condition()

    wait_until(holds, what, seconds)


def tail(log: Path) -> str:
    """Return the last lines of a log."""
    return log.read_text(errors="replace")[-3000:]


def responds(url: str) -> bool:
    """Return whether a server responds without an error."""
    with suppress(requests.RequestException):
        return requests.get(url, timeout=2).ok
    return False


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
    options = {
        "--backend-store-uri": database,
        "--artifacts-destination": str(folder / "artifacts"),
        "--host": HOST,
        "--port": str(port),
        "--workers": "1",
    }
    command = [str(SCRIPTS / "mlflow"), "server", *(part for option in options.items() for part in option)]
    log, url = folder / "mlflow.log", f"http://{HOST}:{port}"
    with started(command, MLFLOW_SERVER_ENVIRONMENT | dict(additions or {}), log) as process:
        wait_for(lambda: responds(f"{url}/health"), "MLflow responds", process, log)
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


def timed(action: Callable[[], Returned]) -> tuple[float, Returned]:
    """Return the duration of an action in seconds, and its result."""
    begun = time.perf_counter()
    returned = action()
    return time.perf_counter() - begun, returned


def milliseconds(action: Callable[[], object], times: int) -> list[float]:
    """Return the duration of each of several executions of an action in milliseconds."""
    return [1000 * timed(action)[0] for _ in range(times)]


def spread(values: Sequence[float]) -> tuple[int, float, float]:
    """Return the number of values, their median and their 95th percentile."""
    ordered = sorted(values)
    return len(ordered), statistics.median(ordered), ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]


def _end(process: "subprocess.Popen[bytes]") -> None:
    family = family_of(process.pid)
    sessions = {_session_of(member.pid) for member in family} - {_session_of(os.getpid()), None}
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.resume()  # A suspended process does not receive signals.
    if process.poll() is None:
        process.terminate()  # Processes that a script starts in the background ignore SIGINT.
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    # `dagster dev` starts processes while it ends.
    family += [member for member in psutil.process_iter() if _session_of(member.pid) in sessions]
    for end in (psutil.Process.terminate, psutil.Process.kill):
        _, family = psutil.wait_procs(family, timeout=1)
        for member in family:
            with suppress(psutil.NoSuchProcess):
                end(member)
    psutil.wait_procs(family, timeout=STOP_SECONDS)
    process.wait(STOP_SECONDS)


def _session_of(pid: int) -> int | None:
    with suppress(ProcessLookupError, PermissionError):
        return os.getsid(pid)
    return None
