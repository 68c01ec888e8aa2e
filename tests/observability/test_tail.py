"""Tests reading an event log: every record is read once, for any order and process."""

from dataclasses import dataclass, field
from typing import cast

import dagster as dg
import pytest
from dagster import EventLogRecord
from dagster._core.event_api import EventLogCursor
from dagster._core.storage.event_log.base import EventLogConnection
from hypothesis import given, settings
from hypothesis import strategies as st

from ledgerline.ledger.event_log import PAGE
from ledgerline.ledger.observer import LINGER_SECONDS
from ledgerline.ledger.tail import STABLE_SECONDS, Tail
from ledgerline.testing.written_runs import Clock, WrittenRun, begin, clock_to_put_forward, words_of


def latest(instance: dg.DagsterInstance, run: WrittenRun) -> str:
    """Cursor of the latest record."""
    return instance.get_records_for_run(run.run_id).cursor


def rewound(instance: dg.DagsterInstance, run: WrittenRun, cursor: str | None) -> Tail:
    """Return the tail of another process, which has the cursor only."""
    tail = Tail.of(run.record)
    tail.rewind(instance, cursor)
    return tail


@dataclass
class FakeServer:
    """A fake of an instance on a database server: records may become visible in another order than by number.

    Attributes:
        instance: A real one, that has the records.
        hidden: Records, by number, whose writer has not committed yet.
    """

    instance: dg.DagsterInstance
    hidden: set[int] = field(default_factory=set)

    def get_records_for_run(
        self, run_id: str, cursor: str | None = None, limit: int | None = None
    ) -> EventLogConnection:
        records = [
            record
            for record in self.instance.get_records_for_run(run_id, cursor=cursor).records
            if record.storage_id not in self.hidden
        ]
        page = records[:limit]
        number = page[-1].storage_id if page else EventLogCursor.parse(cursor).storage_id() if cursor else 0
        return EventLogConnection(
            page, EventLogCursor.from_storage_id(number).to_string(), has_more=len(page) < len(records)
        )

    def hide(self, run: WrittenRun, word: str) -> int:
        """Write a record that is not visible yet; return its number."""
        run.write(word)
        number = self._records(run)[-1].storage_id
        self.hidden.add(number)
        return number

    def opened(self) -> dg.DagsterInstance:
        """For what is written for real ones."""
        return cast("dg.DagsterInstance", self)

    def _records(self, run: WrittenRun) -> list[EventLogRecord]:
        return list(self.instance.get_records_for_run(run.run_id).records)


def test_only_new_records_are_read(instance: dg.DagsterInstance, clock: Clock) -> None:
    run = begin(instance, "one")
    tail = Tail.of(run.record)
    assert tail.read(instance)
    assert words_of(tail.history) == ["one"]
    assert not tail.read(instance)
    run.write("two", "three")
    clock.forward(STABLE_SECONDS / 2)
    assert tail.read(instance)
    clock.forward(STABLE_SECONDS)
    assert not tail.read(instance)
    assert not tail.read(instance)
    assert words_of(tail.history) == ["one", "two", "three"]


def test_the_log_of_one_run_has_nothing_of_another(instance: dg.DagsterInstance) -> None:
    run, other = begin(instance, "one"), begin(instance, "not this")
    tail = Tail.of(run.record)
    tail.read(instance)
    other.write("nor this")
    assert not tail.read(instance)
    assert words_of(tail.history) == ["one"]


def test_a_history_stays_the_same_object_until_something_is_new(instance: dg.DagsterInstance) -> None:
    run = begin(instance, "one")
    tail = Tail.of(run.record)
    tail.read(instance)
    before = tail.history
    tail.read(instance)
    assert tail.history is before
    run.write("two")
    tail.read(instance)
    assert tail.history is not before
    assert words_of(before) == ["one"]


def test_everything_is_exported_when_the_last_export_has_all_read_records(
    instance: dg.DagsterInstance,
) -> None:
    run = begin(instance)
    tail = Tail.of(run.record)
    assert not tail.is_exported
    tail.read(instance)
    tail.exported = tail.history
    assert tail.is_exported
    run.write("one")
    tail.read(instance)
    assert not tail.is_exported


def test_a_long_log_is_read_and_rewound_page_by_page(instance: dg.DagsterInstance, clock: Clock) -> None:
    run = begin(instance)
    words = [str(number) for number in range(PAGE)]
    run.write(*words)
    tail = Tail.of(run.record)
    tail.read(instance)
    assert words_of(tail.history) == words
    clock.forward(STABLE_SECONDS)
    tail.read(instance)
    run.write("the last")
    again = rewound(instance, run, tail.stable_cursor)
    assert words_of(again.exported) == words
    assert again.read(instance)
    assert words_of(again.history) == [*words, "the last"]


# Settling


def test_a_record_settles_some_time_after_it_was_read(instance: dg.DagsterInstance, clock: Clock) -> None:
    run = begin(instance)
    tail = Tail.of(run.record)
    tail.read(instance)
    first = latest(instance, run)
    clock.forward(STABLE_SECONDS / 2)
    run.write("one")
    tail.read(instance)
    second = latest(instance, run)
    settled = []
    for _ in range(4):
        settled.append(tail.stable_cursor)
        clock.forward(STABLE_SECONDS / 2)
        tail.read(instance)
    assert settled == [None, first, second, second]


