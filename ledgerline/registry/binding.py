"""Binds a journal to its registered model, because the model's name can be given to another model.

MLflow gives registered models no id. The creation time of a model stays the same when the model is renamed,
and a model that is registered anew under the name is created later. A parameter of the journal, which cannot
change, records the creation time of its model. A journal that was begun before journals had this parameter is
bound as soon as it is proven to belong to the model.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from ledgerline.mlflow_store.store import paged
from ledgerline.registry.evidence import EVIDENCE_TAG
from ledgerline.registry.history import History
from ledgerline.registry.journal import RUN_NAME, Journal, JournalError, experiment_name
from ledgerline.registry.stages import JOURNAL_TAG, SEAL_TAG, AliasState
from ledgerline.registry.versions import RegisteredModel

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run


def journal_of(model: RegisteredModel, alias_state: AliasState) -> Journal | None:
    """Return the journal of a model, whatever its name, or None if it has none yet; nothing is written.

    Raises:
        JournalError: The journal was deleted, or it cannot be determined which model it belongs to.
    """
    name = model.name
    problem: JournalError | None = None
    try:
        named = Journal.named(model)
    except JournalError as error:
        named = None
        if not _is_of_another(model, alias_state):
            problem = error
    if named is not None and named.model_created == alias_state.created:
        return named
    # A renamed model left its journal under another name.
    if alias_state.has_journal and (renamed := _journal_of_renamed(model, alias_state)) is not None:
        return renamed
    if problem is not None:
        raise problem
    if named is not None and named.model_created is None and _is_proven(model, named, alias_state):
        return named
    if alias_state.has_journal:
        raise JournalError(
            f"The journal of {name} existed and is missing.",
            f"Restore the deleted MLflow experiment that was named {experiment_name(name)!r}. To begin a new "
            f"journal instead, delete the tags {JOURNAL_TAG} and {SEAL_TAG} of the model.",
        )
    return None


def opened(model: RegisteredModel, alias_state: AliasState) -> Journal:
    """Return the journal of a model under the model's name; create it if the model has none.

    If an earlier model had the name, its journal keeps its entries and is renamed.

    Raises:
        JournalError: The journal was deleted, or it cannot be determined which model it belongs to.
    """
    from mlflow.exceptions import MlflowException

    client, name = model.client, model.name
    journal = journal_of(model, alias_state)
    if journal is None:
        _set_aside(model, alias_state)
        journal = Journal.opened(model, alias_state.created)
    elif journal.model_created is None:
        journal.bind(alias_state.created)
    if journal.model_created != alias_state.created:
        raise JournalError(f"{name} was deleted and registered again during this call.", "Try again.")
    if journal.named_after != name:
        _set_aside(model, alias_state)
        experiment_id = client.get_run(journal.run_id).info.experiment_id
        try:
            client.rename_experiment(experiment_id, experiment_name(name))
        except MlflowException:
            named = Journal.named(model)  # another process has renamed it
            if named is None or named.run_id != journal.run_id:
                raise
    return journal


def journals_of_earlier_models(model: RegisteredModel) -> list[str]:
    """Return the names of the MLflow experiments with the journals of models that had this name before.

    Raises:
        UnknownModelError: The model does not exist.
    """
    start = _name_aside(model, "")
    names = [each.name for each in _experiments(model.client) if each.name.startswith(start)]
    # Until this model's own journal is opened, an earlier model's journal has the name.
    if _is_of_another(model, model.alias_state()):
        names.append(experiment_name(model.name))
    return sorted(names)


def _is_of_another(model: RegisteredModel, alias_state: AliasState) -> bool:
    """Return whether the experiment with the name of the model's journal belongs to another model."""
    claim = model.client.get_experiment_by_name(experiment_name(model.name))
    if claim is None:
        return False
    bound = _bound_to(model.client, claim)
    return _is_begun_before(claim, alias_state) or (bool(bound) and not bound & {alias_state.created, None})


