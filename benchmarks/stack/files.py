"""The files of docker/, read once."""

import functools
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).parents[2]
DOCKER = PROJECT / "docker"
COMPOSE = DOCKER / "compose.yaml"
# Options, each a further file that Compose is given.
LOGIN, SAMPLING = DOCKER / "compose.login.yaml", DOCKER / "compose.sampling.yaml"

VARIABLE = re.compile(r"(?<!\$)\$\{(?P<name>\w+)(?P<rest>[^}]*)\}")


@functools.cache
def compose() -> Any:
    return yaml.safe_load(COMPOSE.read_text())


def services() -> dict[str, Any]:
    return compose()["services"]


def variables(file: Path = COMPOSE) -> dict[str, set[str]]:
    """What a compose file takes from outside, with what stands behind each name."""
    found: dict[str, set[str]] = {}
    for match in VARIABLE.finditer(file.read_text()):
        found.setdefault(match["name"], set()).add(match["rest"])
    return found


def written_secrets(file: Path) -> dict[str, str]:
    """What docker/secrets writes for a new stack; `file` is where."""
    subprocess.run([DOCKER / "secrets", file], check=True, capture_output=True)
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    return {name: value.strip('"') for name, _, value in (line.partition("=") for line in lines)}
