"""The asset with the drift of the requests to a model's service, and its check.

The drift of stored predictions is in predictions_drift.py.
"""

from datetime import UTC, datetime, timedelta

import dagster as dg

from ledgerline.dagster.released_models.asset_of_spec import asset_of_spec
from ledgerline.dagster.released_models.declaration import ReleasedModel
from ledgerline.dagster.released_models.drift_records import RequestsDrift, RequestsDriftConfig
from ledgerline.dagster.released_models.named_assets import storage_of
from ledgerline.dagster.released_models.predictions_drift import scores_finding
from ledgerline.dagster.released_models.watch import SCORES_STABLE, Watch
from ledgerline.dagster.storage.io_managers import Records


def requests_drift_asset(model: ReleasedModel, watch: Watch) -> dg.AssetsDefinition:
    """Make the asset that compares requests with the training rows of the version in production."""
    spec = model.translator.requests_drift_spec(model)

    @asset_of_spec(
        spec,
        io_manager_key="records",
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
        description="Responses are distributed as predictions for the training rows of the version.",
    )
    def requests_scores_stable(records: dg.ResourceParam[Records]) -> dg.AssetCheckResult:
        """Evaluate the drift of requests, unless there are too few of them."""
        drift = records.read(key, None, RequestsDrift)
        finding = scores_finding(watch, drift, f"in {drift.requests:,} requests")
        metadata = {"version": drift.version, "requests": drift.requests, **finding.details}
        if drift.requests < watch.min_requests:
            text = f"Not evaluated: {drift.requests:,} requests; at least {watch.min_requests:,} are needed"
            return dg.AssetCheckResult(passed=True, description=text, metadata=metadata)
        return dg.AssetCheckResult(
            passed=finding.passed,
            # Requests change from week to week, and the model may be as good as before.
            severity=dg.AssetCheckSeverity.WARN,
            description=finding.text,
            metadata=metadata,
        )

    return requests_scores_stable
