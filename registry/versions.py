"""Versions of a registered model and the aliases that name their stage. Plain MLflow client."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry import model_files, store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

STAGING = "staging"
PRODUCTION = "production"

SHA256_TAG = "sha256"


@dataclass(frozen=True)
class Version:
    """One version in the registry.

    Attributes:
        name: The registered model.
        number: The version, counted from 1.
        location: Where its files are.
        run_id: The MLflow run that trained it.
        tags: What was recorded at registration and since.
    """

    name: str
    number: int
    location: str
    run_id: str
    tags: Mapping[str, str]


def register(client: "MlflowClient", name: str, model_id: str, tags: Mapping[str, str]) -> Version:
    """Register a logged model, with the hash of its files; once, however often it is asked for."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
    logged = client.get_logged_model(model_id)
    for known in client.search_model_versions(f"name = '{name}'"):
        if known.source == logged.artifact_location:
            return _version(known)
    with store.downloaded(client, logged.artifact_location) as folder:
        sha256 = model_files.folder_sha256(folder)
    created = client.create_model_version(
        name,
        # Not "models:/<id>": a client of a bare database resolves that by a global setting.
        source=logged.artifact_location,
        run_id=logged.source_run_id,
        model_id=model_id,
        tags={**tags, SHA256_TAG: sha256},
    )
    return _version(created)


def version_with_alias(client: "MlflowClient", name: str, alias: str) -> Version | None:
    """The version that carries an alias; None if no version does, or there is no such model."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

    try:
        aliases = client.get_registered_model(name).aliases
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise
        return None
    if alias not in aliases:
        return None
    return _version(client.get_model_version(name, str(aliases[alias])))


def set_alias(client: "MlflowClient", version: Version, alias: str) -> None:
    """Let the alias name this version, and no other."""
    client.set_registered_model_alias(version.name, alias, str(version.number))


def load(client: "MlflowClient", version: Version) -> Any:
    """Load the model of a version, after checking that its files are those that were registered.

    Raises:
        ModelRefusedError: The files differ, carry no recorded hash, or hold a type not trusted.
    """
    with store.downloaded(client, version.location) as folder:
        recorded = version.tags.get(SHA256_TAG)
        found = model_files.folder_sha256(folder)
        if recorded != found:
            raise model_files.ModelRefusedError(
                f"{version.name} version {version.number} is not what was registered: its files have "
                f"sha256 {found}, recorded is {recorded or 'nothing'}."
            )
        return model_files.load_sklearn(folder)


def _version(entity: "ModelVersion") -> Version:
    return Version(
        name=entity.name,
        number=int(entity.version),
        location=entity.source or "",
        run_id=entity.run_id or "",
        tags=dict(entity.tags),
    )
