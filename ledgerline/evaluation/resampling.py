"""Scores of two models on the same rows, and on draws of these rows with replacement, made in whole clusters.

What the spread of the draws says about the models is in comparison.py.

Nothing is scored row by row for each draw. A loss is a sum over rows, so it is summed by cluster once, and a
draw only weighs these sums. A ranking is sorted once, and a draw only counts along it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from ledgerline.evaluation.samples import Sample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

METRICS = ("roc_auc", "pr_auc", "log_loss", "brier", "calibration_error")
RANKINGS = frozenset({"roc_auc", "pr_auc"})
LOSSES = frozenset({"log_loss", "brier"})  # means over rows, so that they are defined for any set of rows
LOWER_IS_BETTER = frozenset({"log_loss", "brier", "calibration_error"})

CALIBRATION_BINS = 10

CHUNK_CELLS = 500_000  # rows times draws that are held in memory at a time

Number = TypeVar("Number", float, "NDArray[np.float64]")


@dataclass(frozen=True)
class PairedScores:
    """One metric of both models.

    Attributes:
        staging: Of staging, on the rows as they are.
        production: Of production, on the same.
        gains: For each draw, how much better staging is than production; NaN where the metric is not
            defined because the draw has no row, or one outcome only.
    """

    staging: float
    production: float
    gains: "NDArray[np.float64]"


def gain(metric: str, staging: Number, production: Number) -> Number:
    """How much better staging is: positive if it is, whichever way the metric points."""
    return production - staging if metric in LOWER_IS_BETTER else staging - production


def paired_scores(
    sample: Sample, metrics: Sequence[str], resamples: int, seed: int
) -> Mapping[str, PairedScores]:
    """Score both models, each time on the same draw.

    Args:
        sample: The rows.
        metrics: Of METRICS.
        resamples: How many draws.
        seed: The same one gives the same draws.
    """
    import numpy as np

    count = sample.cluster_count
    models = [
        Scorer(sample.outcome, probability, sample.clusters, metrics)
        for probability in (sample.staging, sample.production)
    ]
    staging, production = (model.scores(np.ones((1, count))) for model in models)
    gains: dict[str, list[NDArray[np.float64]]] = {metric: [] for metric in metrics}
    # Counts of drawn rows are whole numbers, which single precision holds exactly up to 16.7 million.
    for weights in _draws(count, resamples, seed, len(sample.outcome)):
        drawn_staging, drawn_production = (model.scores(weights.astype(np.float32)) for model in models)
        for metric in metrics:
            gains[metric].append(gain(metric, drawn_staging[metric], drawn_production[metric]))
    return {
        metric: PairedScores(
            float(staging[metric][0]), float(production[metric][0]), np.concatenate(gains[metric])
        )
        for metric in metrics
    }


def paired_slice_losses(
    sample: Sample, metric: str, slices: "Sequence[NDArray[np.bool_]]", resamples: int, seed: int
) -> list[PairedScores]:
    """The mean loss of both models in each slice, each time on the same draw of all rows.

    Args:
        sample: The rows.
        metric: Of LOSSES.
        slices: For each slice, which rows are in it. They may overlap.
        resamples: How many draws.
        seed: The same one gives the same draws.
    """
    import numpy as np

    if not slices:
        return []
    count = sample.cluster_count

    def sums(values: "NDArray[np.float64]") -> "NDArray[np.float64]":
        return np.stack([sums_by_cluster(sample.clusters[rows], values[rows], count) for rows in slices], 1)

    rows = sums(np.ones(len(sample.outcome)))
    staging = sums(losses(metric, sample.outcome, sample.staging))
    production = sums(losses(metric, sample.outcome, sample.production))
    better = production - staging  # a lower loss is better
    gains = []
    with np.errstate(invalid="ignore"):
        for weights in _draws(count, resamples, seed, len(slices)):
            drawn = weights.astype(float)
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


class Scorer:
    """The probabilities of one model, sorted and summed once, to be scored under many weights."""

    def __init__(
        self,
        outcome: "NDArray[np.bool_]",
        probability: "NDArray[np.float64]",
        clusters: "NDArray[np.intp]",
        metrics: Sequence[str],
    ) -> None:
        import numpy as np

        count = int(clusters.max()) + 1
        self._metrics = tuple(metrics)
        self._rows = np.bincount(clusters, minlength=count).astype(float)
        self._losses = {
            metric: sums_by_cluster(clusters, losses(metric, outcome, probability), count)
            for metric in metrics
            if metric in LOSSES
        }
        self._calibration = None
        if "calibration_error" in metrics:
            self._calibration = _gaps_by_cluster(outcome, probability, clusters, count)
        self._ranking = None
        if RANKINGS.intersection(metrics):
            self._ranking = _Ranking(outcome, probability, clusters)

    def scores(self, weights: "NDArray[np.floating]") -> "Mapping[str, NDArray[np.float64]]":
        """Each metric, once for each row of weights.

        Args:
            weights: How often each cluster counts: a whole number for each cluster, in its column.
        """
        import numpy as np

        exact = weights.astype(np.float64)
        total = exact @ self._rows
        found = {metric: (exact @ sums) / total for metric, sums in self._losses.items()}
        if self._calibration is not None:
            found["calibration_error"] = np.abs(exact @ self._calibration).sum(axis=1) / total
        if self._ranking is not None:
            found |= self._ranking.scores(weights)
        return {metric: found[metric] for metric in self._metrics}


class _Ranking:
    """Rows in the order of their probabilities, highest first.

    All is expressed by what lies at or before each positive row: with `seen` positives and `wrong`
    negatives of at least its probability, the precision there is seen / (seen + wrong), and the positive
    outranks all negatives but the wrong ones, of which those with the same probability count half. So
    rows with equal probabilities are treated exactly, in whatever order they come.
    """

    def __init__(
        self,
        outcome: "NDArray[np.bool_]",
        probability: "NDArray[np.float64]",
        clusters: "NDArray[np.intp]",
    ) -> None:
        import numpy as np

        order = np.argsort(-probability, kind="stable")
        ranked, happened = -probability[order], outcome[order]
        positives, negatives = ranked[happened], ranked[~happened]
        self._positives, self._negatives = clusters[order][happened], clusters[order][~happened]
        self._seen = np.searchsorted(positives, positives, side="right")
        self._wrong = np.searchsorted(negatives, positives, side="right")
        self._above = np.searchsorted(negatives, positives, side="left")

    def scores(self, weights: "NDArray[np.floating]") -> "dict[str, NDArray[np.float64]]":
        """Area under the ROC curve, and average precision, for each row of weights."""
        import numpy as np

        drawn = np.take(weights, self._positives, axis=1)
        positives = _running_sum(drawn)
        negatives = _running_sum(np.take(weights, self._negatives, axis=1))
        seen = np.take(positives, self._seen, axis=1)
        wrong = np.take(negatives, self._wrong, axis=1)
        above = np.take(negatives, self._above, axis=1)
        all_positives = positives[:, -1].astype(np.float64)
        all_negatives = negatives[:, -1].astype(np.float64)
        above += wrong  # twice the negatives that a positive does not outrank
        # Where nothing was drawn yet the positive itself weighs nothing, and its precision is not used.
        wrong += seen
        precision = np.divide(seen, np.maximum(wrong, 1, out=wrong), out=seen)
        lost = np.einsum("ij,ij->i", drawn, above, dtype=np.float64, casting="safe") / 2
        precise = np.einsum("ij,ij->i", drawn, precision, dtype=np.float64, casting="safe")
        with np.errstate(invalid="ignore"):
            return {
                "roc_auc": 1 - lost / (all_positives * all_negatives),
                "pr_auc": precise / all_positives,
            }


def losses(
    metric: str, outcome: "NDArray[np.bool_]", probability: "NDArray[np.float64]"
) -> "NDArray[np.float64]":
    """The loss of each row; a certain answer counts as one that is off by the machine's precision."""
    import numpy as np

    if metric == "brier":
        return (probability - outcome) ** 2
    precision = np.finfo(np.float64).eps
    right = np.where(outcome, probability, 1 - probability)
    return -np.log(np.clip(right, precision, 1 - precision))


