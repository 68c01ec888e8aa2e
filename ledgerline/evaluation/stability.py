"""Computes the population stability index (PSI) of two sets of rows. Limits are set by the caller."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

BINS = 10

# Values that are rarer than this in the reference are put into one bin, together with unknown values.
RARE_SHARE = 0.01

# A bin that is empty on one side would make the index infinite. Its share is set to one in ten thousand,
# as in Evidently (`get_binned_data`, `feel_zeroes`); all other bins keep their shares.
MIN_SHARE = 1e-4

_MISSING = -1
_OTHER = -2


def population_stability_index(reference: "pd.Series", current: "pd.Series", bins: int = BINS) -> float:
    """Compute the PSI of a column: the sum of (c - r) ln(c / r) over the shares of bins.

    It is 0 for equal shares, never negative, symmetric, and ignores the order of bins (Jeffreys divergence;
    Siddiqi, Intelligent Credit Scoring, 2017). For samples of the same distribution it is about
    (bins - 1) (1 / reference rows + 1 / current rows) by chance (Yurdakul, Statistical Properties of
    Population Stability Index, 2018), so small samples always differ.

    Numbers are put into bins with about equally many rows of the reference; the outer bins are open, and a
    number that fills a bin alone has a bin to itself. For any other type each value is a bin, and all values
    that are rare in the reference, or absent from it, share one bin. Missing values have a further bin.

    Raises:
        ValueError: One of the columns has no rows.

    Example:
        >>> import pandas as pd
        >>> population_stability_index(pd.Series(["a", "b"] * 50), pd.Series(["a", "b"] * 20))
        0.0
    """
    for name, rows in (("reference", reference), ("current", current)):
        if rows.empty:
            raise ValueError(f"There are no {name} rows of {reference.name!r} to compare.")
    if _holds_numbers(reference) and _holds_numbers(current):
        codes = _codes_of_numbers(_numbers(reference), _numbers(current), bins)
    else:
        codes = _codes_of_values(reference.astype("object"), current.astype("object"))
    return _index(*codes)


def psi_by_column(
    reference: "pd.DataFrame", current: "pd.DataFrame", columns: Sequence[str]
) -> dict[str, float]:
    """Compute the PSI of several columns, in descending order."""
    indices = {name: population_stability_index(reference[name], current[name]) for name in columns}
    return dict(sorted(indices.items(), key=lambda item: item[1], reverse=True))


def _holds_numbers(rows: "pd.Series") -> bool:
    from pandas.api.types import is_numeric_dtype

    # A column without any value is treated as numbers, whatever its type.
    return is_numeric_dtype(rows) or bool(rows.isna().all())


def _numbers(rows: "pd.Series") -> "np.ndarray":
    import numpy as np

    if rows.isna().all():
        return np.full(len(rows), np.nan)
    return rows.to_numpy("float64", na_value=np.nan)


def _codes_of_numbers(
    reference: "np.ndarray", current: "np.ndarray", bins: int
) -> "tuple[np.ndarray, np.ndarray]":
    import numpy as np

    known = reference[~np.isnan(reference)]
    if known.size:
        # Quantiles are values that occur, not interpolated ones, so that a value that fills a bin is
        # recognised.
        quantiles = np.quantile(known, np.linspace(0, 1, bins + 1), method="inverted_cdf")
    else:
        quantiles = known
    cuts = np.unique(quantiles[1:-1])
    values, times = np.unique(quantiles, return_counts=True)
    filling_a_bin = values[times > 1]

    def codes(numbers: "np.ndarray") -> "np.ndarray":
        # An even code is an interval up to and including a cut; an odd code is the cut alone.
        code = 2 * np.searchsorted(cuts, numbers, side="left") + np.isin(numbers, filling_a_bin)
        return np.where(np.isnan(numbers), _MISSING, code)

    return codes(reference), codes(current)


def _codes_of_values(reference: "pd.Series", current: "pd.Series") -> "tuple[np.ndarray, np.ndarray]":
    import numpy as np
    import pandas as pd

    counts = reference.value_counts()
    frequent = counts.index[counts >= RARE_SHARE * len(reference)]

    def codes(rows: "pd.Series") -> "np.ndarray":
        code = frequent.get_indexer(pd.Index(rows))
        return np.where(rows.isna(), _MISSING, np.where(code < 0, _OTHER, code))

    return codes(reference), codes(current)


def _index(reference: "np.ndarray", current: "np.ndarray") -> float:
    import numpy as np
    import pandas as pd

    shares = pd.DataFrame(
        {
            "reference": pd.Series(reference).value_counts(normalize=True),
            "current": pd.Series(current).value_counts(normalize=True),
        }
    )
    shares = shares.fillna(0.0).clip(lower=MIN_SHARE)
    difference = shares["current"] - shares["reference"]
    return float((difference * np.log(shares["current"] / shares["reference"])).sum())