def _is_begun_before(journal: "Experiment", alias_state: AliasState) -> bool:
    """Return whether a journal is older than a model, and therefore belongs to another one."""
    return journal.creation_time is not None and journal.creation_time < alias_state.created


def _is_proven(model: RegisteredModel, journal: Journal, alias_state: AliasState) -> bool:
    """Return whether an unbound journal belongs to this model; False if it certainly belongs to another.

    Raises:
        JournalError: Neither can be proven.
    """
    client, name = model.client, model.name
    experiment = client.get_experiment(client.get_run(journal.run_id).info.experiment_id)
    if _is_begun_before(experiment, alias_state):
        return False
    history = journal.read()
    if not history.entries or alias_state.has_journal or _has_evidence_of(model, history):
        return True  # reading the journal with the seal checks whether it fits
    raise JournalError(
        f"It is unknown whether the MLflow experiment {experiment.name!r} is the journal of this model "
        f"{name} or of an earlier one, because the tags {JOURNAL_TAG} and {SEAL_TAG} of the model were "
        "deleted.",
        f"If it belongs to this model, set the model's tag {JOURNAL_TAG} to {history.head}; otherwise rename "
        "the experiment.",
    )


def _has_evidence_of(model: RegisteredModel, history: History) -> bool:
    evaluated = {(evaluation.version, evaluation.evidence) for evaluation in history.evaluations()}
    return any((version.number, version.tags.get(EVIDENCE_TAG)) in evaluated for version in model.versions())


def _journal_of_renamed(model: RegisteredModel, alias_state: AliasState) -> Journal | None:
    """Return the journal that the seal of the model fits, or else the only one bound to the model."""
    client = model.client
    bound: list[Journal] = []
    for run in _runs(client, [experiment.experiment_id for experiment in _experiments(client)]):
        journal = Journal.of_run(client, run)
        if run.info.lifecycle_stage != "active" or journal.model_created not in (None, alias_state.created):
            continue
        if alias_state.journal_seal:
            with suppress(JournalError):
                journal.read(alias_state.journal_seal)
                return journal
        if journal.model_created is not None:
            bound.append(journal)
    # The seal may have been deleted, or may not fit. Reading the journal reports this.
    return bound[0] if len(bound) == 1 else None


def _set_aside(model: RegisteredModel, alias_state: AliasState) -> None:
    """Rename the journal of another model that has the name of this model's journal."""
    client = model.client
    claim = client.get_experiment_by_name(experiment_name(model.name))
    if claim is None or alias_state.created in _bound_to(client, claim):
        return  # in the second case, another process has done so
    is_deleted = claim.lifecycle_stage != "active"
    if is_deleted:
        client.restore_experiment(claim.experiment_id)  # a deleted experiment cannot be renamed
    client.rename_experiment(claim.experiment_id, _name_aside(model, claim.experiment_id))
    if is_deleted:
        client.delete_experiment(claim.experiment_id)


def _bound_to(client: "MlflowClient", experiment: "Experiment") -> set[int | None]:
    """Return the creation times of the models that the journals in an experiment are bound to."""
    return {Journal.of_run(client, run).model_created for run in _runs(client, [experiment.experiment_id])}


def _experiments(client: "MlflowClient") -> "Iterator[Experiment]":
    return paged(lambda token: client.search_experiments(page_token=token))


def _runs(client: "MlflowClient", experiments: list[str]) -> "Iterator[Run]":
    """Return all runs that contain journals, including deleted ones."""
    from mlflow.entities import ViewType

    if not experiments:
        return iter(())
    named = f"run_name = '{RUN_NAME}'"
    return paged(lambda token: client.search_runs(experiments, named, ViewType.ALL, page_token=token))


def _name_aside(model: RegisteredModel, experiment_id: str) -> str:
    """Return the name of an earlier model's journal; without the id, the start of all such names."""
    return f"{experiment_name(model.name)} ({experiment_id}" + (")" if experiment_id else "")
