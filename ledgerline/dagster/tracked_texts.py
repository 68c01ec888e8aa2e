"""The texts that steps record in MLflow, made clean. Steps record them with tracking.py."""

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
    """Return a param's value; that of a secret's name is hidden, at any depth."""
    text = cleaned(value, name)
    if isinstance(value, tuple) and isinstance(text, list):
        text = tuple(text)
    return shortened(clean(str(text)), MAX_PARAM_LENGTH)


def error_text(error: BaseException) -> str:
    """Return an error's type and message."""
    try:
        message = str(error)
    except Exception as broken:  # noqa: BLE001 (the author's __str__: MLflow must still learn how the step ended)
        message = f"its message cannot be made ({type(broken).__name__})"
    return shortened(clean(f"{type(error).__name__}: {message}"), MAX_TAG_LENGTH)


def name_text(name: str) -> str:
    """Return a name of a run, a dataset or a file."""
    return shortened(clean(name), MAX_NAME_LENGTH)


def source_text(source: str) -> str:
    """Return where a dataset is kept, without a login's password."""
    return shortened(clean(source), MAX_SOURCE_LENGTH)


def table_texts(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Return a table with all texts in it clean, also those in lists and mappings."""
    from pandas.api.types import is_datetime64_any_dtype, is_numeric_dtype

    table = frame.copy()
    for index, name in enumerate(frame.columns):
        values = frame.iloc[:, index]
        if not is_numeric_dtype(values.dtype) and not is_datetime64_any_dtype(values.dtype):
            table.isetitem(index, [_cell(str(name), value) for value in values])
    return table.rename(columns=lambda name: clean(name) if isinstance(name, str) else name)


def _cell(name: str, value: Any) -> Any:
    return cleaned(value, name) if isinstance(value, str | Mapping | list | tuple) else value
