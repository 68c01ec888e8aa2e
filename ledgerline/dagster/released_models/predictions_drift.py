"""The asset with the drift of a model's predictions, and its checks. comparing_predictions.py measures it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import dagster as dg

from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.released_models.asset_of_spec import asset_of_spec
from ledgerline.dagster.released_models.declaration import ReleasedModel
from ledgerline.dagster.released_models.drift_records import Drift, DriftConfig, PredictionsDrift
from ledgerline.dagster.released_models.named_assets import last_materialised, storage_of
from ledgerline.dagster.released_models.watch import FEATURES_STABLE, SCORES_STABLE, Watch
from ledgerline.dagster.storage.io_managers import Records

# Metadata of each check evaluation: its partition.
PARTITION_METADATA = "partition"


@dataclass(frozen=True)
class Finding:
    """The result of a check, with its reason in words and its numbers."""

    passed: bool
    text: str
    details: Mapping[str, float] = field(default_factory=dict)


def drift_asset(model: ReleasedModel, watch: Watch) -> dg.AssetsDefinition:
    """Make the asset that compares the stored predictions with the training rows of their version."""
    spec = model.translator.drift_spec(model, watch)

    @asset_of_spec(
        spec,
        io_manager_key="records",
        required_resource_keys={
            "registry",
            "otel",
            storage_of(model.rows),
            storage_of(watch.predictions),
        },
    )
    def predictions_drift(context: dg.AssetExecutionContext, config: DriftConfig) -> PredictionsDrift:
        from ledgerline.dagster.released_models.comparing_predictions import compare_predictions

        return compare_predictions(context, model, watch, config.version)

    return predictions_drift


def drift_checks(model: ReleasedModel, watch: Watch) -> dg.AssetChecksDefinition:
    """Make the checks of the drift of predictions."""
    key = model.names.drift
    descriptions = {
        SCORES_STABLE: "Predictions are distributed as for the training rows of the version.",
        FEATURES_STABLE: "Features are distributed as in the training rows, and are as rarely missing.",
    }

    @dg.multi_asset_check(
        name=f"{key.to_python_identifier()}_checks",
        specs=[
            dg.AssetCheckSpec(
                name, asset=key, description=descriptions.get(name, "Predictions agree with the outcomes.")
            )
            for name in watch.checks(model.kind, model.features)
        ],
        # The UI then offers to execute a single check.
        can_subset=True,
    )
    def check_drift(
        context: dg.AssetCheckExecutionContext, records: dg.ResourceParam[Records]
    ) -> Iterator[dg.AssetCheckResult]:
        """Evaluate the drift of the predictions, unless there are too few of them."""
        drift = records.read(key, _partition(context, model), PredictionsDrift)
        chosen = {check.name for check in context.selected_asset_check_keys}
        about = {} if drift.partition is None else {PARTITION_METADATA: drift.partition}
        for name, finding in evaluate(model, watch, drift).items():
            if name in chosen:
                yield dg.AssetCheckResult(
                    passed=finding.passed,
                    check_name=name,
                    # The model may be as good as before, although a feature has changed.
                    severity=(
                        dg.AssetCheckSeverity.WARN if name == FEATURES_STABLE else dg.AssetCheckSeverity.ERROR
                    ),
                    description=finding.text,
                    metadata={**about, "version": drift.version, **finding.details},
                )

    return check_drift


def evaluate(model: ReleasedModel, watch: Watch, drift: PredictionsDrift) -> dict[str, Finding]:
    """Return the result of each check, by its name."""
    names = watch.checks(model.kind, model.features)
    few = _too_few(watch, drift.clusters, drift.rows)
    if few is not None:
        return dict.fromkeys(names, Finding(True, f"Not evaluated: predictions are stored of {few}"))
    results = {SCORES_STABLE: scores_finding(watch, drift, f"in {drift.rows:,} predictions")}
    if FEATURES_STABLE in names:
        results[FEATURES_STABLE] = _features(model, watch, drift)
    outcome_check = watch.outcome_check(model.kind)
    if outcome_check is not None:
        results[outcome_check] = _outcomes(model, watch, drift)
    return results


def scores_finding(watch: Watch, drift: Drift, where: str) -> Finding:
    """Compare the index of the column of predictions that differs most with the largest accepted one."""
    name, psi = max(drift.score_psi.items(), key=lambda item: item[1])
    return Finding(
        psi <= watch.max_score_psi,
        f"PSI {psi:.3f} of {name} {where}, at most {watch.max_score_psi:g} is stable: the mean is "
        f"{drift.mean_score[name]:.4g}, over the rows the version was trained on it is "
        f"{drift.mean_training_score[name]:.4g}",
        {"score_psi": psi},
    )


def _features(model: ReleasedModel, watch: Watch, drift: PredictionsDrift) -> Finding:
    psi = {name: drift.feature_psi[name] for name in watch.evaluated_features(model.features)}
    psi |= {f"gaps of {name}": drift.gaps_psi[name] for name in watch.gaps}
    largest = sorted(psi, key=lambda name: psi[name], reverse=True)
    changed = [name for name in largest if psi[name] > watch.max_feature_psi]
    listed = ", ".join(f"{name} {psi[name]:.3f}" for name in changed or largest[:1])
    text = (
        f"PSI above {watch.max_feature_psi:g}: {listed}"
        if changed
        else f"The largest PSI is that of {listed}"
    )
    return Finding(not changed, text, {"largest_psi": psi[largest[0]]})


def _outcomes(model: ReleasedModel, watch: Watch, drift: PredictionsDrift) -> Finding:
    bound, metric = watch.bound(model.kind), watch.bounded_metric(model.kind, model.metrics)
    assert bound is not None and metric is not None  # noqa: S101, PT018 (otherwise the check does not exist)
    few = _too_few(watch, drift.clusters_with_outcome, drift.rows_with_outcome)
    if few is not None:
        return Finding(True, f"Not evaluated: outcomes are known of {few}")
    value = drift.metrics.get(metric.name)
    if value is None:
        return Finding(
            True, f"Not evaluated: {metric.name} is not defined for {drift.rows_with_outcome:,} rows"
        )
    sides = ", ".join(
        f"{name} predicted {predicted:.4g}, observed {drift.observed[name]:.4g}"
        for name, predicted in list(drift.predicted.items())[:5]
    )
    return Finding(
        metric.gain(value, bound.worst) >= 0,
        f"{metric.name} {value:.4g} on {drift.rows_with_outcome:,} rows with an outcome, {bound.worst:g} is "
        f"accepted: {sides}",
        {metric.name: value},
    )


def _too_few(watch: Watch, clusters: int, rows: int) -> str | None:
    """Return the reason if there are too few rows or clusters to evaluate; None if there are enough."""
    if rows >= watch.min_rows and clusters >= watch.min_clusters:
        return None
    return (
        f"{rows:,} rows in {clusters:,} clusters; at least {watch.min_rows:,} in {watch.min_clusters:,} are "
        "needed"
    )


def _partition(context: dg.AssetCheckExecutionContext, model: ReleasedModel) -> str | None:
    """Return the partition to evaluate; for a check that is executed alone, the last stored one.

    Raises:
        PermanentFailure: No partition is stored.
    """
    if context.has_partition_key:
        return context.partition_key
    definition = model.drift_partitions
    key = model.names.drift
    if definition is None:
        return None
    last = last_materialised(context.instance, key, definition)
    if last is None:
        raise PermanentFailure(
            f"{key.to_user_string()} has no partition to evaluate.",
            f"Run the job {model.names.watch_job} first.",
        )
    return last
