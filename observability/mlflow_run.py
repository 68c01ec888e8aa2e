"""RunHistory -> one MLflow run, through MlflowClient by explicit id.

Which run: mlflow_found.py. What it is told: mlflow_tags.py, mlflow_metrics.py, mlflow_inputs.py.

Everything is written again when the run has ended, and nothing twice: tags are replaced; equal points of
metrics, params and datasets are kept once. What an outage or a second observer left half done is whole then.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.events import EngineEventData

from observability import ids, mlflow_tags
from observability.event_log import LINKS_METADATA
from observability.history import RESOURCES, START_WORKER, WAIT, RunHistory
from observability.links import Links
from observability.mlflow_datasets import MAX_DATASETS, run_datasets
from observability.mlflow_found import Found, find
from observability.mlflow_inputs import run_params
from observability.mlflow_metrics import milliseconds, run_metrics
from observability.projection import Backfill, NotYetError, TargetUnavailableError
from observability.timeline import timeline

if TYPE_CHECKING:
    from mlflow import MlflowClient

MLFLOW_RUN_METADATA = "ledgerline/mlflow_run"  # in the engine event with the links, beside LINKS_METADATA

# Of one call, together at most 1000 (mlflow/utils/validation.py).
MAX_BATCH_METRICS = 800
MAX_BATCH_PARAMS = 100

LINEAGE_FOLDER = "lineage"
TIMELINE_FILE = "timeline.png"

# What another observer does at the same time can make MLflow refuse a call: it is all looked at again.
TRIES = 3
TOO_MANY_REQUESTS = 429
SERVER_ERRORS = 500
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
        """
        if not _has_begun(now) or _is_known(now, before):
            return 0
        written, found = self._in_spite_of_others(now, before)
        if not now.links_reported:
            self._report_links(instance, now, found)
        return written

    def export_backfill(self, backfill: Backfill) -> int:
        """A backfill is nothing in MLflow beside its runs, which have its id as a tag."""
        return 0

    def _in_spite_of_others(self, now: RunHistory, before: RunHistory | None) -> tuple[int, Found]:
        from mlflow.exceptions import MlflowException

        tries = TRIES
        while True:
            tries -= 1
            try:
                with self._unavailability():
                    client, experiment_id = self.open_experiment()
                    found = find(client, experiment_id, now, self.links)
                    return self._write(client, found, now, before), found
            except MlflowException:
                if not tries:
                    raise

    def _write(self, client: "MlflowClient", found: Found, now: RunHistory, before: RunHistory | None) -> int:
        if found.is_new or now.finished:
            before = None
        written = self._log_batches(client, found, now, before)
        # MLflow keeps the first description of a dataset: it is not described before it is whole.
        datasets = run_datasets(now) if now.finished else []
        for start in range(0, len(datasets), MAX_DATASETS):
            client.log_inputs(found.run_id, datasets=datasets[start : start + MAX_DATASETS])
        written += len(datasets)
        for run_id in found.children:
            client.set_tag(run_id, mlflow_tags.PARENT, found.run_id)
            written += 1
        if now.ended is not None:
            written += self._log_files(client, found, now)
            # The trace need not have arrived.
            client.link_traces_to_run([f"tr-{ids.trace_id(now.run.run_id):032x}"], found.run_id)
            _end(client, found, now, now.ended)
        elif found.status != RUNNING:
            client.update_run(found.run_id, status=RUNNING)
        return written

    def _log_batches(
        self, client: "MlflowClient", found: Found, now: RunHistory, before: RunHistory | None
    ) -> int:
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
        metrics = list(run_metrics(now, before))
        written = len(tags) + len(params) + len(metrics)
        while tags or params or metrics:
            client.log_batch(found.run_id, metrics[:MAX_BATCH_METRICS], params[:MAX_BATCH_PARAMS], tags)
            metrics, params, tags = metrics[MAX_BATCH_METRICS:], params[MAX_BATCH_PARAMS:], []
        return written

    def _log_files(self, client: "MlflowClient", found: Found, now: RunHistory) -> int:
        files = {TIMELINE_FILE: timeline(now)}
        for name, content in self.documents(now, found.run_id).items():
            files[f"{LINEAGE_FOLDER}/{name}"] = content
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            client.log_artifacts(found.run_id, folder)
        return len(files)

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

    @contextmanager
    def _unavailability(self) -> Iterator[None]:
        """Tell what passes by itself from what is wrong with the call."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            status = error.get_http_status_code()  # 500 also for a connection that failed
            if status < SERVER_ERRORS and status != TOO_MANY_REQUESTS:
                raise
            problem = str(error)
        except OSError as error:  # of artifacts: a disk that is full, and all that `requests` raises
            status = getattr(getattr(error, "response", None), "status_code", SERVER_ERRORS)
            if status < SERVER_ERRORS and status != TOO_MANY_REQUESTS:
                raise
            problem = str(error)
        else:
            return
        problem = f"MLflow at {self.tracking_uri} does not take this now: {problem[:MAX_PROBLEM_LENGTH]}"
        raise TargetUnavailableError(problem) from None


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


def _end(client: "MlflowClient", found: Found, now: RunHistory, ended: float) -> None:
    if found.is_adopted and _is_held(found, now, ended):
        raise NotYetError(
            f"MLflow run {found.run_id} of Dagster run {now.run.run_id} was opened by dagster-mlflow, in a "
            "process that is about to exit and will call it finished. Its status is set after that."
        )
    client.set_terminated(found.run_id, mlflow_tags.STATUSES[now.status], milliseconds(ended))


def _is_held(found: Found, now: RunHistory, ended: float) -> bool:
    """Whether the process of a run still has its MLflow run open, and will end it when it exits.

    MLflow does so with `atexit`, whatever became of the run. Processes of steps are gone when a run ends.
    """
    in_process = not any(phase.name == START_WORKER for attempt in now.attempts for phase in attempt.phases)
    let_go = found.status != RUNNING and found.ended is not None and found.ended >= milliseconds(ended)
    return in_process and not let_go and time.time() < ended + EXIT_SECONDS


def _link(page: str | None, name: str) -> dg.MetadataValue:
    return dg.MetadataValue.url(page) if page else dg.MetadataValue.text(name)
