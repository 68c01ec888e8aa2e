"""Metrics, baselines and slices of predicted probabilities, as functions of data frames."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

CALIBRATION_BINS = 10
IMPORTANCE_ROWS = 5_000
IMPORTANCE_REPEATS = 3

# A slice with fewer flights, or with only one outcome, has no meaningful metrics.
MIN_SLICE_FLIGHTS = 100


def score(late: "pd.Series", probability: "pd.Series") -> dict[str, float]:
    """Return ROC AUC, PR AUC, log loss, Brier score and expected calibration error."""
    from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

    bins = calibration(late, probability)
    gaps = (bins["predicted"] - bins["observed"]).abs()
    return {
        "roc_auc": float(roc_auc_score(late, probability)),
        "pr_auc": float(average_precision_score(late, probability)),
        "log_loss": float(log_loss(late, probability)),
        "brier": float(brier_score_loss(late, probability)),
        "calibration_error": float((gaps * bins["flights"]).sum() / bins["flights"].sum()),
    }


def calibration(late: "pd.Series", probability: "pd.Series") -> "pd.DataFrame":
    """Return the predicted and observed share of late flights, in bins of about equal size.

    Returns:
        Columns predicted and observed (rates), flights (count); one row for each bin.
    """
    import pandas as pd

    bins = pd.qcut(probability, CALIBRATION_BINS, duplicates="drop")
    if bins.isna().all():  # one probability for all flights
        bins = pd.Series("all", index=probability.index)
    rows = pd.DataFrame({"predicted": probability, "observed": late.astype(float)})
    grouped = rows.groupby(bins, observed=True)
    return grouped.mean().assign(flights=grouped.size()).reset_index(drop=True)


def carrier_hour(rows: "pd.DataFrame") -> "pd.Series":
    """Return the carrier and scheduled hour of departure of each flight, as one key ("AA 17")."""
    return rows["carrier"] + " " + (rows["sched_dep_time"] // 100).astype(str)


def carrier_hour_rates(rows: "pd.DataFrame", late: "pd.Series") -> dict[str, float]:
    """Return the share of late flights for each carrier and scheduled hour."""
    rates = late.astype(float).groupby(carrier_hour(rows)).mean()
    return {str(key): float(rate) for key, rate in rates.items()}


def carrier_hour_baseline(rows: "pd.DataFrame", rates: Mapping[str, float], late_rate: float) -> "pd.Series":
    """Predict these rates, and the overall rate for other carriers and hours."""
    return carrier_hour(rows).map(dict(rates)).fillna(late_rate).astype(float)


def score_slices(rows: "pd.DataFrame", late: "pd.Series", probability: "pd.Series") -> "pd.DataFrame":
    """Return ROC AUC and Brier score for each carrier and each origin.

    Returns:
        Columns slice ("carrier", "origin"), value, flights, late_rate, roc_auc, brier. The scores are
        NaN if a slice is too small or has only one outcome.
    """
    import pandas as pd
    from sklearn.metrics import brier_score_loss, roc_auc_score

    table = []
    for column in ("carrier", "origin"):
        for value, members in rows.groupby(column).groups.items():
            actual, predicted = late.loc[members], probability.loc[members]
            enough = len(members) >= MIN_SLICE_FLIGHTS and actual.nunique() == 2
            table.append(
                {
                    "slice": column,
                    "value": str(value),
                    "flights": len(members),
                    "late_rate": float(actual.mean()),
                    "roc_auc": float(roc_auc_score(actual, predicted)) if enough else float("nan"),
                    "brier": float(brier_score_loss(actual, predicted)) if enough else float("nan"),
                }
            )
    return pd.DataFrame(table)


def permutation_importance(
    pipeline: "Pipeline", inputs: "pd.DataFrame", late: "pd.Series", seed: int
) -> "pd.DataFrame":
    """Return the loss of ROC AUC when each feature is shuffled, on a sample of the flights.

    Returns:
        Columns feature, loss_of_roc_auc and spread (standard deviation), most important first.
    """
    import pandas as pd
    from sklearn import inspection

    sample = inputs.sample(min(IMPORTANCE_ROWS, len(inputs)), random_state=seed)
    # Shuffling encoded columns has the same effect, and encodes once instead of 57 times.
    encoded = pipeline[:-1].transform(sample)
    result: Any = inspection.permutation_importance(
        pipeline[-1],
        encoded,
        late.loc[sample.index],
        scoring="roc_auc",
        n_repeats=IMPORTANCE_REPEATS,
        random_state=seed,
    )
    table = pd.DataFrame(
        {
            "feature": list(inputs.columns),
            "loss_of_roc_auc": result.importances_mean,
            "spread": result.importances_std,
        }
    )
    return table.sort_values("loss_of_roc_auc", ascending=False, ignore_index=True)
