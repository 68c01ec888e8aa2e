"""Versions of a registered model: registering, finding, loading. How aliases move: moves.py."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ledgerline.mlflow_store import model_files, store
from ledgerline.mlflow_store.stored_model import ModelRefusedError, StoredModel
from ledgerline.registry.stages import AliasState, alias_state_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.exceptions import MlflowException

# Tags of a version, recorded at registration. One that somebody registered by hand may have none of them.
SHA256_TAG = "sha256"
MONTH_TAG = "month"  # what it was trained for, and is judged on
TRAINING_DAYS_TAG = "training_days"  # an ISO 8601 interval, 2013-04-01/2013-06-30: both days belong to it
TRAINING_DATA_TAG = "training_data_sha256"


PAGE_SIZE = 1000


class UnknownModelError(Exception):
    """There is no registered model of this name."""


class UnknownVersionError(Exception):
    """A registered model has no such version."""


@dataclass(frozen=True)
class Version:
    """One version in the registry.

    Attributes:
        name: The registered model.
        number: The version, counted from 1.
        location: Where its files are.
        run_id: The MLflow run that trained it; empty: not recorded.
        created_at: When it was registered.
        tags: What was recorded at registration and since.
    """

    name: str
    number: int
    location: str
    run_id: str
    created_at: datetime
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


def alias_state(client: "MlflowClient", name: str) -> AliasState:
    """Which versions carry the aliases of a model.

    Raises:
        UnknownModelError: There is no such model.
    """
    from mlflow.exceptions import MlflowException

    try:
        return alias_state_of(client.get_registered_model(name))
    except MlflowException as error:
        if not _is_missing(error):
            raise
        raise UnknownModelError(
            f"There is no registered model {name!r}. `ledgerline registry list` shows which there are."
        ) from error


def version(client: "MlflowClient", name: str, number: int) -> Version:
    """A version by its number.

    Raises:
        UnknownVersionError: There is none, or it was deleted.
    """
    from mlflow.exceptions import MlflowException

    try:
        return _version(client.get_model_version(name, str(number)))
    except MlflowException as error:
        if not _is_missing(error):
            raise
        raise UnknownVersionError(
            f"{name} has no version {number}. `ledgerline registry list` shows which there are."
        ) from error


def versions(client: "MlflowClient", name: str) -> list[Version]:
    """All versions of a model, the first registered first."""
    found: list[Version] = []
    token: str | None = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", max_results=PAGE_SIZE, page_token=token)
        found += [_version(entity) for entity in page]
        token = page.token
        if not token:
            return sorted(found, key=lambda version: version.number)


def version_with_alias(client: "MlflowClient", name: str, alias: str) -> Version | None:
    """The version that carries an alias; None if no version does, or there is no such model.

    Raises:
        UnknownVersionError: The alias names a version that was deleted.
    """
    try:
        number = alias_state(client, name).aliases.get(alias)
    except UnknownModelError:
        return None
    return None if number is None else version(client, name, number)


def set_alias(client: "MlflowClient", version: Version, alias: str) -> None:
    """Let the alias name this version, and no other."""
    even_at_once(lambda: client.set_registered_model_alias(version.name, alias, str(version.number)))


def load(client: "MlflowClient", version: Version) -> StoredModel:
    """Load the model of a version, after checking that its files are those that were registered.

    Raises:
        ModelRefusedError: The files differ, carry no recorded hash, or are of a kind that is not loaded.
    """
    with verified_files(client, version) as folder:
        return model_files.load(folder)


@contextmanager
def verified_files(client: "MlflowClient", version: Version) -> Iterator[Path]:
    """A folder with the files of a version, for as long as the body runs.

    Raises:
        ModelRefusedError: They are not those that were registered, or carry no recorded hash.
    """
    with store.downloaded(client, version.location) as folder:
        recorded = version.tags.get(SHA256_TAG)
        found = model_files.folder_sha256(folder)
        if recorded != found:
            raise ModelRefusedError(
                f"{version.name} version {version.number} is not what was registered: its files have "
                f"sha256 {found}, recorded is {recorded or 'nothing'}."
            )
        yield folder


def set_tags(client: "MlflowClient", name: str, number: int, tags: Mapping[str, str | None]) -> None:
    """Set tags of a version, and take away those that are None.

    Raises:
        UnknownVersionError: It was deleted.
    """
    recorded = version(client, name, number).tags
    for tag, value in tags.items():
        if value is None and tag in recorded:
            even_at_once(partial(client.delete_model_version_tag, name, str(number), tag))
        elif value is not None and recorded.get(tag) != value:
            even_at_once(partial(client.set_model_version_tag, name, str(number), tag, value))


def even_at_once(write: Callable[[], None]) -> None:
    """Write a tag or an alias that others may be writing just now.

    MLflow looks whether there is one, and inserts or updates. Of two that insert, one fails; then it updates.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import BAD_REQUEST, ErrorCode

    try:
        write()
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(BAD_REQUEST):
            raise
        write()


def _is_missing(error: "MlflowException") -> bool:
    from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

    return error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST)


def _version(entity: "ModelVersion") -> Version:
    return Version(
        name=entity.name,
        number=int(entity.version),
        location=entity.source or "",
        run_id=entity.run_id or "",
        created_at=datetime.fromtimestamp((entity.creation_timestamp or 0) / 1000, UTC),
        tags=dict(entity.tags),
    )
