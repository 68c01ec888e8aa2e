"""Where the observer's benchmarks send to: a collector and an MLflow server, up or dead."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from benchmarks.checkout import EXPERIMENT
from benchmarks.collectors import ARRIVALS
from benchmarks.processes import HOST, SCRIPTS, environment_of, family_of, free_port, started, wait_until
from ledgerline.cli.dev_servers import MLFLOW_SERVER_ENVIRONMENT
from ledgerline.ledger import ids

IN_MEMORY = Path("/dev/shm")  # noqa: S108 (a new folder in it)
NICE = 10


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
def live_backends() -> Iterator[Backends]:
    """A collector and an MLflow server.

    Elsewhere they would be on other machines. Here they keep their state in memory, where there is such a
    folder, and are nice: what they do should not be taken for a cost of who sends to them.
    """
    place = IN_MEMORY if IN_MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=place) as folder, _live_backends(Path(folder)) as backends:
        yield backends


@contextmanager
def _live_backends(folder: Path) -> Iterator[Backends]:
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
            for member in family_of(process.pid):
                member.nice(NICE)
        yield backends


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).ok
    except requests.RequestException:
        return False


def _port(url: str) -> str:
    return url.rsplit(":", 1)[1]
