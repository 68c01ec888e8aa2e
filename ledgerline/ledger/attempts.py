"""Builds the record of one attempt at a step from its events, which event_log.py reads.

Every moment of an attempt belongs to exactly one phase: an event ends one phase, and the next phase begins at
that moment. Therefore phases do not overlap, and they add up to the duration of the attempt.
"""

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from dagster import DagsterEvent, DagsterEventType

from ledgerline.cleaning.texts import cleaned
from ledgerline.ledger.errors import error_from
from ledgerline.ledger.given_by_users import numbers
from ledgerline.ledger.history import (
    COMPUTE,
    LOAD,
    RESOURCES,
    START_WORKER,
    STORE,
    WAIT,
    Attempt,
    Check,
    Error,
    Hook,
    HookOutcome,
    Materialisation,
    Observation,
    Outcome,
    Phase,
    asset_name,
)
from ledgerline.ledger.materialised import MaterialisationReader, data_version

# Dagster wraps errors of loading inputs and of storing outputs in these classes. With a retry policy it does
# not wrap them; then a function of Dagster in their stack shows what failed.
LOAD_ERROR = "DagsterExecutionLoadInputError"
STORE_ERROR = "DagsterExecutionHandleOutputError"
LOADING = re.compile(r'dagster.+inputs\.py", line \d+, in load_input_object\n')
STORING = re.compile(r'dagster.+execute_step\.py", line \d+, in _store_output\n')
# The parent process writes these errors, with its own clock: the step's process died, or does not respond (an
# error without a class). It also writes each event that reports the end of a step that never started.
CRASH_ERROR = "ChildProcessCrashException"
PARENT_ERRORS = (CRASH_ERROR, None)
# After the last output, Dagster records within this time that it was stored. A longer time until the step
# ends is spent in the step's own code.
RECORDING_SECONDS = 0.2

HOOK_NAME = re.compile(r'hook "(.+)"(?: triggered for|\. It did)')

STEP_ENDS = {
    DagsterEventType.STEP_SUCCESS.value: Outcome.SUCCESS,
    DagsterEventType.STEP_FAILURE.value: Outcome.FAILURE,
    DagsterEventType.STEP_UP_FOR_RETRY.value: Outcome.RETRY,
}
HOOK_ENDS = {f"HOOK_{outcome.name}": outcome for outcome in HookOutcome}


