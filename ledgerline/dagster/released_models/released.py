"""Makes the assets, checks, jobs and sensors of released models."""

from collections import Counter
from collections.abc import Sequence

import dagster as dg

from ledgerline.dagster.released_models.comparison import comparison_asset, gate_checks
from ledgerline.dagster.released_models.declaration import DeclarationError, ReleasedModel
from ledgerline.dagster.released_models.jobs import release_jobs, watch_jobs
from ledgerline.dagster.released_models.predictions_drift import drift_asset, drift_checks
from ledgerline.dagster.released_models.production import production_asset, recorded_check
from ledgerline.dagster.released_models.production_sensor import production_sensor
from ledgerline.dagster.released_models.registry_drift_sensor import drift_sensor
from ledgerline.dagster.released_models.requests_drift import requests_drift_asset, requests_drift_check
from ledgerline.dagster.released_models.retraining_sensor import retraining_sensor
from ledgerline.dagster.released_models.staging_sensor import staging_sensor


def released(*models: ReleasedModel) -> dg.Definitions:
    """Return the definitions that release these models, to be merged with those of a project.

    Each model gets an asset that compares the version in staging with the one in production, with a check for
    each gate; an asset that represents the version in production; the jobs `compare_`, `promote_` and
    `release_<model>`; and sensors that follow its registry. They require the resources `mlflow`, `registry`,
    `request_log`, `alerts` and `records` (resources.library_resources), and the one that stores the model's
    rows.

    A model with a watch also gets the assets `drift_` and `requests_drift_<model>` with their checks, the
    jobs `watch_` and `watch_requests_<model>`, and the sensor `retrain_on_drift_<model>` if the watch names a
    job. They also require `otel`, and the resource that stores the predictions.

    The example of ReleasedModel shows its use.

    Raises:
        DeclarationError: Two models have the same name, or the same name in Dagster.
    """
    suffixes = Counter(model.names.suffix for model in models)
    for model in models:
        if suffixes[model.names.suffix] > 1:
            raise DeclarationError(
                f"Released model {model.name!r}: name: another declared model is called "
                f"{model.names.suffix!r} in Dagster, too.",
                "Give each model another name.",
            )
    watched = [(model, model.watch) for model in models if model.watch is not None]
    jobs_of = {model.name: release_jobs(model) for model in models}
    jobs = [job for model in models for job in (*jobs_of[model.name], *watch_jobs(model))]
    _require_different(models, [job.name for job in jobs])
    return dg.Definitions(
        assets=[
            *(asset for model in models for asset in (comparison_asset(model), production_asset(model))),
            *(asset for each in watched for asset in (drift_asset(*each), requests_drift_asset(*each))),
        ],
        asset_checks=[
            *(check for model in models for check in (gate_checks(model), recorded_check(model))),
            *(check for each in watched for check in (drift_checks(*each), requests_drift_check(*each))),
        ],
        jobs=jobs,
        sensors=[
            sensor
            for model in models
            for sensor in (
                staging_sensor(model, jobs_of[model.name]),
                production_sensor(model),
                drift_sensor(model),
            )
        ]
        + [
            retraining_sensor(model, watch, watch.retrain)
            for model, watch in watched
            if watch.retrain is not None
        ],
    )


def _require_different(models: Sequence[ReleasedModel], jobs: Sequence[str]) -> None:
    """Raise if two jobs have the same name: `watch_requests_x` may be a job of two models."""
    counts = Counter(jobs)
    for model in models:
        if counts[model.names.watch_job] > 1:
            raise DeclarationError(
                f"Released model {model.name!r}: name: its job {model.names.watch_job} is one of another "
                "declared model, too.",
                "Give the model another name.",
            )
