"""Histories of runs whose events are given times, and their phases and metrics."""

from collections.abc import Callable, Mapping
from itertools import accumulate

import dagster as dg
from dagster import DagsterEventType as Event

from ledgerline.ledger.history import Attempt, RunHistory
from ledgerline.mlflow_runs.metrics import run_metrics
from ledgerline.testing.recordings import Recording
from tests.observability import phase_jobs as jobs

ROUNDING = 1e-5  # seconds: times are floats since 1970, and are added up


# The time before an event: the step, which of its events, and which of that kind.
Gaps = Mapping[tuple[str, Event, int], float]


def executed(job: Callable[..., dg.JobDefinition]) -> Callable[[dg.DagsterInstance], str]:
    return lambda instance: dg.execute_job(dg.reconstructable(job), instance).run_id


def of_assets(instance: dg.DagsterInstance) -> str:
    return dg.materialize([jobs.movements, jobs.seats], instance=instance).run_id


def waiting_for_a_pool(instance: dg.DagsterInstance) -> str:
    """Execute a run whose pool is occupied by another one."""
    storage = instance.event_log_storage
    storage.set_concurrency_slots(jobs.POOL, 1)
    assert storage.claim_concurrency_slot(jobs.POOL, jobs.OTHER_RUN, jobs.OTHER_STEP).is_claimed
    return executed(jobs.querying)(instance)


TIMED_RUNS = {
    "outputs": executed(jobs.outputs),
    "io": executed(jobs.io_failures),
    "assets": of_assets,
    "dying": executed(jobs.dying),
    "hooks": executed(jobs.hooked),
    "pool": waiting_for_a_pool,
}


def with_gaps(recording: Recording, gaps: Gaps) -> RunHistory:
    """The history of a run in which time only passes before the events that are named."""
    left, seen, seconds = dict(gaps), dict[tuple[str, Event], int](), []
    for record in recording.records:
        entry = record.event_log_entry
        gap = 0.0
        if entry.dagster_event is not None and entry.step_key is not None:
            kind = entry.step_key, entry.dagster_event.event_type
            seen[kind] = seen.get(kind, 0) + 1
            gap = left.pop((*kind, seen[kind]), 0.0)
        seconds.append(gap)
    assert not left, f"{left} are not in {list(seen)}"
    return with_times(recording, seconds)


def with_times(recording: Recording, seconds: list[float]) -> RunHistory:
    """The history of a run with other seconds between its events."""
    start = recording.records[0].timestamp
    return recording.history_of(
        [
            record._replace(event_log_entry=record.event_log_entry._replace(timestamp=start + time))
            for record, time in zip(recording.records, accumulate(seconds), strict=True)
        ]
    )


def lengths(attempt: Attempt) -> list[tuple[str, float]]:
    """Return an attempt's phases that take time, in order."""
    return [(phase.name, round(phase.seconds, 4)) for phase in attempt.phases if phase.seconds > ROUNDING]


def metrics(history: RunHistory) -> dict[str, float]:
    return {metric.key: metric.value for metric in run_metrics(history, None)}
