"""What the observer's benchmarks need beside them: backends, observers, runs, in processes of their own.

Every process is ended by its own id, with all that it started, whatever happens.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests

from benchmarks.collectors import ARRIVALS
from cli.dev_servers import MLFLOW_SERVER_ENVIRONMENT
from observability import ids
from resources.environments import EXPERIMENT, MLFLOW_DEFAULTS, PROJECT_ROOT

HOST = "127.0.0.1"
SCRIPTS = Path(sys.executable).parent
START_SECONDS = 120.0
STOP_SECONDS = 15.0
POLL_SECONDS = 0.1
RUN_SECONDS = 600.0  # after which a run is given up

INSTANCE = "telemetry:\n  enabled: false\n"


class BenchmarkError(Exception):
    """Something that is needed for measuring does not work; the message says what."""


@dataclass(frozen=True)
class Backends:
    """Where traces and MLflow runs are sent.

    Attributes:
        otlp: URL of a collector.
        mlflow: URL of an MLflow server.
    """

    otlp: str
    mlflow: str

    @property
    def environment(self) -> dict[str, str]:
        """What tells everybody about them."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.otlp,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "MLFLOW_TRACKING_URI": self.mlflow,
        }

    def arrivals(self, run_id: str) -> dict[int, float]:
        """When each span of a run arrived, in seconds since the epoch, by span id."""
        found = requests.get(f"{self.otlp}{ARRIVALS}{ids.trace_id(run_id):032x}", timeout=5).json()
        return {int(span_id, 16): time for span_id, time in found.items()}

    def has_all_of(self, run_id: str) -> bool:
        """Whether a run is shown as a whole: its root span, and its MLflow run as ended."""
        return ids.run_span_id(run_id) in self.arrivals(run_id) and self._has_ended(run_id)

    def _has_ended(self, run_id: str) -> bool:
        by_name = {"experiment_name": EXPERIMENT}
        experiment = self._mlflow("GET", "experiments/get-by-name", params=by_name)["experiment"]
        search = {
            "experiment_ids": [experiment["experiment_id"]],
            "filter": f"tags.`dagster.run_id` = '{run_id}'",
        }
        runs = self._mlflow("POST", "runs/search", json=search).get("runs", [])
        return any(run["info"]["status"] != "RUNNING" for run in runs)

    def _mlflow(self, method: str, path: str, **arguments: Any) -> Any:
        url = f"{self.mlflow}/api/2.0/mlflow/{path}"
        response = requests.request(method, url, timeout=10, **arguments)
        response.raise_for_status()
        return response.json()


def dead_backends() -> Backends:
    """Addresses behind which nothing listens."""
    return Backends(f"http://{HOST}:{free_port()}", f"http://{HOST}:{free_port()}")


@contextmanager
def live_backends(folder: Path) -> Iterator[Backends]:
    """A collector and an MLflow server, with their state in a folder."""
    folder.mkdir()
    backends = Backends(f"http://{HOST}:{free_port()}", f"http://{HOST}:{free_port()}")
    collector = [sys.executable, "-m", "benchmarks.collectors", _port(backends.otlp)]
    database = f"sqlite:///{folder}/mlflow.db"
    options = {
        "--backend-store-uri": database,
        "--artifacts-destination": str(folder / "artifacts"),
        "--host": HOST,
        "--port": _port(backends.mlflow),
        "--workers": "1",
    }
    mlflow = [str(SCRIPTS / "mlflow"), "server", *(part for option in options.items() for part in option)]
    create = [str(SCRIPTS / "mlflow"), "db", "upgrade", database]  # before several processes want to
    environment = environment_of(MLFLOW_SERVER_ENVIRONMENT)
    subprocess.run(create, env=environment, capture_output=True, check=True)
    with ExitStack() as stack:
        for command, ready in ((collector, backends.otlp), (mlflow, f"{backends.mlflow}/health")):
            log = folder / f"{Path(command[0]).name}.log"
            process = stack.enter_context(started(command, environment, log))
            wait_until(lambda ready=ready: _answers(ready), ready, process, log)
        yield backends


@contextmanager
def following(home: Path, backends: Backends) -> Iterator[psutil.Process]:
    """`ledgerline observe --follow` on an instance, once it is there."""
    command = [str(SCRIPTS / "ledgerline"), "observe", "--follow", "--dagster-home", str(home)]
    log = home / "observer.log"
    state = {"LEDGERLINE_HOME": str(home / "ledgerline")}
    with started(command, environment_of(backends.environment | state), log) as process:
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
        problem: Why it did not succeed.
    """

    run_id: str | None
    seconds: float
    problem: str | None


def execute(
    version: str, ops: int, executor: str, home: Path, backends: Backends, *, op_seconds: float = 0.0
) -> Executed:
    """Execute a job of observed_jobs.py in a process of its own, on the instance in `home`."""
    result, log = home / "result.json", home / "run.log"
    result.unlink(missing_ok=True)
    arguments = [version, str(ops), executor, str(op_seconds), str(result)]
    command = [sys.executable, "-m", "benchmarks.execute_observed", *arguments]
    state = {"DAGSTER_HOME": str(home), "LEDGERLINE_HOME": str(home / "ledgerline")}
    begun = time.monotonic()
    with started(command, environment_of(backends.environment | state), log) as process:
        try:
            code = process.wait(RUN_SECONDS)
        except subprocess.TimeoutExpired:
            return Executed(None, RUN_SECONDS, f"did not end within {RUN_SECONDS:.0f} s")
    if not result.exists():
        last = log.read_text(errors="replace").strip().splitlines()[-1:]
        return Executed(None, time.monotonic() - begun, f"ended with code {code}: {''.join(last)}")
    told = json.loads(result.read_text())
    failed = not told.get("success")
    return Executed(told.get("run_id"), told["seconds"], "the run failed" if failed else None)


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
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.resume()  # who is stopped does not hear
    if process.poll() is None:
        process.terminate()  # not SIGINT, which is ignored by what a script starts in the background
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    for end in (psutil.Process.terminate, psutil.Process.kill):
        _, family = psutil.wait_procs(family, timeout=1)
        for member in family:
            with suppress(psutil.NoSuchProcess):
                end(member)
    psutil.wait_procs(family, timeout=STOP_SECONDS)
    process.wait(STOP_SECONDS)


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).ok
    except requests.RequestException:
        return False


def _port(url: str) -> str:
    return url.rsplit(":", 1)[1]
