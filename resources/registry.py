"""The model registry, as steps use it: register, name a stage, load. The rules are in registry/."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from registry import versions
from registry.model_files import ModelRefusedError
from registry.versions import Version
from resources.failures import PermanentFailure
from resources.tracking import connect

if TYPE_CHECKING:
    from mlflow import MlflowClient


class ModelRegistryResource(dg.ConfigurableResource):
    """Registers models and finds them again by the alias of their stage."""

    tracking_uri: str = Field(description="URL of an MLflow server, or URI of its database.")

    def register(self, name: str, model_id: str, tags: Mapping[str, str]) -> Version:
        """Register a logged model with the hash of its files; a repeat returns the same version."""
        return versions.register(self._client(), name, model_id, tags)

    def version_with_alias(self, name: str, alias: str) -> Version | None:
        """The version that carries an alias, if one does."""
        return versions.version_with_alias(self._client(), name, alias)

    def set_alias(self, version: Version, alias: str) -> None:
        """Let the alias name this version."""
        versions.set_alias(self._client(), version, alias)

    def load(self, version: Version) -> Any:
        """Load the model of a version.

        Raises:
            PermanentFailure: Its files are not those that were registered, or are not trusted.
        """
        try:
            return versions.load(self._client(), version)
        except ModelRefusedError as error:
            raise PermanentFailure(
                str(error), "Register the model again, or move the alias to another version."
            ) from error

    def _client(self) -> "MlflowClient":
        return connect(self.tracking_uri)
