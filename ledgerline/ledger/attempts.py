"""Collects one attempt at a step while its events come in. event_log.py reads these events.

Every moment of an attempt is in exactly one of its phases: an event ends the phase before it, and the next
begins at that moment. So phases do not overlap, and they add up to the attempt's seconds.
"""

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from ledgerline.ledger.errors import error_from
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
)

# Dagster wraps errors of loading inputs and of storing outputs in these classes. With a retry policy it does
# not wrap them; then the function of Dagster's in their stack tells which they are.
LOAD_ERROR = "DagsterExecutionLoadInputError"
STORE_ERROR = "DagsterExecutionHandleOutputError"
LOADING = re.compile(r'dagster.+inputs\.py", line \d+, in load_input_object\n')
STORING = re.compile(r'dagster.+execute_step\.py", line \d+, in _store_output\n')
# Written by the process that started the step's own, hence with its clock: that it died, that it does not
# answer (an error without a class). So is all that ends a step before it begins.
CRASH_ERROR = "ChildProcessCrashException"
PARENT_ERRORS = (CRASH_ERROR, None)
# After the last output, until the step ends, Dagster records that it was stored. What takes longer is the
# rest of the step's own code.
RECORDING_SECONDS = 0.2


@dataclass
class OpenAttempt:
    """An attempt while its events come in."""

    step: str
    op: str
    number: int
    started: float
    ended: float | None = None
    outcome: Outcome = Outcome.RUNNING
    latest: float = 0.0  # the end of the phases so far
    clock_behind: float = 0.0
    pid: int | None = None
    begun: bool = False  # whether it came as far as the step itself
    waiting: str | None = None  # what for
    worker: float | None = None  # since when its process is being started
    loading_resources: bool = False
    storing: str | None = None  # an output that was yielded, and not stored yet
    output_recorded: bool = False  # and what was recorded of it, which comes after it was stored
    inputs: list[str] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
    current: str | None = None  # the last of them, without a number
    parts: Counter[str] = field(default_factory=Counter)  # how many of them have a name, but for the number
    hooks: list[Hook] = field(default_factory=list)
    materialisations: list[Materialisation] = field(default_factory=list)
    observations: list[Observation] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    error: Error | None = None
    cause_of_death: str = ""  # which signal or exit code ended its process
    unchanged: Attempt | None = None  # what it was when last asked, unless something happened since

    def __post_init__(self) -> None:
        self.latest = self.started

    def corrected(self, time: float) -> float:
        """A time of the step's process on the clock of the one that started it."""
        return time + self.clock_behind

    def waits(self, time: float, reason: str) -> None:
        """Begin the wait before the step; the same event may be repeated."""
        if not self.begun and self.waiting is None:
            self._before_the_step(time)
            self.waiting = reason

    def wait_ended(self, time: float) -> None:
        """End the wait: its cause is gone."""
        if self.waiting is not None:
            self._before_the_step(time)

    def worker_starting(self, time: float) -> None:
        """Begin the start of a process for the step."""
        self._before_the_step(time)
        self.worker = time

    def worker_started(self, time: float, pid: int | None) -> None:
        """Its process is there; with a clock that may be behind."""
        self.pid = pid
        if self.worker is not None:
            self.clock_behind = max(0.0, self.worker - time)

    def resources_started(self, time: float, pid: int | None) -> None:
        """Begin to initialise the resources in the step's process, which not all engines announce."""
        self.pid = self.pid or pid
        self._before_the_step(time)
        self.loading_resources = True

    def resources_ended(self, time: float, error: Any) -> None:
        """Its resources are there, or failed."""
        if self.loading_resources:
            self._account(RESOURCES, self.corrected(time), failed=error is not None)
            self.loading_resources = False
            if error is not None:
                self.error = error_from(error)

    def begin(self, time: float, pid: int | None) -> None:
        """The step itself begins."""
        self._before_the_step(time)
        self.begun = True
        self.pid = self.pid or pid

    def loaded(self, time: float, name: str) -> None:
        """End the loading of an input, or of a part of one that is made of many outputs."""
        if name not in self.inputs:
            self.inputs.append(name)
        self._account(f"{LOAD} {name}", self.corrected(time))

    def computed(self, time: float, output: str) -> None:
        """An output was yielded, and is to be stored."""
        self._account(COMPUTE, self.corrected(time))
        self.storing, self.output_recorded = output, False

    def recorded(self) -> None:
        """Note that Dagster recorded an output, which is by then stored, if it is to be stored at all."""
        self.output_recorded = True

    def stored(self, time: float) -> None:
        """End the storing of the latest output. Outputs that hold nothing have no such event."""
        if self.storing is not None:
            self._account(f"{STORE} {self.storing}", self.corrected(time))
            self.storing = None

    def died(self, message: str) -> None:
        """Its process is gone; the error that follows does not say why."""
        self.cause_of_death = message

    def lost(self, time: float, message: str) -> None:
        """End an attempt whose process was found gone and left no event that says how it ended."""
        if self.ended is None:
            self.unchanged = None
            ended = max(self.latest, time)
            self._account(self._failed_phase(None), ended, failed=True)
            self.ended, self.outcome = ended, Outcome.INTERRUPTED
            self.error = Error("dagster.StepLost", message, "")

    def end(self, time: float, outcome: Outcome, error: Any) -> None:
        """It is over."""
        parent_says = error is not None and (not self.begun or error.cls_name in PARENT_ERRORS)
        ended = max(self.latest, time if parent_says else self.corrected(time))
        if outcome is Outcome.SUCCESS:
            self._account_the_rest(ended)
        else:
            self._account(self._failed_phase(error), ended, failed=True)
        self.ended, self.outcome = ended, outcome
        self.error = error_from(error) if error is not None else None
        if self.error is not None and not self.error.message:
            self.error = replace(self.error, message=self.cause_of_death)

    def hook_ended(self, name: str, time: float, outcome: HookOutcome, error: Error | None) -> None:
        """Add a hook that was executed after the attempt had ended and after the hooks before."""
        since = self.hooks[-1].ended if self.hooks else self.ended or self.latest
        self.hooks.append(Hook(name, since, max(since, self.corrected(time)), outcome, error))

    def frozen(self, run_ended: float | None) -> Attempt:
        """As a record; if its run has ended without a word of it, interrupted at that moment."""
        ended = self.ended
        if ended is None and run_ended is not None:
            ended = max(run_ended, self.latest)
        if self.unchanged is None or self.unchanged.ended != ended:
            self.unchanged = self._as_it_is()
            if self.ended is None and ended is not None:
                self.unchanged = self._interrupted(self.unchanged, ended)
        return self.unchanged

    def _account(self, phase: str, until: float, failed: bool = False) -> None:
        """Ascribe to a phase what is not accounted for yet; time does not run backwards."""
        if self.ended is not None:
            return  # a process that was given up on may go on: what it does later belongs to nothing
        made = self._phase_until(phase, until, failed)
        if phase == self.current:
            self.phases[-1] = made
        else:
            self.phases.append(made)
            self.parts[phase] += 1
        self.latest, self.current = made.ended, phase

    def _phase_until(self, phase: str, until: float, failed: bool) -> Phase:
        """Return the current phase, if it is that one, or else the next; numbered from its second part on."""
        until = max(self.latest, until)
        if phase == self.current:
            last = self.phases[-1]
            return replace(last, ended=until, failed=failed or last.failed)
        number = self.parts[phase] + 1
        return Phase(f"{phase} #{number}" if number > 1 else phase, self.latest, until, failed)

    def _before_the_step(self, time: float) -> None:
        """Account for what Dagster did until it comes to the next thing, or to the step."""
        phase = self._phase_before_the_step()
        if phase is not None:
            self._account(phase, self.corrected(time))
        self.waiting = self.worker = None

    def _phase_before_the_step(self) -> str | None:
        if self.waiting is not None:
            return f"{WAIT} {self.waiting}"
        if self.worker is not None:
            return START_WORKER
        # Until the step begins, Dagster has its output captured.
        return RESOURCES if self.loading_resources or self.phases else None

    def _account_the_rest(self, ended: float) -> None:
        """Ascribe what comes after the last output: to what was stored, or to the step's own code."""
        recording = self.parts[COMPUTE] and self.storing is None and ended - self.latest < RECORDING_SECONDS
        if recording and self.current is not None:
            self._account(self.current, ended)
        else:
            self._account(COMPUTE, ended)

    def _failed_phase(self, error: Any) -> str:
        """Return the phase that an error, or the unexplained end of the process, ended."""
        if not self.begun:
            return self._phase_before_the_step() or START_WORKER
        stack = "".join(error.stack) if error is not None else ""
        wrapper = error.cls_name if error is not None else None
        if wrapper == LOAD_ERROR or LOADING.search(stack):
            return LOAD
        at_storing = wrapper == STORE_ERROR or bool(STORING.search(stack))
        # Errors from outside the step have no stack; outputs that are not stored are soon recorded.
        if wrapper in PARENT_ERRORS and not self.output_recorded:
            at_storing = True
        return f"{STORE} {self.storing}" if at_storing and self.storing is not None else COMPUTE

    def _as_it_is(self) -> Attempt:
        return Attempt(
            step=self.step,
            op=self.op,
            number=self.number,
            started=self.started,
            ended=self.ended,
            outcome=self.outcome,
            inputs=tuple(self.inputs),
            phases=tuple(self.phases),
            hooks=tuple(self.hooks),
            materialisations=tuple(self.materialisations),
            observations=tuple(self.observations),
            checks=tuple(self.checks),
            error=self.error,
            pid=self.pid,
            clock_behind=self.clock_behind,
        )

    def _interrupted(self, attempt: Attempt, ended: float) -> Attempt:
        # In the process of the run, a resource that fails ends the run, and nothing is said of the step.
        outcome = Outcome.INTERRUPTED if self.error is None else Outcome.FAILURE
        phase = self._failed_phase(None)
        before = self.phases[:-1] if phase == self.current else self.phases
        phases = (*before, self._phase_until(phase, ended, failed=True))
        return replace(attempt, ended=ended, outcome=outcome, phases=phases)
