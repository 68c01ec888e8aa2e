"""The specs of a released model's assets: their keys, descriptions, groups, tags and owners."""

from typing import TYPE_CHECKING

import dagster as dg

from ledgerline.dagster.released_models.names import ReleaseNames
from ledgerline.dagster.released_models.watch import Watch

if TYPE_CHECKING:
    from ledgerline.dagster.released_models.declaration import ReleasedModel


class ReleaseTranslator:
    """Makes the specs of a released model's assets; override a method to change group, tags, owners or texts.

    The keys of the assets and the names of jobs and sensors are those of `names`.
    """

    def names(self, model: "ReleasedModel") -> ReleaseNames:
        """Return the names of the assets, jobs and sensors that are made for a model."""
        return ReleaseNames.of(model.name, model.versions_key)

    def comparison_spec(self, model: "ReleasedModel") -> dg.AssetSpec:
        """Return the spec of the comparison of staging with production."""
        description = f"""Comparison of the version of `{model.name}` in staging with the one in production.

Both predict the same rows, which neither was trained on. The comparison has every metric with a paired
bootstrap interval of its difference, the metric of each slice with intervals corrected for their number,
calibration, the time of a prediction, the size of the files, the signatures, and the difference of the
training rows. Until a version is in production, the baseline {model.stand_in.name} takes its place. With
`replay_since`, staging also predicts logged requests to the service, and the differences are reported. The
result is sealed and written into the journal of the model, whether the gates pass or not. If another run has
promoted the version meanwhile, nothing is materialised, and an observation reports it."""
        return dg.AssetSpec(
            model.names.comparison,
            description=description,
            deps=[model.rows_key, model.versions_key],
            group_name="registry",
            kinds={"mlflow"},
            code_version="1",
        )

    def production_spec(self, model: "ReleasedModel") -> dg.AssetSpec:
        """Return the spec of the version in production."""
        description = f"""The version of `{model.name}` in production.

Each materialisation is a move of the alias `production`. A promotion requires that the version was compared
with the one in production now, that it passed every gate, that the evidence is unchanged, and that its files
are those that were evaluated. If promotions need approval, it waits for a person. A rollback goes to a
version that was in production before. Moves outside Dagster are materialised here, too."""
        return dg.AssetSpec(
            model.names.production,
            description=description,
            deps=[model.names.comparison],
            group_name="registry",
            kinds={"mlflow"},
            code_version="1",
        )

    def drift_spec(self, model: "ReleasedModel", watch: Watch) -> dg.AssetSpec:
        """Return the spec of the drift of predictions."""
        description = f"""Drift of the stored predictions of `{model.name}` from its training rows.

It has the population stability index of each column of predictions, of each feature and, where declared, of
the share of missing values; and, for rows whose outcome is known, a comparison of predictions with outcomes.
If several versions made predictions, those of the version with most of them are used. If versions and rows
have partitions, each partition covers the rows that its version is evaluated on, as far as they have
predictions."""
        return dg.AssetSpec(
            model.names.drift,
            description=description,
            deps=[watch.predictions.key, model.rows_key],
            partitions_def=model.drift_partitions,
            group_name="drift",
            kinds={"pandas"},
            code_version="1",
        )

    def requests_drift_spec(self, model: "ReleasedModel") -> dg.AssetSpec:
        """Return the spec of the drift of requests."""
        description = f"""Drift of the requests to the service for `{model.name}` from its training rows.

It covers the requests that the version in production answered during the last week, unless configured
otherwise, and has the population stability index of each input column and of the predictions. Requests may
differ from rows that are predicted in batches. A column that a client sends in another unit shows here."""
        return dg.AssetSpec(
            model.names.requests_drift,
            description=description,
            deps=[model.rows_key, model.names.production],
            group_name="drift",
            kinds={"pandas"},
            code_version="1",
        )
