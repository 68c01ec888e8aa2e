"""Tests a run's trace as text: every step and its spans, on wide and on narrow terminals."""

import io
import re
from collections.abc import Iterator

import dagster as dg
import pytest
from rich.console import Console

from ledgerline.cli.trace_tree import BAR_CELLS, trace_tree
from ledgerline.dagster.tracing import OTelResource
from ledgerline.ledger.event_log import HistoryReader, read_history, run_from
from ledgerline.ledger.history import (
    Attempt,
    Error,
    Materialisation,
    Outcome,
    Phase,
    Run,
    RunHistory,
    RunStatus,
)

WIDE, NARROW = 100, 60
EPOCH = 1_357_000_000.0  # a round number, for times that are readable below

OF_A_LINE = re.compile(r"^(?P<name>.*?) +(?P<seconds>[\d.]+ s) (?P<bar>[ ━]{1,24})(?P<detail>.*)$")


def drawn(history: RunHistory, width: int = WIDE, least_seconds: float = 0.0) -> list[str]:
    """Return the lines on a terminal with this number of columns."""
    console = Console(file=io.StringIO(), width=width)
    console.print(trace_tree(history, least_seconds))
    assert isinstance(console.file, io.StringIO)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert all(len(line) <= width for line in lines)
    return lines


def names_in(lines: list[str]) -> list[str]:
    """Return the seconds, which every line must have."""
    found = [OF_A_LINE.match(line) for line in lines]
    assert all(found), lines
    return [match["name"] for match in found if match is not None]


def materialisation(asset: str, rows: int) -> Materialisation:
    return Materialisation(asset, None, None, None, rows, None, None, None, (), None, EPOCH)


def phases(*ends: tuple[str, float], started: float, failed: bool = False) -> tuple[Phase, ...]:
    """Phases that follow each other; the last of them may have failed."""
    made = []
    for name, ended in ends:
        made.append(Phase(name, EPOCH + started, EPOCH + ended, failed and ends[-1][0] == name))
        started = ended
    return tuple(made)


ERROR = Error("ConnectionError", "nobody answers", "")
PLANES = Attempt(
    step="planes",
    op="planes",
    number=1,
    started=EPOCH + 2,
    ended=EPOCH + 10,
    outcome=Outcome.SUCCESS,
    phases=phases(
        ("start worker", 3.0), ("resources", 3.05), ("compute", 9.5), ("store result", 10.0), started=2.0
    ),
    materialisations=(materialisation("planes", 3_322),),
)
LOST = Attempt(
    step="flights_of_all_days",
    op="flights_of_all_days",
    number=1,
    started=EPOCH + 10,
    ended=EPOCH + 12,
    outcome=Outcome.RETRY,
    phases=phases(("load planes", 10.05), ("compute", 12.0), started=10.0, failed=True),
    error=ERROR,
)
FLIGHTS = Attempt(
    step="flights_of_all_days",
    op="flights_of_all_days",
    number=2,
    started=EPOCH + 14,
    ended=EPOCH + 20,
    outcome=Outcome.SUCCESS,
    phases=phases(("compute", 20.0), started=14.0),
    materialisations=(materialisation("flights_of_all_days", 336_776),),
)
RUN = RunHistory(
    run=Run("4b3ff23c-5a4e-4b39-8f3c-8b5f8f0f2a77", "ingest", EPOCH, {"dagster/partition": "2013-01-01"}),
    status=RunStatus.SUCCESS,
    enqueued=EPOCH,
    dequeued=EPOCH + 1,
    started=EPOCH + 2,
    ended=EPOCH + 24,
    attempts=(PLANES, LOST, FLIGHTS),
)


def test_a_run_is_a_tree_with_seconds_bars_and_rows() -> None:
    assert drawn(RUN, least_seconds=0.1) == [
        "run ingest 2013-01-01               24.0 s ━━━━━━━━━━━━━━━━━━━━━━━━",
        "├─ queued                            1.0 s ━",
        "├─ launch                            1.0 s  ━",
        "├─ planes                            8.0 s   ━━━━━━━━                 3,322 rows",
        "│  ├─ start worker                   1.0 s   ━",
        "│  ├─ compute                        6.5 s    ━━━━━━━",
        "│  └─ store result                   0.5 s          ━",
        "├─ flights_of_all_days  ✗            2.0 s           ━━",
        "│  └─ compute  ✗                     1.9 s           ━━",
        "└─ flights_of_all_days  attempt 2    6.0 s               ━━━━━━     336,776 rows",
        "   └─ compute                        6.0 s               ━━━━━━",
    ]


