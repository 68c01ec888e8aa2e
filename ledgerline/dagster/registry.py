"""The model registry, as steps use it: register, stage, judge, promote, load. The rules are in registry/."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import dagster as dg
from pydantic import Field

from ledgerline.cleaning.texts import clean
from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.tracked_texts import tag_texts
from ledgerline.dagster.tracking import connect
from ledgerline.mlflow_store.stored_model import ModelRefusedError, StoredModel
from ledgerline.registry import binding, evidence, moves, promotion, stages, versions
from ledgerline.registry.evidence import EvidenceError
from ledgerline.registry.history import REGISTRATION, Approval, Evaluation, History, Move
from ledgerline.registry.inconsistencies import inconsistencies
from ledgerline.registry.journal import JournalError
from ledgerline.registry.moves import MoveRefusedError, UnderWayError
from ledgerline.registry.promotion import (
    InPlaceError,
    Mode,
    Moved,
    NotApprovedError,
    Request,
    RuleBrokenError,
)
from ledgerline.registry.stages import STAGING, AliasState
from ledgerline.registry.versions import UnknownModelError, UnknownVersionError, Version

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

_Written = TypeVar("_Written", bound=Request | Move | Evaluation | Approval)


class ModelRegistryResource(dg.ConfigurableResource):
    """Registers models, finds them by the alias of their stage, and moves the aliases."""

    tracking_uri: str = Field(description="URL of an MLflow server, or URI of its database.")
    promotion: Mode = Field(
        default=Mode.automatic,
        description="Whether a version that keeps every rule is promoted at once, or when a person approved.",
    )

    poll_seconds: float = Field(
        default=5,
        ge=0,
        description="How often sensors look at the registry, in seconds, unless a webhook wakes them.",
    )

    def alias_states(self) -> Mapping[str, AliasState]:
        """Which versions carry the aliases of every model, in one call."""
        return stages.alias_states(self._client())

    def register(self, name: str, model_id: str, tags: Mapping[str, str]) -> Version:
        """Register a logged model with the hash of its files; a repeat returns the same version."""
        return versions.register(self._client(), name, model_id, tag_texts(tags))

    def version(self, name: str, number: int) -> Version:
        """A version by its number.

        Raises:
            PermanentFailure: There is no such version.
        """
        with _permanent():
            return versions.version(self._client(), name, number)

    def version_with_alias(self, name: str, alias: str) -> Version | None:
        """The version that carries an alias, if one does.

        Raises:
            PermanentFailure: The alias names a version that was deleted.
        """
        with _permanent():
            return versions.version_with_alias(self._client(), name, alias)

    def stage(self, version: Version, by: str, run_id: str, request: str) -> None:
        """Let the alias `staging` name this version.

        Raises:
            PermanentFailure: The journal of the model cannot be read.
        """
        with _permanent():
            model = moves.settled(self._client(), version.name, request)
            holder = model.history.holder(STAGING)
            if holder != version.number:
                wanted = Move(
                    at=datetime.now(UTC),
                    alias=STAGING,
                    from_version=holder,
                    to_version=version.number,
                    cause=REGISTRATION,
                    by=clean(by),
                    run_id=run_id,
                    request=request,
                )
                moves.move(model, wanted, lambda model: moves.require_as_evaluated(model, wanted))

    def record(self, name: str, evaluation: Evaluation) -> int:
        """Write a judgement into the journal and on its version; returns the number of the entry."""
        with _permanent():
            return promotion.record_evaluation(self._client(), name, _clean(evaluation)).number

    def promote(self, name: str, number: int, request: Request, mode: Mode) -> Moved:
        """Let production be this version, if its evidence says so.

        Raises:
            PermanentFailure: It may not be promoted.
            RuleBrokenError: It broke a rule.
            InPlaceError: It is in production already.
            NotApprovedError: It waits for a person.
        """
        with _permanent():
            return promotion.promote(self._client(), name, number, _clean(request), mode)

    def approve(self, name: str, number: int, by: str, reason: str) -> Approval:
        """Write down that a person agrees to the promotion of a version, as it was judged.

        Raises:
            PermanentFailure: There is nothing to approve.
        """
        with _permanent():
            return promotion.approve(self._client(), name, number, clean(by), clean(reason))

    def rollback(self, name: str, to: int | None, request: Request) -> Moved:
        """Take production back to the version before, or to a given one.

        Raises:
            PermanentFailure: There is nothing to go back to.
        """
        with _permanent():
            return promotion.rollback(self._client(), name, to, _clean(request))

    def settled_history(self, name: str, unchanged_until: datetime | None = None) -> History:
        """The journal of a model, after noting in it what was changed outside.

        Raises:
            PermanentFailure: There is no such model, or its journal cannot be read.
            UnderWayError: Somebody is moving an alias just now.
        """
        with _permanent():
            return _clean_history(
                moves.settled(self._client(), name, unchanged_until=unchanged_until).history
            )

    def history(self, name: str) -> History:
        """Return the journal of a model as it is written; empty for a model that has none or does not exist.

        Raises:
            PermanentFailure: The journal cannot be read.
        """
        with _permanent():
            try:
                alias_state = versions.alias_state(self._client(), name)
            except versions.UnknownModelError:
                return History([])
            journal = binding.journal_of(self._client(), name, alias_state)
            return _clean_history(journal.read()) if journal is not None else History([])

    def journals_of_earlier_models(self, name: str) -> Sequence[str]:
        """Return the MLflow experiments with the journals of models that had this name before."""
        return binding.journals_of_earlier_models(self._client(), name)

    def evidence(self, name: str, evaluation: Evaluation) -> Mapping[str, Any] | None:
        """What a judgement rests on; None: it was changed since, or is gone."""
        try:
            return evidence.document(self._client(), name, evaluation)
        except EvidenceError:
            return None

    def inconsistencies(self, name: str) -> Sequence[str]:
        """Where aliases and tags of a model say something else than its journal."""
        with _permanent():
            return [clean(found) for found in inconsistencies(self._client(), name)]

    def versions(self, name: str) -> list[Version]:
        """All versions of a model, the first registered first."""
        return versions.versions(self._client(), name)

    def load(self, version: Version) -> StoredModel:
        """Load the model of a version.

        Raises:
            PermanentFailure: Its files are not those that were registered, or cannot be loaded safely.
        """
        try:
            return versions.load(self._client(), version)
        except ModelRefusedError as error:
            raise _refused(error) from error

    def files_of(self, version: Version) -> "tuple[ModelSignature | None, int]":
        """What a version takes and gives, and how many bytes its files have.

        Raises:
            PermanentFailure: Its files are not those that were registered.
        """
        from mlflow.models import Model

        try:
            with versions.verified_files(self._client(), version) as folder:
                size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
                return Model.load(str(folder)).signature, size
        except ModelRefusedError as error:
            raise _refused(error) from error

    def _client(self) -> "MlflowClient":
        return connect(self.tracking_uri)


def _clean(written: _Written) -> _Written:
    """Return it with its texts as they may be read by anybody; ids and hashes stay."""
    if isinstance(written, Evaluation):
        return replace(written, by=clean(written.by))
    return replace(written, by=clean(written.by), reason=clean(written.reason))


def _clean_history(history: History) -> History:
    """Return a journal as it may be shown, also what was written there by other programs."""
    return History([replace(entry, what=_clean(entry.what)) for entry in history.entries])


def _refused(error: ModelRefusedError) -> PermanentFailure:
    return PermanentFailure(
        clean(str(error)), "Register the model again, or move the alias to another version."
    )


@contextmanager
def _permanent() -> Iterator[None]:
    """Turn what no retry can mend into a failure that Dagster does not retry.

    That another process is at it passes by itself, and that a version is not promoted is no failure.
    """
    try:
        yield
    except (InPlaceError, NotApprovedError, RuleBrokenError, UnderWayError):
        raise
    except (MoveRefusedError, EvidenceError, JournalError, UnknownModelError, UnknownVersionError) as error:
        raise PermanentFailure(clean(str(error)), "Nothing was changed.") from error
