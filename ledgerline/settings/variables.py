"""Reading single variables of the environment, with errors that name them. Who calls this knows which."""

import re
from collections.abc import Mapping
from pathlib import Path

OFF = "off"


def place(value: str | None) -> str | None:
    """A URL as it is, a folder as an absolute path: processes start in different folders."""
    return value if not value or "://" in value else str(Path(value).absolute())


def choice(environment: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> str:
    """One of some words; the first unless it is set.

    Raises:
        ValueError: It is none of them.
    """
    value = environment.get(name) or allowed[0]
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; set it to one of: {', '.join(allowed)}.")
    return value


def address(environment: Mapping[str, str], name: str) -> str | None:
    """The address of a server; None unless it is set.

    Raises:
        ValueError: It is no address.
    """
    value = environment.get(name) or None
    if value is not None and not re.match(r"https?://[^/\s]", value):
        # Not shown: what is in the wrong place may be a password.
        raise ValueError(f"{name} is no address; set it to one like http://127.0.0.1:5000.")
    return value


def whole_number(environment: Mapping[str, str], name: str, default: int) -> int:
    """A whole number from 0 on.

    Raises:
        ValueError: It is none.
    """
    value = environment.get(name) or str(default)
    if not value.isdecimal():
        raise ValueError(f"{name} is {value!r}; set it to a whole number (default {default}).")
    return int(value)


def number(environment: Mapping[str, str], name: str, default: float, highest: float) -> float:
    """A number from 0 on.

    Raises:
        ValueError: It is none, or too high.
    """
    value = environment.get(name) or f"{default:g}"
    try:
        found = float(value)
    except ValueError:
        found = -1.0
    if not 0 <= found <= highest:
        raise ValueError(
            f"{name} is {value!r}; set it to a number from 0 to {highest:g} (default {default:g})."
        )
    return found


def words(environment: Mapping[str, str], name: str, default: str = "") -> tuple[str, ...]:
    """Words with commas between them."""
    value = environment.get(name) or default
    return tuple(word.strip() for word in value.split(",") if word.strip())


def home(environment: Mapping[str, str], project: Path) -> Path:
    """The folder that holds all local state (LEDGERLINE_HOME).

    Raises:
        ValueError: The address of a database in it could not be written down.
    """
    found = Path(environment.get("LEDGERLINE_HOME") or project / ".ledgerline").absolute()
    if any(character in str(found) for character in "?#%"):
        raise ValueError(
            f"LEDGERLINE_HOME is {str(found)!r}; choose a folder without ?, # and %, which the address "
            "of the MLflow database cannot hold."
        )
    return found


def tracking_uri(environment: Mapping[str, str], home: Path) -> str:
    """URL of an MLflow server, or URI of its database (MLFLOW_TRACKING_URI)."""
    return environment.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home}/mlflow.db"


def request_log(environment: Mapping[str, str], home: Path) -> str | None:
    """The folder that requests are logged in (LEDGERLINE_REQUEST_LOG); None: `off`.

    Raises:
        ValueError: It is an address: rows are written to a local folder.
    """
    value = environment.get("LEDGERLINE_REQUEST_LOG") or str(home / "serving" / "requests")
    if "://" in value:
        raise ValueError(f"LEDGERLINE_REQUEST_LOG is {value!r}; set it to a folder of this machine, or off.")
    return None if value == OFF else place(value)
