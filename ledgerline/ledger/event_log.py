"""Builds the RunHistory of a run from Dagster's event records.

history.py defines the records of a history. observer.py decides when an event log is read.
"""

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import dagster as dg
from dagster import DagsterEvent, DagsterEventType, EventLogEntry, EventLogRecord

from ledgerline.cleaning.texts import clean, cleaned
from ledgerline.ledger.attempts import CRASH_ERROR, OpenAttempt
from ledgerline.ledger.errors import error_from
from ledgerline.ledger.given_by_users import numbers
from ledgerline.ledger.history import (
    RESOURCES,
    Check,
    Error,
    HookOutcome,
    Observation,
    Outcome,
    Phase,
    RecordedSpans,
    Run,
    RunHistory,
    RunStatus,
    asset_name,
)
from ledgerline.ledger.materialised import MaterialisationReader, data_version
from ledgerline.ledger.upstreams import Upstreams

# The metadata keys of the engine events that Ledgerline writes.
SPANS_METADATA = "ledgerline/spans"
ATTEMPT_METADATA = "ledgerline/attempt"
LINKS_METADATA = "ledgerline/trace"

# Metadata keys of events about a step that waits for a pool of Dagster, or in a queue of dagster-celery.
POOL_METADATA = "pool"
QUEUE_MARKER = "celery_queue_wait"
POOL_WAIT, QUEUE_WAIT = "for pool {}", "for a worker"

# The message of Dagster's executors about a step whose process ended without an event, and that of run
# monitoring about a resumed run.
STEP_LOST = re.compile(r"Step (\S+) finished without success or failure event\.")
RUN_RESUMED = "Detected run worker status "

STEP_START = DagsterEventType.STEP_START.value
EXECUTED_AGAIN = "The process of the step was lost, and another process executed the step again."

HOOK_NAME = re.compile(r'hook "(.+)"(?: triggered for|\. It did)')

PAGE = 2000  # records in one query

NO_OWNERS: Mapping[str, tuple[str, ...]] = {}


