"""The model registry as an object: the models of one MLflow, each with its journal.

The other modules of this package implement the methods. Texts of requests are redacted before they are
written, and texts of journals before they are returned.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from ledgerline.cleaning.texts import clean
from ledgerline.registry import binding, evidence, inconsistencies, moves, promotion, stages
from ledgerline.registry.evidence import EvidenceError
from ledgerline.registry.history import Approval, Evaluation, History, Move
from ledgerline.registry.inconsistencies import Snapshot
from ledgerline.registry.moves import ReconciledModel
from ledgerline.registry.promotion import Mode, Moved, Request
from ledgerline.registry.stages import AliasState
from ledgerline.registry.versions import RegisteredModel, UnknownModelError

if TYPE_CHECKING:
    from mlflow import MlflowClient

_Record = TypeVar("_Record", bound=Request | Move | Evaluation | Approval)


class Registry:
    """The model registry of one MLflow.

    Args:
        client: An open MLflow client.

    Example:
        >>> from mlflow import MlflowClient
        >>> client = MlflowClient("sqlite:///registry.db")
        >>> _ = client.create_registered_model("churn")
        >>> _ = client.create_model_version("churn", source="file:///models/1")
        >>> client.set_registered_model_alias("churn", "production", "1")
        >>> model = Registry(client).model("churn")
        >>> model.version_with_alias("production").number
        1
        >>> [str(difference) for difference in model.snapshot().differences]
        ['production is version 1, the journal says no version']
        >>> [entry.record.cause for entry in model.reconcile().recorded]
        ['outside']
        >>> model.history().version_with_alias("production")
        1
    """

    def __init__(self, client: "MlflowClient") -> None:
        self._client = client

    def alias_states(self) -> Mapping[str, AliasState]:
        """Return the alias state of every model, by name."""
        return stages.alias_states(self._client)

    def model(self, name: str) -> "Model":
        """Return the registered model of this name, which need not exist yet."""
        return Model(self._client, name)


class Model(RegisteredModel):
    """A registered model with its journal; see `Registry`.

    Queries (`snapshot`, `history`, `inconsistencies`, `evidence` and those of RegisteredModel) never write.
    """

    def snapshot(self) -> Snapshot:
        """Return the aliases and the journal, and where they differ.

        Raises:
            UnknownModelError: The model does not exist.
            JournalError: The journal cannot be read.
        """
        current = inconsistencies.snapshot(self)
        return replace(current, history=_clean_history(current.history))

    def history(self) -> History:
        """Return the journal; empty if the model has none yet, or does not exist.

        Raises:
            JournalError: The journal cannot be read.
        """
        try:
            return self.snapshot().history
        except UnknownModelError:
            return History([])

    def inconsistencies(self) -> list[str]:
        """Return how aliases and tags contradict the journal, as clauses; empty if they agree.

        Raises:
            UnknownModelError: The model does not exist.
        """
        return [clean(text) for text in inconsistencies.inconsistencies(self)]

    def journals_of_earlier_models(self) -> list[str]:
        """Return the names of the MLflow experiments with journals of earlier models of this name."""
        return binding.journals_of_earlier_models(self)

    def evidence(self, evaluation: Evaluation) -> Mapping[str, Any] | None:
        """Return the evidence of an evaluation; None if it was changed or is missing."""
        try:
            return evidence.document(self, evaluation)
        except EvidenceError:
            return None

    def reconcile(self, unchanged_until: datetime | None = None) -> ReconciledModel:
        """Finish an abandoned move, and record changes outside the journal; see `moves.reconcile`.

        Raises:
            UnknownModelError: The model does not exist.
            UnderWayError: Another process is moving an alias at the moment.
            JournalError: The journal cannot be read.
        """
        reconciled = moves.reconcile(self, unchanged_until=unchanged_until)
        return replace(
            reconciled,
            history=_clean_history(reconciled.history),
            recorded=_clean_history(History(reconciled.recorded)).entries,
        )

    def stage(self, number: int, request: Request) -> None:
        """Move the alias `staging` to a version; see `promotion.stage`."""
        promotion.stage(self, number, _clean(request))

    def record(self, evaluation: Evaluation) -> int:
        """Record an evaluation in the journal and in the version's tags; return the number of the entry."""
        return promotion.record_evaluation(self, _clean(evaluation))

    def approve(self, number: int, by: str, reason: str) -> Approval:
        """Record a person's approval of a version, based on its last evaluation; see `promotion.approve`."""
        return promotion.approve(self, number, clean(by), clean(reason))

    def promote(self, number: int, request: Request, mode: Mode = Mode.automatic) -> Moved:
        """Move production to a version, if its evidence allows it; see `promotion.promote`."""
        return promotion.promote(self, number, _clean(request), mode)

    def rollback(self, to: int | None, request: Request) -> Moved:
        """Move production back to an earlier version; see `promotion.rollback`."""
        return promotion.rollback(self, to, _clean(request))


def _clean(record: _Record) -> _Record:
    """Return a record with redacted texts; ids and hashes stay as they are."""
    if isinstance(record, Evaluation):
        return replace(record, by=clean(record.by))
    return replace(record, by=clean(record.by), reason=clean(record.reason))


def _clean_history(history: History) -> History:
    """Return a journal with redacted texts, including those that other programs wrote."""
    return History([replace(entry, record=_clean(entry.record)) for entry in history.entries])
