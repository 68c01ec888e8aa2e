"""Reads the lock files in requirements/."""

import re
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "requirements"


def text(name: str) -> str:
    """Return the text of a lock file."""
    return (FOLDER / f"{name}.lock").read_text()


def layers(name: str) -> set[str]:
    """Return the names of the lock files that are installed for one, itself among them."""
    below = re.findall(r"^-r (\w+)\.lock$", text(name), re.MULTILINE)
    return {name}.union(*(layers(layer) for layer in below))


def added(name: str) -> set[str]:
    """Return the pins that stand in a lock file, with their markers."""
    return {pin.strip() for pin in re.findall(r"^[a-z0-9.\[\]-]+==[^\\\n]+", text(name), re.MULTILINE)}


def pins(name: str) -> set[str]:
    """Return the pins of a lock file and of the layers below it."""
    return set[str]().union(*(added(layer) for layer in layers(name)))


def names(name: str) -> set[str]:
    """Return the names of the packages of a lock file and of the layers below it."""
    return {pin.partition("==")[0] for pin in pins(name)}