def calibration_bins(probability: "NDArray[np.float64]") -> "NDArray[np.intp]":
    """For each row, the number of its bin; bins hold about equally many rows, and never split ties."""
    import numpy as np
    import pandas as pd

    bins = np.asarray(pd.qcut(probability, CALIBRATION_BINS, labels=False, duplicates="drop"), dtype=float)
    if np.isnan(bins).all():  # one probability for all rows
        return np.zeros(len(probability), dtype=np.intp)
    return bins.astype(np.intp)


def sums_by_cluster(
    clusters: "NDArray[np.intp]", values: "NDArray[np.float64]", count: int
) -> "NDArray[np.float64]":
    """The sum of the values in each of so many clusters."""
    import numpy as np

    return np.bincount(clusters, weights=values, minlength=count).astype(np.float64, copy=False)


def _gaps_by_cluster(
    outcome: "NDArray[np.bool_]",
    probability: "NDArray[np.float64]",
    clusters: "NDArray[np.intp]",
    count: int,
) -> "NDArray[np.float64]":
    """For each cluster and bin, by how much what was said exceeds what happened, summed over rows."""
    bins = calibration_bins(probability)
    width = int(bins.max()) + 1
    return sums_by_cluster(clusters * width + bins, probability - outcome, count * width).reshape(
        count, width
    )


def _running_sum(values: "NDArray[np.floating]") -> "NDArray[np.floating]":
    """Column k is the sum of the first k columns."""
    import numpy as np

    sums = np.zeros((values.shape[0], values.shape[1] + 1), dtype=values.dtype)
    np.cumsum(values, axis=1, out=sums[:, 1:])
    return sums


def _draws(clusters: int, resamples: int, seed: int, rows: int) -> "Iterator[NDArray[np.int64]]":
    """How often each cluster is drawn: a row for each draw, in blocks that fit into memory."""
    import numpy as np

    generator = np.random.default_rng(seed)
    size = max(1, CHUNK_CELLS // max(rows, clusters))
    for start in range(0, resamples, size):
        block = min(size, resamples - start)
        drawn = generator.integers(0, clusters, size=(block, clusters))
        drawn += np.arange(block)[:, None] * clusters
        yield np.bincount(drawn.ravel(), minlength=block * clusters).reshape(block, clusters)
