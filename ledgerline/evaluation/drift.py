"""Measures the drift of predictions and outcomes, for each kind of prediction.

The functions are pure; the caller chooses the rows and the limits.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ledgerline.evaluation.metrics import Metric
from ledgerline.evaluation.prediction_kind import PredictionKind, require_kind
from ledgerline.evaluation.resampling import scores_of
from ledgerline.evaluation.samples import ComparisonError
from ledgerline.evaluation.stability import population_stability_index

if TYPE_CHECKING:
    from ledgerline.evaluation.samples import Answer, Column


def scores_psi(
    kind: PredictionKind, reference_prediction: "Answer", prediction: "Answer"
) -> dict[str, float]:
    """Compute the population stability index of each column of predictions, compared with a reference.

    Returns:
        The index by column: `probability`, the label of each class, `value`, or "q" and each level.

    Raises:
        ComparisonError: The predictions are not of this kind, or there are no rows.
    """
    require_kind(kind)
    columns = []
    for name, answer in (("reference_prediction", reference_prediction), ("prediction", prediction)):
        rows = len(answer)
        if not rows:
            raise ComparisonError(f"{name} has no rows; pass some to compare.")
        columns.append(kind.score_columns(kind.predictions(name, answer, rows)))
    reference, current = columns
    return {
        str(column): population_stability_index(reference[column], current[column])
        for column in reference.columns
    }


def on_outcomes(
    kind: PredictionKind, outcome: "Column", prediction: "Answer", metrics: Sequence[Metric] = ()
) -> dict[str, float]:
    """Compute the metrics of predictions whose outcomes are known.

    These are the metrics of the kind and the given ones. A metric that is not defined on these rows is left
    out: a ranking, for example, needs outcomes of two classes.

    Raises:
        ComparisonError: Outcomes or predictions are not of this kind.
    """
    require_kind(kind)
    happened = kind.outcomes(outcome)
    checked = kind.predictions("prediction", prediction, len(happened))
    every = {metric.name: metric for metric in (*kind.metrics, *metrics)}
    return scores_of(happened, checked, list(every.values()))


def at_large(kind: PredictionKind, outcome: "Column", prediction: "Answer") -> dict[str, tuple[float, float]]:
    """Compute the mean prediction and the mean outcome over all rows, by column of predictions.

    Raises:
        ComparisonError: Outcomes or predictions are not of this kind.
    """
    happened = kind.outcomes(outcome)
    return kind.at_large(happened, kind.predictions("prediction", prediction, len(happened)))
