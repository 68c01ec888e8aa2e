"""The collector of docker/ alone, with servers of the tests in the places of Jaeger and MLflow."""

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.stack.files import DOCKER
from ledgerline.testing.otlp_receivers import Receiver
from ledgerline.testing.ports import HOST, unused_port
from ledgerline.testing.waiting import wait_until
from tests.integration.stack.metrics import metrics_of

START_SECONDS = 60


@dataclass(frozen=True)
class LoneCollector:
    """A collector, and the servers that it sends to."""

    ports: Mapping[str, int]
    jaeger: Receiver
    mlflow: Receiver

    def url(self, name: str) -> str:
        return f"http://{HOST}:{self.ports[name]}"


@contextmanager
def lone_collector(program: Path, folder: Path, *options: str, **variables: str) -> Iterator[LoneCollector]:
    """Start the collector, and end it afterwards.

    Args:
        program: The collector.
        folder: For its queues and its log.
        options: Further files of docker/, as `--config` takes them.
        variables: Further variables of the configuration.
    """
    names = ("grpc", "http", "decided", "health", "metrics", "span_metrics", "jaeger", "mlflow")
    ports = {name: unused_port() for name in names}
    jaeger, mlflow = Receiver(port=ports["jaeger"]), Receiver(port=ports["mlflow"])
    environment = {
        "PATH": os.environ["PATH"],
        "OTELCOL_GRPC_ENDPOINT": f"{HOST}:{ports['grpc']}",
        "OTELCOL_HTTP_ENDPOINT": f"{HOST}:{ports['http']}",
        "OTELCOL_DECIDED_ENDPOINT": f"{HOST}:{ports['decided']}",
        "OTELCOL_HEALTH_ENDPOINT": f"{HOST}:{ports['health']}",
        "OTELCOL_METRICS_PORT": str(ports["metrics"]),
        "OTELCOL_SPAN_METRICS_ENDPOINT": f"{HOST}:{ports['span_metrics']}",
        "OTELCOL_JAEGER_URL": f"http://{HOST}:{ports['jaeger']}",
        "OTELCOL_MLFLOW_URL": f"http://{HOST}:{ports['mlflow']}",
        "OTELCOL_QUEUE_FOLDER": str(folder / "queues"),
        **variables,
    }
    files: Sequence[str] = ("otel-collector.yaml", *options)
    command = [str(program), *(part for name in files for part in ("--config", str(DOCKER / name)))]
    jaeger.start()
    mlflow.start()
    log_path = folder / "collector.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    collector = LoneCollector(ports, jaeger, mlflow)

    def is_ready() -> bool:
        assert process.poll() is None, log_path.read_text()[-3000:]
        try:
            return bool(metrics_of(collector.url("metrics")))
        except OSError:
            return False

    try:
        wait_until(is_ready, "the collector is ready", START_SECONDS)
        yield collector
    finally:
        jaeger.refuses = mlflow.refuses = lambda batch: None
        process.terminate()
        process.wait(START_SECONDS)
        jaeger.stop()
        mlflow.stop()
