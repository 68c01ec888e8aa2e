"""Computes MLflow metrics from a RunHistory: durations, rows and checks. projection.py writes them.

The same history always results in the same points, and MLflow stores equal points once. Writing them again
therefore changes nothing.
"""

import hashlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ledgerline.ledger.given_by_users import numbers_by_name
from ledgerline.ledger.history import (
    COMPUTE,
    LOAD,
    RESOURCES,
    START_WORKER,
    STORE,
    WAIT,
    Attempt,
    HookOutcome,
    RunHistory,
)
from ledgerline.ledger.written import AssetRows

if TYPE_CHECKING:
    from mlflow.entities import Metric

RUN_SECONDS = "run_seconds"
WAIT_SECONDS = "{wait}_seconds"
STEP_SECONDS = "step_seconds"
PHASE_SECONDS = {
    WAIT: "wait_seconds",
    START_WORKER: "start_seconds",
    RESOURCES: "resource_seconds",
    LOAD: "load_seconds",
    COMPUTE: "compute_seconds",
    STORE: "store_seconds",
}
HOOK_SECONDS = "hook_seconds"
HOOKS_FAILED = "hooks_failed"
ROWS = "rows"
METADATA = "metadata"
CHECK_METADATA = "check_metadata"
CHECKS_PASSED = "checks_passed"
CHECKS_FAILED = "checks_failed"

DIGITS = 6  # the precision of Dagster's times

OF_THE_RUN = 0  # the step of a run's metrics; metrics of an attempt have its number as step

MAX_METADATA_POINTS = 1000  # limit for a run: numbers in the metadata of assets and checks

MAX_NAME_LENGTH = 250  # MAX_ENTITY_KEY_LENGTH in mlflow/utils/validation.py
HASH_LENGTH = 8

MAPPED = re.compile(r"\[(\w+)\]")
NOT_IN_NAMES = re.compile(r"[^\w./: -]")
NOT_IN_PATHS = re.compile(r"(?<![^/])(\.{0,2})(?=/|$)")  # It finds empty parts, `.` and `..` in a name.


def entity_name(name: str) -> str:
    """Return a unique name that MLflow accepts for a metric or a param.

    A mapped step `op[2]` becomes `op:2`. In other names, characters that MLflow refuses become `_`, and a
    hash of the whole name is appended.
    """
    readable = MAPPED.sub(r":\1", name)
    allowed = NOT_IN_PATHS.sub(r"_\1", NOT_IN_NAMES.sub("_", readable))
    if allowed == readable and ":" not in name and len(allowed) <= MAX_NAME_LENGTH:
        return allowed
    digest = hashlib.sha256(name.encode()).hexdigest()[:HASH_LENGTH]
    return f"{allowed[: MAX_NAME_LENGTH - HASH_LENGTH - 1]}-{digest}"


def run_metrics(now: RunHistory, before: RunHistory | None) -> "Iterator[Metric]":
    """Yield the metrics of the run and of ended attempts that are new since an earlier history, if any."""
    if before is None or before.waits != now.waits:
        for wait in now.waits:
            yield _metric(WAIT_SECONDS.format(wait=wait.name), wait.seconds, wait.ended)
    ended = now.ended_since(before)
    for attempt in ended:
        yield from _of_attempt(attempt)
    new = {id(attempt) for attempt in ended}
    yield from _of_rows(now, new)
    yield from _of_metadata(now, new)
    if now.ended is not None:
        yield _metric(RUN_SECONDS, now.ended - (now.started or now.run.created), now.ended)
        passed = [check.passed for attempt in now.attempts for check in attempt.checks]
        if passed:
            yield _metric(CHECKS_PASSED, sum(passed), now.ended)
            yield _metric(CHECKS_FAILED, len(passed) - sum(passed), now.ended)
        hooks = [hook for attempt in now.attempts for hook in attempt.hooks]
        if any(hook.outcome is not HookOutcome.SKIPPED for hook in hooks):
            failed = sum(hook.outcome is HookOutcome.ERRORED for hook in hooks)
            yield _metric(HOOKS_FAILED, failed, now.ended)


def _of_attempt(attempt: Attempt) -> "Iterator[Metric]":
    ended = attempt.ended or attempt.started
    yield _metric(f"{STEP_SECONDS}/{attempt.step}", ended - attempt.started, ended, attempt.number)
    phases: dict[str, float] = {}
    for phase in attempt.phases:
        phases[phase.kind] = phases.get(phase.kind, 0.0) + phase.seconds
    for kind, name in PHASE_SECONDS.items():
        if kind in phases:
            yield _metric(f"{name}/{attempt.step}", phases[kind], ended, attempt.number)
    executed = [hook for hook in attempt.hooks if hook.outcome is not HookOutcome.SKIPPED]
    if executed:
        seconds = sum(hook.seconds for hook in executed)
        yield _metric(f"{HOOK_SECONDS}/{attempt.step}", seconds, executed[-1].ended, attempt.number)


def _of_rows(now: RunHistory, new: set[int]) -> "Iterator[Metric]":
    """Yield, for each new attempt that wrote an asset, the asset's row count at the end of the attempt."""
    so_far: dict[str, AssetRows] = {}
    numbers: dict[str, int] = {}
    for attempt in now.ended_in_order:
        for asset, parts in attempt.written.items():
            rows = so_far.setdefault(asset, AssetRows())
            rows.add(attempt.step, parts)
            # MLflow shows the point with the highest step as the value, so the step must not decrease.
            numbers[asset] = max(attempt.number, numbers.get(asset, 0))
            if id(attempt) in new and rows.total is not None:
                ended = attempt.ended or attempt.started
                yield _metric(f"{ROWS}/{asset}", rows.total, ended, numbers[asset])


def _of_metadata(now: RunHistory, new: set[int]) -> "Iterator[Metric]":
    """Yield the numbers in the metadata of assets and checks, up to the limit for a run."""
    points = 0
    for attempt in now.ended_in_order:
        for point in _numbers_of(attempt):
            points += 1
            if points > MAX_METADATA_POINTS:
                return
            if id(attempt) in new:
                yield point


def _numbers_of(attempt: Attempt) -> "Iterator[Metric]":
    for asset, parts in attempt.written.items():
        for name, given in numbers_by_name(parts):
            # If the numbers of partitions differ, each becomes a point of the metric.
            for position, (part, number) in enumerate(given, start=attempt.number):
                yield _given(f"{METADATA}/{asset}/{_part(name)}", number, part.time, position)
    for check in attempt.checks:
        for name, number in check.numbers.items():
            check_name = f"{CHECK_METADATA}/{check.asset}/{_part(check.name)}/{_part(name)}"
            yield _given(check_name, number, check.time, attempt.number)


def _part(name: str) -> str:
    """Escape a name that becomes a part of a longer name, as `asset_name` escapes the parts of keys."""
    return name.replace("\\", "\\\\").replace("/", "\\/")


def _given(name: str, number: float, time: float, step: int) -> "Metric":
    """Return a metric for a number in the metadata, without rounding it."""
    from mlflow.entities import Metric

    return Metric(entity_name(name), float(number), milliseconds(time), step)


def _metric(name: str, value: float, time: float, step: int = OF_THE_RUN) -> "Metric":
    from mlflow.entities import Metric

    return Metric(entity_name(name), round(float(value), DIGITS), milliseconds(time), step)


def milliseconds(time: float) -> int:
    """Return seconds since the epoch as the milliseconds of MLflow."""
    return int(time * 1000)
