"""Judging the delay model on its month, beside two baselines. What follows from it is not decided here."""

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
    """How a model did on its month.

    Attributes:
        month: The month.
        run_id: The MLflow training run, which has the metrics too.
        model_id: The logged model.
        rows: Flights it was judged on.
        without_outcome: Flights of the month that were cancelled or diverted.
        data_sha256: Digest of the rows.
        late_rate: Share of them that arrived late.
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
    """The model of a month, judged on that month, which it has not seen.

    ROC AUC, PR AUC, log loss, Brier score and calibration error, beside two baselines that know only
    the training months: the share of late flights, and that share by carrier and scheduled hour. With
    slices by carrier and by origin. A month in which the model is worse than a baseline is reported
    as it is.
    """
    days = evaluation_days(delay_model.month)
    with otel.span("read features", days=len(days)):
        all_rows = read_days(tables, days, f"delay_model {delay_model.month} is judged on")
    rows = with_outcome(all_rows)
    late = rows[LABEL].astype(bool)
    dataset = describe(rows, tables, days)
    context.log.info(f"Judging on {len(rows):,} flights from {days[0]} to {days[-1]}")

    with mlflow.reopened_run(delay_model.run_id) as run:
        with otel.span("load model"):
            model = mlflow.load_model(delay_model.model_id)
        with otel.span("predict", rows=len(rows)):
            answers = answer(model, rows, delay_model)
        scores = {name: metrics.score(late, said) for name, said in answers.items()}
        slices = metrics.score_slices(rows, late, answers[MODEL])
        context.log.info("Shuffling features to see which matter")
        with otel.span("shuffle features"):
            importance = metrics.permutation_importance(
                model.model, model_input(rows), late, delay_model.seed
            )
        with otel.span("plot"):
            pictures = {
                "roc": plots.roc(late, answers),
                "calibration": plots.calibration(metrics.calibration(late, answers[MODEL])),
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
            **summary(by_metric(scores)),
            "judged_rows": len(rows),
            "judged_data_sha256": dataset.sha256,
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


def answer(model: StoredModel, rows: "pd.DataFrame", trained: TrainedModel) -> "dict[str, pd.Series]":
    """The probability of being late that the model and each baseline give to every flight."""
    import pandas as pd

    probability = model.answer(model_input(rows))[:, 1]
    return {
        MODEL: pd.Series(probability, index=rows.index),
        CARRIER_HOUR_RATE: metrics.carrier_hour_baseline(rows, trained.carrier_hour_rates, trained.late_rate),
        CONSTANT_RATE: pd.Series(trained.late_rate, index=rows.index),
    }


def metrics_by_name(scores: Mapping[str, Mapping[str, float]], slices: "pd.DataFrame") -> dict[str, float]:
    """All numbers under one flat name each, as MLflow groups them: `carrier_hour_rate/brier`."""
    flat = dict(scores[MODEL])
    for name in (CARRIER_HOUR_RATE, CONSTANT_RATE):
        flat |= {f"{name}/{metric}": value for metric, value in scores[name].items()}
    for row in slices.dropna(subset=["roc_auc"]).to_dict("records"):
        for metric in ("roc_auc", "brier"):
            flat[f"{row['slice']}_{row['value']}/{metric}"] = row[metric]
    return flat


def by_metric(scores: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return the scores with a row for each metric and a column for each model."""
    return {metric: {name: row[metric] for name, row in scores.items()} for metric in scores[MODEL]}


def scores_table(scores: Mapping[str, Mapping[str, float]]) -> dg.TableMetadataValue:
    """The model beside the baselines, for the Dagster UI."""
    records = [
        dg.TableRecord({"answer": name, **{metric: round(x, 4) for metric, x in row.items()}})
        for name, row in scores.items()
    ]
    return dg.MetadataValue.table(records)
