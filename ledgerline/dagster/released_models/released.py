"""Makes the assets, checks, jobs and sensors of released models."""

from collections import Counter

import dagster as dg

from ledgerline.dagster.released_models.comparison import comparison_asset, gate_checks
from ledgerline.dagster.released_models.declaration import DeclarationError, ReleasedModel
from ledgerline.dagster.released_models.jobs import release_jobs
from ledgerline.dagster.released_models.production import production_asset, recorded_check
from ledgerline.dagster.released_models.production_sensor import production_sensor
from ledgerline.dagster.released_models.registry_drift_sensor import drift_sensor
from ledgerline.dagster.released_models.staging_sensor import staging_sensor


def released(*models: ReleasedModel) -> dg.Definitions:
    """Return the definitions of the release of some models, to be merged with those of a project.

    For each model: an asset that compares the version in staging with the one in production, with a check
    for each gate; an asset that stands for the version in production; the jobs `compare_`, `promote_` and
    `release_<model>`; and sensors that follow its registry. They ask for the resources `mlflow`, `registry`,
    `request_log`, `alerts` and `records` (resources.library_resources), and for the one that stores the
    model's rows.

    Raises:
        DeclarationError: Two models have one name, or names that are the same in Dagster.
    """
    suffixes = Counter(model.names.suffix for model in models)
    for model in models:
        if suffixes[model.names.suffix] > 1:
            raise DeclarationError(
                f"Released model {model.name!r}: name: another declared model is called "
                f"{model.names.suffix!r} in "
                "Dagster, too; give each its own."
            )
    jobs_of = {model.name: release_jobs(model) for model in models}
    return dg.Definitions(
        assets=[asset for model in models for asset in (comparison_asset(model), production_asset(model))],
        asset_checks=[check for model in models for check in (gate_checks(model), recorded_check(model))],
        jobs=[job for jobs in jobs_of.values() for job in jobs.all],
        sensors=[
            sensor
            for model in models
            for sensor in (
                staging_sensor(model, jobs_of[model.name]),
                production_sensor(model),
                drift_sensor(model),
            )
        ],
    )
