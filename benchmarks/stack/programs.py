"""Finds the programs Jaeger and OpenTelemetry Collector on this machine (docker/servers/build)."""

import os
import subprocess
from pathlib import Path

from benchmarks.stack.files import DOCKER

BUILD = DOCKER / "servers" / "build"
SERVICES = {"jaeger": "jaeger", "otelcol": "otel-collector"}


def available() -> dict[str, Path]:
    """Return the existing programs by their service in docker/compose.yaml, without building any."""
    command = [BUILD, "--print"]
    output = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ).stdout
    return {SERVICES[name]: Path(path) for name, path in (line.split(" ", 1) for line in output.splitlines())}
