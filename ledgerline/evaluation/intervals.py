"""Intervals around a gain, from its spread over draws of clusters and how few clusters there are.

The percentiles of the draws, which are more common, are too narrow for a month of days, for two reasons
known in advance: the spread of draws from G clusters is too small by sqrt((G - 1) / G), and it is itself
an estimate, which Student's t with G - 1 degrees of freedom allows for. See Hesterberg, What Teachers Should
Know About the Bootstrap, The American Statistician 69 (2015), and on the degrees of freedom Cameron and
Miller, A Practitioner's Guide to Cluster-Robust Inference, Journal of Human Resources 50 (2015).

benchmarks/gate.py shows percentiles that promote too often where t does not. On the same made-up months
two refinements, adjusting t for skewness and studentising each draw, promote too often as well: gains of
single days have long tails, so that the skewness of a month is mostly that of its strangest day.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# A metric that so few draws leave defined has no interval.
MIN_DEFINED = 0.95


def half_widths(gains: "NDArray[np.float64]", clusters: int, alpha: float) -> tuple[float, float] | None:
    """Return how far the two-sided interval reaches to each side, and the one-sided one to its only side.

    Args:
        gains: One for each draw; NaN where the metric is not defined.
        clusters: How many clusters there are.
        alpha: One minus the confidence.

    Returns:
        None: Too few draws leave the metric defined.
    """
    import numpy as np
    from scipy import stats

    defined = gains[~np.isnan(gains)]
    if len(defined) < MIN_DEFINED * len(gains):
        return None
    error = _standard_error(defined, clusters)
    two_sided, one_sided = (error * float(stats.t.isf(level, clusters - 1)) for level in (alpha / 2, alpha))
    return two_sided, one_sided


def simultaneous_half_widths(
    gains: "Sequence[NDArray[np.float64]]", clusters: Sequence[int], alpha: float
) -> list[float]:
    """Return half the width of each slice's interval, so that all intervals are right at once.

    In each draw the slice counts that is furthest from its own mean, in its own standard errors; what this
    exceeds in a share alpha of the draws is the critical value (Westfall and Young, Resampling-Based Multiple
    Testing, 1993). Slices that go up and down together thereby cost less than Bonferroni's correction takes.
    The draws are about normal and know nothing of how few clusters there are, so the level that the critical
    value means for a normal variable is looked up for Student's t, with the clusters that the slice has.

    Args:
        gains: For each slice, one for each draw; NaN where the draw has no row of the slice.
        clusters: For each slice, how many clusters it has.
        alpha: One minus the confidence.
    """
    import numpy as np
    from scipy import stats

    if not gains:
        return []
    drawn = np.stack(gains, axis=1)
    deviations = np.abs(drawn - np.nanmean(drawn, axis=0))
    spreads = np.nanstd(drawn, axis=0, ddof=1)
    scaled = np.divide(deviations, spreads, out=np.zeros_like(deviations), where=spreads > 0)
    critical = float(np.quantile(np.nan_to_num(scaled).max(axis=1), 1 - alpha, method="higher"))
    level = float(stats.norm.sf(critical))
    return [
        _standard_error(each[~np.isnan(each)], count) * float(stats.t.isf(level, count - 1))
        for each, count in zip(gains, clusters, strict=True)
    ]


def _standard_error(gains: "NDArray[np.float64]", clusters: int) -> float:
    return float(gains.std(ddof=1)) * math.sqrt(clusters / (clusters - 1))
