"""Tests a backfill of `dagster job backfill`, which is completed while its runs are in progress."""

import subprocess
import sys
from pathlib import Path

import dagster as dg

from ledgerline.ledger.observer import Observer
from ledgerline.testing.waiting import wait_until
from ledgerline.testing.written_runs import FakeTarget

DEFINITIONS = """
from pathlib import Path

import dagster as dg

from ledgerline.testing.waiting import wait_until

parts = dg.StaticPartitionsDefinition(["good", "bad"])


@dg.op
def work(context: dg.OpExecutionContext) -> None:
    wait_until(Path({gate!r}).exists, "the gate is open", {seconds!r})
    assert context.partition_key == "good"


@dg.job(partitions_def=parts, executor_def=dg.in_process_executor)
def working() -> None:
    work()


defs = dg.Definitions(jobs=[working])
"""
# There is no daemon, which would launch queued runs.
INSTANCE = "run_coordinator: {module: dagster.core.run_coordinator, class: DefaultRunCoordinator}\n"
BUDGET = 60.0
TIMEOUT = 300.0  # seconds; far longer than two runs take on a busy machine


def test_a_backfill_of_the_command_line_is_over_when_its_runs_are_and_fails_with_one(tmp_path: Path) -> None:
    home, gate, definitions = tmp_path / "home", tmp_path / "gate", tmp_path / "definitions.py"
    home.mkdir()
    (home / "dagster.yaml").write_text(INSTANCE)
    definitions.write_text(DEFINITIONS.format(gate=str(gate), seconds=TIMEOUT))
    target = FakeTarget()
    observer = Observer(target)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert instance.get_run_records() == []  # its tables are there before another process opens it
        command = ["job", "backfill", "--noprompt", "--all", "all", "-j", "working", "-f", str(definitions)]
        with subprocess.Popen(
            [sys.executable, "-m", "dagster", *command],
            env={"DAGSTER_HOME": str(home), "PATH": "/usr/bin:/bin"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:

            def is_exported() -> bool:
                observer.tick(instance, BUDGET)
                if any(backfill.status.value == "COMPLETED" for backfill in instance.get_backfills()):
                    if not gate.exists():
                        assert target.backfills == []
                    gate.touch()
                return bool(target.backfills)

            try:
                wait_until(is_exported, "the backfill is shown", TIMEOUT)
            finally:
                gate.touch()
                process.wait(TIMEOUT)
        (found,) = instance.get_backfills()
        records = instance.get_run_records()
    assert {record.dagster_run.status.value for record in records} == {"SUCCESS", "FAILURE"}
    (exported,) = target.backfills
    assert (exported.status, exported.failed, exported.failed_runs) == ("COMPLETED", True, 1)
    assert exported.ended == max(record.end_time or 0.0 for record in records)
    assert found.backfill_end_timestamp is not None
    assert exported.ended > found.backfill_end_timestamp
