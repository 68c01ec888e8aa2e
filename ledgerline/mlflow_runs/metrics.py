"""RunHistory -> MLflow metrics: where the time went, rows and checks. Who writes them: projection.py.

The same history gives the same points, to the millisecond and the last digit, and MLflow keeps equal points
once: writing them again changes nothing.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
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

DIGITS = 6  # Dagster's clock has no more

OF_THE_RUN = 0  # the step of metrics that belong to no attempt; those count from 1

MAX_METADATA_POINTS = 1000  # of a run: the numbers that people gave assets and checks

MAX_NAME_LENGTH = 250  # MAX_ENTITY_KEY_LENGTH in mlflow/utils/validation.py
HASH_LENGTH = 8

MAPPED = re.compile(r"\[(\w+)\]")
NOT_IN_NAMES = re.compile(r"[^\w./: -]")
NOT_IN_PATHS = re.compile(r"(?<![^/])(\.{0,2})(?=/|$)")  # empty parts, `.` and `..`


def entity_name(name: str) -> str:
    """A name that MLflow takes for a metric or a param, and no two names the same.

    A mapped step `op[2]` becomes `op:2`. Of other names that MLflow refuses, what it refuses is replaced by
    `_`, and a hash of the whole is appended.
    """
    readable = MAPPED.sub(r":\1", name)
    allowed = NOT_IN_PATHS.sub(r"_\1", NOT_IN_NAMES.sub("_", readable))
    if allowed == readable and ":" not in name and len(allowed) <= MAX_NAME_LENGTH:
        return allowed
    digest = hashlib.sha256(name.encode()).hexdigest()[:HASH_LENGTH]
    return f"{allowed[: MAX_NAME_LENGTH - HASH_LENGTH - 1]}-{digest}"


def run_metrics(now: RunHistory, before: RunHistory | None) -> "Iterator[Metric]":
    """What became known of the run as a whole, and of the attempts that have ended, since an earlier history.

    Args:
        now: What the run has done.
        before: What it had done when its metrics were last written; None for all.
    """
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
        yield from _of_checks(now, now.ended)
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
    """Yield the rows that each asset had when a new attempt that wrote it had ended."""
    so_far: dict[str, AssetRows] = {}
    numbers: dict[str, int] = {}
    for attempt in now.ended_in_order:
        for asset, parts in attempt.written.items():
            rows = so_far.setdefault(asset, AssetRows())
            rows.add(attempt.step, parts)
            # MLflow shows the latest of the points with equal steps as the value: the step must not go back.
            numbers[asset] = max(attempt.number, numbers.get(asset, 0))
            if id(attempt) in new and rows.total is not None:
                ended = attempt.ended or attempt.started
                yield _metric(f"{ROWS}/{asset}", rows.total, ended, numbers[asset])


def _of_metadata(now: RunHistory, new: set[int]) -> "Iterator[Metric]":
    """Yield the numbers that users gave assets and checks, up to the limit of a run."""
    said = 0
    for attempt in now.ended_in_order:
        for point in _numbers_of(attempt):
            said += 1
            if said > MAX_METADATA_POINTS:
                return
            if id(attempt) in new:
                yield point


def _numbers_of(attempt: Attempt) -> "Iterator[Metric]":
    for asset, parts in attempt.written.items():
        for name, given in numbers_by_name(parts):
            # If the numbers of partitions differ, each is a point.
            for position, (part, number) in enumerate(given, start=attempt.number):
                yield _given(f"{METADATA}/{asset}/{_part(name)}", number, part.time, position)
    for check in attempt.checks:
        for name, number in check.numbers.items():
            check_name = f"{CHECK_METADATA}/{check.asset}/{_part(check.name)}/{_part(name)}"
            yield _given(check_name, number, check.time, attempt.number)


def _part(name: str) -> str:
    """Return a name as one part of a longer one, as `asset_name` writes the parts of keys."""
    return name.replace("\\", "\\\\").replace("/", "\\/")


def _given(name: str, number: float, time: float, step: int) -> "Metric":
    """Return a metric of a number that a user gave, which is not rounded."""
    from mlflow.entities import Metric

    return Metric(entity_name(name), float(number), milliseconds(time), step)


def _of_checks(now: RunHistory, ended: float) -> "Iterator[Metric]":
    verdicts: Sequence[bool] = [check.passed for attempt in now.attempts for check in attempt.checks]
    if verdicts:
        yield _metric(CHECKS_PASSED, sum(verdicts), ended)
        yield _metric(CHECKS_FAILED, len(verdicts) - sum(verdicts), ended)


def _metric(name: str, value: float, time: float, step: int = OF_THE_RUN) -> "Metric":
    from mlflow.entities import Metric

    return Metric(entity_name(name), round(float(value), DIGITS), milliseconds(time), step)


def milliseconds(time: float) -> int:
    """Seconds since the epoch as MLflow counts them."""
    return int(time * 1000)
