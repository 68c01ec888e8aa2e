"""Tests the complete exported trace of each kind of run against a file in golden/.

To rewrite the files after an intended change, run this file with REWRITE_GOLDEN_TRACES=1, and review the
difference: `REWRITE_GOLDEN_TRACES=1 python -m pytest tests/observability/test_golden_traces.py`.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from ledgerline.ledger.backfills import read_backfill
from ledgerline.ledger.projection import Backfill
from ledgerline.testing.recordings import Recording, Recordings
from tests.observability.golden_traces import CREATED, Exporting, Rerun, exported, rendered

GOLDEN = Path(__file__).with_name("golden")
BACKFILL = "abcdefgh"

KINDS = {
    "successful": "ops",
    "retried_and_failed": "retries",
    "asset_checks": "checks",
    "killed": "killed",
    "spans_inside_steps": "traced",
    "dynamic": "mapped",
}


def check(kind: str, text: str) -> None:
    file = GOLDEN / f"{kind}.txt"
    if os.environ.get("REWRITE_GOLDEN_TRACES"):
        GOLDEN.mkdir(exist_ok=True)
        file.write_text(text)
    assert text == file.read_text()


def rendered_run(recording: Recording, *, while_in_progress: bool = False) -> str:
    spans = exported(recording, while_in_progress=while_in_progress)
    return rendered(spans, {recording.run.run_id: "the run"})


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_exported_trace_equals_the_golden_one(kind: str, recorded: Recordings) -> None:
    check(kind, rendered_run(recorded[KINDS[kind]]))


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_run_that_is_exported_after_each_event_ends_with_the_golden_trace(
    kind: str, recorded: Recordings
) -> None:
    text = rendered_run(recorded[KINDS[kind]], while_in_progress=True)
    assert text == (GOLDEN / f"{kind}.txt").read_text()


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["monday", "tuesday"]))
def loaves(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    if context.partition_key == "tuesday":
        raise RuntimeError("no flour")
    return dg.MaterializeResult(metadata={"dagster/partition_row_count": 12})


@pytest.fixture
def backfilled(tmp_path: Path) -> Iterator[tuple[list[Recording], Backfill]]:
    """A backfill of two partitions, of which the second failed."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        instance.add_backfill(
            PartitionBackfill(
                backfill_id=BACKFILL,
                status=BulkActionStatus.COMPLETED_FAILED,
                from_failure=False,
                tags={},
                backfill_timestamp=CREATED,
                title="both days",
            )
        )
        recordings = []
        for day in ("monday", "tuesday"):
            result = dg.materialize(
                [loaves],
                instance=instance,
                partition_key=day,
                tags={"dagster/backfill": BACKFILL},
                raise_on_error=False,
            )
            recordings.append(Recording.of(instance, result.run_id))
        backfill = read_backfill(instance, BACKFILL)
        assert isinstance(backfill, Backfill)
        yield recordings, replace(backfill, ended=CREATED + 1)


def test_the_exported_traces_of_a_backfill_equal_the_golden_ones(
    backfilled: tuple[list[Recording], Backfill],
) -> None:
    recordings, backfill = backfilled
    exporting = Exporting()
    for recording in recordings:
        assert recording.instance is not None
        exporting.export(recording.instance, list(Rerun(recording).histories())[-1:])
    exporting.export_backfill(backfill)
    run_ids = {recording.run.run_id: f"run {number}" for number, recording in enumerate(recordings, start=1)}
    check("backfill", rendered(exporting.spans, run_ids))
