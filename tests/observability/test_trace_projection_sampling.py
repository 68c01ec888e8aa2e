"""Tests which traces are kept for how their runs ended."""

from dataclasses import replace

import dagster as dg
import pytest

from ledgerline.ledger import ids
from ledgerline.testing.recordings import Recording, Recordings
from ledgerline.traces.projection import TraceProjection
from ledgerline.traces.telemetry import Telemetry
from tests.observability.exported_spans import context_of, spans_of
from tests.observability.fake_exporter import BACKFILL, Export, FakeExporter, projection_to

NONE_IN_THE_SHARE = Telemetry(ratio=0.0, keeps_failed_runs=True, slow_run_seconds=600.0)


def sent_step_by_step(
    projection: TraceProjection, recording: Recording, instance: dg.DagsterInstance
) -> list[int]:
    """Return how many spans were sent after each record of a run."""
    before, sent = None, []
    for end in range(1, len(recording.records) + 1):
        now = recording.history_of(recording.records[:end])
        sent.append(projection.export(instance, now, before))
        before = now
    return sent


@pytest.mark.parametrize("kind", ["errors", "canceled", "killed"])
def test_a_failed_run_that_is_in_no_share_is_sent_as_a_whole_when_it_has_ended(
    exporter: FakeExporter, recorded: Recordings, instance_of_runs: dg.DagsterInstance, kind: str
) -> None:
    recording = recorded[kind]
    sent = sent_step_by_step(projection_to(exporter, NONE_IN_THE_SHARE), recording, instance_of_runs)
    going_on = [not recording.history_of(recording.records[: end + 1]).finished for end in range(len(sent))]
    assert not any(number for number, goes_on in zip(sent, going_on, strict=True) if goes_on)
    expected = spans_of(recording.history)
    assert {context_of(span).span_id for span in exporter.spans} == {
        context_of(span).span_id for span in expected
    }


def test_a_run_that_took_long_is_kept_and_a_short_one_is_not(
    exporter: FakeExporter, recorded: Recordings, export: Export
) -> None:
    history = recorded["ops"].history
    assert history.ended is not None
    assert export(projection_to(exporter, NONE_IN_THE_SHARE), history) == 0
    # Days after its first span: the decision needs no memory.
    late = replace(history, ended=history.ended + 3 * 86_400)
    assert export(projection_to(exporter, NONE_IN_THE_SHARE), late) == len(spans_of(late))


def test_after_the_end_of_a_sampled_run_only_new_spans_are_sent(
    exporter: FakeExporter, recorded: Recordings, instance_of_runs: dg.DagsterInstance
) -> None:
    history = recorded["errors"].history
    projection = projection_to(exporter, NONE_IN_THE_SHARE)
    assert projection.export(instance_of_runs, history, None) > 0
    assert projection.export(instance_of_runs, history, history) == 0


def test_a_run_in_the_share_is_sent_while_it_goes_on(
    exporter: FakeExporter, recorded: Recordings, instance_of_runs: dg.DagsterInstance
) -> None:
    sent = sent_step_by_step(
        projection_to(exporter, replace(NONE_IN_THE_SHARE, ratio=1.0)), recorded["errors"], instance_of_runs
    )
    assert sum(number > 0 for number in sent) > 1


def test_a_failed_run_is_in_the_trace_of_its_backfill_whose_root_is_kept_as_well(
    exporter: FakeExporter, recorded: Recordings, export: Export
) -> None:
    history = recorded["errors"].history
    run = replace(history.run, tags={"dagster/backfill": "abcdefgh"})
    projection = projection_to(exporter, NONE_IN_THE_SHARE)
    export(projection, replace(history, run=run))
    traces = {context_of(span).trace_id for span in exporter.spans}
    assert traces == {ids.trace_id(run.run_id), ids.backfill_trace_id("abcdefgh")}
    assert projection.export_backfill(replace(BACKFILL, status="COMPLETED_FAILED")) == 1
    assert projection.export_backfill(BACKFILL) == 0


def test_steps_record_all_that_may_be_kept() -> None:
    trace_id = 0
    assert not Telemetry(ratio=0.5).may_keep(trace_id)
    assert Telemetry(ratio=0.5, keeps_failed_runs=True).may_keep(trace_id)
    assert Telemetry(ratio=0.5, slow_run_seconds=60.0).may_keep(trace_id)
    assert not Telemetry(disabled=True, keeps_failed_runs=True, slow_run_seconds=0.0).may_keep(trace_id)
