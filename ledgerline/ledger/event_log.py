"""Builds the RunHistory of a run from Dagster's event records.

history.py defines the records of a history. observer.py decides when an event log is read.
"""

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import dagster as dg
from dagster import DagsterEvent, DagsterEventType, EventLogEntry, EventLogRecord

from ledgerline.cleaning.texts import clean, cleaned
from ledgerline.ledger.attempts import CRASH_ERROR, HOOK_ENDS, STEP_ENDS, OpenAttempt, data_of, error_in
from ledgerline.ledger.errors import error_from
from ledgerline.ledger.given_by_users import Owners
from ledgerline.ledger.history import (
    RESOURCES,
    Error,
    Outcome,
    Phase,
    RecordedSpans,
    Run,
    RunHistory,
    RunStatus,
    asset_name,
)
from ledgerline.ledger.materialised import MaterialisationReader
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
RESOURCES_STARTED = DagsterEventType.RESOURCE_INIT_STARTED.value
EXECUTED_AGAIN = "The process of the step was lost, and another process executed the step again."

PAGE = 2000  # records in one query

NO_OWNERS: Owners = {}


class HistoryReader:
    """Builds the history of one run from its event records.

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

    def __init__(self, run: Run, owners: Owners = NO_OWNERS) -> None:
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
            error = error_in(event)
            self._error = (
                error_from(error)
                if error is not None
                else Error(f"dagster.Run{self._status.name.title()}", clean(event.message or ""), "")
            )

    def _on_planned(self, entry: EventLogEntry, event: DagsterEvent) -> None:
        data = data_of(event)
        self._planned.setdefault(asset_name(data.asset_key))
        if data.partition is not None:
            self._planned_partitions.setdefault(data.partition)

    def _on_engine_event(self, entry: EventLogEntry, event: DagsterEvent) -> None:
        metadata = data_of(event).metadata if event.event_specific_data is not None else {}
        if SPANS_METADATA in metadata and event.step_key is not None:
            attempt, encoded = int(metadata[ATTEMPT_METADATA].value), metadata[SPANS_METADATA].value
            self._recorded_spans.append(RecordedSpans(event.step_key, attempt, encoded))
        elif LINKS_METADATA in metadata:
            self._links_reported = True
        elif event.step_key is None and (event.message or "").startswith(RUN_RESUMED):
            self._resumptions.append(entry.timestamp)
        elif event.step_key is not None and event.event_specific_data is not None:
            self._on_engine_event_of_step(event.step_key, entry, event)

    def _on_engine_event_of_step(self, step: str, entry: EventLogEntry, event: DagsterEvent) -> None:
        data = data_of(event)
        if POOL_METADATA in data.metadata and data.error is None:
            pool = data.metadata[POOL_METADATA].value
            self._open(entry, event).waits(entry.timestamp, POOL_WAIT.format(pool))
        elif data.marker_start == QUEUE_MARKER:
            self._open(entry, event).waits(entry.timestamp, QUEUE_WAIT)
        elif data.marker_end == QUEUE_MARKER:
            self._open(entry, event).wait_ended(entry.timestamp)
        elif step in self._latest and getattr(data.error, "cls_name", None) == CRASH_ERROR:
            self._latest[step].cause_of_death = clean(event.message or "")

    # Events of steps

    def _on_step_event(self, entry: EventLogEntry, event: DagsterEvent) -> None:
        _STEP_EVENTS[event.event_type_value](self._open(entry, event), entry.timestamp, event)

    def _on_resources(self, entry: EventLogEntry, event: DagsterEvent) -> None:
        if self._ended is not None:
            return  # A program that reads an output after the end of a run initialises its resources again.
        if event.step_key is not None:
            self._on_step_event(entry, event)
        elif event.event_type_value == RESOURCES_STARTED:
            self._resources_started = entry.timestamp
        elif self._resources_started is not None:
            failed = data_of(event).error is not None
            self._phases.append(Phase(RESOURCES, self._resources_started, entry.timestamp, failed))
            self._resources_started = None

    def _on_step_end(self, entry: EventLogEntry, event: DagsterEvent) -> None:
        known = self._latest.get(event.step_key or "")
        # If Dagster considered its process lost, the process may report its end later.
        if known is None or known.ended is None:
            self._open(entry, event).end(entry.timestamp, event)

    def _on_hook(self, entry: EventLogEntry, event: DagsterEvent) -> None:
        """Add a hook. The hooks of a step are executed one after the other, after the end of the step."""
        attempt = self._latest.get(event.step_key or "")
        if attempt is not None and attempt.ended is not None:
            attempt.hook_ended(entry.timestamp, event)

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
        is_retry = attempt is not None and attempt.outcome is Outcome.RETRY
        if attempt is None or again or (is_retry and event.event_type_value in _ATTEMPT_STARTS):
            number = attempt.number + 1 if attempt is not None else 1
            handle = event.step_handle
            op = str(handle.node_handle) if handle is not None else step.partition("[")[0]
            attempt = OpenAttempt(step, op, number, entry.timestamp, self._materialisations)
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
    for records, _ in pages(instance, run_id):
        reader.feed(records)
    return Upstreams(instance).resolve(reader.history())


def pages(
    instance: dg.DagsterInstance, run_id: str, cursor: str | None = None
) -> Iterator[tuple[Sequence[EventLogRecord], str]]:
    """Yield the records of a run after a cursor, page by page, each with the cursor of its end."""
    has_more = True
    while has_more:
        page = instance.get_records_for_run(run_id, cursor=cursor, limit=PAGE)
        yield page.records, page.cursor
        cursor, has_more = page.cursor, page.has_more


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
_ATTEMPT_STARTS = {
    DagsterEventType.ENGINE_EVENT.value,  # Only those about the wait of a step open an attempt.
    DagsterEventType.STEP_WORKER_STARTING.value,
    DagsterEventType.STEP_WORKER_STARTED.value,
    RESOURCES_STARTED,
    STEP_START,
    DagsterEventType.STEP_RESTARTED.value,
}

_STEP_EVENTS: Mapping[str, Callable[[OpenAttempt, float, DagsterEvent], None]] = {
    DagsterEventType.STEP_WORKER_STARTING.value: OpenAttempt.worker_starting,
    DagsterEventType.STEP_WORKER_STARTED.value: OpenAttempt.worker_started,
    RESOURCES_STARTED: OpenAttempt.resources_started,
    DagsterEventType.RESOURCE_INIT_SUCCESS.value: OpenAttempt.resources_ended,
    DagsterEventType.RESOURCE_INIT_FAILURE.value: OpenAttempt.resources_ended,
    STEP_START: OpenAttempt.begin,
    DagsterEventType.STEP_RESTARTED.value: OpenAttempt.begin,
    DagsterEventType.LOADED_INPUT.value: OpenAttempt.loaded,
    DagsterEventType.STEP_OUTPUT.value: OpenAttempt.computed,
    DagsterEventType.HANDLED_OUTPUT.value: OpenAttempt.stored,
    DagsterEventType.ASSET_MATERIALIZATION.value: OpenAttempt.materialised,
    DagsterEventType.ASSET_OBSERVATION.value: OpenAttempt.observed,
    DagsterEventType.ASSET_CHECK_EVALUATION.value: OpenAttempt.checked,
}

_HANDLERS: Mapping[str, Callable[[HistoryReader, EventLogEntry, DagsterEvent], None]] = {
    **dict.fromkeys(_RUN_TIMES, HistoryReader._on_run_time),
    **dict.fromkeys(_RUN_ENDS, HistoryReader._on_run_end),
    **dict.fromkeys(_STEP_EVENTS, HistoryReader._on_step_event),
    **dict.fromkeys(STEP_ENDS, HistoryReader._on_step_end),
    **dict.fromkeys(HOOK_ENDS, HistoryReader._on_hook),
    RESOURCES_STARTED: HistoryReader._on_resources,
    DagsterEventType.RESOURCE_INIT_SUCCESS.value: HistoryReader._on_resources,
    DagsterEventType.RESOURCE_INIT_FAILURE.value: HistoryReader._on_resources,
    DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value: HistoryReader._on_planned,
    DagsterEventType.ENGINE_EVENT.value: HistoryReader._on_engine_event,
    DagsterEventType.STEP_SKIPPED.value: HistoryReader._on_skipped,
}
