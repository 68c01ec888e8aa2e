"""Versions and aliases of a registered model, as MLflow stores them. moves.py moves aliases."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ledgerline.mlflow_store import model_files, store
from ledgerline.mlflow_store.stored_model import ModelRefusedError, StoredModel
from ledgerline.mlflow_store.tag_texts import tag_texts
from ledgerline.registry.errors import RegistryError
from ledgerline.registry.stages import PAGE_SIZE, AliasState, alias_state_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature

# Tags of a version, recorded at registration. A version that was registered manually may lack all of them.
SHA256_TAG = "sha256"
MONTH_TAG = "month"  # the month that the version was trained for, and is evaluated on
TRAINING_DAYS_TAG = "training_days"  # an ISO 8601 interval, 2013-04-01/2013-06-30: both days belong to it
TRAINING_DATA_TAG = "training_data_sha256"

_LIST_MODELS = "`ledgerline registry list` lists the registered models and their versions."


class UnknownModelError(RegistryError):
    """No registered model has this name."""


class UnknownVersionError(RegistryError):
    """A registered model has no version with this number."""


@dataclass(frozen=True)
class Version:
    """A version of a registered model.

    Attributes:
        name: Name of the registered model.
        number: Number of the version, counted from 1.
        location: URI of its files.
        run_id: MLflow run that trained it; empty if none is recorded.
    """

    name: str
    number: int
    location: str
    run_id: str
    created_at: datetime
    tags: Mapping[str, str]


@dataclass(frozen=True)
class RegisteredModel:
    """A registered model in MLflow, which need not exist yet."""

    client: "MlflowClient"
    name: str

    def register(self, model_id: str, tags: Mapping[str, str]) -> Version:
        """Register a logged model with the hash of its files; a repeat returns the same version.

        Secrets in the tags are redacted.
        """
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        logged = self.client.get_logged_model(model_id)
        for version in self.client.search_model_versions(f"name = '{self.name}'"):
            if version.source == logged.artifact_location:
                return _version(version)
        with store.downloaded(self.client, logged.artifact_location) as folder:
            sha256 = model_files.folder_sha256(folder)
        created = self.client.create_model_version(
            self.name,
            # The source is not "models:/<id>", because a client of a database resolves that by a global
            # setting.
            source=logged.artifact_location,
            run_id=logged.source_run_id,
            model_id=model_id,
            tags={**tag_texts(tags), SHA256_TAG: sha256},
        )
        return _version(created)

    def alias_state(self) -> AliasState:
        """Return the versions that the aliases of the model name.

        Raises:
            UnknownModelError: The model does not exist.
        """
        missing = UnknownModelError(f"There is no registered model {self.name!r}.", _LIST_MODELS)
        with _if_missing(missing):
            return alias_state_of(self.client.get_registered_model(self.name))

    def version(self, number: int) -> Version:
        """Return a version by its number.

        Raises:
            UnknownVersionError: The version does not exist, or was deleted.
        """
        with self._existing(number):
            return _version(self.client.get_model_version(self.name, str(number)))

    def versions(self) -> list[Version]:
        """Return all versions, the first registered first."""
        named = f"name = '{self.name}'"
        entities = store.paged(
            lambda token: self.client.search_model_versions(named, max_results=PAGE_SIZE, page_token=token)
        )
        return sorted(map(_version, entities), key=lambda version: version.number)

    def version_with_alias(self, alias: str) -> Version | None:
        """Return the version that an alias names; None if it names none, or the model does not exist.

        Raises:
            UnknownVersionError: The alias names a version that was deleted.
        """
        try:
            number = self.alias_state().aliases.get(alias)
        except UnknownModelError:
            return None
        return None if number is None else self.version(number)

    def set_alias(self, alias: str, number: int | None) -> None:
        """Make the alias name this version; None deletes the alias.

        Raises:
            UnknownVersionError: The version does not exist, or was deleted.
        """
        if number is None:
            self.client.delete_registered_model_alias(self.name, alias)
            return
        with self._existing(number):
            _retried(self.client.set_registered_model_alias, self.name, alias, str(number))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the model, in this order."""
        for tag, value in tags.items():
            _retried(self.client.set_registered_model_tag, self.name, tag, value)

    def set_version_tags(self, number: int, tags: Mapping[str, str | None]) -> None:
        """Set tags of a version in this order, and delete those whose value is None.

        Raises:
            UnknownVersionError: The version does not exist, or was deleted.
        """
        with self._existing(number):
            for tag, value in tags.items():
                if value is None:
                    _retried(self.client.delete_model_version_tag, self.name, str(number), tag)
                else:
                    _retried(self.client.set_model_version_tag, self.name, str(number), tag, value)

    def load(self, version: Version) -> StoredModel:
        """Load the model of a version, after checking that its files are those that were registered.

        Raises:
            ModelRefusedError: The files differ, have no recorded hash, or are of a kind that is not loaded.
        """
        with self.verified_files(version) as folder:
            return model_files.load(folder)

    def signature_and_size(self, version: Version) -> "tuple[ModelSignature | None, int]":
        """Return the signature of a version's model, and the size of its files in bytes.

        Raises:
            ModelRefusedError: The files differ from those that were registered, or have no recorded hash.
        """
        from mlflow.models import Model

        with self.verified_files(version) as folder:
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            return Model.load(str(folder)).signature, size

    @contextmanager
    def verified_files(self, version: Version) -> Iterator[Path]:
        """Yield a folder with the files of a version, which is deleted afterwards.

        Raises:
            ModelRefusedError: The files differ from those that were registered, or have no recorded hash.
        """
        with store.downloaded(self.client, version.location) as folder:
            verified_sha256(version, folder)
            yield folder

    def _existing(self, number: int) -> AbstractContextManager[None]:
        return _if_missing(UnknownVersionError(f"{self.name} has no version {number}.", _LIST_MODELS))


def verified_sha256(version: Version, folder: Path) -> str:
    """Return the SHA-256 of the files of a version.

    Raises:
        ModelRefusedError: The files differ from those that were registered, or have no recorded hash.
    """
    recorded = version.tags.get(SHA256_TAG)
    sha256 = model_files.folder_sha256(folder)
    if recorded != sha256:
        raise ModelRefusedError(
            f"{version.name} version {version.number} is not what was registered: its files have "
            f"sha256 {sha256}, and the recorded sha256 is {recorded or 'missing'}.",
            "Register the model again, or move the alias to another version.",
        )
    return sha256


def _retried(write: Callable[..., None], *values: str) -> None:
    """Write a tag or an alias that other processes may write at the same moment.

    MLflow reads whether the tag exists, and inserts or updates it. If two processes insert it, one of them
    fails; its second attempt updates.
    """
    from mlflow.exceptions import MlflowException

    try:
        write(*values)
    except MlflowException as error:
        if error.error_code != "BAD_REQUEST":
            raise
        write(*values)


@contextmanager
def _if_missing(unknown: RegistryError) -> Iterator[None]:
    """Raise this error if MLflow reports that the model or the version does not exist."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise unknown from error


def _version(entity: "ModelVersion") -> Version:
    return Version(
        name=entity.name,
        number=int(entity.version),
        location=entity.source or "",
        run_id=entity.run_id or "",
        created_at=datetime.fromtimestamp((entity.creation_timestamp or 0) / 1000, UTC),
        tags=dict(entity.tags),
    )
