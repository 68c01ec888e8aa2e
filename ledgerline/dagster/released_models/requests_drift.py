"""The asset that says how the requests to a model's service have drifted, and its check.

Drift of stored predictions: predictions_drift.py.
"""

from datetime import UTC, datetime, timedelta

import dagster as dg

from ledgerline.dagster.released_models.asset_of_spec import asset_of_spec
from ledgerline.dagster.released_models.declaration import ReleasedModel
from ledgerline.dagster.released_models.drift_checks import scores_finding
from ledgerline.dagster.released_models.drift_records import RequestsDrift, RequestsDriftConfig
from ledgerline.dagster.released_models.named_assets import storage_of
from ledgerline.dagster.released_models.retries import RETRY
from ledgerline.dagster.released_models.watch import SCORES_STABLE, Watch
from ledgerline.dagster.storage.io_managers import Records


def requests_drift_asset(model: ReleasedModel, watch: Watch) -> dg.AssetsDefinition:
    """Make the asset that compares requests with what the version in production was trained on."""
    spec = model.translator.requests_drift_spec(model)

    @asset_of_spec(
        spec,
        io_manager_key="records",
        retry_policy=RETRY,
        required_resource_keys={"registry", "request_log", "otel", storage_of(model.rows)},
    )
    def requests_drift(context: dg.AssetExecutionContext, config: RequestsDriftConfig) -> RequestsDrift:
        from ledgerline.dagster.released_models.comparing_requests import compare_requests

        until = datetime.now(UTC)
        since = until - timedelta(hours=config.since_hours)
        return compare_requests(context, model, watch, since, until)

    return requests_drift


def requests_drift_check(model: ReleasedModel, watch: Watch) -> dg.AssetChecksDefinition:
    """Make the check of the drift of requests."""
    key = model.names.requests_drift

    @dg.asset_check(
        asset=key,
        name=SCORES_STABLE,
        description="Responses are spread about as predictions for the rows that the version was trained on.",
    )
    def requests_scores_stable(records: dg.ResourceParam[Records]) -> dg.AssetCheckResult:
        """Evaluate the drift of requests; too few of them are not evaluated."""
        found = records.read(key, None, RequestsDrift)
        finding = scores_finding(
            found.score_psi,
            found.mean_score,
            found.mean_training_score,
            watch.max_score_psi,
            f"in {found.requests:,} requests",
        )
        metadata = {"version": found.version, "requests": found.requests, **finding.details}
        if found.requests < watch.min_requests:
            text = f"Not evaluated: {found.requests:,} requests; at least {watch.min_requests:,} are needed"
            return dg.AssetCheckResult(passed=True, description=text, metadata=metadata)
        return dg.AssetCheckResult(
            passed=finding.passed,
            # What clients ask changes with the week, and the model may be as good as ever.
            severity=dg.AssetCheckSeverity.WARN,
            description=finding.text,
            metadata=metadata,
        )

    return requests_scores_stable
