"""The specs of the assets that are made for a released model: keys, texts, groups, tags and owners."""

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
        """Return the names of all that is made for a model."""
        return ReleaseNames.of(model.name, model.versions_key)

    def comparison_spec(self, model: "ReleasedModel") -> dg.AssetSpec:
        """Return the spec of the comparison of staging with production."""
        description = f"""The version of `{model.name}` in staging beside the one in production, on rows that
        neither has seen.

Both predict the same rows. Every metric with a paired bootstrap interval of its difference, by slice with
intervals that allow for looking at many, calibration, the time of a prediction, the size of the files, the
signature, and how far the rows they were trained on differ. While there is no production, the baseline
{model.stand_in.name} stands in for it. If asked to (`replay_since`), staging also answers what the service
was really asked, and how its answers differ is reported. The numbers are sealed, and written into the
journal of the model, whatever they say. A version that another run has put into production meanwhile is not
compared with
itself: nothing is materialised then, and an observation says so."""
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

A materialisation is a move of the alias `production`. A promotion requires that the version was compared
with the version in production now, that every gate let it pass, that the evidence is whole, and that its
files are those that were judged; a rollback goes to a version that was in production before. Where a person
is to approve, it waits for that. What was moved outside Dagster is shown here, too."""
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
        description = f"""The stored predictions of `{model.name}` beside what the version that made them was
        trained on.

The population stability index of each column of predictions, of each feature and, where declared, of whether
it is missing; and, for rows whose outcome is known by now, how the predictions compare with what happened. If
several versions made predictions, the one with most of them is evaluated, on these. Where versions and rows
have partitions, each partition is about the rows that its version is evaluated on, as far as they have
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
        description = f"""The requests that the service was sent for `{model.name}` beside what its version
        was trained on.

Of the requests of the last days (a week, unless configured otherwise) that the version in production
answered: the population stability index of each column that it takes and of its predictions. Requests may
differ from what is predicted in batches, and from what clients mean to send: a column in another unit shows
here."""
        return dg.AssetSpec(
            model.names.requests_drift,
            description=description,
            deps=[model.rows_key, model.names.production],
            group_name="drift",
            kinds={"pandas"},
            code_version="1",
        )
