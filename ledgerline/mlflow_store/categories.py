"""Converts pandas' categories, which LightGBM and XGBoost use, to the values that clients send, and back."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

CATEGORIES_KEY = "categories"  # a key in the description of a flavour; MLflow ignores it


def categories_of(frame: "pd.DataFrame") -> tuple[str, ...]:
    """Return the names of the columns that contain categories."""
    import pandas as pd

    return tuple(str(name) for name, dtype in frame.dtypes.items() if isinstance(dtype, pd.CategoricalDtype))


def as_values(frame: "pd.DataFrame", columns: Sequence[str]) -> "pd.DataFrame":
    """Return a frame with plain values instead of categories, as a client sends them."""
    import pandas as pd

    if not columns:
        return frame
    return frame.assign(
        **{name: pd.Series(frame[name].tolist(), index=frame.index).infer_objects() for name in columns}
    )


def with_categories(answer: Callable[[Any], Any], columns: Sequence[str]) -> Callable[[Any], Any]:
    """Return a function that converts columns to categories before it predicts.

    The libraries map each value to the categories that the model was trained with.
    """
    if not columns:
        return answer
    types = dict.fromkeys(columns, "category")

    def answer_with_categories(inputs: Any) -> Any:
        return answer(inputs.astype(types))

    return answer_with_categories
