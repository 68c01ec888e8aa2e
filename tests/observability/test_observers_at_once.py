"""Tests two concurrent observers of one projection on one instance: nothing is lost."""

from dataclasses import dataclass, field
from enum import Enum, auto

import dagster as dg
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ledgerline.ledger.observer import LINGER_SECONDS, Observer
from ledgerline.ledger.pauses import LONGEST_PAUSE_SECONDS
from ledgerline.ledger.projection import NotYetError, TargetUnavailableError
from ledgerline.ledger.tail import STABLE_SECONDS
from ledgerline.testing.written_runs import (
    Clock,
    FakeTarget,
    WrittenRun,
    begin,
    clock_to_put_forward,
    words_of,
)

BUDGET = 1e9


class Killed(BaseException):
    """The process of the observer ends here, and with it all that it keeps in memory."""


class Fate(Enum):
    """The outcomes of an export."""

    EXPORTED = auto()
    TARGET_AWAY = auto()
    NOT_YET = auto()
    CANNOT_BE_EXPORTED = auto()
    KILLED_BEFORE = auto()
    KILLED_AFTERWARDS = auto()
    THE_OTHER_POLLS = auto()


@dataclass(frozen=True)
class Poll:
    """Poll with one of the observers, which has these fates in turn."""

    observer: int
    fates: tuple[Fate, ...] = ()


@dataclass(frozen=True)
class Begin:
    """A run begins."""


@dataclass(frozen=True)
class Write:
    """One of the runs writes a record; after its end, too, if that was lately."""

    run: int = 0


@dataclass(frozen=True)
class End:
    """One of the runs ends."""

    run: int = 0


@dataclass(frozen=True)
class Pass:
    """Time passes."""

    seconds: float


Event = Poll | Begin | Write | End | Pass

RUNS, OBSERVERS = st.integers(0, 3), st.integers(0, 1)
EVENTS = st.one_of(
    st.builds(Poll, OBSERVERS, st.lists(st.sampled_from(Fate), max_size=3).map(tuple)),
    st.builds(Poll, OBSERVERS),
    st.builds(Write, RUNS),
    st.builds(Write, RUNS),
    st.builds(End, RUNS),
    st.builds(Begin),
    st.builds(Pass, st.sampled_from([0.5, STABLE_SECONDS, LINGER_SECONDS / 2, LINGER_SECONDS])),
)


@dataclass
class World:
    """An instance, its runs, and two observers."""

    instance: dg.DagsterInstance
    clock: Clock
    target: FakeTarget = field(default_factory=FakeTarget)
    runs: list[WrittenRun] = field(default_factory=list)
    written: dict[str, list[str]] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)
    fates: list[Fate] = field(default_factory=list)
    looking: list[int] = field(default_factory=list)
    observers: list[Observer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.target.before_export = self.meet_fate
        self.target.after_export = self.meet_fate_afterwards
        self.observers = [Observer(self.target) for _ in range(2)]
        self.happens(Begin())

    def happens(self, event: Event) -> None:
        match event:
            case Begin():
                self.runs.append(begin(self.instance))
                self.written[self.runs[-1].run_id] = []
            case Write(number):
                run = self.run(number)
                if self.clock() - self.ended.get(run.run_id, self.clock()) < LINGER_SECONDS - 1:
                    self.write(run)
            case End(number):
                run = self.run(number)
                if run.run_id not in self.ended:
                    run.end()
                    self.ended[run.run_id] = self.clock()
            case Pass(seconds):
                self.clock.forward(seconds)
            case Poll(number, fates):
                self.fates = list(fates)
                self.poll(number)

    def run(self, number: int) -> WrittenRun:
        return self.runs[number % len(self.runs)]

    def write(self, run: WrittenRun) -> None:
        words = self.written[run.run_id]
        words.append(str(len(words)))
        run.write(words[-1])

    def poll(self, number: int) -> None:
        self.looking.append(number)
        try:
            self.observers[number].tick(self.instance, BUDGET)
        except Killed:
            self.observers[number] = Observer(self.target)
        finally:
            self.looking.pop()

    def meet_fate(self, run_id: str) -> None:
        fate = self.fates[0] if self.fates else Fate.EXPORTED
        if fate is not Fate.KILLED_AFTERWARDS:
            self.fates = self.fates[1:]
        if fate is Fate.TARGET_AWAY:
            raise TargetUnavailableError("away")
        if fate is Fate.NOT_YET:
            raise NotYetError("not yet")
        if fate is Fate.CANNOT_BE_EXPORTED:
            raise ValueError("a span without a name")
        if fate is Fate.KILLED_BEFORE:
            raise Killed
        if fate is Fate.THE_OTHER_POLLS and len(self.looking) == 1:
            self.poll(1 - self.looking[0])

    def meet_fate_afterwards(self) -> None:
        self.check_earlier_exports()
        if self.fates and self.fates[0] is Fate.KILLED_AFTERWARDS:
            self.fates = self.fates[1:]
            raise Killed

    def check_earlier_exports(self) -> None:
        *earlier, latest = self.target.exports
        known = {
            word
            for exported in earlier
            if exported.run_id == latest.run_id
            for word in words_of(exported.now)
        }
        assert set(words_of(latest.before)) <= known

    def poll_until_idle(self) -> None:
        """Everything works now, for long enough."""
        self.fates = []
        self.clock.forward(LONGEST_PAUSE_SECONDS)
        for _ in range(3):
            for number in range(2):
                self.poll(number)
                self.clock.forward(LINGER_SECONDS + 1)

    def check_everything_is_exported(self) -> None:
        for run in self.runs:
            exported = self.target.of(run)
            assert {word for each in exported for word in words_of(each.now)} == set(self.written[run.run_id])
            assert any(each.now.finished for each in exported) == (run.run_id in self.ended)


@settings(
    max_examples=40,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
@given(events=st.lists(EVENTS, min_size=12, max_size=30))
# One ends while the other, which has read less, is in the middle of its export.
@example(
    [
        Write(),
        Poll(0),
        Pass(STABLE_SECONDS),
        Poll(0),
        End(),
        Poll(1, (Fate.THE_OTHER_POLLS, Fate.KILLED_AFTERWARDS)),
        Write(),
        Begin(),
        Poll(0, (Fate.THE_OTHER_POLLS,)),
        Write(),
    ]
)
def test_two_concurrent_observers_lose_no_record(events: list[Event]) -> None:
    with dg.DagsterInstance.ephemeral() as instance, clock_to_put_forward() as clock:
        world = World(instance, clock)
        for event in events:
            world.happens(event)
        world.poll_until_idle()
        world.check_everything_is_exported()