class HistoryReader:
    """Builds the history of one run from its event records.

    Args:
        run: The run.
        owners: Owners of assets, by asset name.

    Example:
        >>> @dg.asset
        ... def bread() -> None: ...
        >>> with dg.DagsterInstance.ephemeral() as instance:
        ...     run_id = dg.materialize([bread], instance=instance).run_id
        ...     reader = HistoryReader(run_from(instance.get_run_record_by_id(run_id)))
        ...     reader.feed(instance.get_records_for_run(run_id).records)
        >>> history = reader.history()
        >>> history.status.value, [attempt.step for attempt in history.attempts]
        ('SUCCESS', ['bread'])
    """

    def __init__(self, run: Run, owners: Mapping[str, tuple[str, ...]] = NO_OWNERS) -> None:
        self._run = run
        self._owners = owners
        self._status = RunStatus.NOT_STARTED
        self._times: dict[str, float] = {}
        self._ended: float | None = None
        self._error: Error | None = None
        self._attempts: list[OpenAttempt] = []
        self._latest: dict[str, OpenAttempt] = {}  # by step
        self._skipped: list[str] = []
        self._planned: dict[str, None] = {}
        self._planned_partitions: dict[str, None] = {}
        self._phases: list[Phase] = []
        self._resources_started: float | None = None
        self._recorded_spans: list[RecordedSpans] = []
        self._links_reported = False
        self._resumptions: list[float] = []
        self._materialisations = MaterialisationReader()

    def feed(self, records: Iterable[EventLogRecord]) -> None:
        """Process the next records, in the order of the event log and in batches of any size.

        Log messages are skipped, except Dagster's message about a lost step.
        """
        for record in records:
            entry = record.event_log_entry
            event = entry.dagster_event
            if event is None:
                self._on_message(entry)
            else:
                handle = _HANDLERS.get(event.event_type_value)
                if handle is not None:
                    handle(self, entry, event)

    def _on_message(self, entry: EventLogEntry) -> None:
        """End the attempt of a lost step. Executors that start no process, like Celery's, only log this."""
        if entry.level == logging.ERROR and entry.step_key is None:
            lost = STEP_LOST.match(entry.user_message)
            attempt = self._latest.get(lost[1]) if lost is not None else None
            if attempt is not None:
                attempt.lost(entry.timestamp, clean(entry.user_message))

    def history(self) -> RunHistory:
        """Return the history up to now. Attempts that did not change are the same objects as before."""
        return RunHistory(
            run=self._run,
            status=self._status,
            enqueued=self._times.get("enqueued"),
            dequeued=self._times.get("dequeued"),
            started=self._times.get("started"),
            ended=self._ended,
            attempts=tuple(attempt.frozen(self._ended) for attempt in self._attempts),
            skipped=tuple(self._skipped),
            planned=tuple(self._planned),
            planned_partitions=tuple(self._planned_partitions),
            phases=tuple(self._phases),
            error=self._error,
            recorded_spans=tuple(self._recorded_spans),
            links_reported=self._links_reported,
            resumptions=tuple(self._resumptions),
            owners=self._owners,
        )

    # Events of the run

    def _on_run_time(self, entry: EventLogEntry, event: DagsterEvent) -> None:
        self._times.setdefault(_RUN_TIMES[event.event_type_value], entry.timestamp)
        if event.event_type_value == DagsterEventType.RUN_START.value:
            self._status = RunStatus.STARTED

    def _on_run_end(self, entry: EventLogEntry, event: DagsterEvent) -> None:
        self._status = _RUN_ENDS[event.event_type_value]
        self._ended = entry.timestamp
        self._error = None
        if self._status is not RunStatus.SUCCESS:
            error = getattr(event.event_specific_data, "error", None)
            self._error = (
                error_from(error)
                if error is not None
                else Error(f"dagster.Run{self._status.name.title()}", clean(event.message or ""), "")
            )

    def _on_planned(self, entry: EventLogEntry, event: DagsterEvent) -> None:
        data = _data(event)
        self._planned.setdefault(asset_name(data.asset_key))
        if data.partition is not None:
            self._planned_partitions.setdefault(data.partition)

    def _on_engine_event(self, entry: EventLogEntry, event: DagsterEvent) -> None:
        metadata = _data(event).metadata if event.event_specific_data is not None else {}
        if SPANS_METADATA in metadata and event.step_key is not None:
            self._recorded_spans.append(
                RecordedSpans(
                    event.step_key,
                    int(metadata[ATTEMPT_METADATA].value),
                    metadata[SPANS_METADATA].value,
                )
            )
        elif LINKS_METADATA in metadata:
            self._links_reported = True
        elif event.step_key is None and (event.message or "").startswith(RUN_RESUMED):
            self._resumptions.append(entry.timestamp)
        elif event.step_key is not None and event.event_specific_data is not None:
            self._on_engine_event_of_step(event.step_key, entry, event)

    def _on_engine_event_of_step(self, step: str, entry: EventLogEntry, event: DagsterEvent) -> None:
        data = _data(event)
        if POOL_METADATA in data.metadata and data.error is None:
            pool = data.metadata[POOL_METADATA].value
            self._open(entry, event).waits(entry.timestamp, POOL_WAIT.format(pool))
        elif data.marker_start == QUEUE_MARKER:
            self._open(entry, event).waits(entry.timestamp, QUEUE_WAIT)
        elif data.marker_end == QUEUE_MARKER:
            self._open(entry, event).wait_ended(entry.timestamp)
        elif step in self._latest and getattr(data.error, "cls_name", None) == CRASH_ERROR:
            self._latest[step].died(clean(event.message or ""))

    # Events of steps

    def _on_worker_starting(self, entry: EventLogEntry, event: DagsterEvent) -> None:
        self._open(entry, event).worker_starting(entry.timestamp)

    def _on_worker_started(self, entry: EventLogEntry, event: DagsterEvent) -> None:
        self._open(entry, event).worker_started(entry.timestamp, event.pid)

    def _on_resources_started(self, entry: EventLogEntry, event: DagsterEvent) -> None:
        if self._ended is not None:
            return  # A program that reads an output after the end of a run initialises its resources again.
        if event.step_key is None:
            self._resources_started = entry.timestamp
        else:
            self._open(entry, event).resources_started(entry.timestamp, event.pid)

    def _on_resources_ended(self, entry: EventLogEntry, event: DagsterEvent) -> None:
        if self._ended is not None:
            return
        error = _data(event).error
        if event.step_key is not None:
            self._open(entry, event).resources_ended(entry.timestamp, error)
        elif self._resources_started is not None:
            failed = error is not None
            self._phases.append(Phase(RESOURCES, self._resources_started, entry.timestamp, failed))
            self._resources_started = None

    def _on_step_start(self, entry: EventLogEntry, event: DagsterEvent) -> None:
        self._open(entry, event).begin(entry.timestamp, event.pid)

    def _on_loaded_input(self, entry: EventLogEntry, event: DagsterEvent) -> None:
        self._open(entry, event).loaded(entry.timestamp, _data(event).input_name)

    def _on_step_output(self, entry: EventLogEntry, event: DagsterEvent) -> None:
        handle = _data(event).step_output_handle
        self._open(entry, event).computed(entry.timestamp, _output(handle.output_name, handle.mapping_key))

    def _on_handled_output(self, entry: EventLogEntry, event: DagsterEvent) -> None:
        self._open(entry, event).stored(entry.timestamp)

    def _on_materialisation(self, entry: EventLogEntry, event: DagsterEvent) -> None:
        attempt = self._open(entry, event)
        attempt.recorded()
        time = attempt.corrected(entry.timestamp)
        attempt.materialisations.append(self._materialisations.read(_data(event).materialization, time))

    def _on_observation(self, entry: EventLogEntry, event: DagsterEvent) -> None:
        observation = _data(event).asset_observation
        attempt = self._open(entry, event)
        attempt.recorded()
        attempt.observations.append(
            Observation(
                asset=asset_name(observation.asset_key),
                partition=cleaned(observation.partition),
                data_version=data_version(observation.tags or {}),
                time=attempt.corrected(entry.timestamp),
            )
        )

    def _on_check(self, entry: EventLogEntry, event: DagsterEvent) -> None:
        evaluation = _data(event)
        attempt = self._open(entry, event)
        attempt.recorded()
        attempt.checks.append(
            Check(
                name=evaluation.check_name,
                asset=asset_name(evaluation.asset_key),
                passed=evaluation.passed,
                severity=evaluation.severity.value,
                description=cleaned(evaluation.description),
                time=attempt.corrected(entry.timestamp),
                numbers=numbers(evaluation.metadata),
            )
        )

    def _on_step_end(self, entry: EventLogEntry, event: DagsterEvent) -> None:
        error = getattr(event.event_specific_data, "error", None)
        known = self._latest.get(event.step_key or "")
        if known is not None and known.ended is not None:
            # Dagster considered its process lost, but the process reports its end later.
            return
        self._open(entry, event).end(entry.timestamp, _STEP_ENDS[event.event_type_value], error)

    def _on_hook(self, entry: EventLogEntry, event: DagsterEvent) -> None:
        """Add a hook. The hooks of a step are executed one after the other, after the end of the step."""
        attempt = self._latest.get(event.step_key or "")
        if attempt is None or attempt.ended is None:
            return
        attempt.unchanged = None
        error = getattr(event.event_specific_data, "error", None)
        named = HOOK_NAME.search(event.message or "")
        attempt.hook_ended(
            named[1] if named is not None else "",
            entry.timestamp,
            _HOOK_ENDS[event.event_type_value],
            error_from(error) if error is not None else None,
        )

    def _on_skipped(self, entry: EventLogEntry, event: DagsterEvent) -> None:
        if event.step_key is not None:
            self._skipped.append(event.step_key)

    def _open(self, entry: EventLogEntry, event: DagsterEvent) -> OpenAttempt:
        """Return the current attempt at the step of an event; a new attempt if the last one is retried."""
        step = event.step_key or entry.step_key or ""
        attempt = self._latest.get(step)
        again = attempt is not None and attempt.begun and event.event_type_value == STEP_START
        if attempt is not None and again:
            # Dask and Celery execute a step again if its worker was lost; Dask does so even after a success.
            attempt.lost(entry.timestamp, EXECUTED_AGAIN)
        if attempt is None or again or (attempt.outcome is Outcome.RETRY and _starts_an_attempt(event)):
            number = attempt.number + 1 if attempt is not None else 1
            handle = event.step_handle
            op = str(handle.node_handle) if handle is not None else step.partition("[")[0]
            attempt = OpenAttempt(step, op, number, entry.timestamp)
            self._latest[step] = attempt
            self._attempts.append(attempt)
        attempt.unchanged = None
        return attempt


