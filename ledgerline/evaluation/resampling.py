"""Scores two models on the same rows, and on bootstrap draws of whole clusters of these rows.

The intervals that follow from the draws are in intervals.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ledgerline.evaluation.metrics import Draw, Metric, Rows, row_values, sums_by_cluster
from ledgerline.evaluation.samples import ComparisonError, Sample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHUNK_CELLS = 500_000  # rows times draws that are held in memory at a time


@dataclass(frozen=True)
class PairedScores:
    """The values of one metric for both models, and its gains over the draws.

    Attributes:
        staging: Value of staging on the rows; NaN if the metric is not defined.
        gains: Gain of staging over production in each draw; NaN if the metric is not defined for the draw,
            for example because it has no rows or only one class.
    """

    staging: float
    production: float
    gains: "NDArray[np.float64]"


class ModelScorer:
    """Predictions of one model, summed and sorted once, which can be scored for many draws."""

    def __init__(self, rows: Rows, metrics: Sequence[Metric]) -> None:
        self._names = tuple(metric.name for metric in metrics)
        self._sums = {
            metric.name: rows.sums(row_values(metric, rows))
            for metric in metrics
            if metric.by_row is not None
        }
        # A scorer that several metrics share is created once.
        factories = dict.fromkeys(metric.scorer for metric in metrics if metric.scorer is not None)
        self._scorers = [factory(rows) for factory in factories]

    def scores(self, draw: Draw) -> "dict[str, NDArray[np.float64]]":
        """Return each metric by name, one number for each draw."""
        values = {name: (draw.exact @ sums) / draw.rows for name, sums in self._sums.items()}
        for scorer in self._scorers:
            values |= scorer.scores(draw)
        return {name: values[name] for name in self._names}


def scores_of(
    outcome: "NDArray[Any]", prediction: "NDArray[np.float64]", metrics: Sequence[Metric]
) -> dict[str, float]:
    """Compute the metrics that are defined, for arrays that a kind of prediction has returned."""
    import numpy as np

    rows = Rows(outcome, prediction, np.zeros(len(outcome), dtype=np.intp), 1)
    once = Draw.of(np.ones((1, 1)), np.array([float(len(outcome))]))
    scores = {name: float(values[0]) for name, values in ModelScorer(rows, metrics).scores(once).items()}
    return {name: value for name, value in scores.items() if not np.isnan(value)}


def paired_scores(
    sample: Sample, metrics: Sequence[Metric], resamples: int, seed: int
) -> Mapping[str, PairedScores]:
    """Score both models on the same draws; equal seeds give equal draws."""
    import numpy as np

    count = sample.cluster_count
    models = [
        ModelScorer(Rows(sample.outcome, prediction, sample.clusters, count), metrics)
        for prediction in (sample.staging, sample.production)
    ]
    rows_by_cluster = np.bincount(sample.clusters, minlength=count).astype(float)
    once = Draw.of(np.ones((1, count)), rows_by_cluster)
    staging, production = (model.scores(once) for model in models)
    gains: dict[str, list[NDArray[np.float64]]] = {metric.name: [] for metric in metrics}
    # Counts of drawn rows are whole numbers, which single precision holds exactly up to 16.7 million.
    for counts in _draws(count, resamples, seed, len(sample.outcome)):
        draw = Draw.of(counts.astype(np.float32), rows_by_cluster)
        drawn_staging, drawn_production = (model.scores(draw) for model in models)
        for metric in metrics:
            gains[metric.name].append(metric.gain(drawn_staging[metric.name], drawn_production[metric.name]))
    return {
        name: PairedScores(float(staging[name][0]), float(production[name][0]), np.concatenate(drawn))
        for name, drawn in gains.items()
    }


def paired_slice_scores(
    sample: Sample, metric: Metric, slices: "Sequence[NDArray[np.bool_]]", resamples: int, seed: int
) -> list[PairedScores]:
    """Score both models in each slice, a mask of its rows, on the same draws of all rows.

    Raises:
        ComparisonError: The metric is not a mean over rows.
    """
    import numpy as np

    if not metric.is_defined_for_slices:
        raise ComparisonError(f"Slices cannot be compared by {metric.name}, which is not a mean over rows.")
    if not slices:
        return []
    count = sample.cluster_count

    def sums(values: "NDArray[np.float64]") -> "NDArray[np.float64]":
        return np.stack([sums_by_cluster(sample.clusters[rows], values[rows], count) for rows in slices], 1)

    rows = sums(np.ones(len(sample.outcome)))
    staging, production = (
        sums(row_values(metric, Rows(sample.outcome, prediction, sample.clusters, count)))
        for prediction in (sample.staging, sample.production)
    )
    better = metric.gain(staging, production)
    gains = []
    with np.errstate(invalid="ignore"):
        for counts in _draws(count, resamples, seed, len(slices)):
            drawn = counts.astype(float)
            gains.append((drawn @ better) / (drawn @ rows))
    all_gains = np.concatenate(gains)
    return [
        PairedScores(
            float(staging[:, number].sum() / rows[:, number].sum()),
            float(production[:, number].sum() / rows[:, number].sum()),
            all_gains[:, number],
        )
        for number in range(len(slices))
    ]


def _draws(clusters: int, resamples: int, seed: int, rows: int) -> "Iterator[NDArray[np.int64]]":
    """Yield how often each cluster is drawn, one row for each draw, in blocks that fit into memory."""
    import numpy as np

    generator = np.random.default_rng(seed)
    size = max(1, CHUNK_CELLS // max(rows, clusters))
    for start in range(0, resamples, size):
        block = min(size, resamples - start)
        drawn = generator.integers(0, clusters, size=(block, clusters))
        drawn += np.arange(block)[:, None] * clusters
        yield np.bincount(drawn.ravel(), minlength=block * clusters).reshape(block, clusters)
