"""What a Dagster run did, as frozen records. How they are read from the event log: event_log.py.

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

# Phases of an attempt; those of an input or an output are followed by its name, a wait by what it is for.
# A phase of several parts, with others in between, is numbered from the second part on: `compute #2`.
WAIT = "wait"
START_WORKER = "start worker"
RESOURCES = "resources"
LOAD = "load"
COMPUTE = "compute"
STORE = "store"

ATTEMPT_PHASES = (WAIT, START_WORKER, RESOURCES, LOAD, COMPUTE, STORE)
_KINDS = {kind.partition(" ")[0]: kind for kind in ATTEMPT_PHASES}  # by their first word

# Phases of a run that belong to no step.
QUEUED = "queued"
LAUNCH = "launch"

# Dagster gives these names to the job of a selection of assets that no job names: from the UI, in older
# versions with a number for each set of partitions; from `dg.materialize` and `dg.observe`; from sensors and
# schedules that target assets.
IMPLICIT_JOB = re.compile(
    r"__ASSET_JOB(_\d+)?|__ephemeral_asset_job__|in_process_observation_job|__anonymous_asset_job.*"
)
NAMED_ASSETS = 3  # of such a selection, in a title
UNKNOWN_ASSETS = "assets"


class RunStatus(Enum):
    """How far a run has come."""

    NOT_STARTED = "NOT_STARTED"
    STARTED = "STARTED"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    CANCELED = "CANCELED"


class Outcome(Enum):
    """How an attempt at a step ended."""

    RUNNING = "running"
    SUCCESS = "success"
    FAILURE = "failure"
    RETRY = "retry"  # it failed, and is to be tried again
    INTERRUPTED = "interrupted"  # the run ended and the step never said how


@lru_cache(maxsize=4096)
def asset_name(key: dg.AssetKey) -> str:
    r"""Return an asset's key with slashes, which no other key has: a slash within a part is written `\/`."""
    return clean(key.to_escaped_user_string())


@dataclass(frozen=True)
class Error:
    """An exception; `causes` are those it was raised from, the nearest first."""

    type: str
    message: str
    stack: str
    causes: tuple["Error", ...] = ()

    @property
    def root(self) -> "Error":
        """What went wrong first."""
        return self.causes[-1] if self.causes else self


@dataclass(frozen=True)
class Phase:
    """A part of an attempt, or of a run, with its times."""

    name: str
    started: float
    ended: float
    failed: bool = False

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.started

    @property
    def kind(self) -> str:
        """The kind of the phase: its name without a number and the name of an input or output."""
        return _KINDS.get(self.name.partition(" ")[0], self.name)


class HookOutcome(Enum):
    """The ways in which the execution of a hook can end."""

    COMPLETED = "completed"
    SKIPPED = "skipped"  # the step did not end as the hook wants it
    ERRORED = "errored"


@dataclass(frozen=True)
class Hook:
    """A hook of an op, executed after an attempt at its step had ended.

    Attributes:
        name: Empty where it failed: Dagster does not say which one did.
        error: Why it failed, which fails neither the step nor the run.
    """

    name: str
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
    """One asset, or one partition of it, written.

    Attributes:
        asset: Its name (`asset_name`).
        partition: Its partition key, if it has partitions.
        rows: How many it holds, where the asset says so.
        content_sha256: Digest of this partition's own content, where the asset says so: Dagster gives all
            partitions that one step writes the same data version.
        schema: Its columns.
        column_lineage: For each column, those it was made from.
        reads: The upstream assets that it was made from, as Dagster recorded it; `Attempt.reads` has what is
            known besides.
        time: When it was recorded.
        output_rows: How many the output holds of which this is a partition: Dagster repeats an output's
            metadata on each of its partitions.
        is_of_output: Whether Dagster made it of what a step returned; the others are logged by steps and I/O
            managers.
        is_of_code: Whether its version is the digest of its code version alone: every partition has the same,
            whatever is written.
        numbers: Those among its metadata, by name.
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
    """An asset looked at, not written."""

    asset: str
    partition: str | None
    data_version: str | None
    time: float


@dataclass(frozen=True)
class Check:
    """The verdict of an asset check, with the numbers among its metadata."""

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
        step: The step's key.
        op: The op it executes; differs from the step's key in graphs and mapped steps.
        number: 1 for the first.
        started: When its process was started, or it itself, if it has none of its own.
        ended: None while it runs.
        inputs: The inputs that were loaded.
        phases: In order, without a gap: once it has ended, they add up to its seconds.
        hooks: Those of its op, which are executed after it has ended.
        looked_up: What was read for each asset that it wrote, with what was found of it; None before that.
        error: Why it failed.
        pid: The process it ran in.
        clock_behind: Seconds by which that process's clock lags behind that of the process that started it,
            as far as can be told; all times here are corrected by it.
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
    looked_up: Mapping[str, Sequence[Read]] | None = None

    @cached_property
    def reads(self) -> Sequence[Read]:
        """The upstream assets that it made its own from, each once."""
        if self.looked_up is None:
            return distinct(read for written in self.materialisations for read in written.reads)
        assets = dict.fromkeys(written.asset for written in self.materialisations)
        return [read for asset in assets for read in self.looked_up.get(asset, ())]

    @property
    def seconds(self) -> float | None:
        """How long it took; None while it runs."""
        return None if self.ended is None else self.ended - self.started

    @cached_property
    def written(self) -> Mapping[str, Sequence[Materialisation]]:
        """The materialisations that the attempt wrote, by asset: the last one of each partition."""
        return by_asset(self.materialisations)

    @property
    def failed(self) -> bool:
        """Whether it ended without success."""
        return self.outcome in (Outcome.FAILURE, Outcome.RETRY, Outcome.INTERRUPTED)

    def seconds_in(self, phase: str) -> float:
        """Time in phases of a kind: LOAD counts every input, STORE every output."""
        return sum(part.seconds for part in self.phases if part.kind == phase)


@dataclass(frozen=True)
class RecordedSpans:
    """Spans that a step traced itself, as it wrote them into the event log (step_spans.py reads them)."""

    step: str
    attempt: int
    encoded: Sequence[Mapping[str, Any]] = field(repr=False)


@dataclass(frozen=True)
class Run:
    """The facts about a run that are known before it starts.

    Attributes:
        selection: The assets and checks that were selected, if not a whole job.
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
        """Its partition; `first...last` for a range; None without."""
        first, last = self.partition_range
        if first == last:
            return first
        return f"{first}...{last}"

    @property
    def partition_range(self) -> tuple[str | None, str | None]:
        """Its first and last partition; the same twice for one, None twice without."""
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
        """Where its code comes from."""
        return self.tags.get("dagster/code_location")

    @property
    def traceparent(self) -> str | None:
        """The W3C trace context of whoever launched it."""
        return self.tags.get("traceparent")


