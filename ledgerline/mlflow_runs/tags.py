"""Defines the tags that link an MLflow run to its Dagster run and trace. projection.py writes them."""

import re

from ledgerline.cleaning.texts import clean, shortened
from ledgerline.ledger import ids
from ledgerline.ledger.given_by_users import owners_of_written, user_tags
from ledgerline.ledger.history import Outcome, RunHistory, RunStatus
from ledgerline.ledger.ids import RUN_ID_TAG
from ledgerline.ledger.links import Links
from ledgerline.mlflow_runs.metrics import entity_name

RUN_ID = RUN_ID_TAG
STEP_KEY = "dagster.step_key"  # only on runs that a step opened
ROOT_RUN_ID = "dagster.root_run_id"
PARENT_RUN_ID = "dagster.parent_run_id"
JOB = "dagster.job_name"
PARTITION = "dagster.partition"
BACKFILL_ID = "dagster.backfill_id"
SCHEDULE = "dagster.schedule"
SENSOR = "dagster.sensor"
CODE_LOCATION = "dagster.code_location"
OWNERS = "dagster.owners"  # the owners of the assets that the run wrote
RUN_URL = "dagster.url"
USER_TAG = "dagster.tag.{}"  # a tag that a user set on the Dagster run
TRACE_ID = "trace_id"
TRACE_URL = "trace_url"
ERROR = "error"
PARAMS_LEFT_OUT = "ledgerline.params_left_out"
LEFT_OUT = "ledgerline.left_out"  # the parts that MLflow refused, one per line
KIND = "ledgerline.kind"
DAGSTER_RUN = "dagster_run"  # the kind of the MLflow run of a whole Dagster run
DAGSTER = "dagster"  # the name of the user in MLflow

# Tags of MLflow
PARENT = "mlflow.parentRunId"
NAME = "mlflow.runName"
NOTE = "mlflow.note.content"
USER = "mlflow.user"
SOURCE_NAME = "mlflow.source.name"
SOURCE_TYPE = "mlflow.source.type"

# Set by the `mlflow_tracking` resource of dagster-mlflow on the run it opens.
DAGSTER_MLFLOW_RUN_ID = "dagster_run_id"

MAX_TAG_LENGTH = 8000  # MAX_TAG_VAL_LENGTH in mlflow/utils/validation.py
MAX_RUN_NAME_LENGTH = 250  # SqlRun.name in mlflow/store/tracking/dbmodels/models.py; SQLite has no limit
MAX_SOURCE_NAME_LENGTH = 500  # SqlRun.source_name
MAX_CAUSE_LENGTH = 500  # maximum length of an error in a note
MAX_NOTE_ROWS = 40
NOTE_START = "Dagster run "
IN_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#~])")

STATUSES = {
    RunStatus.NOT_STARTED: "RUNNING",
    RunStatus.STARTED: "RUNNING",
    RunStatus.SUCCESS: "FINISHED",
    RunStatus.FAILURE: "FAILED",
    RunStatus.CANCELED: "KILLED",
}


def run_tags(now: RunHistory, links: Links, experiment_id: str) -> dict[str, str]:
    """Return all tags for a history and the experiment of its traces; equal histories have equal tags."""
    run = now.run
    trace = links.trace_page(run.run_id, experiment_id)
    tags = {
        **{entity_name(USER_TAG.format(name)): value for name, value in user_tags(run.tags).items()},
        KIND: DAGSTER_RUN,
        NAME: run_name(now),
        RUN_ID: run.run_id,
        ROOT_RUN_ID: run.root_run_id or run.run_id,
        PARENT_RUN_ID: run.parent_run_id,
        JOB: run.job,
        PARTITION: run.partition,
        BACKFILL_ID: run.backfill_id,
        SCHEDULE: run.schedule,
        SENSOR: run.sensor,
        CODE_LOCATION: run.code_location,
        OWNERS: ", ".join(owners_of_written(now)) or None,
        RUN_URL: links.run_page(run.run_id),
        TRACE_ID: f"{ids.trace_id(run.run_id):032x}",
        TRACE_URL: trace,
        ERROR: root_cause(now),
        USER: DAGSTER,
        SOURCE_NAME: shortened(run.job, MAX_SOURCE_NAME_LENGTH),
        SOURCE_TYPE: "JOB",
        NOTE: _note(now, links.run_page(run.run_id), trace),
    }
    return {
        name: shortened(clean(value), MAX_TAG_LENGTH) for name, value in tags.items() if value is not None
    }


def run_name(now: RunHistory) -> str:
    """Return the title of the run, shortened to the limit of MLflow's databases."""
    return shortened(now.title, MAX_RUN_NAME_LENGTH)


def root_cause(now: RunHistory) -> str | None:
    """Return the first error of a run that failed; None for other runs."""
    if now.status not in (RunStatus.FAILURE, RunStatus.CANCELED):
        return None
    for attempt in now.attempts:
        if attempt.outcome is Outcome.FAILURE and attempt.error is not None:
            cause = attempt.error.root
            return f"{attempt.step}: {cause.type}: {cause.message}"
    return f"{now.error.root.type}: {now.error.root.message}" if now.error is not None else None


def _note(now: RunHistory, page: str | None, trace: str | None) -> str:
    """Return Markdown with links, the error and the outcome of each step."""
    parts = [NOTE_START + (f"[{now.run.run_id}]({page})" if page else now.run.run_id), now.status.value]
    if now.ended is not None:
        parts.append(f"{now.ended - (now.started or now.run.created):.1f} s")
    if trace:
        parts.append(f"[trace]({trace})")
    lines = [" · ".join(parts)]
    cause = root_cause(now)
    if cause is not None:
        lines += ["", _escaped(shortened(cause, MAX_CAUSE_LENGTH))]
    if now.attempts:
        lines += ["", "| step | attempt | outcome | seconds |", "| --- | --- | --- | --- |"]
    for attempt in now.attempts[:MAX_NOTE_ROWS]:
        seconds = f"{attempt.seconds:.2f}" if attempt.seconds is not None else ""
        lines.append(f"| {_escaped(attempt.step)} | {attempt.number} | {attempt.outcome.value} | {seconds} |")
    left_out = len(now.attempts) - MAX_NOTE_ROWS
    if left_out > 0:
        lines += ["", f"and {left_out} more"]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    return IN_MARKDOWN.sub(r"\\\1", " ".join(text.split()))
