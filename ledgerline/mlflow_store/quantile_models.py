"""Combines regressors that predict one quantile each into one model that predicts all of them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sklearn.multioutput import MultiOutputRegressor


def joined_quantiles(estimators: Sequence[Any]) -> "MultiOutputRegressor":
    """Combine fitted regressors, one for each level, into one model that predicts a column for each level.

    The model is an estimator of scikit-learn, so MLflow stores, serves and loads it like any other.
    The quantiles of a row are not sorted: if models of neighbouring levels cross, the predictions cross, too.

    ```python
    model = joined_quantiles(
        [
            HistGradientBoostingRegressor(loss="quantile", quantile=level).fit(inputs, outcome)
            for level in (0.1, 0.5, 0.9)
        ]
    )
    model.predict(inputs)  # one row for each input, one column for each level
    ```

    Args:
        estimators: Fitted regressors or pipelines, in the order of the levels.

    Raises:
        ValueError: The list is empty, or the estimators were trained on different columns.
        sklearn.exceptions.NotFittedError: An estimator is not fitted.
    """
    from sklearn.base import clone
    from sklearn.multioutput import MultiOutputRegressor
    from sklearn.utils.validation import check_is_fitted

    if not estimators:
        raise ValueError("There are no estimators. Give one for each quantile.")
    for estimator in estimators:
        check_is_fitted(estimator)
    columns = [list(getattr(each, "feature_names_in_", ())) for each in estimators]
    if any(names != columns[0] for names in columns):
        raise ValueError(f"The estimators were trained on different columns: {', '.join(map(str, columns))}.")
    joined = MultiOutputRegressor(clone(estimators[0]))
    joined.estimators_ = list(estimators)
    for name in ("n_features_in_", "feature_names_in_"):
        if hasattr(estimators[0], name):
            setattr(joined, name, getattr(estimators[0], name))
    return joined
