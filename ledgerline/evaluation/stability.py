"""How far some rows differ from others: the population stability index. When that is too far: not here."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

BINS = 10

# A value that fewer of the reference's rows have counts as "other", with those it never had.
RARE_SHARE = 0.01

# A bin that one side leaves empty would make the index infinite. Its share counts as one in ten
# thousand, as in Evidently (`get_binned_data`, `feel_zeroes`), on both sides and whether or not others
# are empty: all other bins keep the share they have.
MIN_SHARE = 1e-4

_MISSING = -1
_OTHER = -2


def population_stability_index(reference: "pd.Series", current: "pd.Series", bins: int = BINS) -> float:
    """How far a column differs between two sets of rows: sum of (c - r) ln(c / r) over shares of bins.

    It is 0 for equal shares, never negative, the same in both directions, and knows no order of bins
    (Jeffreys divergence; Siddiqi, Intelligent Credit Scoring, 2017). Without any difference it is about
    (bins - 1) (1 / reference rows + 1 / current rows) by chance alone (Yurdakul, Statistical Properties of
    Population Stability Index, 2018): small sets differ anyway.

    Numbers are put into bins with about equally many rows of the reference, of which the outer ones are
    open; a number that fills a bin alone is one by itself. Of anything else each value is a bin, and all
    that are rare in the reference or unknown to it are one. Missing values are a bin of their own.

    Args:
        reference: What to compare with.
        current: What is compared.
        bins: Number of bins for numbers, without that for missing ones.

    Raises:
        ValueError: One of them has no rows.
    """
    for name, rows in (("reference", reference), ("current", current)):
        if rows.empty:
            raise ValueError(f"There are no {name} rows of {reference.name!r} to compare.")
    if _holds_numbers(reference) and _holds_numbers(current):
        codes = _codes_of_numbers(_numbers(reference), _numbers(current), bins)
    else:
        codes = _codes_of_values(reference.astype("object"), current.astype("object"))
    return _index(*codes)


def psi_table(reference: "pd.DataFrame", current: "pd.DataFrame", columns: Sequence[str]) -> "pd.DataFrame":
    """The index of several columns.

    Returns:
        Columns feature and psi, the one that differs most first.
    """
    import pandas as pd

    indices = [population_stability_index(reference[name], current[name]) for name in columns]
    table = pd.DataFrame({"feature": list(columns), "psi": indices})
    return table.sort_values("psi", ascending=False, kind="stable", ignore_index=True)


def _holds_numbers(rows: "pd.Series") -> bool:
    from pandas.api.types import is_numeric_dtype

    # A column that is missing altogether is as good as one of numbers, whatever it is stored as.
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
        # Values that occur, not ones between them: only so can one be recognised.
        quantiles = np.quantile(known, np.linspace(0, 1, bins + 1), method="inverted_cdf")
    else:
        quantiles = known
    cuts = np.unique(quantiles[1:-1])
    values, times = np.unique(quantiles, return_counts=True)
    filling_a_bin = values[times > 1]

    def codes(numbers: "np.ndarray") -> "np.ndarray":
        # An even code is an interval up to and including a cut; an odd one is the cut by itself.
        found = 2 * np.searchsorted(cuts, numbers, side="left") + np.isin(numbers, filling_a_bin)
        return np.where(np.isnan(numbers), _MISSING, found)

    return codes(reference), codes(current)


def _codes_of_values(reference: "pd.Series", current: "pd.Series") -> "tuple[np.ndarray, np.ndarray]":
    import numpy as np
    import pandas as pd

    counts = reference.value_counts()
    frequent = counts.index[counts >= RARE_SHARE * len(reference)]

    def codes(rows: "pd.Series") -> "np.ndarray":
        found = frequent.get_indexer(pd.Index(rows))
        return np.where(rows.isna(), _MISSING, np.where(found < 0, _OTHER, found))

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
