"""Reads the files of docker/, and finds the programs Jaeger and OpenTelemetry Collector on this machine."""

import functools
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).parents[2]
DOCKER = PROJECT / "docker"
COMPOSE = DOCKER / "compose.yaml"
# Further files that are passed to Compose for an option.
LOGIN, SAMPLING = DOCKER / "compose.login.yaml", DOCKER / "compose.sampling.yaml"

SERVICES = {"jaeger": "jaeger", "otelcol": "otel-collector"}  # by the name of the program
VARIABLE = re.compile(r"(?<!\$)\$\{(?P<name>\w+)(?P<rest>[^}]*)\}")


@functools.cache
def compose() -> Any:
    """Return compose.yaml."""
    return yaml.safe_load(COMPOSE.read_text())


def servers() -> dict[str, Path]:
    """Return the programs of docker/servers/build by their service in compose.yaml, without building any."""
    command = [DOCKER / "servers" / "build", "--print"]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    paths = dict(line.split(" ", 1) for line in output.splitlines())
    return {SERVICES[name]: Path(path) for name, path in paths.items()}


def services() -> dict[str, Any]:
    """Return the services of compose.yaml."""
    return compose()["services"]


def variables(file: Path = COMPOSE) -> dict[str, set[str]]:
    """Return the variables that a compose file reads, each with the texts that follow its name."""
    names: dict[str, set[str]] = {}
    for match in VARIABLE.finditer(file.read_text()):
        names.setdefault(match["name"], set()).add(match["rest"])
    return names


def written_secrets(file: Path) -> dict[str, str]:
    """Let docker/secrets write a file, and return its variables."""
    subprocess.run([DOCKER / "secrets", file], check=True, capture_output=True)
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    return {name: value.strip('"') for name, _, value in (line.partition("=") for line in lines)}
