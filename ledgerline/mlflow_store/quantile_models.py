"""A model of several quantiles out of models of one each, as scikit-learn's regressors are."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sklearn.multioutput import MultiOutputRegressor


def joined_quantiles(estimators: Sequence[Any]) -> "MultiOutputRegressor":
    """Join fitted regressors, one for each level, to one model that answers a column for each.

    It is scikit-learn's own class, so it is stored, served and read by MLflow like any other estimator.
    Nothing sorts the quantiles of a row: if models of neighbouring levels cross, the answer shows it.

    ```python
    model = joined_quantiles(
        [
            HistGradientBoostingRegressor(loss="quantile", quantile=level).fit(inputs, outcome)
            for level in (0.1, 0.5, 0.9)
        ]
    )
    model.predict(inputs)  # a row for each of the inputs, a column for each level
    ```

    Args:
        estimators: Fitted regressors or pipelines, in the order of the levels.

    Raises:
        ValueError: There are none, or they learned from different columns.
        sklearn.exceptions.NotFittedError: One of them is not fitted.
    """
    from sklearn.base import clone
    from sklearn.multioutput import MultiOutputRegressor
    from sklearn.utils.validation import check_is_fitted

    if not estimators:
        raise ValueError("There are no estimators; give one for each quantile.")
    for estimator in estimators:
        check_is_fitted(estimator)
    columns = [list(getattr(each, "feature_names_in_", ())) for each in estimators]
    if any(names != columns[0] for names in columns):
        raise ValueError(f"The estimators learned from different columns: {', '.join(map(str, columns))}.")
    joined = MultiOutputRegressor(clone(estimators[0]))
    joined.estimators_ = list(estimators)
    for name in ("n_features_in_", "feature_names_in_"):
        if hasattr(estimators[0], name):
            setattr(joined, name, getattr(estimators[0], name))
    return joined
