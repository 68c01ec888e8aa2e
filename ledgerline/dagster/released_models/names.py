"""The names of a released model's assets, jobs and sensors, which loaded definitions contain as metadata."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import dagster as dg

# Metadata of the asset `production_<model>`, with which the command line finds released models.
RELEASE_METADATA = "ledgerline/release"


@dataclass(frozen=True)
class ReleaseNames:
    """The names of a released model's assets, jobs and sensors.

    The suffix is that of its other jobs, assets and sensors. jobs.py and translator.py describe all of them.
    """

    model: str
    comparison: dg.AssetKey
    production: dg.AssetKey
    versions: dg.AssetKey
    compare_job: str
    promote_job: str
    release_job: str
    suffix: str

    @classmethod
    def of(cls, model: str, versions: dg.AssetKey) -> Self:
        """Return the names for a model, derived from its name."""
        suffix = re.sub(r"\W", "_", model, flags=re.ASCII)
        return cls(
            model=model,
            comparison=dg.AssetKey(f"comparison_{suffix}"),
            production=dg.AssetKey(f"production_{suffix}"),
            versions=versions,
            compare_job=f"compare_{suffix}",
            promote_job=f"promote_{suffix}",
            release_job=f"release_{suffix}",
            suffix=suffix,
        )

    @property
    def comparison_op(self) -> str:
        """The name of the comparison in a run's configuration."""
        return self.comparison.to_python_identifier()

    @property
    def production_op(self) -> str:
        """The name of the promotion in a run's configuration."""
        return self.production.to_python_identifier()

    @property
    def drift(self) -> dg.AssetKey:
        """The asset with the drift of its predictions."""
        return dg.AssetKey(f"drift_{self.suffix}")

    @property
    def requests_drift(self) -> dg.AssetKey:
        """The asset with the drift of requests to its service."""
        return dg.AssetKey(f"requests_drift_{self.suffix}")

    @property
    def watch_job(self) -> str:
        """The job that compares its predictions with its training rows."""
        return f"watch_{self.suffix}"

    @property
    def watch_requests_job(self) -> str:
        """The job that compares requests with its training rows."""
        return f"watch_requests_{self.suffix}"

    def sensor(self, event: str) -> str:
        """Return the name of the sensor for an event, such as `staging_changed`."""
        return f"{event}_{self.suffix}"

    def as_metadata(self) -> Mapping[str, Any]:
        """Return the metadata with which `released_models` finds the model."""
        document = {
            field.name: value.to_user_string() if isinstance(value, dg.AssetKey) else value
            for field, value in ((field, getattr(self, field.name)) for field in fields(self))
        }
        return {RELEASE_METADATA: json.dumps(document)}

    @classmethod
    def from_metadata(cls, text: str) -> Self:
        """Return the names that metadata contains."""
        document = json.loads(text)
        for name in ("comparison", "production", "versions"):
            document[name] = dg.AssetKey.from_user_string(document[name])
        return cls(**document)


def released_models(definitions: dg.Definitions) -> Mapping[str, ReleaseNames]:
    """Return the released models in definitions by name, sorted by name."""
    names_of_models = [
        ReleaseNames.from_metadata(spec.metadata[RELEASE_METADATA])
        for spec in definitions.resolve_all_asset_specs()
        if RELEASE_METADATA in spec.metadata
    ]
    return {names.model: names for names in sorted(names_of_models, key=lambda names: names.model)}
