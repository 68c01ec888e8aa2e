"""The jobs of a released model."""

from typing import TYPE_CHECKING, NamedTuple

import dagster as dg

from ledgerline.dagster.released_models.declaration import ReleasedModel

if TYPE_CHECKING:
    from ledgerline.ledger.dagster_internals import UnresolvedAssetJobDefinition


class ReleaseJobs(NamedTuple):
    """The jobs of a released model; their descriptions are below."""

    compare: "UnresolvedAssetJobDefinition"
    promote: "UnresolvedAssetJobDefinition"
    release: "UnresolvedAssetJobDefinition"


def release_jobs(model: ReleasedModel) -> ReleaseJobs:
    """Make the jobs of a model."""
    names = model.names
    comparison = dg.AssetSelection.assets(names.comparison)
    production = dg.AssetSelection.assets(names.production)
    return ReleaseJobs(
        compare=dg.define_asset_job(
            names.compare_job,
            selection=comparison,
            description=(
                f"Compares the version of {model.name} in staging with production, and evaluates it by the "
                "gates."
            ),
        ),
        promote=dg.define_asset_job(
            names.promote_job,
            selection=production,
            description=(
                f"Promotes another version of {model.name} to production, if its evidence allows it, or "
                "rolls production back."
            ),
        ),
        release=dg.define_asset_job(
            names.release_job,
            selection=comparison | production,
            description=(
                f"Compares the version of {model.name} in staging with production, and promotes it if it "
                "passes every gate."
            ),
        ),
    )


def watch_jobs(model: ReleasedModel) -> "tuple[UnresolvedAssetJobDefinition, ...]":
    """Make the jobs that watch the drift of a model's predictions and requests; empty without a watch."""
    names = model.names
    if model.watch is None:
        return ()
    return (
        dg.define_asset_job(
            names.watch_job,
            selection=dg.AssetSelection.assets(names.drift),
            description=f"Compares the predictions of {model.name} with the rows that it was trained on.",
        ),
        dg.define_asset_job(
            names.watch_requests_job,
            selection=dg.AssetSelection.assets(names.requests_drift),
            description=(
                f"Compares the latest requests to the service for {model.name} with the rows that it was "
                "trained on."
            ),
        ),
    )
