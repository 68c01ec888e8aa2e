"""Tests stored estimators of scikit-learn: each is read again in skops format, and predicts the same."""

import re
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor, make_column_selector
from sklearn.ensemble import (
    AdaBoostRegressor,
    BaggingClassifier,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectFromModel, SelectKBest, f_regression
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern, WhiteKernel
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import (
    BayesianRidge,
    ElasticNet,
    GammaRegressor,
    HuberRegressor,
    Lasso,
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    PoissonRegressor,
    QuantileRegressor,
    Ridge,
    SGDClassifier,
    SGDRegressor,
    TweedieRegressor,
)
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit
from sklearn.multioutput import MultiOutputRegressor
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, RadiusNeighborsRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC, SVR, LinearSVC, NuSVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from ledgerline.mlflow_store.trusted_types import TRUSTED_TYPES

ROWS = 150


class Task(NamedTuple):
    """Return training rows."""

    inputs: Any
    outcome: Any


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "amount": random.gamma(2, size=ROWS),
            "age": random.uniform(0, 8, ROWS),
            "kind": random.choice(["bread", "rolls", "cake"], ROWS),
        }
    )


@pytest.fixture(scope="module")
def values(frame: pd.DataFrame) -> Task:
    """Regression: positive, as gamma and Poisson losses need it."""
    return Task(frame[["amount", "age"]], frame["amount"] * 3 + frame["age"] + 0.1)


@pytest.fixture(scope="module")
def three_classes(frame: pd.DataFrame, values: Task) -> Task:
    return Task(values.inputs, np.array(["low", "middle", "high"])[np.digitize(values.outcome, [6, 12])])


@pytest.fixture(scope="module")
def two_classes(values: Task) -> Task:
    return Task(values.inputs, values.outcome > 9)


def read_again(model: Any) -> Any:
    """The model, from its file; fails for a type that is not trusted."""
    content = skops.io.dumps(model)
    assert set(skops.io.get_untrusted_types(data=content)) <= TRUSTED_TYPES
    return skops.io.loads(content, trusted=sorted(TRUSTED_TYPES))


def require_same_answers(model: Any, task: Task) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that few iterations do not converge, for one
        model.fit(task.inputs, task.outcome)
    again = read_again(model)
    for method in ("predict", "predict_proba"):
        if hasattr(model, method):
            answer = getattr(again, method)(task.inputs)
            np.testing.assert_array_equal(answer, getattr(model, method)(task.inputs))
            assert len(np.unique(answer)) > 1


def name_of(model: Any) -> str:
    """Return a model as the name of a test: the same in each process, and so without addresses."""
    return re.sub(r"\s+", " ", re.sub(r" at 0x[0-9a-fA-F]+", "", repr(model)))


