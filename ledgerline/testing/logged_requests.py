"""Writes request logs for tests, as the service does: one file for each request."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from ledgerline.requests import request_log
from ledgerline.requests.logged_rows import to_table

NOON = datetime(2026, 11, 3, 12, tzinfo=UTC)
MODEL = "demand"


def at(minutes: float) -> datetime:
    """Return the time this many minutes after NOON."""
    return NOON + timedelta(minutes=minutes)


def write(
    folder: Path,
    minutes: float,
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    *,
    version: int = 1,
    model: str = MODEL,
    redacted: tuple[str, ...] = (),
) -> Path:
    """Write a request, with the columns of its rows and of the response, to a file; return its path.

    Args:
        folder: Folder of the request log.
        minutes: Time of the response in minutes after NOON.
        inputs: Columns of the request.
        outputs: Columns of the response.
        version: Version that made the predictions.
        model: Name of the registered model.
        redacted: Columns whose values are not stored.
    """
    given = {name: np.asarray(values) for name, values in inputs.items()}
    rows = len(next(iter(given.values())))
    fixed: dict[str, list[Any]] = {
        "at": [round(at(minutes).timestamp() * 1e6)] * rows,
        "request_id": [f"request {minutes}"] * rows,
        "row": list(range(rows)),
        "version": [version] * rows,
        "trace_id": ["0af7651916cd43dd8448eb211c80319c"] * rows,
        "seconds": [0.01] * rows,
    }
    answered = {name: np.asarray(values) for name, values in outputs.items()}
    return request_log.write(folder, model, to_table(fixed, given, answered, redacted))
