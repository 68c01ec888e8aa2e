"""Lists the extras of the distribution and finds missing ones. pyproject.toml has their requirements."""

from collections.abc import Mapping
from importlib.util import find_spec

from ledgerline.errors import LedgerlineError

DISTRIBUTION = "ledgerline-mlops"

# The modules that each extra installs.
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "agent": ("duckdb", "httpx", "lancedb", "ollama", "openai"),
    "gcs": ("gcsfs",),
    "kubernetes": ("dagster_k8s",),
    "lightgbm": ("lightgbm",),
    "onnx": ("onnx", "onnxruntime"),
    "plots": ("matplotlib",),
    "postgres": ("dagster_postgres",),
    "s3": ("s3fs",),
    "serving": ("fastapi", "fastapi_offline", "orjson", "prometheus_client", "uvicorn"),
    "ui": ("dagster_webserver", "flask", "psutil"),
    "xgboost": ("xgboost",),
}

# The targets of this repository's Makefile that install extras.
MAKE_TARGETS: Mapping[str, str] = {"agent": "agent", "serving": "dev", "ui": "dev"}


class MissingExtraError(LedgerlineError):
    """Raised when a part of the library is used and its extra is not installed."""


def missing(extra: str) -> tuple[str, ...]:
    """Return the modules of an extra that are not installed, without importing modules."""
    return tuple(module for module in EXTRAS[extra] if find_spec(module) is None)


def require(extra: str, user: str) -> None:
    """Make sure that an extra is installed, before its modules are imported.

    Args:
        extra: Name of the extra.
        user: Part of the library that needs it, as the subject of a sentence.

    Raises:
        MissingExtraError: A module of the extra is missing.

    Example:
        >>> require("plots", "A picture of a comparison")
    """
    absent = missing(extra)
    if absent:
        are = "is" if len(absent) == 1 else "are"
        raise MissingExtraError(
            f"{user} needs the extra `{extra}`: {', '.join(absent)} {are} not installed.", remedy(extra)
        )


def remedy(extra: str) -> str:
    """Return a sentence about how to install an extra."""
    target = f" (in a checkout of Ledgerline: make {MAKE_TARGETS[extra]})" if extra in MAKE_TARGETS else ""
    return f"Install it: pip install '{DISTRIBUTION}[{extra}]'{target}."
