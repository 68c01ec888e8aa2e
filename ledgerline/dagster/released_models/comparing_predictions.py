"""The step that compares stored predictions with training rows. Its asset: predictions_drift.py."""

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
    """How predictions compare with outcomes; the fields are those of `PredictionsDrift`."""

    rows_with_outcome: int = 0
    clusters_with_outcome: int = 0
    predicted: dict[str, float] | None = None
    observed: dict[str, float] | None = None
    metrics: dict[str, float] | None = None


def compare_predictions(
    context: dg.AssetExecutionContext, model: ReleasedModel, watch: Watch, number: int | None
) -> PredictionsDrift:
    """Compare the stored predictions of a version with what it was trained on.

    Args:
        context: The step.
        model: The declaration.
        watch: Its watch.
        number: The version; None: the one that made most of the predictions.

    Raises:
        PermanentFailure: They cannot be compared; the message says why.
    """
    otel: OTelResource = context.resources.otel
    registry: ModelRegistryResource = context.resources.registry
    with otel.span("read predictions"):
        found = stored_predictions(context, model, watch, number)
    reference = training_reference(context, model, registry.model(model.name).version(found.version))
    context.log.info(
        f"Comparing {len(found.rows):,} rows that version {found.version} predicted with those of "
        f"{reference.span} that it was trained on"
    )
    with otel.span("compare", rows=len(reference.rows) + len(found.rows)):
        _require_features(model, found.rows)
        outcomes = outcomes_of(model, watch, found.rows, found.prediction)
        result = PredictionsDrift(
            partition=str(context.partition_key) if context.has_partition_key else None,
            version=found.version,
            rows=len(found.rows),
            clusters=clusters_in(model, found.rows),
            rows_by_version={str(each): count for each, count in found.rows_by_version.items()},
            first_training_partition=reference.first_partition,
            last_training_partition=reference.last_partition,
            training_rows=len(reference.rows),
            training_data=reference.as_recorded,
            feature_psi=by_feature(psi_table(reference.rows, found.rows, model.features)),
            gaps_psi=by_feature(psi_table(reference.rows.isna(), found.rows.isna(), watch.gaps)),
            score_psi=drift.scores_psi(model.kind, reference.prediction, found.prediction),
            mean_training_score=means_of(model, reference.prediction),
            mean_score=means_of(model, found.prediction),
            rows_with_outcome=outcomes.rows_with_outcome,
            clusters_with_outcome=outcomes.clusters_with_outcome,
            predicted=outcomes.predicted or {},
            observed=outcomes.observed or {},
            metrics=outcomes.metrics or {},
        )
    context.add_asset_metadata(_metadata(model, watch, result))
    if not missing("plots"):
        samples = {"rows it was trained on": reference.prediction, "rows predicted": found.prediction}
        context.add_asset_metadata({"scores_plot": as_markdown(plots.scores(model.kind, samples))})
        known = found.rows[model.outcome].notna().to_numpy()
        if known.any():
            points = model.kind.calibration(
                model.kind.outcomes(found.rows.loc[known, model.outcome]), found.prediction[known]
            )
            curves = {f"version {found.version}": points}
            picture = as_markdown(plots.calibration_curves(curves, model.kind.name))
            context.add_asset_metadata({"calibration_plot": picture})
    return result


def outcomes_of(
    model: ReleasedModel, watch: Watch, rows: "pd.DataFrame", prediction: "NDArray[np.float64]"
) -> OutcomeFindings:
    """Compare predictions with outcomes, over the rows whose outcome is known.

    Raises:
        PermanentFailure: An outcome is not one of the kind of prediction.
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
            str(error), f"Mend the column {model.outcome} of {model.rows_key.to_user_string()}."
        ) from error
    return OutcomeFindings(
        rows_with_outcome=len(known),
        clusters_with_outcome=clusters_in(model, known),
        predicted={name: predicted for name, (predicted, _) in at_large.items()},
        observed={name: observed for name, (_, observed) in at_large.items()},
        metrics=scores,
    )


def further_metrics(model: ReleasedModel, watch: Watch) -> list[Metric]:
    """Return the metrics beside those of the kind: the model's own, and that of the bound."""
    bounded = watch.bounded_metric(model.kind, model.metrics)
    return [*model.metrics, *([bounded] if bounded is not None else [])]


def clusters_in(model: ReleasedModel, rows: "pd.DataFrame") -> int:
    """Count the clusters of rows."""
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


def _metadata(model: ReleasedModel, watch: Watch, found: PredictionsDrift) -> dict[str, Any]:
    """Return what Dagster's UI shows: numbers that it draws over time, and tables."""
    numbers = {name: value for name, value in asdict(found).items() if isinstance(value, int | float | str)}
    return {
        **found.metrics,
        **numbers,
        "rows_by_version": found.rows_by_version,
        "largest_score_psi": found.largest_score_psi,
        "scores": drift_tables.scores_table(found.score_psi, found.mean_training_score, found.mean_score),
        **(
            {"outcomes": drift_tables.outcomes_table(found.predicted, found.observed)}
            if found.metrics
            else {}
        ),
        **(
            {"feature_psi": drift_tables.features_table(model, watch, found.feature_psi, found.gaps_psi)}
            if found.feature_psi
            else {}
        ),
    }