@dataclass
class OpenAttempt:
    """An attempt at a step while its events are read."""

    step: str
    op: str
    number: int
    started: float
    reader: MaterialisationReader
    ended: float | None = None
    outcome: Outcome = Outcome.RUNNING
    latest: float = 0.0  # the end of the last phase
    clock_behind: float = 0.0
    pid: int | None = None
    begun: bool = False  # True after the step itself has started
    waiting: str | None = None  # the reason for the current wait
    worker: float | None = None  # the time at which Dagster began to start its process
    loading_resources: bool = False
    storing: str | None = None  # an output that was yielded and is not stored yet
    output_recorded: bool = False  # True once an event about that output was recorded, after it was stored
    inputs: list[str] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
    current: str | None = None  # the name of the last phase, without its number
    parts: Counter[str] = field(default_factory=Counter)  # the number of phases by name
    hooks: list[Hook] = field(default_factory=list)
    materialisations: list[Materialisation] = field(default_factory=list)
    observations: list[Observation] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    error: Error | None = None
    # The signal or exit code that ended its process, which the error event that follows does not contain.
    cause_of_death: str = ""
    unchanged: Attempt | None = None  # the record that was made last; None if an event was read after that

    def __post_init__(self) -> None:
        self.latest = self.started

    def waits(self, time: float, reason: str) -> None:
        """Record the start of the wait before the step, once, because Dagster repeats these events."""
        if not self.begun and self.waiting is None:
            self._before_the_step(time)
            self.waiting = reason

    def wait_ended(self, time: float) -> None:
        """Record the end of the wait before the step."""
        if self.waiting is not None:
            self._before_the_step(time)

    def worker_starting(self, time: float, _: DagsterEvent) -> None:
        """Record that a process for the step is being started."""
        self._before_the_step(time)
        self.worker = time

    def worker_started(self, time: float, event: DagsterEvent) -> None:
        """Record that the process has started, and how far its clock is behind the parent's."""
        self.pid = event.pid
        if self.worker is not None:
            self.clock_behind = max(0.0, self.worker - time)

    def resources_started(self, time: float, event: DagsterEvent) -> None:
        """Record the start of the resources in the step's process. Some executors do not report its start."""
        self.pid = self.pid or event.pid
        self._before_the_step(time)
        self.loading_resources = True

    def resources_ended(self, time: float, event: DagsterEvent) -> None:
        """Record the end of the initialisation of the resources, with its error if it failed."""
        if self.loading_resources:
            error = data_of(event).error
            self._account(RESOURCES, time + self.clock_behind, failed=error is not None)
            self.loading_resources = False
            if error is not None:
                self.error = error_from(error)

    def begin(self, time: float, event: DagsterEvent) -> None:
        """Record the start of the step, after its worker process and resources."""
        self._before_the_step(time)
        self.begun = True
        self.pid = self.pid or event.pid

    def loaded(self, time: float, event: DagsterEvent) -> None:
        """Record that an input, or one of several outputs that an input collects, was loaded."""
        name = data_of(event).input_name
        if name not in self.inputs:
            self.inputs.append(name)
        self._account(f"{LOAD} {name}", time + self.clock_behind)

    def computed(self, time: float, event: DagsterEvent) -> None:
        """Record that the step has yielded an output, which Dagster then stores."""
        self._account(COMPUTE, time + self.clock_behind)
        output = data_of(event).step_output_handle
        key = output.mapping_key
        self.storing = output.output_name if key is None else f"{output.output_name}[{key}]"
        self.output_recorded = False

    def stored(self, time: float, _: DagsterEvent) -> None:
        """Record that the latest output was stored. Outputs of the type Nothing have no such event."""
        if self.storing is not None:
            self._account(f"{STORE} {self.storing}", time + self.clock_behind)
            self.storing = None

    def materialised(self, time: float, event: DagsterEvent) -> None:
        """Add a materialisation. Dagster writes the event after storing, if it stores the output."""
        self.output_recorded = True
        self.materialisations.append(
            self.reader.read(data_of(event).materialization, time + self.clock_behind)
        )

    def observed(self, time: float, event: DagsterEvent) -> None:
        """Add an observation."""
        self.output_recorded = True
        observation = data_of(event).asset_observation
        self.observations.append(
            Observation(
                asset=asset_name(observation.asset_key),
                partition=cleaned(observation.partition),
                data_version=data_version(observation.tags or {}),
                time=time + self.clock_behind,
            )
        )

    def checked(self, time: float, event: DagsterEvent) -> None:
        """Add the result of a check."""
        self.output_recorded = True
        evaluation = data_of(event)
        self.checks.append(
            Check(
                name=evaluation.check_name,
                asset=asset_name(evaluation.asset_key),
                passed=evaluation.passed,
                severity=evaluation.severity.value,
                description=cleaned(evaluation.description),
                time=time + self.clock_behind,
                numbers=numbers(evaluation.metadata),
            )
        )

    def lost(self, time: float, message: str) -> None:
        """End an attempt whose process ended without an event about the end of the step."""
        if self.ended is None:
            self.unchanged = None
            ended = max(self.latest, time)
            self._account(self._failed_phase(None), ended, failed=True)
            self.ended, self.outcome = ended, Outcome.INTERRUPTED
            self.error = Error("dagster.StepLost", message, "")

    def end(self, time: float, event: DagsterEvent) -> None:
        """End the attempt with its outcome."""
        outcome, error = STEP_ENDS[event.event_type_value], error_in(event)
        is_from_parent = error is not None and (not self.begun or error.cls_name in PARENT_ERRORS)
        ended = max(self.latest, time if is_from_parent else time + self.clock_behind)
        if outcome is Outcome.SUCCESS:
            # The time since the latest output belongs to the phase that stores it, or to the step's code.
            recorded = (
                self.parts[COMPUTE] and self.storing is None and ended - self.latest < RECORDING_SECONDS
            )
            self._account((recorded and self.current) or COMPUTE, ended)
        else:
            self._account(self._failed_phase(error), ended, failed=True)
        self.ended, self.outcome = ended, outcome
        self.error = error_from(error) if error is not None else None
        if self.error is not None and not self.error.message:
            self.error = replace(self.error, message=self.cause_of_death)

    def hook_ended(self, time: float, event: DagsterEvent) -> None:
        """Add a hook that was executed after the end of the attempt and after earlier hooks."""
        self.unchanged = None
        since = self.hooks[-1].ended if self.hooks else self.ended or self.latest
        named, error = HOOK_NAME.search(event.message or ""), error_in(event)
        self.hooks.append(
            Hook(
                named[1] if named is not None else "",
                since,
                max(since, time + self.clock_behind),
                HOOK_ENDS[event.event_type_value],
                error_from(error) if error is not None else None,
            )
        )

    def frozen(self, run_ended: float | None) -> Attempt:
        """Return the attempt as a record. Without an end event, it is interrupted at the end of its run."""
        ended = self.ended
        if ended is None and run_ended is not None:
            ended = max(run_ended, self.latest)
        if self.unchanged is None or self.unchanged.ended != ended:
            self.unchanged = self._as_of(ended)
        return self.unchanged

    def _account(self, phase: str, until: float, failed: bool = False) -> None:
        """Extend or add a phase up to this time, or up to the end of the latest phase if that is later."""
        if self.ended is not None:
            return  # A process that Dagster considers lost may continue; its later events are ignored.
        made = self._phase_until(phase, until, failed)
        if phase == self.current:
            self.phases[-1] = made
        else:
            self.phases.append(made)
            self.parts[phase] += 1
        self.latest, self.current = made.ended, phase

    def _phase_until(self, phase: str, until: float, failed: bool) -> Phase:
        """Return the current phase up to this time, or a new phase, numbered if it is not its first part."""
        until = max(self.latest, until)
        if phase == self.current:
            last = self.phases[-1]
            return replace(last, ended=until, failed=failed or last.failed)
        number = self.parts[phase] + 1
        return Phase(f"{phase} #{number}" if number > 1 else phase, self.latest, until, failed)

    def _before_the_step(self, time: float) -> None:
        """Add the time since the latest phase to the phase that came before the start of the step."""
        if phase := self._phase_before_the_step():
            self._account(phase, time + self.clock_behind)
        self.waiting = self.worker = None

    def _phase_before_the_step(self) -> str | None:
        if self.waiting is not None:
            return f"{WAIT} {self.waiting}"
        if self.worker is not None:
            return START_WORKER
        # Between the resources and the step, Dagster begins to capture the step's output.
        return RESOURCES if self.loading_resources or self.phases else None

    def _failed_phase(self, error: Any) -> str:
        """Return the phase in which an error occurred, or in which the process ended without an error."""
        if not self.begun:
            return self._phase_before_the_step() or START_WORKER
        stack = "".join(error.stack) if error is not None else ""
        wrapper = error.cls_name if error is not None else None
        if wrapper == LOAD_ERROR or LOADING.search(stack):
            return LOAD
        at_storing = wrapper == STORE_ERROR or bool(STORING.search(stack))
        # Errors from outside the step have no stack. Outputs that are not stored are recorded immediately.
        if wrapper in PARENT_ERRORS and not self.output_recorded:
            at_storing = True
        return f"{STORE} {self.storing}" if at_storing and self.storing is not None else COMPUTE

    def _as_of(self, ended: float | None) -> Attempt:
        outcome, phases = self.outcome, self.phases
        if self.ended is None and ended is not None:
            # In the process of the run, a resource that fails ends the run without an event of the step.
            outcome = Outcome.INTERRUPTED if self.error is None else Outcome.FAILURE
            phase = self._failed_phase(None)
            before = phases[:-1] if phase == self.current else phases
            phases = [*before, self._phase_until(phase, ended, failed=True)]
        return Attempt(
            step=self.step,
            op=self.op,
            number=self.number,
            started=self.started,
            ended=ended,
            outcome=outcome,
            inputs=tuple(self.inputs),
            phases=tuple(phases),
            hooks=tuple(self.hooks),
            materialisations=tuple(self.materialisations),
            observations=tuple(self.observations),
            checks=tuple(self.checks),
            error=self.error,
            pid=self.pid,
            clock_behind=self.clock_behind,
        )


def data_of(event: DagsterEvent) -> Any:
    """Return the data of an event, whose class depends on the type of the event."""
    # The checks in Dagster's typed properties would take a third of the time of reading a record.
    return event.event_specific_data


def error_in(event: DagsterEvent) -> Any:
    """Return the error in the data of an event; None without an error."""
    return getattr(event.event_specific_data, "error", None)
