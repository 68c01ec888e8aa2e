"""Derives the ids of traces and spans from Dagster's ids. traces/spans.py creates the spans.

A run id is a UUID and serves as the trace id. The id of a span is a hash of the facts that identify it, such
as run, step and attempt. Every process in a step can therefore compute the ids, and projecting a run twice
writes the same spans.
"""

from hashlib import blake2b
from uuid import UUID

# The id of a Dagster run has three names: the span attribute `dagster.run.id` by the naming rules of
# OpenTelemetry, and these two. Data that users have stored already depends on all three.
RUN_ID_ATTRIBUTE = "dagster.run.id"  # on spans
RUN_ID_TAG = "dagster.run_id"  # on runs and model versions in MLflow, and as a key in evidence and alerts
RUN_ID_FIELD = "dagster_run_id"  # in OpenLineage's facet and the sources of MLflow's datasets

TRACE_ID_BYTES = 16
SPAN_ID_BYTES = 8

# The number of bits of a trace id that must be random (W3C Trace Context Level 2, "random-trace-id").
RANDOM_BITS = 56


def trace_id(run_id: str) -> int:
    """Return the trace id of a Dagster run: the run id if it is a UUID, else a hash of it."""
    try:
        return UUID(run_id).int or _hashed("run", run_id, size=TRACE_ID_BYTES)
    except ValueError:
        return _hashed("run", run_id, size=TRACE_ID_BYTES)


def backfill_trace_id(backfill_id: str) -> int:
    """Return the trace id of a backfill, whose trace has a span for each of its runs."""
    return _hashed("backfill", backfill_id, size=TRACE_ID_BYTES)


def run_span_id(run_id: str) -> int:
    """Return the id of the root span of a run's trace."""
    return _hashed("run", run_id, size=SPAN_ID_BYTES)


def run_phase_span_id(run_id: str, phase: str) -> int:
    """Return the span id of a phase that belongs to no step, such as the wait in the queue."""
    return _hashed("run phase", run_id, phase, size=SPAN_ID_BYTES)


def attempt_span_id(run_id: str, step_key: str, attempt: int) -> int:
    """Return the span id of an attempt at a step; attempts are counted from 1."""
    return _hashed("attempt", run_id, step_key, str(attempt), size=SPAN_ID_BYTES)


def phase_span_id(run_id: str, step_key: str, attempt: int, phase: str) -> int:
    """Return the span id of a phase of an attempt. `compute` is the parent of spans from inside the step."""
    return _hashed("phase", run_id, step_key, str(attempt), phase, size=SPAN_ID_BYTES)


def hook_span_id(run_id: str, step_key: str, attempt: int, number: int) -> int:
    """Return the span id of a hook, counted from 1, that was executed after an attempt."""
    return _hashed("hook", run_id, step_key, str(attempt), str(number), size=SPAN_ID_BYTES)


def backfill_span_id(backfill_id: str) -> int:
    """Return the id of the root span of a backfill's trace."""
    return _hashed("backfill", backfill_id, size=SPAN_ID_BYTES)


def backfill_run_span_id(backfill_id: str, run_id: str) -> int:
    """Return the id of the span of a run in the trace of its backfill."""
    return _hashed("backfill run", backfill_id, run_id, size=SPAN_ID_BYTES)


def is_sampled(trace: int, ratio: float) -> bool:
    """Return whether a trace is sampled; all processes come to the same result.

    The low 56 bits of the trace id decide. OpenTelemetry's TraceIdRatioBased uses the low 64 bits, which in a
    UUID begin with the fixed variant bits: it would sample nothing below a ratio of one half, and everything
    above three quarters.
    """
    return trace & ((1 << RANDOM_BITS) - 1) >= (1 - ratio) * (1 << RANDOM_BITS)


def _hashed(*parts: str, size: int) -> int:
    digest = blake2b("\0".join(parts).encode(), digest_size=size).digest()
    return int.from_bytes(digest, "big") or 1  # Zero is not a valid id.
