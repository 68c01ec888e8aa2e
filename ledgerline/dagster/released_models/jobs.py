"""The jobs of a released model."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from ledgerline.dagster.released_models.declaration import ReleasedModel

if TYPE_CHECKING:
    from ledgerline.ledger.dagster_internals import UnresolvedAssetJobDefinition


@dataclass(frozen=True)
class ReleaseJobs:
    """The jobs of a released model.

    Attributes:
        compare: Compares the version in staging with production.
        promote: Promotes, or takes production back.
        release: Compares, and promotes what passes every gate.
    """

    compare: "UnresolvedAssetJobDefinition"
    promote: "UnresolvedAssetJobDefinition"
    release: "UnresolvedAssetJobDefinition"

    @property
    def all(self) -> "tuple[UnresolvedAssetJobDefinition, ...]":
        """All of them."""
        return self.compare, self.promote, self.release


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
                f"Compare the version of {model.name} in staging with production, and judge it by the gates."
            ),
        ),
        promote=dg.define_asset_job(
            names.promote_job,
            selection=production,
            description=(
                f"Let another version of {model.name} be in production, if its evidence says so; "
                "or take production back."
            ),
        ),
        release=dg.define_asset_job(
            names.release_job,
            selection=comparison | production,
            description=(
                f"Compare the version of {model.name} in staging with production, "
                "and promote it if it passes every gate."
            ),
        ),
    )


def watch_jobs(model: ReleasedModel) -> "tuple[UnresolvedAssetJobDefinition, ...]":
    """Make the jobs that watch the drift of a model's predictions and requests; none without a watch."""
    names = model.names
    if model.watch is None:
        return ()
    return (
        dg.define_asset_job(
            names.watch_job,
            selection=dg.AssetSelection.assets(names.drift),
            description=f"Compare the predictions of {model.name} with the rows that it was trained on.",
        ),
        dg.define_asset_job(
            names.watch_requests_job,
            selection=dg.AssetSelection.assets(names.requests_drift),
            description=(
                f"Compare the latest requests to the service for {model.name} with the rows that it was "
                "trained on."
            ),
        ),
    )
