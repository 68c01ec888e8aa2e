"""Frozen records of a Dagster run. event_log.py reads them from the event log.

All times are seconds since the epoch, as in Dagster's event log.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property, lru_cache
from typing import Any

import dagster as dg

from ledgerline.cleaning.texts import clean
from ledgerline.ledger.reads import Read, distinct
from ledgerline.ledger.written import AssetRows, by_asset

# Phases of an attempt. The name of an input or output follows the phase, as does the reason for a wait.
# If other phases interrupt a phase, its parts are numbered from the second on: `compute #2`.
WAIT = "wait"
START_WORKER = "start worker"
RESOURCES = "resources"
LOAD = "load"
COMPUTE = "compute"
STORE = "store"

ATTEMPT_PHASES = (WAIT, START_WORKER, RESOURCES, LOAD, COMPUTE, STORE)
_KINDS = {kind.partition(" ")[0]: kind for kind in ATTEMPT_PHASES}  # by the first word of the phase

# Phases of a run that do not belong to a step.
QUEUED = "queued"
LAUNCH = "launch"

# Dagster gives these names to the job of an asset selection without a named job: from the UI (older versions
# add a number for each partitions definition), from `dg.materialize` and `dg.observe`, and from sensors and
# schedules that target assets.
IMPLICIT_JOB = re.compile(
    r"__ASSET_JOB(_\d+)?|__ephemeral_asset_job__|in_process_observation_job|__anonymous_asset_job.*"
)
NAMED_ASSETS = 3  # maximum number of assets of such a selection in a title
UNKNOWN_ASSETS = "assets"


class RunStatus(Enum):
    """The state of a run."""

    NOT_STARTED = "NOT_STARTED"
    STARTED = "STARTED"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    CANCELED = "CANCELED"


class Outcome(Enum):
    """The state of an attempt at a step."""

    RUNNING = "running"
    SUCCESS = "success"
    FAILURE = "failure"
    RETRY = "retry"  # It failed, and the step will be retried.
    INTERRUPTED = "interrupted"  # The run ended, and the attempt has no end event.


@lru_cache(maxsize=4096)
def asset_name(key: dg.AssetKey) -> str:
    r"""Return an asset key with slashes. A slash within a part becomes `\/`, so no two keys are equal."""
    return clean(key.to_escaped_user_string())


@dataclass(frozen=True)
class Error:
    """An exception. Its `causes` are the exceptions that it was raised from, the nearest first."""

    type: str
    message: str
    stack: str
    causes: tuple["Error", ...] = ()

    @property
    def root(self) -> "Error":
        """The exception that was raised first."""
        return self.causes[-1] if self.causes else self

    @property
    def stacks(self) -> list[str]:
        """The stack trace, and those of the causes, as Python prints them."""
        return [self.stack, *(f"Caused by {each.type}: {each.message}\n{each.stack}" for each in self.causes)]


@dataclass(frozen=True)
class Phase:
    """A part of an attempt, or of a run, with its times."""

    name: str
    started: float
    ended: float
    failed: bool = False

    @property
    def seconds(self) -> float:
        """The duration."""
        return self.ended - self.started

    @property
    def kind(self) -> str:
        """The kind of the phase: its name without a number and the name of an input or output."""
        return _KINDS.get(self.name.partition(" ")[0], self.name)


class HookOutcome(Enum):
    """The ways in which the execution of a hook can end."""

    COMPLETED = "completed"
    SKIPPED = "skipped"  # The hook applies to another outcome of the step.
    ERRORED = "errored"


@dataclass(frozen=True)
class Hook:
    """A hook of an op, executed after an attempt at its step had ended."""

    name: str  # Empty if it failed, because Dagster does not record the name then.
    started: float
    ended: float
    outcome: HookOutcome
    error: Error | None = None

    @property
    def seconds(self) -> float:
        """The duration of the execution."""
        return self.ended - self.started


@dataclass(frozen=True)
class Materialisation:
    """A materialisation of an asset, or of one partition of it.

    Attributes:
        partition: Partition key; None for an asset without partitions.
        rows: Number of rows; None if the metadata has no row count.
        content_sha256: Digest of the content of this partition; None if the metadata has none. Dagster's data
            version is the same for all partitions that one step writes.
        reads: Upstream assets as Dagster recorded them; `Attempt.reads` has them resolved.
        output_rows: Number of rows of the whole output: Dagster repeats the metadata of an output on each of
            its partitions.
        is_of_output: True if Dagster recorded it for the output of a step; False if a step or an I/O manager
            logged it.
        is_of_code: True if the data version is the digest of the code version alone, which is the same for
            every partition and every content.
    """

    asset: str
    partition: str | None
    data_version: str | None
    code_version: str | None
    rows: int | None
    content_sha256: str | None
    schema: dg.TableSchema | None = field(repr=False)
    column_lineage: dg.TableColumnLineage | None = field(repr=False)
    reads: tuple[Read, ...]
    description: str | None
    time: float
    output_rows: int | None = None
    is_of_output: bool = False
    is_of_code: bool = False
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Observation:
    """An observation of an asset, or of one partition of it."""

    asset: str
    partition: str | None
    data_version: str | None
    time: float


@dataclass(frozen=True)
class Check:
    """The result of an asset check, with the numbers in its metadata."""

    name: str
    asset: str
    passed: bool
    severity: str
    description: str | None
    time: float
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Attempt:
    """One attempt at one step.

    Attributes:
        op: Op that the step executes; differs from the step key in graphs and mapped steps.
        number: Number of the attempt, counted from 1.
        started: Time at which Dagster began to start its process, or at which the step started if the process
            already existed.
        ended: Time of its end; None while it runs.
        phases: Phases in order and without gaps; after the end of the attempt they add up to `seconds`.
        hooks: Hooks of the op, which are executed after the end.
        clock_behind: Seconds by which the clock of its process is behind the clock of the parent process, as
            far as the events show; all times here are corrected by it.
        resolved_reads: Upstream versions that were read for each asset that it wrote; None until they are
            resolved.
    """

    step: str
    op: str
    number: int
    started: float
    ended: float | None
    outcome: Outcome
    inputs: tuple[str, ...] = ()
    phases: tuple[Phase, ...] = ()
    hooks: tuple[Hook, ...] = ()
    materialisations: tuple[Materialisation, ...] = ()
    observations: tuple[Observation, ...] = ()
    checks: tuple[Check, ...] = ()
    error: Error | None = None
    pid: int | None = None
    clock_behind: float = 0.0
    resolved_reads: Mapping[str, Sequence[Read]] | None = None

    @cached_property
    def reads(self) -> Sequence[Read]:
        """The upstream assets of the assets that it wrote, each once."""
        if self.resolved_reads is None:
            return distinct(read for written in self.materialisations for read in written.reads)
        assets = dict.fromkeys(written.asset for written in self.materialisations)
        return [read for asset in assets for read in self.resolved_reads.get(asset, ())]

    @property
    def seconds(self) -> float | None:
        """The duration; None while it runs."""
        return None if self.ended is None else self.ended - self.started

    @cached_property
    def written(self) -> Mapping[str, Sequence[Materialisation]]:
        """The last materialisation of each partition, by asset."""
        return by_asset(self.materialisations)

    @property
    def failed(self) -> bool:
        """True if it ended without success."""
        return self.outcome in (Outcome.FAILURE, Outcome.RETRY, Outcome.INTERRUPTED)


@dataclass(frozen=True)
class RecordedSpans:
    """Spans from inside a step, as it wrote them to the event log (step_spans.py decodes them)."""

    step: str
    attempt: int
    encoded: Sequence[Mapping[str, Any]] = field(repr=False)


@dataclass(frozen=True)
class Run:
    """The facts about a run that are known before it starts.

    Attributes:
        tags: Tags without secrets.
        config: Run config without secrets.
        root_run_id: Id of the first run of which this is a re-execution.
        parent_run_id: Id of the run of which this is a direct re-execution.
        selection: Selected assets and checks; empty for a whole job.
    """

    run_id: str
    job: str
    created: float
    tags: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    root_run_id: str | None = None
    parent_run_id: str | None = None
    selection: tuple[str, ...] = ()

    @property
    def partition(self) -> str | None:
        """The partition key, `first...last` for a range; None for a run without partitions."""
        first, last = self.partition_range
        return first if first == last else f"{first}...{last}"

    @property
    def partition_range(self) -> tuple[str | None, str | None]:
        """The first and the last partition; equal for one partition, and None without partitions."""
        one = self.tags.get("dagster/partition")
        if one is not None:
            return one, one
        return (
            self.tags.get("dagster/asset_partition_range_start"),
            self.tags.get("dagster/asset_partition_range_end"),
        )

    @property
    def backfill_id(self) -> str | None:
        """The backfill that it is part of."""
        return self.tags.get("dagster/backfill")

    @property
    def schedule(self) -> str | None:
        """The schedule that launched it."""
        return self.tags.get("dagster/schedule_name")

    @property
    def sensor(self) -> str | None:
        """The sensor that launched it."""
        return self.tags.get("dagster/sensor_name")

    @property
    def code_location(self) -> str | None:
        """The code location of the job."""
        return self.tags.get("dagster/code_location")

    @property
    def traceparent(self) -> str | None:
        """The W3C trace context of the caller that launched it."""
        return self.tags.get("traceparent")


@dataclass(frozen=True)
class RunHistory:
    """The history of a run up to now.

    Attributes:
        enqueued: Time at which it entered the queue; None without a queue.
        dequeued: Time at which it left the queue.
        started: Time at which its process started.
        ended: Time of its end; None while it is in progress.
        attempts: Attempts in the order of their start. After the end of the run, an attempt without an end
            event is INTERRUPTED and ends with the run.
        planned: Assets that it plans to materialise.
        planned_partitions: Partitions that it plans to materialise, of all assets together.
        phases: Phases that do not belong to a step, such as the resources that all steps share.
        links_reported: True if the event log contains the links to the trace and to the MLflow run.
        resumptions: Times at which run monitoring resumed the run after its process had died.
        owners: Known owners of assets, by asset name.
    """

    run: Run
    status: RunStatus = RunStatus.NOT_STARTED
    enqueued: float | None = None
    dequeued: float | None = None
    started: float | None = None
    ended: float | None = None
    attempts: tuple[Attempt, ...] = ()
    skipped: tuple[str, ...] = ()
    planned: tuple[str, ...] = ()
    planned_partitions: tuple[str, ...] = field(default=(), repr=False)
    phases: tuple[Phase, ...] = ()
    error: Error | None = None
    recorded_spans: tuple[RecordedSpans, ...] = ()
    links_reported: bool = False
    resumptions: tuple[float, ...] = ()
    owners: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """A title for users: the job, or the assets if the run has no named job, and the partition."""
        name = self.run.job
        if IMPLICIT_JOB.fullmatch(name):
            # Dagster does not plan assets that are only observed or checked.
            steps = tuple(dict.fromkeys(attempt.step for attempt in self.attempts))
            assets = self.planned or self.run.selection or steps or (UNKNOWN_ASSETS,)
            more = len(assets) - NAMED_ASSETS
            name = ", ".join(assets[:NAMED_ASSETS]) + (f" and {more} more" if more > 0 else "")
        return f"{name} {self.run.partition}" if self.run.partition else name

    @property
    def finished(self) -> bool:
        """True if the run has ended."""
        return self.ended is not None

    def error_of(self, attempt: Attempt) -> Error | None:
        """Return the error of an attempt; None for an attempt that did not fail.

        An attempt that was interrupted by the end of the run has no error event. Its error is made from that
        of the run.
        """
        if not attempt.failed:
            return None
        if attempt.error is not None:
            return attempt.error
        if attempt.outcome is Outcome.INTERRUPTED:
            reason = self.error.message if self.error is not None else ""
            message = f"The run ended before this step did. {reason}".strip()
            return Error("dagster.StepInterrupted", message, "")
        return Error("dagster.StepFailure", "", "")

    def ended_since(self, before: "RunHistory | None") -> Sequence[Attempt]:
        """Return the attempts that ended, or changed after their end, since an earlier history of the run."""
        known = before.attempts if before is not None else ()
        return [
            attempt
            for index, attempt in enumerate(self.attempts)
            if attempt.ended is not None and (index >= len(known) or attempt != known[index])
        ]

    @cached_property
    def materialisations(self) -> Sequence[Materialisation]:
        """The materialisations of all attempts, in order."""
        return [written for attempt in self.attempts for written in attempt.materialisations]

    @cached_property
    def written(self) -> Mapping[str, AssetRows]:
        """The rows and partitions of each asset that the ended attempts have written."""
        left: dict[str, AssetRows] = {}
        for attempt in self.ended_in_order:
            for asset, parts in attempt.written.items():
                left.setdefault(asset, AssetRows()).add(attempt.step, parts)
        return left

    @property
    def ended_in_order(self) -> Sequence[Attempt]:
        """The attempts that have ended, in the order of their end."""
        ended = [attempt for attempt in self.attempts if attempt.ended is not None]
        return sorted(ended, key=lambda attempt: attempt.ended or 0.0)

    @property
    def waits(self) -> Sequence[Phase]:
        """The phases before the run started: in the queue, and during the launch."""
        # Without a queue, the launch begins with the creation of the run.
        launched = self.dequeued or self.run.created
        return [
            Phase(name, started, ended)
            for name, started, ended in [
                (QUEUED, self.enqueued, self.dequeued),
                (LAUNCH, launched, self.started),
            ]
            if started is not None and ended is not None and ended >= started
        ]
