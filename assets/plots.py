"""Plots of a model's metrics, as PNG for MLflow and as Markdown for the Dagster UI."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS_PER_INCH = 80


def as_markdown(png: bytes) -> dg.MarkdownMetadataValue:
    """Return a PNG as inline Markdown, which the Dagster UI renders."""
    encoded = base64.b64encode(png).decode()
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{encoded})")


def loss_curves(curves: Mapping[str, Sequence[float]]) -> bytes:
    """Plot the log loss by boosting iteration."""
    figure, axes = _figure("Log loss by boosting iteration", "iteration", "log loss")
    for name, losses in curves.items():
        axes.plot(losses, label=name)
    axes.legend()
    return _png(figure)


def roc(late: "pd.Series", predictions: "Mapping[str, pd.Series]") -> bytes:
    """Plot the ROC curves of several predictions of the same outcomes."""
    from sklearn.metrics import roc_auc_score, roc_curve

    figure, axes = _figure("ROC curve", "false positive rate", "true positive rate")
    for name, probability in predictions.items():
        false_positive, true_positive, _ = roc_curve(late, probability)
        axes.plot(false_positive, true_positive, label=f"{name}: {roc_auc_score(late, probability):.3f}")
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
    axes.legend(loc="lower right")
    return _png(figure)


def calibration(table: "pd.DataFrame") -> bytes:
    """Plot the observed share of late flights by the predicted one.

    Args:
        table: Table with the columns predicted and observed (rates), flights (count); one row for each bin.
    """
    figure, axes = _figure("Calibration", "predicted share of late flights", "observed share")
    axes.plot(table["predicted"], table["observed"], marker="o")
    highest = max(table["predicted"].max(), table["observed"].max())
    axes.plot([0, highest], [0, highest], color="grey", linewidth=0.8, linestyle="--")
    return _png(figure)


def importance(table: "pd.DataFrame") -> bytes:
    """Plot the loss of ROC AUC when each feature is shuffled.

    Args:
        table: Table with the columns feature, loss_of_roc_auc and spread, most important first.
    """
    figure, axes = _figure("Permutation importance", "loss of ROC AUC when shuffled")
    ascending = table.iloc[::-1]
    axes.barh(ascending["feature"], ascending["loss_of_roc_auc"], xerr=ascending["spread"])
    return _png(figure)


def slices(table: "pd.DataFrame") -> bytes:
    """Plot the ROC AUC of the model for each carrier and origin.

    Args:
        table: Table with the columns slice, value and roc_auc.
    """
    figure, axes = _figure("ROC AUC by slice", "ROC AUC")
    reversed_rows = table.dropna(subset=["roc_auc"]).iloc[::-1]
    axes.barh(reversed_rows["slice"] + " " + reversed_rows["value"], reversed_rows["roc_auc"])
    axes.axvline(0.5, color="grey", linewidth=0.8, linestyle="--")
    axes.set_xlim(left=0.4)
    return _png(figure)


def _figure(title: str, x_label: str, y_label: str = "") -> "tuple[Figure, Axes]":
    # pyplot is not used, because it keeps every figure in memory and requires a display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    return figure, axes


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    return buffer.getvalue()