def run_from(record: dg.RunRecord) -> Run:
    """Return the facts that Dagster's run storage has about a run, without secrets."""
    run = record.dagster_run
    return Run(
        run_id=run.run_id,
        job=clean(run.job_name),
        created=record.create_timestamp.timestamp(),
        tags=cleaned(run.tags),
        config=cleaned(run.run_config),
        root_run_id=run.root_run_id,
        parent_run_id=run.parent_run_id,
        selection=(
            *sorted(key.to_user_string() for key in run.asset_selection or ()),
            *sorted(
                f"{key.asset_key.to_user_string()} {key.name}" for key in run.asset_check_selection or ()
            ),
        ),
    )


def read_history(instance: dg.DagsterInstance, run_id: str) -> RunHistory | None:
    """Return the history of a run up to now; None if the run does not exist."""
    record = instance.get_run_record_by_id(run_id)
    if record is None:
        return None
    reader = HistoryReader(run_from(record))
    cursor: str | None = None
    while True:
        page = instance.get_records_for_run(run_id, cursor=cursor, limit=PAGE)
        reader.feed(page.records)
        cursor = page.cursor
        if not page.has_more:
            return Upstreams(instance).resolve(reader.history())


def _data(event: DagsterEvent) -> Any:
    # The event's type decides the class. Dagster has a typed property for each class, but the checks in these
    # properties would take a third of the time of reading a record.
    return event.event_specific_data


