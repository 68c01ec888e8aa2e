"""Tests numbers in texts."""

import pytest

from ledgerline.evaluation.readable import number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (0.0, "0.0000"),
        (0.54321, "0.5432"),
        (-0.0001, "-0.0001"),
        (0.00009, "9.0e-05"),
        (-3e-13, "-3.0e-13"),
        (247.0, "247.0000"),
        (999_999.5, "999999.5000"),
        (1_234_567.8, "1234568"),
        (1e12, "1e+12"),
        (-2.5e149, "-2.5e+149"),
    ],
)
def test_a_number_reads_as_itself_in_any_magnitude(value: float | None, text: str) -> None:
    assert number(value) == text
