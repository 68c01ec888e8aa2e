"""Tests the ids of traces and spans, and which traces are sampled."""

from itertools import chain
from random import Random
from uuid import UUID, uuid4

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ledgerline.ledger import ids

RUNS = 20_000
SHARE = 0.02  # four standard deviations of a share of that many runs are 0.014

run_ids = st.uuids(version=4).map(str)
names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40)
ratios = st.floats(0, 1)

unsaved = settings(database=None, deadline=None)


@unsaved
@given(st.uuids())
def test_the_trace_of_a_run_is_its_run_id(run_id: UUID) -> None:
    assume(run_id.int != 0)
    assert ids.trace_id(str(run_id)) == run_id.int
    assert f"{ids.trace_id(str(run_id)):032x}" == str(run_id).replace("-", "")


def test_a_run_id_of_zeros_is_still_a_trace() -> None:
    assert 0 < ids.trace_id(str(UUID(int=0))) < 2**128


@unsaved
@given(names)
def test_a_custom_run_id_has_a_trace_id(run_id: str) -> None:
    assert 0 < ids.trace_id(run_id) < 2**128
    assert ids.trace_id(run_id) == ids.trace_id(run_id)


@unsaved
@given(names, names)
def test_custom_run_ids_do_not_share_a_trace(one: str, other: str) -> None:
    assume(one != other)
    assert ids.trace_id(one) != ids.trace_id(other)


@unsaved
@given(run_ids, names, st.integers(1, 1_000), names)
def test_ids_are_never_zero_and_fit(run_id: str, step: str, attempt: int, phase: str) -> None:
    assert 0 < ids.backfill_trace_id(run_id) < 2**128
    spans = [
        ids.run_span_id(run_id),
        ids.run_phase_span_id(run_id, phase),
        ids.attempt_span_id(run_id, step, attempt),
        ids.phase_span_id(run_id, step, attempt, phase),
        ids.backfill_span_id(run_id),
        ids.backfill_run_span_id(run_id, step),
    ]
    assert all(0 < span < 2**64 for span in spans)


def test_all_spans_of_a_run_have_different_ids() -> None:
    run_id = str(uuid4())
    steps, attempts, phases = ("a", "b", "a.b", "a[1]", "a[11]"), range(1, 13), ("compute", "load a", "load")
    made = [
        ids.run_span_id(run_id),
        *(ids.run_phase_span_id(run_id, phase) for phase in ("queued", "launch", "resources")),
        *(ids.attempt_span_id(run_id, step, attempt) for step in steps for attempt in attempts),
        *chain.from_iterable(
            (ids.phase_span_id(run_id, step, attempt, phase) for phase in phases)
            for step in steps
            for attempt in attempts
        ),
        ids.backfill_span_id(run_id),
        ids.backfill_run_span_id("backfill", run_id),
    ]
    assert len(made) == len(set(made))


@unsaved
@given(run_ids, run_ids, names)
def test_a_step_has_another_id_in_another_run(one: str, other: str, step: str) -> None:
    assume(one != other)
    assert ids.attempt_span_id(one, step, 1) != ids.attempt_span_id(other, step, 1)


def test_ids_are_the_same_in_every_process_and_version() -> None:
    run_id = "4b3ff23c-5a4e-4b39-8f3c-8b5f8f0f2a77"
    assert f"{ids.run_span_id(run_id):016x}" == "e9e4cd7071e7f060"
    assert f"{ids.attempt_span_id(run_id, 'features', 1):016x}" == "93afaff663275bf2"
    assert f"{ids.phase_span_id(run_id, 'features', 1, 'compute'):016x}" == "87b2857a605e8893"


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5, 0.9])
def test_the_requested_share_of_runs_is_sampled(ratio: float) -> None:
    random = Random(2013)  # noqa: S311  (the same runs each time: the test must not fail by chance)
    traces = [ids.trace_id(str(UUID(int=random.getrandbits(128), version=4))) for _ in range(RUNS)]
    kept = sum(ids.is_sampled(trace, ratio) for trace in traces)
    assert kept / RUNS == pytest.approx(ratio, abs=SHARE)


@unsaved
@given(run_ids)
def test_all_or_no_runs_are_kept(run_id: str) -> None:
    trace = ids.trace_id(run_id)
    assert ids.is_sampled(trace, 1.0)
    assert not ids.is_sampled(trace, 0.0)


@unsaved
@given(run_ids, ratios, ratios)
def test_traces_of_a_smaller_share_are_in_a_larger_one_too(run_id: str, one: float, other: float) -> None:
    smaller, larger = sorted((one, other))
    trace = ids.trace_id(run_id)
    assert ids.is_sampled(trace, larger) or not ids.is_sampled(trace, smaller)


@unsaved
@given(st.integers(1, 2**128 - 1), st.integers(0, 2**72 - 1), ratios)
def test_only_the_random_bits_decide(trace: int, fixed: int, ratio: float) -> None:
    other = (fixed << ids.RANDOM_BITS) | (trace % 2**ids.RANDOM_BITS)
    assert ids.is_sampled(trace, ratio) == ids.is_sampled(other, ratio)
