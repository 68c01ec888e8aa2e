"""Computes the same metrics with scikit-learn and pandas, row by row, for comparison."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn import metrics as peer

Array = NDArray[Any]


def binary(outcome: Array, probability: Array) -> dict[str, float]:
    return {
        "roc_auc": float(peer.roc_auc_score(outcome, probability)),
        "pr_auc": float(peer.average_precision_score(outcome, probability)),
        "log_loss": float(peer.log_loss(outcome, probability, labels=[False, True])),
        "brier": float(peer.brier_score_loss(outcome, probability)),
        "calibration_error": calibration_error(outcome, probability),
    }


def multiclass(outcome: Array, probability: Array) -> dict[str, float]:
    """Outcomes are numbers of classes, all of which occur."""
    labels = list(range(probability.shape[1]))
    return {
        "log_loss": float(peer.log_loss(outcome, probability, labels=labels)),
        "brier": float(peer.brier_score_loss(outcome, probability, labels=labels)),
        "accuracy": float(peer.accuracy_score(outcome, probability.argmax(axis=1))),
        "macro_f1": float(peer.f1_score(outcome, probability.argmax(axis=1), average="macro")),
        "roc_auc": float(
            peer.roc_auc_score(
                outcome == 1 if len(labels) == 2 else outcome,
                probability[:, 1] if len(labels) == 2 else probability,
                multi_class="ovr",
                average="macro",
                labels=None if len(labels) == 2 else labels,
            )
        ),
        "calibration_error": float(
            np.mean([calibration_error(outcome == each, probability[:, each]) for each in labels])
        ),
    }


def regression(outcome: Array, prediction: Array) -> dict[str, float]:
    return {
        "absolute_error": float(peer.mean_absolute_error(outcome, prediction)),
        "rmse": float(peer.root_mean_squared_error(outcome, prediction)),
        "bias": float(abs(np.mean(prediction - outcome))),
        "r2": float(peer.r2_score(outcome, prediction)),
    }


def quantiles(outcome: Array, prediction: Array, levels: tuple[float, ...]) -> dict[str, float]:
    columns = [prediction[:, number] for number in range(len(levels))]
    found = {
        "pinball_loss": float(
            np.mean(
                [
                    peer.mean_pinball_loss(outcome, column, alpha=level)
                    for column, level in zip(columns, levels, strict=True)
                ]
            )
        ),
        "coverage_error": float(
            np.mean(
                [
                    abs((outcome <= column).mean() - level)
                    for column, level in zip(columns, levels, strict=True)
                ]
            )
        ),
    }
    if len(levels) > 1:
        low, high = columns[0], columns[-1]
        found |= {
            "interval_coverage": float(((low <= outcome) & (outcome <= high)).mean()),
            "interval_width": float(abs(high - low).mean()),
            "crossing": float(np.mean([list(row) != sorted(row) for row in prediction])),
        }
    return found


def calibration_error(outcome: Array, probability: Array) -> float:
    table = calibration(outcome, probability)
    gaps = (table["predicted"] - table["observed"]).abs()
    return float((gaps * table["rows"]).sum() / table["rows"].sum())


def calibration(outcome: Array, prediction: Array) -> pd.DataFrame:
    """Columns predicted, observed and rows; one row for each of ten bins."""
    rows = pd.DataFrame({"predicted": prediction, "observed": np.asarray(outcome, dtype=float)})
    bins = pd.qcut(rows["predicted"], 10, duplicates="drop")
    if bins.isna().all():  # one prediction for all rows
        bins = pd.Series("all", index=rows.index)
    grouped = rows.groupby(bins, observed=True)
    return grouped.mean().assign(rows=grouped.size()).reset_index(drop=True)