REGRESSORS = [
    *(HistGradientBoostingRegressor(loss=loss, max_iter=3) for loss in
      ("squared_error", "absolute_error", "poisson", "gamma")),
    HistGradientBoostingRegressor(loss="quantile", quantile=0.9, max_iter=3),
    HistGradientBoostingRegressor(max_iter=3).set_params(early_stopping=True),
    *(GradientBoostingRegressor(loss=loss, n_estimators=3) for loss in
      ("squared_error", "absolute_error", "huber", "quantile")),
    RandomForestRegressor(3),
    RandomForestRegressor(3, criterion="poisson", random_state=np.random.RandomState(0)),
    ExtraTreesRegressor(3),
    DecisionTreeRegressor(),
    AdaBoostRegressor(n_estimators=3),
    LinearRegression(),
    Ridge(),
    Lasso(),
    ElasticNet(),
    BayesianRidge(),
    HuberRegressor(),
    QuantileRegressor(quantile=0.6, alpha=0),
    PoissonRegressor(),
    GammaRegressor(),
    TweedieRegressor(power=1.5, link="log"),
    *(SGDRegressor(loss=loss, eta0=1e-4) for loss in
      ("squared_error", "huber", "epsilon_insensitive", "squared_epsilon_insensitive")),
    *(KNeighborsRegressor(algorithm=algorithm) for algorithm in ("kd_tree", "ball_tree", "brute")),
    KNeighborsRegressor(algorithm="kd_tree", metric="chebyshev"),
    RadiusNeighborsRegressor(radius=3, algorithm="ball_tree", metric="manhattan"),
    SVR(),
    NuSVR(),
    *(MLPRegressor(hidden_layer_sizes=(4,), max_iter=5, solver=solver, random_state=1) for solver in
      ("adam", "sgd", "lbfgs")),
    GaussianProcessRegressor(ConstantKernel() * RBF() + WhiteKernel()),
    GaussianProcessRegressor(Matern()),
    TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1),
    TransformedTargetRegressor(Ridge(), transformer=QuantileTransformer(n_quantiles=10)),
    VotingRegressor([("a", Ridge()), ("b", RandomForestRegressor(3))]),
    StackingRegressor([("a", Ridge()), ("b", HistGradientBoostingRegressor(max_iter=3))]),
    GridSearchCV(Ridge(), {"alpha": [1, 2]}, cv=2),
    GridSearchCV(
        Ridge(), {"alpha": [1, 2]}, cv=TimeSeriesSplit(2), scoring="neg_mean_absolute_error"
    ),
    make_pipeline(SelectKBest(f_regression, k=1), Ridge()),
    make_pipeline(KNNImputer(), RobustScaler(), Ridge()),
]  # fmt: skip

CLASSIFIERS = [
    HistGradientBoostingClassifier(max_iter=3),
    GradientBoostingClassifier(n_estimators=3),
    GradientBoostingClassifier(n_estimators=3, init=LogisticRegression()),
    RandomForestClassifier(3),
    ExtraTreesClassifier(3, criterion="entropy"),
    DecisionTreeClassifier(),
    BaggingClassifier(n_estimators=3),
    LogisticRegression(),
    LogisticRegressionCV(cv=2).set_params(use_legacy_attributes=False, l1_ratios=(0,)),
    *(SGDClassifier(loss=loss) for loss in ("hinge", "log_loss", "modified_huber", "squared_hinge")),
    *(KNeighborsClassifier(algorithm=algorithm) for algorithm in ("kd_tree", "ball_tree", "brute")),
    SVC(),
    LinearSVC(),
    MLPClassifier((4,), max_iter=300, random_state=0),
    GaussianNB(),
    GaussianProcessClassifier(RBF()),
    *(CalibratedClassifierCV(RandomForestClassifier(3), method=method, cv=2) for method in
      ("sigmoid", "isotonic", "temperature")),
    CalibratedClassifierCV(LinearSVC(), cv=2),
    VotingClassifier([("a", LogisticRegression()), ("b", RandomForestClassifier(3))], voting="soft"),
    StackingClassifier([("a", LogisticRegression()), ("b", RandomForestClassifier(3))]),
    GridSearchCV(LogisticRegression(), {"C": [1, 2]}, cv=2, scoring="neg_log_loss"),
    make_pipeline(SelectFromModel(RandomForestClassifier(3)), LogisticRegression()),
]  # fmt: skip


@pytest.mark.parametrize("model", REGRESSORS, ids=name_of)
def test_a_regressor_predicts_the_same_after_it_is_read_again(model: Any, values: Task):
    require_same_answers(model, values)


@pytest.mark.parametrize("model", CLASSIFIERS, ids=name_of)
def test_a_classifier_of_three_classes_predicts_the_same_after_it_is_read_again(
    model: Any, three_classes: Task
):
    require_same_answers(model, three_classes)


@pytest.mark.parametrize(
    "model",
    [*CLASSIFIERS, GradientBoostingClassifier(n_estimators=3, loss="exponential")],
    ids=name_of,
)
def test_a_classifier_of_two_classes_predicts_the_same_after_it_is_read_again(model: Any, two_classes: Task):
    require_same_answers(model, two_classes)


