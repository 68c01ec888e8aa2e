"""Tests the costs of batches: when the measured predictions favour batching."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledgerline.serving.batcher import BatchCosts


@settings(max_examples=200, deadline=None)
@given(
    fixed=st.floats(1e-4, 1.0),
    per_row=st.floats(1e-6, 1e-1),
    rows=st.integers(1, 500),
    measured=st.lists(st.integers(1, 1000), min_size=2, max_size=150, unique=True),
)
def test_batching_is_favoured_where_the_rows_of_a_request_cost_less_than_a_call(
    fixed: float, per_row: float, rows: int, measured: list[int]
) -> None:
    costs = BatchCosts()
    for count in measured:
        costs.add(count, fixed + per_row * count)

    together = costs.favour_batching(rows)

    of_rows = per_row * rows
    if abs(of_rows - fixed) > 0.01 * max(of_rows, fixed, per_row * max(measured)):  # what rounding leaves
        assert together == (of_rows < fixed)


def test_batching_is_tried_while_the_cost_of_a_row_is_unknown() -> None:
    costs = BatchCosts()
    assert costs.favour_batching(1)

    for _ in range(100):
        costs.add(1, 0.01)

    assert costs.favour_batching(1)
    assert costs.mean_seconds == pytest.approx(0.01)


def test_old_measurements_lose_their_weight() -> None:
    costs = BatchCosts()
    for count in (1, 2, 4, 8) * 100:
        costs.add(count, 1.0 + 0.001 * count)
    assert costs.favour_batching(8)

    for count in (1, 2, 4, 8) * 300:
        costs.add(count, 0.001 + 1.0 * count)

    assert not costs.favour_batching(8)
