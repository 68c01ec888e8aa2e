"""Tests slices: which there are, which can be evaluated, and the intervals of their differences."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ledgerline.evaluation.comparison import Comparison, compare
from ledgerline.evaluation.kinds import Binary, Multiclass, Quantiles, Regression

ROWS = 1200
RANDOM = np.random.default_rng(1)
OUTCOME = RANDOM.normal(size=ROWS)
STAGING = OUTCOME + RANDOM.normal(size=ROWS)
PRODUCTION = OUTCOME + RANDOM.normal(size=ROWS)
DAY = np.arange(ROWS) // 40


def compared(slices: dict[str, Any], **options: Any) -> Comparison:
    options = {"clusters": DAY, "resamples": 200, "slices": slices, **options}
    return compare(Regression(), OUTCOME, STAGING, PRODUCTION, **options)


@pytest.mark.parametrize(
    "labels",
    [
        pd.Series(pd.Categorical(np.where(np.arange(ROWS) % 2, "b", "a"), categories=["z", "b", "a"])),
        pd.Series(np.where(np.arange(ROWS) % 2, "b", "a"), dtype="string"),
        pd.Series(np.where(np.arange(ROWS) % 2, "b", "a"), index=np.arange(ROWS) + 5),
        list(np.where(np.arange(ROWS) % 2, "b", "a")),
    ],
    ids=["categories", "strings", "other index", "list"],
)
def test_labels_may_be_of_any_type_and_a_category_without_rows_has_no_slice(labels: Any) -> None:
    found = compared({"kind": labels}).slices
    assert [(each.value, each.rows) for each in found] == [("a", 600), ("b", 600)]
    assert found[0].staging == pytest.approx(np.abs(STAGING - OUTCOME)[::2].mean())


def test_labels_may_be_numbers_truths_or_times() -> None:
    slices = {
        "hour": np.arange(ROWS) % 3,
        "open": pd.array(np.arange(ROWS) % 2 == 0, dtype="boolean"),
        "day": pd.Timestamp("2013-06-01") + pd.to_timedelta(np.arange(ROWS) % 2, unit="D"),
    }
    assert [f"{each.column} {each.value}" for each in compared(slices).slices] == [
        "hour 0",
        "hour 1",
        "hour 2",
        "open False",
        "open True",
        "day 2013-06-01 00:00:00",
        "day 2013-06-02 00:00:00",
    ]


def test_one_slice_of_all_rows_has_the_interval_of_all_rows() -> None:
    found = compared({"all": np.zeros(ROWS)}, resamples=2000)
    (whole,), difference = found.slices, found.difference("absolute_error")
    assert whole.gain == pytest.approx(difference.gain)
    assert whole.low is not None
    assert difference.low is not None
    assert whole.low == pytest.approx(difference.low, rel=0.1)


def test_rows_without_a_label_are_in_no_slice() -> None:
    found = compared({"kind": [None] * ROWS, "half": [math.nan, 1.0] * (ROWS // 2)}).slices
    assert [(each.column, each.value, each.rows) for each in found] == [("half", "1.0", 600)]


def test_a_slice_of_a_constant_outcome_is_evaluated_by_metrics_that_are_defined() -> None:
    same = np.where(np.arange(ROWS) % 2, 1.0, OUTCOME)
    slices = {"same": np.arange(ROWS) % 2}
    options: Any = {"clusters": DAY, "slices": slices, "resamples": 100}
    numbers = compare(Regression(), same, STAGING, PRODUCTION, **options).slices
    assert [each.gain is not None for each in numbers] == [True, True]
    columns = [np.stack([predicted - 1, predicted + 1], axis=1) for predicted in (STAGING, PRODUCTION)]
    quantiles = compare(Quantiles((0.2, 0.8)), same, *columns, **options).slices
    assert [each.gain is not None for each in quantiles] == [True, True]
    probable = [1 / (1 + np.exp(-predicted)) for predicted in (STAGING, PRODUCTION)]
    truths = compare(Binary(), same > 0, *probable, **options).slices
    assert [each.gain is not None for each in truths] == [True, False]
    both = [np.stack([1 - predicted, predicted], axis=1) for predicted in probable]
    classes = compare(Multiclass(("low", "high")), np.where(same > 0, "high", "low"), *both, **options)
    assert [each.gain is not None for each in classes.slices] == [True, False]


def test_slices_have_gains_in_the_direction_of_their_metric() -> None:
    probable = [np.stack([1 - predicted, predicted], axis=1) for predicted in (OUTCOME > 0, OUTCOME > 1)]
    found = compare(
        Multiclass((0, 1)),
        (OUTCOME > 0).astype(int),
        *probable,
        clusters=DAY,
        slices={"all": np.zeros(ROWS)},
        slice_metric="accuracy",
    )
    assert found.slices[0].staging == 1
    assert found.slices[0].gain == found.difference("accuracy").gain > 0


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_slices_are_the_same_in_any_unit(scale: float) -> None:
    slices = {"third": np.arange(ROWS) % 3}
    plain = compared(slices).slices
    scaled = compare(
        Regression(),
        OUTCOME * scale,
        STAGING * scale,
        PRODUCTION * scale,
        clusters=DAY,
        slices=slices,
        resamples=200,
    ).slices
    for one, other in zip(plain, scaled, strict=True):
        for name in ("staging", "production", "gain", "low", "high"):
            assert getattr(other, name) == pytest.approx(getattr(one, name) * scale, rel=1e-9)
