"""The step that compares stored predictions with training rows. Its asset is in predictions_drift.py."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.dagster.released_models import drift_tables
from ledgerline.dagster.released_models.comparison_tables import as_markdown
from ledgerline.dagster.released_models.declaration import ReleasedModel
from ledgerline.dagster.released_models.drift_records import PredictionsDrift
from ledgerline.dagster.released_models.stored_predictions import stored_predictions
from ledgerline.dagster.released_models.training_reference import training_reference
from ledgerline.dagster.released_models.watch import Watch
from ledgerline.dagster.tracing import OTelResource
from ledgerline.evaluation import drift, plots
from ledgerline.evaluation.metrics import Metric
from ledgerline.evaluation.samples import ComparisonError
from ledgerline.evaluation.stability import psi_table
from ledgerline.settings.extras import missing

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray


@dataclass(frozen=True)
class OutcomeFindings:
    """The comparison of predictions with outcomes; the fields are those of `PredictionsDrift`."""

    rows_with_outcome: int = 0
    clusters_with_outcome: int = 0
    predicted: dict[str, float] | None = None
    observed: dict[str, float] | None = None
    metrics: dict[str, float] | None = None


def compare_predictions(
    context: dg.AssetExecutionContext, model: ReleasedModel, watch: Watch, number: int | None
) -> PredictionsDrift:
    """Compare the stored predictions of a version with its training rows.

    Args:
        context: Context of the step.
        model: Declaration of the model.
        watch: Watch of the model.
        number: Version; None for the one that made most of the predictions.

    Raises:
        PermanentFailure: The predictions cannot be compared.
    """
    otel: OTelResource = context.resources.otel
    registry: ModelRegistryResource = context.resources.registry
    with otel.span("read predictions"):
        stored = stored_predictions(context, model, watch, number)
    reference = training_reference(context, model, registry.model(model.name).version(stored.version))
    context.log.info(
        f"Comparing {len(stored.rows):,} rows that version {stored.version} predicted with its training rows "
        f"of {reference.span}"
    )
    with otel.span("compare", rows=len(reference.rows) + len(stored.rows)):
        _require_features(model, stored.rows)
        outcomes = outcomes_of(model, watch, stored.rows, stored.prediction)
        result = PredictionsDrift(
            partition=str(context.partition_key) if context.has_partition_key else None,
            version=stored.version,
            rows=len(stored.rows),
            clusters=clusters_in(model, stored.rows),
            rows_by_version={str(each): count for each, count in stored.rows_by_version.items()},
            first_training_partition=reference.first_partition,
            last_training_partition=reference.last_partition,
            training_rows=len(reference.rows),
            training_data=reference.as_recorded,
            feature_psi=by_feature(psi_table(reference.rows, stored.rows, model.features)),
            gaps_psi=by_feature(psi_table(reference.rows.isna(), stored.rows.isna(), watch.gaps)),
            score_psi=drift.scores_psi(model.kind, reference.prediction, stored.prediction),
            mean_training_score=means_of(model, reference.prediction),
            mean_score=means_of(model, stored.prediction),
            rows_with_outcome=outcomes.rows_with_outcome,
            clusters_with_outcome=outcomes.clusters_with_outcome,
            predicted=outcomes.predicted or {},
            observed=outcomes.observed or {},
            metrics=outcomes.metrics or {},
        )
    context.add_asset_metadata(_metadata(model, watch, result))
    if not missing("plots"):
        samples = {"rows it was trained on": reference.prediction, "rows predicted": stored.prediction}
        context.add_asset_metadata({"scores_plot": as_markdown(plots.scores(model.kind, samples))})
        known = stored.rows[model.outcome].notna().to_numpy()
        if known.any():
            points = model.kind.calibration(
                model.kind.outcomes(stored.rows.loc[known, model.outcome]), stored.prediction[known]
            )
            curves = {f"version {stored.version}": points}
            picture = as_markdown(plots.calibration_curves(curves, model.kind.name))
            context.add_asset_metadata({"calibration_plot": picture})
    return result


def outcomes_of(
    model: ReleasedModel, watch: Watch, rows: "pd.DataFrame", prediction: "NDArray[np.float64]"
) -> OutcomeFindings:
    """Compare predictions with outcomes, over the rows whose outcome is known.

    Raises:
        PermanentFailure: An outcome does not fit the kind of prediction.
    """
    is_known = rows[model.outcome].notna().to_numpy()
    if not is_known.any():
        return OutcomeFindings()
    known, answered = rows[is_known].reset_index(drop=True), prediction[is_known]
    try:
        at_large = drift.at_large(model.kind, known[model.outcome], answered)
        further = further_metrics(model, watch)
        scores = drift.on_outcomes(model.kind, known[model.outcome], answered, further)
    except ComparisonError as error:
        raise PermanentFailure(
            str(error), f"Correct the column {model.outcome} of {model.rows_key.to_user_string()}."
        ) from error
    return OutcomeFindings(
        rows_with_outcome=len(known),
        clusters_with_outcome=clusters_in(model, known),
        predicted={name: predicted for name, (predicted, _) in at_large.items()},
        observed={name: observed for name, (_, observed) in at_large.items()},
        metrics=scores,
    )


def further_metrics(model: ReleasedModel, watch: Watch) -> list[Metric]:
    """Return the metrics in addition to those of the kind: those of the model, and that of the bound."""
    bounded = watch.bounded_metric(model.kind, model.metrics)
    return [*model.metrics, *([bounded] if bounded is not None else [])]


def clusters_in(model: ReleasedModel, rows: "pd.DataFrame") -> int:
    """Return the number of clusters of rows."""
    import pandas as pd

    return int(pd.Series(model.clusters_of(rows)).nunique())


def means_of(model: ReleasedModel, prediction: "NDArray[np.float64]") -> dict[str, float]:
    """Return the mean of each column of predictions."""
    return {str(name): float(mean) for name, mean in model.kind.score_columns(prediction).mean().items()}


def by_feature(table: "pd.DataFrame") -> dict[str, float]:
    """Return a table of indices as a mapping in the same order."""
    return {str(name): float(psi) for name, psi in zip(table["feature"], table["psi"], strict=True)}


def _require_features(model: ReleasedModel, rows: "pd.DataFrame") -> None:
    absent = [name for name in model.features if name not in rows]
    if absent:
        raise PermanentFailure(
            f"{model.rows_key.to_user_string()} has no column {absent[0]!r}, which the declaration of "
            f"{model.name} names as a feature.",
            f"Its columns are {', '.join(map(str, rows.columns))}.",
        )


def _metadata(model: ReleasedModel, watch: Watch, drifted: PredictionsDrift) -> dict[str, Any]:
    """Return metadata for Dagster's UI: numbers, which it plots over time, and tables."""
    numbers = {name: value for name, value in asdict(drifted).items() if isinstance(value, int | float | str)}
    return {
        **drifted.metrics,
        **numbers,
        "rows_by_version": drifted.rows_by_version,
        "largest_score_psi": drifted.largest_score_psi,
        "scores": drift_tables.scores_table(
            drifted.score_psi, drifted.mean_training_score, drifted.mean_score
        ),
        **(
            {"outcomes": drift_tables.outcomes_table(drifted.predicted, drifted.observed)}
            if drifted.metrics
            else {}
        ),
        **(
            {"feature_psi": drift_tables.features_table(model, watch, drifted.feature_psi, drifted.gaps_psi)}
            if drifted.feature_psi
            else {}
        ),
    }
