"""Jaeger of docker/ alone, as the collector's configuration has it."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from benchmarks.stack.files import DOCKER
from benchmarks.stack.traces import Jaeger
from ledgerline.testing.ports import HOST, unused_port
from ledgerline.testing.waiting import wait_until

START_SECONDS = 60


@dataclass(frozen=True)
class LoneJaeger:
    """A Jaeger that was started alone: its endpoint for spans, and a client that reads them."""

    endpoint: str
    traces: Jaeger


@contextmanager
def lone_jaeger(program: Path, folder: Path) -> Iterator[LoneJaeger]:
    """Start Jaeger, and end it afterwards.

    Args:
        program: Jaeger.
        folder: For its storage and its log.
    """
    otlp, query, grpc, health, metrics = (unused_port() for _ in range(5))
    environment = {
        "PATH": os.environ["PATH"],
        "JAEGER_OTLP_ENDPOINT": f"{HOST}:{otlp}",
        "JAEGER_QUERY_HTTP_ENDPOINT": f"{HOST}:{query}",
        "JAEGER_QUERY_GRPC_ENDPOINT": f"{HOST}:{grpc}",
        "JAEGER_HEALTH_ENDPOINT": f"{HOST}:{health}",
        "JAEGER_METRICS_PORT": str(metrics),
        "JAEGER_FOLDER": str(folder / "storage"),
    }
    log_path = folder / "jaeger.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [str(program), "--config", str(DOCKER / "jaeger.yaml")],
            env=environment,
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
        )

    def is_ready() -> bool:
        assert process.poll() is None, log_path.read_text()[-3000:]
        with suppress(OSError), urlopen(f"http://{HOST}:{health}/status", timeout=4) as answer:
            return answer.status == 200
        return False

    try:
        wait_until(is_ready, "Jaeger is ready", START_SECONDS)
        yield LoneJaeger(f"http://{HOST}:{otlp}/v1/traces", Jaeger(f"http://{HOST}:{query}"))
    finally:
        process.terminate()
        process.wait(START_SECONDS)