def columns_of_every_kind() -> ColumnTransformer:
    numbers = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler(), PolynomialFeatures())
    return ColumnTransformer(
        [
            ("numbers", numbers, ["amount", "age"]),
            ("selected", RobustScaler(), make_column_selector(dtype_include="number")),
            ("one hot", OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=2), ["kind"]),
            ("ordinal", OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), ["kind"]),
            ("target", TargetEncoder(cv=2).set_params(random_state=0), ["kind"]),
            ("bins", KBinsDiscretizer(3, quantile_method="averaged_inverted_cdf"), ["amount"]),
            ("splines", SplineTransformer(), ["age"]),
            ("quantiles", QuantileTransformer(n_quantiles=10), ["amount"]),
            ("power", PowerTransformer(), ["amount"]),
            ("logarithm", FunctionTransformer(np.log1p, feature_names_out="one-to-one"), ["amount"]),
            ("as it is", "passthrough", ["age"]),
        ],
        remainder="drop",
    )


@pytest.mark.parametrize(
    "regressor", [Ridge(), HistGradientBoostingRegressor(max_iter=3), SVR()], ids=name_of
)
def test_a_pipeline_with_columns_of_every_kind_is_read_again(
    frame: pd.DataFrame, values: Task, regressor: Any
):
    task = Task(frame, values.outcome)

    require_same_answers(Pipeline([("columns", columns_of_every_kind()), ("regressor", regressor)]), task)


def test_boosted_trees_with_categories_are_read_again(frame: pd.DataFrame, three_classes: Task):
    task = Task(frame.astype({"kind": "category"}), three_classes.outcome)

    require_same_answers(HistGradientBoostingClassifier(max_iter=3, categorical_features="from_dtype"), task)


def test_a_regressor_of_several_outputs_is_read_again(values: Task):
    task = Task(values.inputs, np.column_stack([values.outcome, values.outcome**2]))

    require_same_answers(MultiOutputRegressor(GradientBoostingRegressor(n_estimators=2)), task)


def test_a_model_of_texts_is_read_again(frame: pd.DataFrame, three_classes: Task):
    require_same_answers(
        make_pipeline(TfidfVectorizer(), LogisticRegression()), Task(frame["kind"], frame["kind"])
    )


def test_an_isotonic_regression_is_read_again(values: Task):
    require_same_answers(IsotonicRegression(out_of_bounds="clip"), Task(values.inputs["age"], values.outcome))


@pytest.mark.parametrize("make", ["lightgbm", "xgboost"])
def test_a_pipeline_that_ends_with_another_librarys_estimator_is_read_again(values: Task, make: str):
    estimators: dict[str, Callable[[], Any]] = {"lightgbm": lightgbm_regressor, "xgboost": xgboost_regressor}

    require_same_answers(make_pipeline(StandardScaler(), estimators[make]()), values)


def lightgbm_regressor() -> Any:
    from lightgbm import LGBMRegressor

    return LGBMRegressor(n_estimators=3, min_child_samples=5, verbose=-1)


def xgboost_regressor() -> Any:
    from xgboost import XGBRegressor

    return XGBRegressor(n_estimators=3)


@pytest.mark.parametrize(
    "model",
    [
        FunctionTransformer(pd.util.hash_pandas_object),
        TransformedTargetRegressor(func=pd.to_numeric, inverse_func=eval),
        KNeighborsRegressor().set_params(metric=pd.eval),
        GridSearchCV(Ridge(), {"alpha": [1]}, scoring=exec),
    ],
    ids=name_of,
)
def test_a_function_outside_of_scikit_learn_is_not_trusted(model: Any):
    types = skops.io.get_untrusted_types(data=skops.io.dumps(model))

    assert set(types) - TRUSTED_TYPES
