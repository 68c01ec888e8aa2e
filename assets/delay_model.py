"""Training of the delay model, which predicts late arrivals. It is evaluated in delay_model_evaluation.py."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from assets import metrics, plots, policies
from assets.features import CATEGORICAL_FEATURES, FEATURES, FEATURES_SCHEMA, LABEL, NUMERIC_FEATURES
from assets.partitions import MONTHS, TRAINING_DAYS, TRAINING_MONTHS, training_days
from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.storage import digests
from ledgerline.dagster.storage.io_managers import Tables
from ledgerline.dagster.tracing import OTelResource
from ledgerline.dagster.tracking import Dataset, MLflowResource

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

MODEL_NAME = "flight_delay"
FEATURES_ASSET = dg.AssetKey("features")


class TreesConfig(dg.Config):
    """How gradient boosted trees are trained. Every value is recorded with the training run."""

    max_iter: int = Field(default=100, ge=1, le=1000, description="Number of boosting iterations.")
    learning_rate: float = Field(default=0.05, gt=0, le=1, description="Shrinkage of each tree.")
    min_samples_leaf: int = Field(default=200, ge=1, description="Minimum number of flights in each leaf.")
    seed: int = Field(default=2013, ge=0, description="Seed of all random numbers.")


class TrainingConfig(TreesConfig):
    """How the model is trained. Every value is recorded with the training run."""

    window_months: int = Field(
        default=TRAINING_MONTHS,
        ge=1,
        le=11,
        description="Number of training months before the month of the evaluation.",
    )
    max_leaf_nodes: int = Field(default=15, ge=2, description="Leaves of each tree.")
    l2_regularization: float = Field(default=10.0, ge=0, description="Penalty on leaf values.")
    max_features: float = Field(
        default=0.5, gt=0, le=1, description="Share of the features each split chooses from."
    )
    validation_share: float = Field(
        default=0.1, gt=0, lt=1, description="Share of the rows held back for the loss curve."
    )


@dataclass(frozen=True)
class TrainedModel:
    """The record of a trained model.

    Attributes:
        month: Month that the model is evaluated on.
        run_id: MLflow run of the training.
        rows: Number of training flights.
        data_sha256: Digest of the training rows.
        late_rate: Share of the training flights that arrived late.
        carrier_hour_rates: That share by carrier and scheduled hour ("AA 17"), for the baseline.
    """

    month: str
    run_id: str
    model_id: str
    first_day: str
    last_day: str
    rows: int
    data_sha256: str
    late_rate: float
    carrier_hour_rates: dict[str, float]
    seed: int


@dg.asset(
    partitions_def=MONTHS,
    io_manager_key="records",
    deps=[dg.AssetDep(FEATURES_ASSET, partition_mapping=TRAINING_DAYS)],
    retry_policy=policies.RETRY,
    group_name="delay_model",
    kinds={"scikitlearn", "mlflow"},
    code_version="1",
)
def delay_model(
    context: dg.AssetExecutionContext,
    config: TrainingConfig,
    tables: dg.ResourceParam[Tables],
    mlflow: MLflowResource,
    otel: OTelResource,
) -> TrainedModel:
    """Models that predict the probability that a flight arrives 15 or more minutes late.

    There is one partition for each month. Its model is trained on the months before it (three by default) and
    evaluated on that month. The model is one scikit-learn pipeline of gradient boosted trees with native
    categories, whose input is the columns of `features`. Parameters, loss curves, data digests and the model
    are in an MLflow run.
    """
    month = context.partition_key
    days = training_days(month, config.window_months)
    with otel.span("read features", days=len(days)):
        rows = with_outcome(read_days(tables, days, f"delay_model {month} is trained on"))
        dataset = describe(rows, tables, days)
    context.log.info(f"Training on {len(rows):,} flights from {days[0]} to {days[-1]}")

    with mlflow.training_run(context, f"delay_model {month}") as run:
        run.log_params({"month": month, **config.model_dump()})
        run.log_dataset(dataset, "training", FEATURES_SCHEMA)
        with otel.span("fit", rows=len(rows), iterations=config.max_iter):
            pipeline = train(rows, config)
        curves = loss_curves(pipeline)
        for name, losses in curves.items():
            run.log_curve(name, losses)
        plot = plots.loss_curves(curves)
        run.log_files({"loss.png": plot})
        context.log.info("Storing the model")
        with otel.span("store model"):
            model_id = run.log_model(pipeline, MODEL_NAME, model_input(rows), method="predict_proba")

    context.add_asset_metadata(
        {
            "mlflow_run": mlflow.link(run),
            "training_rows": len(rows),
            "training_data_sha256": dataset.sha256,
            "loss": plots.as_markdown(plot),
        }
    )
    return TrainedModel(
        month=month,
        run_id=run.run_id,
        model_id=model_id,
        first_day=days[0],
        last_day=days[-1],
        rows=len(rows),
        data_sha256=dataset.sha256,
        late_rate=float(rows[LABEL].mean()),
        carrier_hour_rates=metrics.carrier_hour_rates(rows, rows[LABEL]),
        seed=config.seed,
    )


def read_days(tables: Tables, days: Sequence[str], purpose: str) -> "pd.DataFrame":
    """Read days of `features`.

    Args:
        tables: Storage of the tables.
        days: Partition keys.
        purpose: Beginning of the error message, such as "delay_minutes needs".

    Raises:
        PermanentFailure: Some of the days are not stored.
    """
    missing = sorted(set(days) - set(tables.stored_partitions(FEATURES_ASSET)))
    if missing:
        raise PermanentFailure(
            f"{purpose} {len(days)} days of features ({days[0]} to {days[-1]}), and {len(missing)} of "
            f"them are not stored: the first is {missing[0]}.",
            "Run the job ingest_flights for those days.",
        )
    return tables.read(FEATURES_ASSET, days, FEATURES_SCHEMA)


def with_outcome(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Return the flights that arrived; cancelled and diverted ones have no outcome."""
    return rows[rows[LABEL].notna()].reset_index(drop=True)


