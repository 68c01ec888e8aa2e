"""Projects each Dagster run to one MLflow run.

lookup.py finds the MLflow run; tags.py, metrics.py, inputs.py and datasets.py compute the values.

At the end of a run everything is written again, which completes what an outage or another observer left
unfinished. Nothing is duplicated: tags are replaced, and MLflow stores equal metric points, params and
datasets once.
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
from ledgerline.mlflow_runs.inputs import run_params
from ledgerline.mlflow_runs.lookup import MLflowRun, find_or_create
from ledgerline.mlflow_runs.metrics import milliseconds, run_metrics
from ledgerline.mlflow_runs.timeline import timeline
from ledgerline.mlflow_runs.writing import RunWriter, is_no_fault_of_the_call
from ledgerline.settings.extras import missing

if TYPE_CHECKING:
    from mlflow import MlflowClient

MLFLOW_RUN_METADATA = "ledgerline/mlflow_run"  # in the engine event that has LINKS_METADATA

LINEAGE_FOLDER = "lineage"
TIMELINE_FILE = "timeline.png"

# MLflow may refuse a call because of a concurrent observer; then the run is read and written again.
TRIES = 3
MAX_PROBLEM_LENGTH = 500

RUNNING = "RUNNING"

# The time that a process may take to exit after the end of its run; dagster-mlflow ends its MLflow run then.
EXIT_SECONDS = 10


@dataclass(frozen=True)
class MLflowRunProjection:
    """Exports each Dagster run as one MLflow run.

    Attributes:
        tracking_uri: URL of an MLflow server, or URI of its database, for messages.
        open_experiment: Function that opens a client and returns it with the id of the experiment of new
            runs. It raises TargetUnavailableError if MLflow is unavailable.
        documents: Function that returns lineage documents by file name, given the history of a run and the id
            of its MLflow run.
    """

    tracking_uri: str
    open_experiment: Callable[[], "tuple[MlflowClient, str]"]
    links: Links
    documents: Callable[[RunHistory, str], Mapping[str, bytes]]

    name = "mlflow"

    def export(self, instance: dg.DagsterInstance, now: RunHistory, before: RunHistory | None) -> int:
        """Write the part of the run that is new since the last export, or all of it after its end.

        The MLflow run is created after the resources of a step, because dagster-mlflow opens its run there.

        Raises:
            TargetUnavailableError: MLflow is unavailable.
            NotYetError: Everything is written except the status, which dagster-mlflow may still overwrite.
            RefusedError: MLflow refuses parts of the run permanently; a tag lists them, and the rest is
                written.
        """
        if not _has_begun(now) or _is_known(now, before):
            return 0
        writer, mlflow_run = self._write_with_retries(now, before)
        if not now.links_reported:
            self._report_links(instance, now, mlflow_run)
        if writer.left_out:
            raise RefusedError(f"MLflow at {self.tracking_uri}", writer.left_out, writer.written)
        return writer.written

    def export_backfill(self, backfill: Backfill) -> int:
        """Return 0, because MLflow has only the runs of a backfill, each with the backfill's id as a tag."""
        return 0

    def _write_with_retries(self, now: RunHistory, before: RunHistory | None) -> tuple[RunWriter, MLflowRun]:
        from mlflow.exceptions import MlflowException

        tries = TRIES
        while True:
            tries -= 1
            try:
                client, experiment_id = self.open_experiment()
                mlflow_run = find_or_create(client, experiment_id, now, self.links)
                return self._write(client, mlflow_run, now, before), mlflow_run
            except (MlflowException, OSError) as error:  # OSError: artifacts, `requests`
                if is_no_fault_of_the_call(error):
                    raise self._unavailable(error) from None
                if not tries:
                    raise

    def _write(
        self, client: "MlflowClient", mlflow_run: MLflowRun, now: RunHistory, before: RunHistory | None
    ) -> RunWriter:
        """Write the new part of the run: first the status, which MLflow never refuses, and then the rest."""
        if mlflow_run.is_new or now.finished:
            before = None
        # A run in progress is written often. Refused parts are retried only at its end.
        writer = RunWriter(
            client, mlflow_run.run_id, mlflow_run.left_out if before is not None else frozenset()
        )
        is_held = now.ended is not None and mlflow_run.is_adopted and _is_held(mlflow_run, now, now.ended)
        if now.ended is not None and not is_held:
            status = mlflow_tags.STATUSES[now.status]
            client.set_terminated(mlflow_run.run_id, status, milliseconds(now.ended))
        elif now.ended is None and mlflow_run.status != RUNNING:
            client.update_run(mlflow_run.run_id, status=RUNNING)
        self._log_batches(writer, mlflow_run, now, before)
        # MLflow keeps the first description of a dataset, so it is sent only when it is complete.
        datasets = run_datasets(now) if now.finished else []
        for start in range(0, len(datasets), MAX_DATASETS):
            writer.log_datasets(datasets[start : start + MAX_DATASETS])
        for run_id in mlflow_run.children:
            set_parent = partial(client.set_tag, run_id, mlflow_tags.PARENT, mlflow_run.run_id)
            writer.do(f"run {run_id} below it", set_parent)
        if now.ended is not None:
            # The link is valid even if the trace has not been exported yet.
            trace_id = f"tr-{ids.trace_id(now.run.run_id):032x}"
            writer.do(
                "the link to its trace", lambda: client.link_traces_to_run([trace_id], mlflow_run.run_id)
            )
            self._log_files(writer, now, mlflow_run)
        names = writer.known | writer.left_out.keys()
        if names != mlflow_run.left_out:
            writer.name_left_out(names)
        if is_held:
            raise NotYetError(
                f"The process of Dagster run {now.run.run_id} still has MLflow run {mlflow_run.run_id} open; "
                "dagster-mlflow sets its status when the process exits.",
                "The status is exported after that.",
            )
        return writer

    def _log_batches(
        self, writer: RunWriter, mlflow_run: MLflowRun, now: RunHistory, before: RunHistory | None
    ) -> None:
        from mlflow.entities import RunTag

        params, params_left_out = run_params(now.run.config)
        known_tags = mlflow_tags.run_tags(now, self.links, mlflow_run.home)
        if mlflow_run.parent is not None:
            known_tags[mlflow_tags.PARENT] = mlflow_run.parent
        if params_left_out:
            known_tags[mlflow_tags.PARAMS_LEFT_OUT] = str(params_left_out)
        tags = [RunTag(name, value) for name, value in mlflow_run.lacks(known_tags).items()]
        # MLflow does not allow changing a param, whether Ledgerline or a step logged it.
        new_params = [param for param in params if param.key not in mlflow_run.params]
        writer.log(list(run_metrics(now, before)), new_params, tags)

    def _log_files(self, writer: RunWriter, now: RunHistory, mlflow_run: MLflowRun) -> None:
        # Without the extra `plots`, a run is exported without its timeline.
        files = {} if missing("plots") else {TIMELINE_FILE: timeline(now)}
        for name, content in self.documents(now, mlflow_run.run_id).items():
            files[f"{LINEAGE_FOLDER}/{name}"] = content
        try:
            writer.log_files(files)
        except Exception as error:  # noqa: BLE001 (artifact stores raise any error: this one is unavailable)
            raise self._unavailable(error) from None

    def _report_links(self, instance: dg.DagsterInstance, now: RunHistory, mlflow_run: MLflowRun) -> None:
        run_id = now.run.run_id
        trace = self.links.trace_page(run_id, mlflow_run.home)
        page = self.links.mlflow_run_page(mlflow_run.experiment_id, mlflow_run.run_id)
        instance.report_engine_event(
            "Trace and MLflow run of this run",
            engine_event_data=EngineEventData(
                {
                    LINKS_METADATA: _link(trace, f"{ids.trace_id(run_id):032x}"),
                    MLFLOW_RUN_METADATA: _link(page, mlflow_run.run_id),
                }
            ),
            job_name=now.run.job,
            run_id=run_id,
        )

    def _unavailable(self, error: Exception) -> TargetUnavailableError:
        problem = shortened(clean(str(error)), MAX_PROBLEM_LENGTH)
        return TargetUnavailableError(
            f"MLflow at {self.tracking_uri} does not accept this run now: {problem}"
        )


def _has_begun(now: RunHistory) -> bool:
    """Return whether a step has initialised its resources, or does not need any."""
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
    """Return whether the run had already ended before, and only the report of its links is new."""
    return (
        before is not None and before.finished and replace(before, links_reported=now.links_reported) == now
    )


def _is_held(mlflow_run: MLflowRun, now: RunHistory, ended: float) -> bool:
    """Return whether the process of the run still has the MLflow run open, which it will end at its exit.

    MLflow ends the run with `atexit`, regardless of its status. Only the process of the run does so,
    because processes of steps have exited before the end of the run.
    """
    in_process = not any(phase.name == START_WORKER for attempt in now.attempts for phase in attempt.phases)
    is_closed = (
        mlflow_run.status != RUNNING
        and mlflow_run.ended is not None
        and mlflow_run.ended >= milliseconds(ended)
    )
    return in_process and not is_closed and time.time() < ended + EXIT_SECONDS


def _link(page: str | None, name: str) -> dg.MetadataValue:
    return dg.MetadataValue.url(page) if page else dg.MetadataValue.text(name)