@pytest.mark.parametrize("seconds", [0.0, STABLE_SECONDS * 0.9])
def test_a_record_that_becomes_visible_after_a_later_one_is_not_lost(
    instance: dg.DagsterInstance, clock: Clock, seconds: float
) -> None:
    server, run = FakeServer(instance), begin(instance, "one")
    tail = Tail.of(run.record)
    server.hide(run, "two")
    run.write("three")
    tail.read(server.opened())
    assert words_of(tail.history) == ["one", "three"]
    clock.forward(seconds)
    server.hidden.clear()
    assert tail.read(server.opened())
    clock.forward(STABLE_SECONDS)
    assert not tail.read(server.opened())
    assert words_of(tail.history) == ["one", "three", "two"]
    assert tail.stable_cursor == latest(instance, run)


def test_the_next_process_reads_records_that_became_visible_late(
    instance: dg.DagsterInstance, clock: Clock
) -> None:
    server, run = FakeServer(instance), begin(instance, "one")
    first = Tail.of(run.record)
    first.read(server.opened())
    clock.forward(STABLE_SECONDS)
    server.hide(run, "two")
    run.write("three")
    first.read(server.opened())
    server.hidden.clear()
    second = rewound(server.opened(), run, first.stable_cursor)
    assert words_of(second.exported) == ["one"]
    second.read(server.opened())
    assert words_of(second.history) == ["one", "two", "three"]


PASS_SECONDS = STABLE_SECONDS * 0.3


@settings(max_examples=50, deadline=None, database=None)
@given(
    steps=st.lists(
        st.sampled_from(["write", "hide", "reveal one", "read", "wait", "another process"]), max_size=30
    )
)
def test_every_record_is_read_once_in_any_order_of_visibility(steps: list[str]) -> None:
    with dg.DagsterInstance.ephemeral() as instance, clock_to_put_forward() as clock:
        server, run = FakeServer(instance), begin(instance)
        tail, taken = Tail.of(run.record), set[str]()
        deadlines: dict[int, float] = {}  # no writer takes longer than this to commit
        for number, step in enumerate([*steps, "read"]):
            for hidden, deadline in list(deadlines.items()):
                if step == "reveal one" or clock() + PASS_SECONDS > deadline:
                    server.hidden.discard(hidden)
                    del deadlines[hidden]
                    if step == "reveal one":
                        break
            if step == "write":
                run.write(str(number))
            elif step == "hide":
                deadlines[server.hide(run, str(number))] = clock() + STABLE_SECONDS * 0.9
            elif step == "wait":
                clock.forward(PASS_SECONDS)
            elif step == "another process":
                tail = rewound(server.opened(), run, tail.stable_cursor)
                assert set(words_of(tail.exported)) <= taken
            elif step == "read":
                tail.read(server.opened())
                words = words_of(tail.history)
                assert len(words) == len(set(words))
                taken.update(words)
        server.hidden.clear()
        tail.read(server.opened())
        written = {str(number) for number, step in enumerate(steps) if step in ("write", "hide")}
        assert taken | set(words_of(tail.history)) == set(words_of(tail.history)) == written


# Going on in another process


def test_without_a_cursor_the_next_process_begins_at_the_beginning(instance: dg.DagsterInstance) -> None:
    run = begin(instance, "one")
    tail = rewound(instance, run, None)
    assert tail.exported is None
    tail.read(instance)
    assert words_of(tail.history) == ["one"]


def test_the_next_process_continues_after_the_exported_records(instance: dg.DagsterInstance) -> None:
    run = begin(instance, "one")
    cursor = latest(instance, run)
    run.write("two")
    tail = rewound(instance, run, cursor)
    assert words_of(tail.exported) == ["one"]
    assert tail.is_exported
    assert tail.read(instance)
    assert words_of(tail.history) == ["one", "two"]
    assert words_of(tail.exported) == ["one"]


def test_a_log_that_was_cleared_has_nothing_new(instance: dg.DagsterInstance) -> None:
    run = begin(instance, "one")
    cursor = latest(instance, run)
    instance.event_log_storage.delete_events(run.run_id)
    tail = rewound(instance, run, cursor)
    assert not tail.read(instance)
    assert words_of(tail.history) == []


# The end


def test_it_is_quiet_when_nothing_was_read_for_long_enough(
    instance: dg.DagsterInstance, clock: Clock
) -> None:
    run = begin(instance)
    tail = Tail.of(run.record)
    tail.read(instance)
    run.end()
    clock.forward(LINGER_SECONDS)
    tail.read(instance)
    assert not tail.quiet_for(LINGER_SECONDS)
    clock.forward(LINGER_SECONDS / 2)
    assert not tail.quiet_for(LINGER_SECONDS)
    clock.forward(LINGER_SECONDS / 2 + 1)
    assert tail.quiet_for(LINGER_SECONDS)


def test_it_is_quiet_at_once_when_the_run_ended_long_ago(instance: dg.DagsterInstance) -> None:
    run = begin(instance, seconds_ago=100)
    run.end(seconds_ago=LINGER_SECONDS + 1)
    tail = Tail.of(run.record)
    tail.read(instance)
    assert tail.quiet_for(LINGER_SECONDS)


def test_in_the_next_process_it_is_not_quiet_from_the_start(instance: dg.DagsterInstance) -> None:
    run = begin(instance)
    run.end()
    tail = rewound(instance, run, latest(instance, run))
    assert not tail.read(instance)
    assert not tail.quiet_for(LINGER_SECONDS)