@dataclass(frozen=True)
class RunHistory:
    """What a run has done so far.

    Attributes:
        run: What was known before.
        status: How far it has come.
        enqueued: When it entered the queue, if there is one.
        dequeued: When it left the queue.
        started: When its first step could start.
        ended: None while it goes on.
        attempts: In the order in which they started. Once the run has ended, those that never said how they
            ended are INTERRUPTED at its end.
        skipped: Steps that were skipped.
        planned: Assets that it set out to write.
        planned_partitions: And which partitions, of all of them together.
        phases: Those that belong to no step: resources that all steps share.
        error: Why it failed.
        recorded_spans: What its steps traced themselves.
        links_reported: Whether the event log has the links to trace and MLflow run.
        resumptions: When its process was found dead, and another one was to go on with it.
        owners: Those of assets, by name, as far as they are known.
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
        """What a person calls it: its job, or the assets of a run without one; and its partition."""
        name = self.run.job
        if IMPLICIT_JOB.fullmatch(name):
            # Assets that are only observed or checked are not planned.
            steps = tuple(dict.fromkeys(attempt.step for attempt in self.attempts))
            assets = self.planned or self.run.selection or steps or (UNKNOWN_ASSETS,)
            more = len(assets) - NAMED_ASSETS
            name = ", ".join(assets[:NAMED_ASSETS]) + (f" and {more} more" if more > 0 else "")
        return f"{name} {self.run.partition}" if self.run.partition else name

    @property
    def finished(self) -> bool:
        """Whether the run has ended."""
        return self.ended is not None

    def ended_since(self, before: "RunHistory | None") -> Sequence[Attempt]:
        """The attempts that have ended, or changed after they had, since an earlier history of the run."""
        known = before.attempts if before is not None else ()
        return [
            attempt
            for index, attempt in enumerate(self.attempts)
            if attempt.ended is not None and (index >= len(known) or attempt != known[index])
        ]

    @cached_property
    def materialisations(self) -> Sequence[Materialisation]:
        """Of all attempts, in order."""
        return [written for attempt in self.attempts for written in attempt.materialisations]

    @cached_property
    def written(self) -> Mapping[str, AssetRows]:
        """The state in which the attempts that have ended left each asset."""
        left: dict[str, AssetRows] = {}
        for attempt in self.ended_in_order:
            for asset, parts in attempt.written.items():
                left.setdefault(asset, AssetRows()).add(attempt.step, parts)
        return left

    @property
    def ended_in_order(self) -> Sequence[Attempt]:
        """The attempts that have ended, in the order in which they did."""
        ended = [attempt for attempt in self.attempts if attempt.ended is not None]
        return sorted(ended, key=lambda attempt: attempt.ended or 0.0)

    @property
    def waits(self) -> Sequence[Phase]:
        """How long it waited before its first step could start: in the queue, and for its process."""
        waits = []
        if self.enqueued is not None and self.dequeued is not None:
            waits.append(Phase(QUEUED, self.enqueued, self.dequeued))
        if self.started is not None:
            # Without a queue it is launched when it is created.
            waits.append(Phase(LAUNCH, self.dequeued or self.run.created, self.started))
        return [wait for wait in waits if wait.ended >= wait.started]
