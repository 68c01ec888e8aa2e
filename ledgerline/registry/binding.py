"""Binds a journal to its registered model: a name can pass to another model, the journal must not.

MLflow gives registered models no id. The time when a model was created stays with it through every change of
its name, and a model that is made anew is created later. A journal says in a parameter, which cannot change,
when its model was created; one that was begun before journals said so is bound when it is proven to be the
model's.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ledgerline.registry import versions
from ledgerline.registry.evidence import EVIDENCE_TAG
from ledgerline.registry.history import History
from ledgerline.registry.journal import RUN_NAME, Journal, JournalError, experiment_name
from ledgerline.registry.stages import JOURNAL_TAG, SEAL_TAG, AliasState

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run


def journal_of(client: "MlflowClient", name: str, alias_state: AliasState) -> Journal | None:
    """Return the journal of a model, wherever it is by now; nothing is written.

    Args:
        client: An open MLflow client.
        name: The registered model.
        alias_state: The current alias state of the model.

    Returns:
        None if the model has no journal yet.

    Raises:
        JournalError: It was deleted, or it cannot be told whose journal it is.
    """
    problem: JournalError | None = None
    try:
        named = Journal.found(client, name)
    except JournalError as error:
        named = None
        if not _is_of_another(client, name, alias_state):
            problem = error
    if named is not None and named.model_created == alias_state.created:
        return named
    # A renamed model left its journal under another name.
    if alias_state.has_journal and (left := _journal_left(client, alias_state)) is not None:
        return left
    if problem is not None:
        raise problem
    if named is not None and named.model_created is None and _is_proven(client, name, named, alias_state):
        return named
    if alias_state.has_journal:
        raise JournalError(
            f"The journal of {name} is not there, but was: look for a deleted MLflow experiment that was "
            f"named {experiment_name(name)!r}, and restore it. To begin a new one, delete the tags "
            f"{JOURNAL_TAG} and {SEAL_TAG} of the model."
        )
    return None


def opened(client: "MlflowClient", name: str, alias_state: AliasState) -> Journal:
    """Return the journal of a model under the model's name; begin it when the model has none.

    A journal of an earlier model that has the name keeps its entries, and gets a name of its own.

    Raises:
        JournalError: It was deleted, or it cannot be told whose journal it is.
    """
    from mlflow.exceptions import MlflowException

    journal = journal_of(client, name, alias_state)
    if journal is None:
        _set_aside(client, name, alias_state)
        journal = Journal.opened(client, name, alias_state.created)
    elif journal.model_created is None:
        journal.bind(alias_state.created)
    if journal.model_created != alias_state.created:
        raise JournalError(f"{name} was made anew just now. Try again.")
    if journal.named_after != name:
        _set_aside(client, name, alias_state)
        experiment_id = client.get_run(journal.run_id).info.experiment_id
        try:
            client.rename_experiment(experiment_id, experiment_name(name))
        except MlflowException:
            named = Journal.found(client, name)  # another process was quicker
            if named is None or named.run_id != journal.run_id:
                raise
    return journal


def journals_of_earlier_models(client: "MlflowClient", name: str) -> list[str]:
    """Return the MLflow experiments with the journals of models that had this name before."""
    return sorted(
        experiment.name for experiment in _experiments(client) if experiment.name.startswith(_aside(name, ""))
    )


def _is_of_another(client: "MlflowClient", name: str, alias_state: AliasState) -> bool:
    """Return whether a journal that was deleted, or exists twice, belongs to another model."""
    found = _claim(client, name)
    if found is None:
        return False
    bound = {Journal.of_run(client, run).model_created for run in _runs(client, [found.experiment_id])}
    return _is_begun_before(found, alias_state) or (bool(bound) and not bound & {alias_state.created, None})


def _is_begun_before(journal: "Experiment", alias_state: AliasState) -> bool:
    """Return whether a journal is older than a model, and so cannot be its journal."""
    return journal.creation_time is not None and journal.creation_time < alias_state.created


def _is_proven(client: "MlflowClient", name: str, journal: Journal, alias_state: AliasState) -> bool:
    """Return whether a journal that is not bound is this model's; False if it is certainly another's.

    Raises:
        JournalError: Neither can be proven.
    """
    experiment = client.get_experiment(client.get_run(journal.run_id).info.experiment_id)
    if _is_begun_before(experiment, alias_state):
        return False
    history = journal.read()
    if not history.entries or alias_state.has_journal or _has_evidence_of(client, name, history):
        return True  # that the seal is the journal's is seen when it is read with it
    raise JournalError(
        f"It cannot be told whether the MLflow experiment {experiment.name!r} is the journal of this model "
        f"{name}, or of an earlier one: the tags {JOURNAL_TAG} and {SEAL_TAG} of the model were deleted. If "
        f"it is this model's, set its tag {JOURNAL_TAG} to {history.head}; otherwise rename the experiment."
    )


def _has_evidence_of(client: "MlflowClient", name: str, history: History) -> bool:
    evaluated = {(evaluation.version, evaluation.evidence) for evaluation in history.evaluations()}
    found = versions.versions(client, name)
    return any((version.number, version.tags.get(EVIDENCE_TAG)) in evaluated for version in found)


def _journal_left(client: "MlflowClient", alias_state: AliasState) -> Journal | None:
    """Return the journal that is bound to a model, or else the unbound one that its tag seals."""
    experiments = [experiment.experiment_id for experiment in _experiments(client)]
    bound: list[Journal] = []
    for run in _runs(client, experiments):
        journal = Journal.of_run(client, run)
        if run.info.lifecycle_stage != "active" or journal.model_created not in (None, alias_state.created):
            continue
        if alias_state.journal_seal and _is_sealed(journal, alias_state.journal_seal):
            return journal
        if journal.model_created is not None:
            bound.append(journal)
    # A journal's seal may have been deleted, or may not fit: reading that journal reports it.
    return bound[0] if len(bound) == 1 else None


def _is_sealed(journal: Journal, seal: str) -> bool:
    try:
        journal.read(seal)
    except JournalError:
        return False
    return True


def _set_aside(client: "MlflowClient", name: str, alias_state: AliasState) -> None:
    """Free the name of a model's journal from a journal of another model."""
    claim = _claim(client, name)
    if claim is None:
        return
    bound = {Journal.of_run(client, run).model_created for run in _runs(client, [claim.experiment_id])}
    if alias_state.created in bound:
        return  # another process was quicker
    is_deleted = claim.lifecycle_stage != "active"
    if is_deleted:
        client.restore_experiment(claim.experiment_id)  # only then it can be renamed
    client.rename_experiment(claim.experiment_id, _aside(name, claim.experiment_id))
    if is_deleted:
        client.delete_experiment(claim.experiment_id)


def _claim(client: "MlflowClient", name: str) -> "Experiment | None":
    return client.get_experiment_by_name(experiment_name(name))


def _experiments(client: "MlflowClient") -> "Iterator[Experiment]":
    token: str | None = None
    while True:
        page = client.search_experiments(page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _runs(client: "MlflowClient", experiments: list[str]) -> "Iterator[Run]":
    """Yield all runs that hold journals, also deleted ones."""
    from mlflow.entities import ViewType

    token: str | None = None
    while experiments:
        page = client.search_runs(
            experiments, f"run_name = '{RUN_NAME}'", run_view_type=ViewType.ALL, page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def _aside(name: str, experiment_id: str) -> str:
    """Return the name of a journal of an earlier model; without the id, the start of all such names."""
    return f"{experiment_name(name)} ({experiment_id}" + (")" if experiment_id else "")
