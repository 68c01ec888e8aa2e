"""The ids of traces and spans, made from Dagster's own ids. Which spans there are: spans.py.

A run id is a UUID, so it is a trace id as it stands; the id of a span is a hash of what the span is about.
Any process that knows which step it is in knows the ids, and whoever projects a run twice writes the same.
"""

from hashlib import blake2b
from uuid import UUID

# The names of a Dagster run's id beside spans, where it is `dagster.run.id`. As one name they would not find
# what users have stored already.
RUN_ID_TAG = "dagster.run_id"  # of runs and model versions in MLflow; a key in evidence and alerts
RUN_ID_FIELD = "dagster_run_id"  # in OpenLineage's facet and the sources of MLflow's datasets

TRACE_ID_BYTES = 16
SPAN_ID_BYTES = 8

# What OpenTelemetry may rely on to be random in a trace id (W3C Trace Context Level 2, "random-trace-id").
RANDOM_BITS = 56


def trace_id(run_id: str) -> int:
    """The trace of a Dagster run: its run id, where that is a UUID, as it is unless somebody chose it."""
    try:
        return UUID(run_id).int or _hashed("run", run_id, size=TRACE_ID_BYTES)
    except ValueError:
        return _hashed("run", run_id, size=TRACE_ID_BYTES)


def backfill_trace_id(backfill_id: str) -> int:
    """The trace of a backfill, which has a span for each of its runs."""
    return _hashed("backfill", backfill_id, size=TRACE_ID_BYTES)


def run_span_id(run_id: str) -> int:
    """The root span of a run's trace."""
    return _hashed("run", run_id, size=SPAN_ID_BYTES)


def run_phase_span_id(run_id: str, phase: str) -> int:
    """A part of a run that belongs to no step: waiting in the queue, launching."""
    return _hashed("run phase", run_id, phase, size=SPAN_ID_BYTES)


def attempt_span_id(run_id: str, step_key: str, attempt: int) -> int:
    """One attempt, counted from 1, at one step."""
    return _hashed("attempt", run_id, step_key, str(attempt), size=SPAN_ID_BYTES)


def phase_span_id(run_id: str, step_key: str, attempt: int, phase: str) -> int:
    """A phase of an attempt; what a step traces itself has its `compute` as parent."""
    return _hashed("phase", run_id, step_key, str(attempt), phase, size=SPAN_ID_BYTES)


def hook_span_id(run_id: str, step_key: str, attempt: int, number: int) -> int:
    """Return the span id of a hook, counted from 1, that was executed after an attempt."""
    return _hashed("hook", run_id, step_key, str(attempt), str(number), size=SPAN_ID_BYTES)


def backfill_span_id(backfill_id: str) -> int:
    """The root span of a backfill's trace."""
    return _hashed("backfill", backfill_id, size=SPAN_ID_BYTES)


def backfill_run_span_id(backfill_id: str, run_id: str) -> int:
    """The span of one run in the trace of its backfill."""
    return _hashed("backfill run", backfill_id, run_id, size=SPAN_ID_BYTES)


def is_sampled(trace: int, ratio: float) -> bool:
    """Whether a trace is among the share of all traces that is kept; the same answer everywhere.

    Decided by the low 56 bits. OpenTelemetry's TraceIdRatioBased looks at the low 64, which in a UUID start
    with its fixed variant bits: it keeps nothing below a ratio of one half, and everything above three
    quarters.
    """
    return trace & ((1 << RANDOM_BITS) - 1) >= (1 - ratio) * (1 << RANDOM_BITS)


def _hashed(*parts: str, size: int) -> int:
    digest = blake2b("\0".join(parts).encode(), digest_size=size).digest()
    return int.from_bytes(digest, "big") or 1  # zero is no id
