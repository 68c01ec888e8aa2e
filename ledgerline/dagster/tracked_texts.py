"""Cleans the texts that steps log to MLflow. tracking.py logs them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ledgerline.cleaning.texts import clean, cleaned, shortened
from ledgerline.mlflow_runs.inputs import MAX_PARAM_LENGTH
from ledgerline.mlflow_store.tag_texts import MAX_TAG_LENGTH

if TYPE_CHECKING:
    import pandas as pd

MAX_SOURCE_LENGTH = 10_000  # of a dataset
MAX_NAME_LENGTH = 250


def param_text(name: str, value: Any) -> str:
    """Return the text of a parameter; values whose names denote secrets are redacted at any depth."""
    text = cleaned(value, name)
    if isinstance(value, tuple) and isinstance(text, list):
        text = tuple(text)
    return shortened(clean(str(text)), MAX_PARAM_LENGTH)


def error_text(error: BaseException) -> str:
    """Return the type and the message of an error."""
    try:
        message = str(error)
    except Exception as broken:  # noqa: BLE001 (a user's __str__ may fail, and the error is still logged)
        message = f"its message cannot be read ({type(broken).__name__})"
    return shortened(clean(f"{type(error).__name__}: {message}"), MAX_TAG_LENGTH)


def name_text(name: str) -> str:
    """Return the name of a run, a dataset or a file without secrets and shortened."""
    return shortened(clean(name), MAX_NAME_LENGTH)


def source_text(source: str) -> str:
    """Return the location of a dataset without passwords."""
    return shortened(clean(source), MAX_SOURCE_LENGTH)


def table_texts(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Return a table with clean texts, including those in lists and mappings."""
    from pandas.api.types import is_datetime64_any_dtype, is_numeric_dtype

    table = frame.copy()
    for index, name in enumerate(frame.columns):
        values = frame.iloc[:, index]
        if not is_numeric_dtype(values.dtype) and not is_datetime64_any_dtype(values.dtype):
            table.isetitem(index, [_cell(str(name), value) for value in values])
    return table.rename(columns=lambda name: clean(name) if isinstance(name, str) else name)


def _cell(name: str, value: Any) -> Any:
    return cleaned(value, name) if isinstance(value, str | Mapping | list | tuple) else value