def _starts_an_attempt(event: DagsterEvent) -> bool:
    kind = event.event_type_value
    # The only engine events that reach this function are those about the wait of a step.
    return kind in _ATTEMPT_STARTS or kind == DagsterEventType.ENGINE_EVENT.value


def _output(name: str, mapping_key: str | None) -> str:
    return name if mapping_key is None else f"{name}[{mapping_key}]"


_RUN_TIMES = {
    DagsterEventType.RUN_ENQUEUED.value: "enqueued",
    DagsterEventType.RUN_DEQUEUED.value: "dequeued",
    # Dagster's queue writes this event when a run leaves it.
    DagsterEventType.RUN_STARTING.value: "dequeued",
    DagsterEventType.RUN_START.value: "started",
}
_RUN_ENDS = {
    DagsterEventType.RUN_SUCCESS.value: RunStatus.SUCCESS,
    DagsterEventType.RUN_FAILURE.value: RunStatus.FAILURE,
    DagsterEventType.RUN_CANCELED.value: RunStatus.CANCELED,
}
_STEP_ENDS = {
    DagsterEventType.STEP_SUCCESS.value: Outcome.SUCCESS,
    DagsterEventType.STEP_FAILURE.value: Outcome.FAILURE,
    DagsterEventType.STEP_UP_FOR_RETRY.value: Outcome.RETRY,
}
_HOOK_ENDS = {
    DagsterEventType.HOOK_COMPLETED.value: HookOutcome.COMPLETED,
    DagsterEventType.HOOK_SKIPPED.value: HookOutcome.SKIPPED,
    DagsterEventType.HOOK_ERRORED.value: HookOutcome.ERRORED,
}
_ATTEMPT_STARTS = {
    DagsterEventType.STEP_WORKER_STARTING.value,
    DagsterEventType.STEP_WORKER_STARTED.value,
    DagsterEventType.RESOURCE_INIT_STARTED.value,
    DagsterEventType.STEP_START.value,
    DagsterEventType.STEP_RESTARTED.value,
}

_Handler = Callable[[HistoryReader, EventLogEntry, DagsterEvent], None]

_HANDLERS: Mapping[str, _Handler] = {
    **dict.fromkeys(_RUN_TIMES, HistoryReader._on_run_time),
    **dict.fromkeys(_RUN_ENDS, HistoryReader._on_run_end),
    **dict.fromkeys(_STEP_ENDS, HistoryReader._on_step_end),
    **dict.fromkeys(_HOOK_ENDS, HistoryReader._on_hook),
    DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value: HistoryReader._on_planned,
    DagsterEventType.ENGINE_EVENT.value: HistoryReader._on_engine_event,
    DagsterEventType.STEP_WORKER_STARTING.value: HistoryReader._on_worker_starting,
    DagsterEventType.STEP_WORKER_STARTED.value: HistoryReader._on_worker_started,
    DagsterEventType.RESOURCE_INIT_STARTED.value: HistoryReader._on_resources_started,
    DagsterEventType.RESOURCE_INIT_SUCCESS.value: HistoryReader._on_resources_ended,
    DagsterEventType.RESOURCE_INIT_FAILURE.value: HistoryReader._on_resources_ended,
    DagsterEventType.STEP_START.value: HistoryReader._on_step_start,
    DagsterEventType.STEP_RESTARTED.value: HistoryReader._on_step_start,
    DagsterEventType.LOADED_INPUT.value: HistoryReader._on_loaded_input,
    DagsterEventType.STEP_OUTPUT.value: HistoryReader._on_step_output,
    DagsterEventType.HANDLED_OUTPUT.value: HistoryReader._on_handled_output,
    DagsterEventType.ASSET_MATERIALIZATION.value: HistoryReader._on_materialisation,
    DagsterEventType.ASSET_OBSERVATION.value: HistoryReader._on_observation,
    DagsterEventType.ASSET_CHECK_EVALUATION.value: HistoryReader._on_check,
    DagsterEventType.STEP_SKIPPED.value: HistoryReader._on_skipped,
}
