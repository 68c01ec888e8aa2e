"""One attempt at a step while its events come in. Which events there are: event_log.py."""

from dataclasses import dataclass, field, replace
from typing import Any

from observability.errors import error_from
from observability.history import (
    COMPUTE,
    LOAD,
    RESOURCES,
    START_WORKER,
    STORE,
    Attempt,
    Check,
    Error,
    Materialisation,
    Observation,
    Outcome,
    Phase,
)

# How Dagster names what went wrong around the step's own computation.
LOAD_ERROR = "DagsterExecutionLoadInputError"
STORE_ERROR = "DagsterExecutionHandleOutputError"
# Written by the process that started the step's own, hence with its clock: that it died, that it does not
# answer (an error without a class). So is all that ends a step before it begins.
CRASH_ERROR = "ChildProcessCrashException"
PARENT_ERRORS = (CRASH_ERROR, None)


@dataclass
class OpenAttempt:
    """An attempt while its events come in; every phase starts where the one before it ended."""

    step: str
    op: str
    number: int
    started: float
    ended: float | None = None
    outcome: Outcome = Outcome.RUNNING
    latest: float = 0.0  # the end of what is accounted for
    clock_behind: float = 0.0
    pid: int | None = None
    begun: bool = False  # whether it came as far as the step itself
    computed_until: float | None = None
    compute_started: float | None = None
    storing: tuple[str, float] | None = None
    resources: float | None = None
    worker: float | None = None
    inputs: list[str] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
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

    def mark(self, time: float) -> None:
        """Account for everything up to now; time does not run backwards."""
        self.latest = max(self.latest, self.corrected(time))

    def worker_starting(self, time: float) -> None:
        """Somebody starts a process for it."""
        self.worker = time
        self.mark(time)

    def worker_started(self, time: float, pid: int | None) -> None:
        """Its process is there; with a clock that may be behind."""
        self.pid = pid
        if self.worker is not None:
            self.clock_behind = max(0.0, self.worker - time)
            self.mark(time)
            self.phases.append(Phase(START_WORKER, self.worker, self.latest))

    def resources_started(self, time: float) -> None:
        """Its resources are being initialised."""
        self.mark(time)
        self.resources = self.latest

    def resources_ended(self, time: float, error: Any) -> None:
        """Its resources are there, or failed."""
        if self.resources is not None:
            self.mark(time)
            self.phases.append(Phase(RESOURCES, self.resources, self.latest, failed=error is not None))
            self.resources = None
            if error is not None:
                self.error = error_from(error)

    def begin(self, time: float) -> None:
        """The step itself begins."""
        self.mark(time)
        self.begun = True

    def loaded(self, time: float, name: str) -> None:
        """An input was loaded."""
        phase, before = f"{LOAD} {name}", self.latest
        self.mark(time)
        if self.phases and self.phases[-1].name == phase:  # an input that is made of many outputs
            before = self.phases.pop().started
        else:
            self.inputs.append(name)
        self.phases.append(Phase(phase, before, self.latest))

    def computed(self, time: float, output: str) -> None:
        """An output was yielded, and is to be stored."""
        if self.compute_started is None:
            self.compute_started = self.latest
        self.mark(time)
        self.computed_until = self.latest
        self.storing = output, self.latest

    def stored(self, time: float) -> None:
        """The latest output was stored."""
        self.mark(time)
        if self.storing is not None:
            output, since = self.storing
            self.phases.append(Phase(f"{STORE} {output}", since, self.latest))
            self.storing = None

    def died(self, message: str) -> None:
        """Its process is gone; the error that follows does not say why."""
        self.cause_of_death = message

    def end(self, time: float, outcome: Outcome, error: Any) -> None:
        """It is over."""
        parent_says = error is not None and (not self.begun or error.cls_name in PARENT_ERRORS)
        before = self.latest
        self.latest = max(self.latest, time if parent_says else self.corrected(time))
        self.ended, self.outcome = self.latest, outcome
        self.error = error_from(error) if error is not None else None
        if self.error is not None and not self.error.message:
            self.error = replace(self.error, message=self.cause_of_death)
        failed = outcome is not Outcome.SUCCESS
        wrapper = error.cls_name if error is not None else None
        if wrapper == LOAD_ERROR:
            self.phases.append(Phase(LOAD, before, self.latest, failed=True))
            return
        if wrapper == STORE_ERROR and self.storing is not None:
            output, since = self.storing
            self.phases.append(Phase(f"{STORE} {output}", since, self.latest, failed=True))
            failed = False  # what was computed is none the worse for it
        elif failed:
            self.computed_until = self.latest
        if self.begun:
            since = before if self.compute_started is None else self.compute_started
            self.phases.append(Phase(COMPUTE, since, self.computed_until or self.latest, failed))

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

    def _as_it_is(self) -> Attempt:
        # A process that was given up on may go on: what it does later belongs to nothing.
        phases = (phase for phase in self.phases if self.ended is None or phase.ended <= self.ended)
        return Attempt(
            step=self.step,
            op=self.op,
            number=self.number,
            started=self.started,
            ended=self.ended,
            outcome=self.outcome,
            inputs=tuple(self.inputs),
            phases=tuple(sorted(phases, key=lambda phase: phase.started)),
            materialisations=tuple(self.materialisations),
            observations=tuple(self.observations),
            checks=tuple(self.checks),
            error=self.error,
            pid=self.pid,
            clock_behind=self.clock_behind,
        )

    def _interrupted(self, attempt: Attempt, ended: float) -> Attempt:
        phases = attempt.phases
        if self.begun:
            since = self.latest if self.compute_started is None else self.compute_started
            phases = (*phases, Phase(COMPUTE, since, ended, failed=True))
        # In the process of the run, a resource that fails ends the run, and nothing is said of the step.
        outcome = Outcome.INTERRUPTED if self.error is None else Outcome.FAILURE
        return replace(attempt, ended=ended, outcome=outcome, phases=phases)
