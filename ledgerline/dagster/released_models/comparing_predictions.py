"""The step that compares stored predictions with training rows. Its asset is in predictions_drift.py."""

from dataclasses import replace

import dagster as dg
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.dagster.released_models.comparison_tables import as_markdown
from ledgerline.dagster.released_models.declaration import ReleasedModel
from ledgerline.dagster.released_models.drift_records import PredictionsDrift
from ledgerline.dagster.released_models.drift_tables import drift_metadata, outcomes_table
from ledgerline.dagster.released_models.stored_predictions import stored_predictions
from ledgerline.dagster.released_models.stored_tables import require_columns
from ledgerline.dagster.released_models.training_reference import training_reference
from ledgerline.dagster.released_models.watch import Watch
from ledgerline.dagster.tracing import OTelResource
from ledgerline.evaluation import drift, plots
from ledgerline.evaluation.samples import ComparisonError
from ledgerline.evaluation.stability import psi_by_column
from ledgerline.settings.extras import missing


def compare_predictions(
    context: dg.AssetExecutionContext, model: ReleasedModel, watch: Watch, number: int | None
) -> PredictionsDrift:
    """Compare the stored predictions of a version, or of the one that made most of them, with training rows.

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
        purpose = f"which the declaration of {model.name} names as a feature"
        require_columns(model.rows_key, stored.rows, model.features, purpose)
        drifted = PredictionsDrift(
            partition=str(context.partition_key) if context.has_partition_key else None,
            version=stored.version,
            rows=len(stored.rows),
            clusters=clusters_in(model, stored.rows),
            rows_by_version={str(each): count for each, count in stored.rows_by_version.items()},
            first_training_partition=reference.first_partition,
            last_training_partition=reference.last_partition,
            training_rows=len(reference.rows),
            training_data=reference.as_recorded,
            feature_psi=psi_by_column(reference.rows, stored.rows, model.features),
            gaps_psi=psi_by_column(reference.rows.isna(), stored.rows.isna(), watch.gaps),
            score_psi=drift.scores_psi(model.kind, reference.prediction, stored.prediction),
            mean_training_score=means_of(model, reference.prediction),
            mean_score=means_of(model, stored.prediction),
        )
        is_known = stored.rows[model.outcome].notna().to_numpy()
        known, predicted = stored.rows[is_known].reset_index(drop=True), stored.prediction[is_known]
        if is_known.any():
            drifted = with_outcomes(drifted, model, watch, known, predicted)
    evaluated = {"psi": watch.evaluated_features(model.features), "gaps": watch.gaps}
    evaluated_by = {
        feature: " and ".join(name for name, features in evaluated.items() if feature in features)
        or "nothing"
        for feature in model.features
    }
    metadata = {
        **drifted.metrics,
        **drift_metadata(drifted, evaluated_by),
        "rows_by_version": drifted.rows_by_version,
        **({"outcomes": outcomes_table(drifted.predicted, drifted.observed)} if drifted.metrics else {}),
    }
    context.add_asset_metadata(metadata)
    if not missing("plots"):
        samples = {"rows it was trained on": reference.prediction, "rows predicted": stored.prediction}
        context.add_asset_metadata({"scores_plot": as_markdown(plots.scores(model.kind, samples))})
        if is_known.any():
            points = model.kind.calibration(model.kind.outcomes(known[model.outcome]), predicted)
            curves = {f"version {stored.version}": points}
            picture = as_markdown(plots.calibration_curves(curves, model.kind.name))
            context.add_asset_metadata({"calibration_plot": picture})
    return drifted


def with_outcomes(
    drifted: PredictionsDrift,
    model: ReleasedModel,
    watch: Watch,
    known: pd.DataFrame,
    predicted: NDArray[np.float64],
) -> PredictionsDrift:
    """Return the record with a comparison of predictions with outcomes, for rows whose outcome is known.

    Raises:
        PermanentFailure: An outcome does not fit the kind of prediction.
    """
    bounded = watch.bounded_metric(model.kind, model.metrics)
    further = [*model.metrics, *([bounded] if bounded is not None else [])]
    try:
        at_large = drift.at_large(model.kind, known[model.outcome], predicted)
        scores = drift.on_outcomes(model.kind, known[model.outcome], predicted, further)
    except ComparisonError as error:
        raise PermanentFailure(
            str(error), f"Correct the column {model.outcome} of {model.rows_key.to_user_string()}."
        ) from error
    return replace(
        drifted,
        rows_with_outcome=len(known),
        clusters_with_outcome=clusters_in(model, known),
        predicted={name: predicted for name, (predicted, _) in at_large.items()},
        observed={name: observed for name, (_, observed) in at_large.items()},
        metrics=scores,
    )


def clusters_in(model: ReleasedModel, rows: pd.DataFrame) -> int:
    """Return the number of clusters of rows."""
    return int(pd.Series(model.clusters_of(rows)).nunique())


def means_of(model: ReleasedModel, prediction: NDArray[np.float64]) -> dict[str, float]:
    """Return the mean of each column of predictions."""
    return {str(name): float(mean) for name, mean in model.kind.score_columns(prediction).mean().items()}
