"""The files of docker/, read once."""

import functools
import re
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
