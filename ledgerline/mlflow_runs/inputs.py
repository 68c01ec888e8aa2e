"""Converts run config to MLflow params, which projection.py writes."""

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ledgerline.cleaning.texts import cleaned, shortened
from ledgerline.mlflow_runs.metrics import entity_name

if TYPE_CHECKING:
    from mlflow.entities import Param

MAX_PARAMS = 200
MAX_PARAM_LENGTH = 6000  # the limits of mlflow/utils/validation.py


def run_params(config: Mapping[str, Any]) -> "tuple[list[Param], int]":
    """Return run config as params, sorted by name: `ops.oven_model.config.max_iter` = `300`.

    These are the first MAX_PARAMS params. The second value is the number of further ones.
    """
    from mlflow.entities import Param

    values: dict[str, str] = {}
    for path, value in _flat(cleaned(config), ()):
        text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
        values.setdefault(entity_name(".".join(path)), shortened(text, MAX_PARAM_LENGTH))
    names = sorted(values)
    return [Param(name, values[name]) for name in names[:MAX_PARAMS]], len(names[MAX_PARAMS:])


def _flat(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield each leaf of the config with its path. A list of plain values is a leaf."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _flat(part, (*path, str(name)))
    elif isinstance(value, list) and any(isinstance(part, Mapping | list) for part in value):
        for index, part in enumerate(value):
            yield from _flat(part, (*path, str(index)))
    elif path:
        yield path, value
