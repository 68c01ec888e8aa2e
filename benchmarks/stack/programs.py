"""Where Jaeger and the collector are on this machine: named by a variable, on PATH, or built from source."""

import os
import subprocess
from pathlib import Path

from benchmarks.stack.files import DOCKER

BUILD = DOCKER / "servers" / "build"


def found() -> dict[str, Path]:
    """Those that are there, by their service in docker/compose.yaml; nothing is built here."""
    said = subprocess.run([BUILD, "--print"], capture_output=True, text=True, check=False, env=os.environ)
    paths = dict(line.split(" ", 1) for line in said.stdout.splitlines())
    services = {"jaeger": "jaeger", "otelcol": "otel-collector"}
    return {services[name]: Path(path) for name, path in paths.items()}