def describe(rows: "pd.DataFrame", tables: Tables, days: Sequence[str], what: str = "features") -> Dataset:
    """Return the name and the digest of rows of `features`."""
    return Dataset(
        name=f"{what} {days[0]} to {days[-1]}",
        sha256=digests.frame_sha256(rows),
        source=str(tables.folder_of(FEATURES_ASSET)),
        rows=len(rows),
    )


def model_input(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Return the input columns of the model; numbers are doubles, so that a client may send any number."""
    types = dict.fromkeys(NUMERIC_FEATURES, "float64") | dict.fromkeys(CATEGORICAL_FEATURES, "object")
    inputs = rows[list(FEATURES)].astype(types)
    # Gaps in Parquet are None, which the encoder would treat as a separate category.
    return inputs.where(inputs.notna(), float("nan"))


def train(rows: "pd.DataFrame", config: TrainingConfig) -> "Pipeline":
    """Fit the pipeline; the same rows and config give the same model, to the last digit."""
    pipeline = build_pipeline(config)
    return pipeline.fit(model_input(rows), rows[LABEL].astype(bool))


def build_pipeline(config: TrainingConfig) -> "Pipeline":
    """Return an unfitted pipeline: categories to codes, then gradient boosted trees."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    return pipeline_of(
        HistGradientBoostingClassifier,
        config,
        max_leaf_nodes=config.max_leaf_nodes,
        l2_regularization=config.l2_regularization,
        max_features=config.max_features,
        # scikit-learn records loss curves only with early stopping. It must never stop early, because the
        # validation rows are from the same months, so their loss says little about the next month.
        early_stopping=True,
        n_iter_no_change=config.max_iter + 1,
        scoring="loss",
        validation_fraction=config.validation_share,
    )


def pipeline_of(trees: Callable[..., Any], config: TreesConfig, **options: Any) -> "Pipeline":
    """Return an unfitted pipeline, which encodes categories as numbers in the order of FEATURES.

    Unknown categories and gaps are both missing values for the trees. The options are further parameters of
    the trees.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OrdinalEncoder

    categories = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=float("nan"), encoded_missing_value=float("nan")
    )
    encode = ColumnTransformer(
        [
            ("categories", categories, list(CATEGORICAL_FEATURES)),
            ("numbers", "passthrough", list(NUMERIC_FEATURES)),
        ]
    )
    estimator = trees(
        categorical_features=list(range(len(CATEGORICAL_FEATURES))),
        max_iter=config.max_iter,
        learning_rate=config.learning_rate,
        min_samples_leaf=config.min_samples_leaf,
        random_state=config.seed,
        **options,
    )
    return Pipeline([("encode", encode), ("trees", estimator)])


def loss_curves(pipeline: "Pipeline") -> dict[str, list[float]]:
    """Return the log loss before the first and after each iteration, on training and validation rows."""
    trees: Any = pipeline.named_steps["trees"]
    return {
        "train_loss": [-float(score) for score in trees.train_score_],
        "validation_loss": [-float(score) for score in trees.validation_score_],
    }
