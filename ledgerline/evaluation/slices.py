"""Computes the differences of two models in slices of the rows, with simultaneous intervals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ledgerline.evaluation.intervals import simultaneous_half_widths
from ledgerline.evaluation.metrics import Metric
from ledgerline.evaluation.resampling import paired_slice_scores
from ledgerline.evaluation.samples import ComparisonError, Sample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ledgerline.evaluation.samples import Column

# A smaller slice is listed without numbers: neither its loss nor the spread of its loss is meaningful.
MIN_SLICE_ROWS = 100
MIN_SLICE_CLUSTERS = 5


@dataclass(frozen=True)
class SliceDifference:
    """The mean of one metric of both models in one slice; the numbers are None if the slice is too small.

    Attributes:
        column: The column that the rows were divided by.
        value: The value that the rows of the slice have in this column.
        gain: Amount by which staging is better; negative if it is worse.
        low: The lower end of an interval around the gain. With confidence 1 - alpha the intervals of all
            slices hold simultaneously, so that false alarms do not become more likely with many slices.
    """

    column: str
    value: str
    rows: int
    staging: float | None
    production: float | None
    gain: float | None
    low: float | None
    high: float | None


def slice_differences(
    sample: Sample,
    slices: "Mapping[str, Column]",
    metric: Metric,
    *,
    tell_apart: "Callable[[NDArray[Any]], bool]",
    alpha: float,
    resamples: int,
    seed: int,
) -> tuple[SliceDifference, ...]:
    """Compare both models, by a mean over rows, among the rows that have each value of each column.

    All intervals together hold with confidence 1 - alpha. `tell_apart` returns whether models can be told
    apart by outcomes.

    Raises:
        ComparisonError: A column does not have one label for each row.
    """
    import numpy as np

    parts = [
        (column, value, rows)
        for column, labels in slices.items()
        for value, rows in _divided(column, labels, len(sample.outcome))
    ]
    clusters = [len(np.unique(sample.clusters[rows])) for _, _, rows in parts]
    telling = [
        number
        for number, (_, _, rows) in enumerate(parts)
        if rows.sum() >= MIN_SLICE_ROWS
        and clusters[number] >= MIN_SLICE_CLUSTERS
        and tell_apart(sample.outcome[rows])
    ]
    scores = paired_slice_scores(sample, metric, [parts[number][2] for number in telling], resamples, seed)
    half_widths = simultaneous_half_widths(
        [score.gains for score in scores], [clusters[number] for number in telling], alpha
    )
    comparable = dict(zip(telling, zip(scores, half_widths, strict=True), strict=True))
    differences = []
    for number, (column, value, rows) in enumerate(parts):
        numbers: tuple[float | None, ...] = (None,) * 5
        if number in comparable:
            scored, half_width = comparable[number]
            gained = metric.gain(scored.staging, scored.production)
            numbers = (scored.staging, scored.production, gained, gained - half_width, gained + half_width)
        differences.append(SliceDifference(column, value, int(rows.sum()), *numbers))
    return tuple(differences)


def _divided(column: str, labels: "Column", rows: int) -> "Sequence[tuple[str, NDArray[np.bool_]]]":
    """Find the rows that have each value, in the order of the values."""
    import pandas as pd

    codes, values = pd.factorize(pd.Series(labels))
    if len(codes) != rows:
        raise ComparisonError(
            f"The slices by {column} have {len(codes):,} labels for {rows:,} rows; pass one for each row."
        )
    named = sorted((str(value), number) for number, value in enumerate(values))
    return [(name, codes == number) for name, number in named]
