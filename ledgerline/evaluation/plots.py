"""Draws comparisons and drift as PNG, with the extra `plots`. The HTML page around them is in report.py."""

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ledgerline.evaluation.calibration import CalibrationPoint
from ledgerline.evaluation.comparison import Comparison
from ledgerline.evaluation.prediction_kind import PredictionKind
from ledgerline.settings.extras import missing, require

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

DOTS_PER_INCH = 80
WIDTH, HEIGHT = 6.0, 4.5  # in inches
MAX_SLICES = 40
MAX_COLOURED_CLASSES = 10
MAX_PANELS = 10
SCORE_BINS = 40

# Labels of the axes of a calibration curve, by the name of the kind of prediction.
_CALIBRATION_AXES = {
    "binary": ("predicted share of positives", "observed share"),
    "multiclass": ("predicted share of the class", "observed share"),
    "regression": ("mean prediction", "mean outcome"),
    "quantiles": ("level", "share of outcomes at or below the quantile"),
}

Interval = tuple[str, float, float, float]


def pictures(compared: Comparison) -> dict[str, bytes]:
    """Draw gains, calibration and slices of a comparison; return nothing without the extra `plots`."""
    if missing("plots"):
        return {}
    return {"gains": gains(compared), "calibration": calibration(compared), "slices": slice_gains(compared)}


def gains(compared: Comparison) -> bytes:
    """Draw the gain in each metric with its interval, each metric in its unit."""
    rows = [
        (difference.metric, difference.gain, difference.low, difference.high)
        for difference in compared.differences
        if difference.low is not None and difference.high is not None
    ]
    figure = _figure(max(HEIGHT, 0.8 * len(rows)))
    all_axes = figure.subplots(max(1, len(rows)), squeeze=False)[:, 0]
    _set_title(all_axes[0], f"Staging against {compared.production_name}")
    for axes, row in zip(all_axes, rows, strict=False):
        _draw_intervals(axes, [row])
    all_axes[-1].set_xlabel(f"gain (right: staging is better), {1 - compared.alpha:.0%} intervals")
    return _png(figure)


def slice_gains(compared: Comparison) -> bytes:
    """Draw the gain in each slice, with intervals that hold for all slices simultaneously."""
    rows: list[Interval] = [
        (f"{part.column} {part.value}", part.gain, part.low, part.high)
        for part in compared.slices
        if part.gain is not None and part.low is not None and part.high is not None
    ]
    title = f"Slices against {compared.production_name}"
    if len(rows) > MAX_SLICES:
        title += f": the {MAX_SLICES} worst of {len(rows):,}"
        rows = sorted(rows, key=lambda row: row[1])[:MAX_SLICES]
    figure = _figure(max(HEIGHT, 0.22 * len(rows)))
    axes = figure.subplots()
    _set_title(axes, title)
    _draw_intervals(axes, rows)
    axes.set_xlabel(f"gain in {compared.slice_metric} (right: staging is better)")
    return _png(figure)


def calibration(compared: Comparison) -> bytes:
    """Draw the calibration curves of both models."""
    curves = {
        "staging": compared.staging_calibration,
        compared.production_name: compared.production_calibration,
    }
    return calibration_curves(curves, compared.kind.name)


def calibration_curves(curves: Mapping[str, Sequence[CalibrationPoint]], kind_name: str) -> bytes:
    """Draw the calibration curves of several models, as `PredictionKind.calibration` returns them."""
    figure = _figure(HEIGHT)
    axes = figure.subplots()
    _set_title(axes, "Calibration")
    handles, labels = [], []
    for number, (name, points) in enumerate(curves.items()):
        classes = list(dict.fromkeys(point.of_class for point in points))
        style = ("-", "--", ":", "-.")[number % 4] if classes != [None] else "-"
        for order, label in enumerate(classes):
            curve = [point for point in points if point.of_class == label]
            colour = f"C{number if label is None else order % MAX_COLOURED_CLASSES}"
            predicted, observed = [p.predicted for p in curve], [p.observed for p in curve]
            (line,) = axes.plot(predicted, observed, marker="o", linestyle=style, color=colour)
            if order < MAX_COLOURED_CLASSES:
                handles.append(line)
                labels.append(name if label is None else f"{name}, class {label}")
    every = [value for points in curves.values() for p in points for value in (p.predicted, p.observed)]
    ends = [min(0.0, *every), max(every)] if kind_name != "regression" else [min(every), max(every)]
    axes.plot(ends, ends, color="grey", linewidth=0.8, linestyle="--")
    across, up = _CALIBRATION_AXES.get(kind_name, ("predicted", "observed"))
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    _draw_legend(axes, handles, labels)
    return _png(figure)


def scores(kind: PredictionKind, samples: "Mapping[str, NDArray[np.float64]]") -> bytes:
    """Draw the distribution of predictions in several samples, one panel for each column of predictions."""
    tables = {name: kind.score_columns(prediction) for name, prediction in samples.items()}
    columns = kind.score_names[:MAX_PANELS]
    figure = _figure(max(HEIGHT, 2.2 * len(columns)))
    all_axes = figure.subplots(len(columns), squeeze=False)[:, 0]
    _set_title(all_axes[0], "Predictions")
    for axes, column in zip(all_axes, columns, strict=True):
        ends = _ends(kind, [table[column].to_numpy() for table in tables.values()])
        for name, table in tables.items():
            axes.hist(table[column], bins=SCORE_BINS, range=ends, density=True, histtype="step", label=name)
        axes.set_xlabel(column, parse_math=False)
        axes.set_ylabel("density")
    _draw_legend(all_axes[0])
    return _png(figure)


def _ends(kind: PredictionKind, columns: "Sequence[NDArray[np.float64]]") -> tuple[float, float]:
    """Return the limits of the axis of predictions."""
    if kind.method == "predict_proba":
        return 0.0, 1.0
    return min(float(values.min()) for values in columns), max(float(values.max()) for values in columns)


def _draw_intervals(axes: "Axes", rows: Sequence[Interval]) -> None:
    """Draw points with their intervals, the first one on top, and a line at 0."""
    for height, (_, value, low, high) in enumerate(reversed(rows)):
        axes.plot([low, high], [height, height], color="tab:blue")
        axes.plot([value], [height], color="tab:blue", marker="o")
    axes.set_yticks(range(len(rows)), [name for name, *_ in reversed(rows)], parse_math=False)
    axes.axvline(0, color="grey", linewidth=0.8, linestyle="--")


def _set_title(axes: "Axes", title: str) -> None:
    # Matplotlib would read dollar signs in a name as a formula.
    axes.set_title(title, parse_math=False)


def _draw_legend(axes: "Axes", *handles_and_labels: Sequence[Any]) -> None:
    for text in axes.legend(*handles_and_labels, fontsize="small").get_texts():
        text.set_parse_math(False)


def _figure(height: float) -> "Figure":
    require("plots", "A picture of predictions")
    # pyplot is not used, because it keeps every figure of the process and needs a display.
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), layout="constrained")


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Characters that the font lacks are drawn as boxes; the HTML page has the label as text.
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    return buffer.getvalue()
