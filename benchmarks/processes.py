"""What the observer's benchmarks start in processes of their own: runs, observers; how to start and end any.

Where they send to: backends.py. Every process is ended by its own id, with all that it started, whatever
happens.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.checkout import PROJECT_ROOT
from ledgerline.settings.library_defaults import MLFLOW_DEFAULTS

HOST = "127.0.0.1"
SCRIPTS = Path(sys.executable).parent
START_SECONDS = 120.0
STOP_SECONDS = 15.0
POLL_SECONDS = 0.1
RUN_SECONDS = 600.0  # after which a run is given up

INSTANCE = "telemetry:\n  enabled: false\n"


class BenchmarkError(Exception):
    """Something that is needed for measuring does not work; the message says what."""


@contextmanager
def following(home: Path, environment: Mapping[str, str]) -> Iterator[psutil.Process]:
    """`ledgerline observe --follow` on an instance, once it is there.

    Args:
        home: The instance's folder.
        environment: What tells it where to send to.
    """
    command = [str(SCRIPTS / "ledgerline"), "observe", "--follow", "--dagster-home", str(home)]
    log = home / "observer.log"
    state = {"LEDGERLINE_HOME": str(home / "ledgerline")}
    with started(command, environment_of({**environment, **state}), log) as process:
        wait_until(lambda: "Following" in log.read_text(), "the observer", process, log)
        yield psutil.Process(process.pid)


def has_tried_everything(home: Path) -> bool:
    """Whether the observer of an instance has sent something to each backend, or tried to."""
    said = (home / "observer.log").read_text()
    return "  traces  " in said and "  mlflow  " in said


@dataclass(frozen=True)
class Executed:
    """A run that was executed.

    Attributes:
        run_id: None if its process died, or was given up.
        seconds: From asking for the run to the end of its process.
        cpu_seconds: Processor time of that process, without processes of steps.
        problem: Why it did not succeed.
    """

    run_id: str | None
    seconds: float
    cpu_seconds: float | None
    problem: str | None


def execute(
    version: str,
    ops: int,
    executor: str,
    home: Path,
    environment: Mapping[str, str] | None = None,
    *,
    op_seconds: float = 0.0,
) -> Executed:
    """Execute a job of observed_jobs.py in a process of its own.

    Args:
        version: Of the job.
        ops: How many it has.
        executor: Where they run.
        home: The folder of the Dagster instance.
        environment: What tells peers where to send to.
        op_seconds: How long each op sleeps; with 0 it computes instead.
    """
    result, log = home / "result.json", home / "run.log"
    result.unlink(missing_ok=True)
    arguments = [version, str(ops), executor, str(op_seconds), str(result)]
    command = [sys.executable, "-m", "benchmarks.execute_observed", *arguments]
    state = {"DAGSTER_HOME": str(home), "LEDGERLINE_HOME": str(home / "ledgerline")}
    begun = time.monotonic()
    with started(command, environment_of({**(environment or {}), **state}), log) as process:
        try:
            code = process.wait(RUN_SECONDS)
        except subprocess.TimeoutExpired:
            return Executed(None, RUN_SECONDS, None, f"did not end within {RUN_SECONDS:.0f} s")
    if not result.exists():
        last = log.read_text(errors="replace").strip().splitlines()[-1:]
        problem = f"ended with code {code}: {''.join(last)}"
        return Executed(None, time.monotonic() - begun, None, problem)
    told = json.loads(result.read_text())
    problem = None if told.get("success") else "the run failed"
    return Executed(told.get("run_id"), told["seconds"], told["cpu_seconds"], problem)


def new_home(folder: Path) -> Path:
    """The folder of a new Dagster instance."""
    folder.mkdir(parents=True)
    (folder / "dagster.yaml").write_text(INSTANCE)
    return folder


def environment_of(additions: Mapping[str, str]) -> dict[str, str]:
    """An environment without the settings of a person, and with these."""
    others = {name: value for name, value in os.environ.items() if not is_setting(name)}
    defaults = {"PYTHON_DOTENV_DISABLED": "true", "PYTHONUNBUFFERED": "1", "MPLBACKEND": "agg"}
    return others | MLFLOW_DEFAULTS | defaults | dict(additions)


def is_setting(name: str) -> bool:
    """Whether a variable is one that the measured programs read."""
    return name.startswith(("LEDGERLINE_", "DAGSTER_", "MLFLOW_", "OTEL_", "OPENLINEAGE_"))


@contextmanager
def started(
    command: Sequence[str], environment: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A process, which is ended with all that it started."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=PROJECT_ROOT,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches this process only, which then ends the others
        )
    try:
        yield process
    finally:
        _end(process)


def wait_until(
    reached: Callable[[], bool],
    what: str,
    process: subprocess.Popen[bytes] | None = None,
    log: Path | None = None,
    seconds: float = START_SECONDS,
) -> None:
    """Wait for something.

    Raises:
        BenchmarkError: It does not happen in time, or the process ends that is to make it happen.
    """
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline or (process is not None and process.poll() is not None):
            said = log.read_text(errors="replace")[-3000:] if log is not None else ""
            raise BenchmarkError(f"Waited in vain for {what}. {said}")
        time.sleep(POLL_SECONDS)


def family_of(pid: int) -> list[psutil.Process]:
    """A process and all that it started and that is alive."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    """Processor time that processes have taken so far, with that of their children that have ended."""
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def free_port() -> int:
    """A port with nothing behind it."""
    with socket.create_server((HOST, 0)) as probe:
        return probe.getsockname()[1]


def _end(process: subprocess.Popen[bytes]) -> None:
    family = family_of(process.pid)
    sessions = {_session_of(member.pid) for member in family} - {_session_of(os.getpid()), None}
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.resume()  # who is stopped does not hear
    if process.poll() is None:
        process.terminate()  # not SIGINT, which is ignored by what a script starts in the background
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    # And what they started since, while they were ending: `dagster dev` does that.
    family += [member for member in psutil.process_iter() if _session_of(member.pid) in sessions]
    for end in (psutil.Process.terminate, psutil.Process.kill):
        _, family = psutil.wait_procs(family, timeout=1)
        for member in family:
            with suppress(psutil.NoSuchProcess):
                end(member)
    psutil.wait_procs(family, timeout=STOP_SECONDS)
    process.wait(STOP_SECONDS)


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None
