"""Scorers of rankings: how often a positive row has a higher probability than a negative one."""

from typing import TYPE_CHECKING

from ledgerline.evaluation.metrics import Draw, Rows, sums_by_cluster

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_PAIRED_CLUSTERS = 200


class Ranking:
    """Rows in the order of their probabilities, highest first.

    Both areas are computed from the rows at or before each positive row. If `seen` positives and `wrong`
    negatives have at least its probability, the precision there is seen / (seen + wrong), and the positive
    outranks all negatives except the wrong ones; those with the same probability count half. Rows with equal
    probabilities are therefore treated exactly, in any order.

    It returns `roc_auc`, the area under the ROC curve, and `pr_auc`, the average precision: both from 0 to 1.
    """

    def __init__(self, rows: Rows) -> None:
        import numpy as np

        order = np.argsort(-rows.prediction, kind="stable")
        ranked, happened = -rows.prediction[order], rows.outcome[order]
        positives, negatives = ranked[happened], ranked[~happened]
        clusters = rows.clusters[order]
        self._positives, self._negatives = clusters[happened], clusters[~happened]
        self._seen = np.searchsorted(positives, positives, side="right")
        self._wrong = np.searchsorted(negatives, positives, side="right")
        self._above = np.searchsorted(negatives, positives, side="left")

    def scores(self, draw: Draw) -> "dict[str, NDArray[np.float64]]":
        """Return both areas for each draw."""
        import numpy as np

        drawn = np.take(draw.counts, self._positives, axis=1)
        positives = _running_sum(drawn)
        negatives = _running_sum(np.take(draw.counts, self._negatives, axis=1))
        seen = np.take(positives, self._seen, axis=1)
        wrong = np.take(negatives, self._wrong, axis=1)
        above = np.take(negatives, self._above, axis=1)
        all_positives = positives[:, -1].astype(np.float64)
        all_negatives = negatives[:, -1].astype(np.float64)
        above += wrong  # twice the negatives that a positive does not outrank
        # Before the first drawn row the positive has weight 0, so its precision is not used.
        wrong += seen
        precision = np.divide(seen, np.maximum(wrong, 1, out=wrong), out=seen)
        lost = np.einsum("ij,ij->i", drawn, above, dtype=np.float64, casting="safe") / 2
        precise = np.einsum("ij,ij->i", drawn, precision, dtype=np.float64, casting="safe")
        with np.errstate(invalid="ignore"):
            return {
                "roc_auc": 1 - lost / (all_positives * all_negatives),
                "pr_auc": precise / all_positives,
            }


class ClassRankings:
    """Rankings by the probability of each class against all others.

    It returns `roc_auc`, the unweighted mean of the areas under the ROC curves of all classes (macro, one
    against the rest: Fawcett, An introduction to ROC analysis, Pattern Recognition Letters 27, 2006): 0 to
    1. It is not defined where a class does not occur.
    """

    def __init__(self, rows: Rows) -> None:
        # With few clusters, pairs of clusters are counted once; with many, each draw passes through the
        # ranking.
        make = Outranked if rows.cluster_count <= MAX_PAIRED_CLUSTERS else Ranking
        self._rankings = [
            make(Rows(rows.outcome == number, rows.prediction[:, number], rows.clusters, rows.cluster_count))
            for number in range(rows.prediction.shape[1])
        ]

    def scores(self, draw: Draw) -> "dict[str, NDArray[np.float64]]":
        """Return the mean area for each draw."""
        import numpy as np

        areas = [ranking.scores(draw)["roc_auc"] for ranking in self._rankings]
        return {"roc_auc": np.mean(areas, axis=0)}


class Outranked:
    """Pairs of a positive and a negative row whose negative is ranked higher, by the clusters of both.

    The number of times that a pair is drawn is the product of the counts of its two clusters, so a draw takes
    the same time for any number of rows. Pairs with equal probabilities count half. It returns `roc_auc`,
    exactly as `Ranking` does.
    """

    def __init__(self, rows: Rows) -> None:
        import numpy as np

        count = rows.cluster_count
        order = np.argsort(-rows.prediction, kind="stable")
        ranked, happened, clusters = -rows.prediction[order], rows.outcome[order], rows.clusters[order]
        positives, of_positives = ranked[happened], clusters[happened]
        negatives, of_negatives = ranked[~happened], clusters[~happened]
        self._positives = np.bincount(of_positives, minlength=count).astype(float)
        self._pairs = np.empty((count, count))
        for number in range(count):
            among = negatives[of_negatives == number]
            above = np.searchsorted(among, positives, "left") + np.searchsorted(among, positives, "right")
            self._pairs[:, number] = sums_by_cluster(of_positives, above, count) / 2

    def scores(self, draw: Draw) -> "dict[str, NDArray[np.float64]]":
        """Return the area for each draw."""
        import numpy as np

        positives = draw.exact @ self._positives
        lost = ((draw.exact @ self._pairs) * draw.exact).sum(axis=1)
        with np.errstate(invalid="ignore"):
            return {"roc_auc": 1 - lost / (positives * (draw.rows - positives))}


def _running_sum(values: "NDArray[np.floating]") -> "NDArray[np.floating]":
    """Return the sum of the first k columns in column k."""
    import numpy as np

    sums = np.zeros((values.shape[0], values.shape[1] + 1), dtype=values.dtype)
    np.cumsum(values, axis=1, out=sums[:, 1:])
    return sums