def test_only_names_are_cut_on_a_narrow_terminal() -> None:
    assert drawn(RUN, NARROW, least_seconds=0.1) == [
        "run ingest 2…   24.0 s ━━━━━━━━━━━━━━━━━━━━━━━━",
        "├─ queued        1.0 s ━",
        "├─ launch        1.0 s  ━",
        "├─ planes        8.0 s   ━━━━━━━━                 3,322 rows",
        "│  ├─ start …    1.0 s   ━",
        "│  ├─ compute    6.5 s    ━━━━━━━",
        "│  └─ store …    0.5 s          ━",
        "├─ flight…  ✗    2.0 s           ━━",
        "│  └─ com…  ✗    1.9 s           ━━",
        "└…  attempt 2    6.0 s               ━━━━━━     336,776 rows",
        "   └─ compute    6.0 s               ━━━━━━",
    ]


@pytest.mark.parametrize("width", [60, 66, 72, 80, 100, 200])
def test_columns_other_than_names_are_the_same_on_every_terminal(width: int) -> None:
    def without_names(lines: list[str]) -> list[tuple[str, str]]:
        found = [OF_A_LINE.match(line) for line in lines]
        return [(match["seconds"], match["bar"] + match["detail"].rstrip()) for match in found if match]

    assert without_names(drawn(RUN, width)) == without_names(drawn(RUN, 200))
    assert len(without_names(drawn(RUN, width))) == len(drawn(RUN, 200)) == 13
    for line, mark in zip(drawn(RUN, width, 0.1)[7:10], ("✗", "✗", "attempt 2"), strict=True):
        assert f"  {mark} " in line


def test_phases_are_printed_from_the_requested_seconds() -> None:
    assert [name for name in names_in(drawn(RUN)) if name.endswith("resources")] == ["│  ├─ resources"]
    assert names_in(drawn(RUN, least_seconds=100)) == [
        "run ingest 2013-01-01",
        "├─ queued",
        "├─ launch",
        "├─ planes",
        "├─ flights_of_all_days  ✗",
        "│  └─ compute  ✗",
        "└─ flights_of_all_days  attempt 2",
    ]


def test_a_bar_is_never_empty_and_never_too_long() -> None:
    for line in drawn(RUN):
        match = OF_A_LINE.match(line)
        assert match is not None
        assert 1 <= match["bar"].count("━") <= BAR_CELLS


def test_a_run_without_steps_is_in_progress() -> None:
    begun = RunHistory(run=RUN.run, status=RunStatus.NOT_STARTED)
    assert drawn(begun) == ["run ingest 2013-01-01          running"]


def test_a_run_of_a_backfill_is_drawn_once() -> None:
    tags = {"dagster/partition": "2013-01-01", "dagster/backfill": "abcdefgh"}
    of_a_backfill = RunHistory(run=Run(RUN.run.run_id, "ingest", EPOCH, tags), ended=EPOCH + 1)
    assert names_in(drawn(of_a_backfill)) == ["run ingest 2013-01-01  ✗"]


# Real runs


@dg.op
def fetch(otel: OTelResource) -> int:
    with otel.span("load planes"), otel.span("compute seats"):
        return 3


@dg.op(retry_policy=dg.RetryPolicy(max_retries=1))
def count(context: dg.OpExecutionContext, otel: OTelResource, planes: int) -> int:
    with otel.span("add up"):
        if context.retry_number == 0:
            raise ConnectionError("nobody answers")
    return planes


@dg.op
def publish(planes: int) -> None:
    raise ValueError("nobody asked for planes")


@dg.job(executor_def=dg.in_process_executor, resource_defs={"otel": OTelResource()})
def publishing() -> None:
    publish(count(fetch()))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def test_a_real_run_is_drawn_with_its_retries_its_failure_and_what_its_steps_traced(
    instance: dg.DagsterInstance,
) -> None:
    run = publishing.execute_in_process(instance=instance, raise_on_error=False)
    history = read_history(instance, run.run_id)
    assert history is not None
    assert names_in(drawn(history, least_seconds=100)) == [
        "run publishing  ✗",
        "├─ launch",
        "├─ fetch",
        "│  └─ compute",
        "│     └─ load planes",  # named like a phase, and short: it is printed nevertheless
        "│        └─ compute seats",
        "├─ count  ✗",
        "│  └─ compute  ✗",
        "│     └─ add up  ✗",
        "├─ count  attempt 2",
        "│  └─ compute",
        "│     └─ add up",
        "└─ publish  ✗",
        "   └─ compute  ✗",
    ]


def test_a_real_run_in_progress_is_printed_up_to_its_last_event(instance: dg.DagsterInstance) -> None:
    run_id = publishing.execute_in_process(instance=instance, raise_on_error=False).run_id
    record = instance.get_run_record_by_id(run_id)
    assert record is not None
    reader = HistoryReader(run_from(record))
    for one in instance.get_records_for_run(run_id).records:
        reader.feed([one])
        if len(reader.history().ended_since(None)) == 2:
            break
    lines = drawn(reader.history(), least_seconds=100)
    assert lines[0].split() == ["run", "publishing", "running"]
    assert names_in(lines[1:]) == ["├─ fetch", "└─ count  ✗", "   └─ compute  ✗"]
