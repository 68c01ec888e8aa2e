"""Finds the MLflow run of a Dagster run by tags, or creates it. projection.py writes to it.

Each export searches for the run, so that all observers of an instance use the same run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from ledgerline.ledger.history import RunHistory
from ledgerline.ledger.links import Links
from ledgerline.mlflow_runs import tags as mlflow_tags
from ledgerline.mlflow_runs.metrics import milliseconds
from ledgerline.mlflow_store.store import paged

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

MAX_EXPERIMENTS = 10_000  # maximum number of runs in one response
MAX_RUNS = 5_000


@dataclass(frozen=True)
class MLflowRun:
    """The MLflow run of a Dagster run.

    Attributes:
        home: Id of the experiment for new runs and for traces.
        ended: Time of its end in milliseconds since the epoch; None while it is open.
        is_new: True if nothing about the Dagster run has been written to it yet.
        parent: Id of the MLflow run of the first Dagster run, if this one is a re-execution.
        children: Ids of MLflow runs that should have this run as parent and do not have it yet.
    """

    run_id: str
    experiment_id: str
    home: str
    status: str
    ended: int | None
    tags: Mapping[str, str] = field(repr=False)
    params: Mapping[str, str] = field(repr=False)
    is_new: bool
    parent: str | None
    children: tuple[str, ...]

    @property
    def is_adopted(self) -> bool:
        """True if dagster-mlflow opened the run."""
        return mlflow_tags.DAGSTER_MLFLOW_RUN_ID in self.tags

    @property
    def left_out(self) -> frozenset[str]:
        """The names of the values that MLflow refused earlier, read from a tag."""
        return frozenset(filter(None, self.tags.get(mlflow_tags.LEFT_OUT, "").split("\n")))

    def lacks(self, tags: Mapping[str, str]) -> dict[str, str]:
        """Return those tags that the run does not have. Tags that dagster-mlflow or users set are kept."""
        kept: set[str] = set()
        if self.is_adopted:
            kept = {mlflow_tags.USER, mlflow_tags.PARENT} & self.tags.keys()
            if not self.tags.get(mlflow_tags.NOTE, mlflow_tags.NOTE_START).startswith(mlflow_tags.NOTE_START):
                kept.add(mlflow_tags.NOTE)
        return {
            name: value for name, value in tags.items() if self.tags.get(name) != value and name not in kept
        }


def find_or_create(client: "MlflowClient", experiment_id: str, now: RunHistory, links: Links) -> MLflowRun:
    """Return the MLflow run of a Dagster run, which is created if it does not exist.

    A run that dagster-mlflow opened, in any experiment, takes precedence over a run that Ledgerline created.
    If several observers created a run at the same time, all of them use the run with the smallest id.
    """
    run_id = now.run.run_id
    experiments = [
        experiment.experiment_id for experiment in client.search_experiments(max_results=MAX_EXPERIMENTS)
    ]
    marked = _search(client, experiments, mlflow_tags.RUN_ID, run_id)
    foreign = _search(client, experiments, mlflow_tags.DAGSTER_MLFLOW_RUN_ID, run_id)
    own = [run for run in marked if _is_own(run)]
    is_new = False
    if not own and not foreign:
        created = _create(client, experiment_id, now)
        is_new = True
        own = [run for run in _search(client, experiments, mlflow_tags.RUN_ID, run_id) if _is_own(run)]
        own = own or [created]
    chosen = _chosen([*own, *foreign])
    for duplicate in own:
        if duplicate is not chosen:
            _remove(client, duplicate, chosen, links)
            is_new = True
    return MLflowRun(
        run_id=chosen.info.run_id,
        experiment_id=chosen.info.experiment_id,
        home=experiment_id,
        status=chosen.info.status,
        ended=chosen.info.end_time,
        tags=chosen.data.tags,
        params=chosen.data.params,
        is_new=is_new or chosen.data.tags.get(mlflow_tags.RUN_ID) != run_id,
        parent=_parent(client, experiments, now),
        children=_children(chosen, marked, foreign),
    )


def _search(client: "MlflowClient", experiments: list[str], tag: str, value: str) -> "list[Run]":
    tagged = f"tags.`{tag}` = '{value}'"
    search = partial(client.search_runs, experiments, tagged, max_results=MAX_RUNS)
    return list(paged(lambda token: search(page_token=token)))


def _is_adopted(run: "Run") -> bool:
    return mlflow_tags.DAGSTER_MLFLOW_RUN_ID in run.data.tags


def _is_own(run: "Run") -> bool:
    return run.data.tags.get(mlflow_tags.KIND) == mlflow_tags.DAGSTER_RUN and not _is_adopted(run)


def _chosen(runs: "Sequence[Run]") -> "Run":
    foreign = [run for run in runs if _is_adopted(run)]
    if foreign:
        return min(foreign, key=lambda run: (run.info.start_time, run.info.run_id))
    return min(runs, key=lambda run: run.info.run_id)


def _create(client: "MlflowClient", experiment_id: str, now: RunHistory) -> "Run":
    from mlflow.exceptions import MlflowException

    tags = {
        mlflow_tags.KIND: mlflow_tags.DAGSTER_RUN,
        mlflow_tags.RUN_ID: now.run.run_id,
        mlflow_tags.USER: mlflow_tags.DAGSTER,
    }
    create = partial(client.create_run, experiment_id, milliseconds(now.started or now.run.created), tags)
    try:
        return create(run_name=mlflow_tags.run_name(now))
    except MlflowException as refusal:
        try:
            return create(run_name=now.run.run_id)  # MLflow may have refused the name.
        except MlflowException:
            raise refusal from None


def _remove(client: "MlflowClient", run: "Run", chosen: "Run", links: Links) -> None:
    # The note is for users who follow a link in Dagster's event log: MLflow displays a deleted run, too.
    kept = chosen.info.run_id
    page = links.mlflow_run_page(chosen.info.experiment_id, kept)
    text = f"Replaced by MLflow run {f'[{kept}]({page})' if page else kept}."
    client.set_tag(run.info.run_id, mlflow_tags.NOTE, text)
    client.delete_run(run.info.run_id)


def _parent(client: "MlflowClient", experiments: list[str], now: RunHistory) -> str | None:
    root = now.run.root_run_id
    if root is None or root == now.run.run_id:
        return None
    marked = _search(client, experiments, mlflow_tags.RUN_ID, root)
    of_root = [run for run in marked if run.data.tags.get(mlflow_tags.KIND) == mlflow_tags.DAGSTER_RUN]
    return _chosen(of_root).info.run_id if of_root else None


def _children(chosen: "Run", marked: "list[Run]", foreign: "list[Run]") -> tuple[str, ...]:
    """Return the runs that steps opened, and those that dagster-mlflow opened, without its first one."""
    of_steps = [
        run
        for run in marked
        if mlflow_tags.STEP_KEY in run.data.tags
        and run.data.tags.get(mlflow_tags.PARENT) != chosen.info.run_id
    ]
    others = [run for run in foreign if mlflow_tags.PARENT not in run.data.tags]
    run_ids = (run.info.run_id for run in (*of_steps, *others))
    return tuple(run_id for run_id in dict.fromkeys(run_ids) if run_id != chosen.info.run_id)
