"""Evaluation of the delay model on its month, with two baselines. delay_model_version.py releases it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from assets import metrics, plots, policies
from assets.delay_model import TrainedModel, describe, model_input, read_days, with_outcome
from assets.features import FEATURES_SCHEMA, LABEL
from assets.partitions import MONTHS, evaluation_days
from ledgerline.dagster.storage.io_managers import Tables
from ledgerline.dagster.summaries import summary
from ledgerline.dagster.tracing import OTelResource
from ledgerline.dagster.tracking import MLflowResource
from ledgerline.mlflow_store.stored_model import StoredModel

if TYPE_CHECKING:
    import pandas as pd

MODEL = "model"
CONSTANT_RATE = "constant_rate"
CARRIER_HOUR_RATE = "carrier_hour_rate"


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of a model on its month.

    Attributes:
        run_id: MLflow run of the training, which also has the metrics.
        rows: Number of evaluated flights.
        without_outcome: Number of flights of the month that were cancelled or diverted.
        data_sha256: Digest of the evaluated rows.
        late_rate: Share of the evaluated flights that arrived late.
        scores: Metrics of the model and of each baseline, by name.
    """

    month: str
    run_id: str
    model_id: str
    rows: int
    without_outcome: int
    data_sha256: str
    late_rate: float
    scores: dict[str, dict[str, float]]


@dg.asset(
    partitions_def=MONTHS,
    io_manager_key="records",
    deps=["features"],
    automation_condition=policies.WHEN_INPUTS_CHANGE,
    retry_policy=policies.RETRY,
    group_name="delay_model",
    kinds={"scikitlearn", "mlflow"},
    code_version="1",
)
def delay_model_evaluation(
    context: dg.AssetExecutionContext,
    delay_model: TrainedModel,
    tables: dg.ResourceParam[Tables],
    mlflow: MLflowResource,
    otel: OTelResource,
) -> Evaluation:
    """Metrics of each month's model on that month, which is not in its training data.

    The metrics are ROC AUC, PR AUC, log loss, Brier score and calibration error. Two baselines use only the
    training months: the share of late flights, and that share by carrier and scheduled hour. There are also
    metrics by carrier and by origin. A model that is worse than a baseline does not fail this asset.
    """
    days = evaluation_days(delay_model.month)
    with otel.span("read features", days=len(days)):
        all_rows = read_days(tables, days, f"delay_model {delay_model.month} is evaluated on")
    rows = with_outcome(all_rows)
    late = rows[LABEL].astype(bool)
    dataset = describe(rows, tables, days)
    context.log.info(f"Evaluating on {len(rows):,} flights from {days[0]} to {days[-1]}")

    with mlflow.reopened_run(delay_model.run_id) as run:
        with otel.span("load model"):
            model = mlflow.load_model(delay_model.model_id)
        with otel.span("predict", rows=len(rows)):
            predictions = predict(model, rows, delay_model)
        scores = {name: metrics.score(late, probability) for name, probability in predictions.items()}
        slices = metrics.score_slices(rows, late, predictions[MODEL])
        context.log.info("Shuffling features to measure their importance")
        with otel.span("shuffle features"):
            importance = metrics.permutation_importance(
                model.model, model_input(rows), late, delay_model.seed
            )
        with otel.span("plot"):
            pictures = {
                "roc": plots.roc(late, predictions),
                "calibration": plots.calibration(metrics.calibration(late, predictions[MODEL])),
                "importance": plots.importance(importance),
                "slices": plots.slices(slices),
            }
        run.log_dataset(dataset, "evaluation", FEATURES_SCHEMA)
        run.log_metrics(metrics_by_name(scores, slices), delay_model.model_id, dataset)
        run.log_files(
            {"slices.json": slices.to_json(orient="split", index=False).encode()}
            | {f"{name}.png": picture for name, picture in pictures.items()}
        )

    context.add_asset_metadata(
        {
            "mlflow_run": mlflow.link(run),
            **scores[MODEL],
            "scores": scores_table(scores),
            **summary(
                {metric: {name: row[metric] for name, row in scores.items()} for metric in scores[MODEL]}
            ),
            "evaluated_rows": len(rows),
            "evaluated_data_sha256": dataset.sha256,
            **{f"{name}_plot": plots.as_markdown(picture) for name, picture in pictures.items()},
        }
    )
    return Evaluation(
        month=delay_model.month,
        run_id=run.run_id,
        model_id=delay_model.model_id,
        rows=len(rows),
        without_outcome=len(all_rows) - len(rows),
        data_sha256=dataset.sha256,
        late_rate=float(late.mean()),
        scores=scores,
    )


def predict(model: StoredModel, rows: "pd.DataFrame", trained: TrainedModel) -> "dict[str, pd.Series]":
    """Return the probabilities of a late arrival that the model and each baseline predict."""
    import pandas as pd

    probability = model.answer(model_input(rows))[:, 1]
    return {
        MODEL: pd.Series(probability, index=rows.index),
        CARRIER_HOUR_RATE: metrics.carrier_hour_baseline(rows, trained.carrier_hour_rates, trained.late_rate),
        CONSTANT_RATE: pd.Series(trained.late_rate, index=rows.index),
    }


def metrics_by_name(scores: Mapping[str, Mapping[str, float]], slices: "pd.DataFrame") -> dict[str, float]:
    """Return all metrics under flat names, which MLflow groups: `carrier_hour_rate/brier`."""
    flat = dict(scores[MODEL])
    for name in (CARRIER_HOUR_RATE, CONSTANT_RATE):
        flat |= {f"{name}/{metric}": value for metric, value in scores[name].items()}
    for row in slices.dropna(subset=["roc_auc"]).to_dict("records"):
        for metric in ("roc_auc", "brier"):
            flat[f"{row['slice']}_{row['value']}/{metric}"] = row[metric]
    return flat


def scores_table(scores: Mapping[str, Mapping[str, float]]) -> dg.TableMetadataValue:
    """Return the scores of the model and the baselines as a table for the Dagster UI."""
    records = [
        dg.TableRecord({"predictions of": name, **{metric: round(x, 4) for metric, x in row.items()}})
        for name, row in scores.items()
    ]
    return dg.MetadataValue.table(records)
