"""RunHistory -> one MLflow run, through MlflowClient by explicit id.

Which run: found.py. What it is told: tags.py, metrics.py, inputs.py.

Everything is written again when the run has ended, and nothing twice: tags are replaced; equal points of
metrics, params and datasets are kept once. What an outage or a second observer left half done is whole then.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import dagster as dg

from ledgerline.cleaning.texts import clean, shortened
from ledgerline.ledger import ids
from ledgerline.ledger.dagster_internals import EngineEventData
from ledgerline.ledger.event_log import LINKS_METADATA
from ledgerline.ledger.history import RESOURCES, START_WORKER, WAIT, RunHistory
from ledgerline.ledger.links import Links
from ledgerline.ledger.projection import Backfill, NotYetError, RefusedError, TargetUnavailableError
from ledgerline.mlflow_runs import tags as mlflow_tags
from ledgerline.mlflow_runs.datasets import MAX_DATASETS, run_datasets
from ledgerline.mlflow_runs.found import Found, find
from ledgerline.mlflow_runs.inputs import run_params
from ledgerline.mlflow_runs.metrics import milliseconds, run_metrics
from ledgerline.mlflow_runs.timeline import timeline
from ledgerline.mlflow_runs.writing import RunWriter, is_no_fault_of_the_call
from ledgerline.settings.extras import missing

if TYPE_CHECKING:
    from mlflow import MlflowClient

MLFLOW_RUN_METADATA = "ledgerline/mlflow_run"  # in the engine event with the links, beside LINKS_METADATA

LINEAGE_FOLDER = "lineage"
TIMELINE_FILE = "timeline.png"

# What another observer does at the same time can make MLflow refuse a call: it is all looked at again.
TRIES = 3
MAX_PROBLEM_LENGTH = 500

RUNNING = "RUNNING"

# How long a process may take to exit after its run has ended; dagster-mlflow ends its MLflow run only then.
EXIT_SECONDS = 10


@dataclass(frozen=True)
class MLflowRunProjection:
    """Shows each Dagster run as one MLflow run.

    Attributes:
        tracking_uri: URL of an MLflow server, or URI of its database; for messages.
        open_experiment: Opens a client, and names the id of the experiment for new runs. Raises
            TargetUnavailableError if there is nothing to talk to.
        links: Where the pages of runs and traces are.
        documents: The lineage of a run by file name, given its history and the id of its MLflow run.
    """

    tracking_uri: str
    open_experiment: Callable[[], "tuple[MlflowClient, str]"]
    links: Links
    documents: Callable[[RunHistory, str], Mapping[str, bytes]]

    name = "mlflow"

    def export(self, instance: dg.DagsterInstance, now: RunHistory, before: RunHistory | None) -> int:
        """Write what the run has done since it was last shown; all of it, once it has ended.

        The MLflow run is opened once a step has its resources: dagster-mlflow's would have opened one.

        Raises:
            TargetUnavailableError: MLflow does not take it now.
            NotYetError: Everything is written but the status: dagster-mlflow may still overwrite it.
            RefusedError: MLflow takes parts of it never; the rest is written, and a tag names them.
        """
        if not _has_begun(now) or _is_known(now, before):
            return 0
        writer, found = self._in_spite_of_others(now, before)
        if not now.links_reported:
            self._report_links(instance, now, found)
        if writer.left_out:
            raise RefusedError(f"MLflow at {self.tracking_uri}", writer.left_out, writer.written)
        return writer.written

    def export_backfill(self, backfill: Backfill) -> int:
        """A backfill is nothing in MLflow beside its runs, which have its id as a tag."""
        return 0

    def _in_spite_of_others(self, now: RunHistory, before: RunHistory | None) -> tuple[RunWriter, Found]:
        from mlflow.exceptions import MlflowException

        tries = TRIES
        while True:
            tries -= 1
            try:
                client, experiment_id = self.open_experiment()
                found = find(client, experiment_id, now, self.links)
                return self._write(client, found, now, before), found
            except (MlflowException, OSError) as error:  # the latter of artifacts: a full disk, `requests`
                if is_no_fault_of_the_call(error):
                    raise self._unavailable(error) from None
                if not tries:
                    raise

    def _write(
        self, client: "MlflowClient", found: Found, now: RunHistory, before: RunHistory | None
    ) -> RunWriter:
        """Write what is new: first how the run stands, which is never refused, and then the rest."""
        if found.is_new or now.finished:
            before = None
        # A run that goes on is written often: what was refused is tried once more when it has ended.
        writer = RunWriter(client, found.run_id, found.left_out if before is not None else frozenset())
        is_held = now.ended is not None and found.is_adopted and _is_held(found, now, now.ended)
        if now.ended is not None and not is_held:
            status = mlflow_tags.STATUSES[now.status]
            client.set_terminated(found.run_id, status, milliseconds(now.ended))
        elif now.ended is None and found.status != RUNNING:
            client.update_run(found.run_id, status=RUNNING)
        self._log_batches(writer, found, now, before)
        # MLflow keeps the first description of a dataset: it is not described before it is whole.
        datasets = run_datasets(now) if now.finished else []
        for start in range(0, len(datasets), MAX_DATASETS):
            writer.log_datasets(datasets[start : start + MAX_DATASETS])
        for run_id in found.children:
            writer.do(
                f"run {run_id} below it", partial(client.set_tag, run_id, mlflow_tags.PARENT, found.run_id)
            )
        if now.ended is not None:
            # The trace need not have arrived.
            trace_id = f"tr-{ids.trace_id(now.run.run_id):032x}"
            writer.do("the link to its trace", lambda: client.link_traces_to_run([trace_id], found.run_id))
            self._log_files(writer, now, found)
        self._note_left_out(writer, found, before)
        if is_held:
            raise NotYetError(
                f"MLflow run {found.run_id} of Dagster run {now.run.run_id} was opened by dagster-mlflow, in "
                "a process that is about to exit and will call it finished. Its status is set after that."
            )
        return writer

    def _log_batches(
        self, writer: RunWriter, found: Found, now: RunHistory, before: RunHistory | None
    ) -> None:
        from mlflow.entities import RunTag

        config = run_params(now.run.config)
        said = mlflow_tags.run_tags(now, self.links, found.home)
        if found.parent is not None:
            said[mlflow_tags.PARENT] = found.parent
        if config.left_out:
            said[mlflow_tags.PARAMS_LEFT_OUT] = str(config.left_out)
        tags = [RunTag(name, value) for name, value in found.lacks(said).items()]
        # A param cannot be changed: neither one of ours, nor what a step recorded under that name.
        params = [param for param in config.params if param.key not in found.params]
        writer.log(list(run_metrics(now, before)), params, tags)

    def _log_files(self, writer: RunWriter, now: RunHistory, found: Found) -> None:
        # Without the extra for it, a run is shown without its picture.
        files = {} if missing("plots") else {TIMELINE_FILE: timeline(now)}
        for name, content in self.documents(now, found.run_id).items():
            files[f"{LINEAGE_FOLDER}/{name}"] = content
        try:
            writer.log_files(files)
        except Exception as error:  # noqa: BLE001 (stores of files raise what they like: this one takes none)
            raise self._unavailable(error) from None

    def _note_left_out(self, writer: RunWriter, found: Found, before: RunHistory | None) -> None:
        """Say in the MLflow run what is missing in it."""
        names = {*writer.left_out, *(found.left_out if before is not None else ())}
        if names != found.left_out:
            writer.name_left_out(names)

    def _report_links(self, instance: dg.DagsterInstance, now: RunHistory, found: Found) -> None:
        run_id = now.run.run_id
        trace = self.links.trace_page(run_id, found.home)
        page = self.links.mlflow_run_page(found.experiment_id, found.run_id)
        instance.report_engine_event(
            "Trace and MLflow run of this run",
            engine_event_data=EngineEventData(
                {
                    LINKS_METADATA: _link(trace, f"{ids.trace_id(run_id):032x}"),
                    MLFLOW_RUN_METADATA: _link(page, found.run_id),
                }
            ),
            job_name=now.run.job,
            run_id=run_id,
        )

    def _unavailable(self, error: Exception) -> TargetUnavailableError:
        problem = shortened(clean(str(error)), MAX_PROBLEM_LENGTH)
        return TargetUnavailableError(f"MLflow at {self.tracking_uri} does not take this now: {problem}")


def _has_begun(now: RunHistory) -> bool:
    """Whether a step has its resources, or had no use for them."""
    return (
        now.finished
        or any(phase.name == RESOURCES for phase in now.phases)
        or any(
            attempt.ended is not None
            or any(phase.kind not in (START_WORKER, WAIT) for phase in attempt.phases)
            for attempt in now.attempts
        )
    )


def _is_known(now: RunHistory, before: RunHistory | None) -> bool:
    """Whether nothing is new in a run that has ended but that its links were reported."""
    return (
        before is not None and before.finished and replace(before, links_reported=now.links_reported) == now
    )


def _is_held(found: Found, now: RunHistory, ended: float) -> bool:
    """Whether the process of a run still has its MLflow run open, and will end it when it exits.

    MLflow does so with `atexit`, whatever became of the run. Processes of steps are gone when a run ends.
    """
    in_process = not any(phase.name == START_WORKER for attempt in now.attempts for phase in attempt.phases)
    let_go = found.status != RUNNING and found.ended is not None and found.ended >= milliseconds(ended)
    return in_process and not let_go and time.time() < ended + EXIT_SECONDS


def _link(page: str | None, name: str) -> dg.MetadataValue:
    return dg.MetadataValue.url(page) if page else dg.MetadataValue.text(name)
