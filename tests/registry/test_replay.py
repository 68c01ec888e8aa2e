"""Tests replayed requests: differences, counts, times, and what cannot be replayed."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ledgerline.evaluation.disagreement import NotComparableError
from ledgerline.requests import replay
from ledgerline.requests.logged_rows import inputs_of
from ledgerline.requests.offline_inference import ReplayedVersion, latest_requests, predictions_for
from ledgerline.requests.replay import NothingToReplayError, Replay
from ledgerline.requests.request_log import read
from ledgerline.testing.logged_requests import MODEL, at, write

Predict = Callable[[pd.DataFrame], dict[str, np.ndarray]]


def late_above(limit: float) -> Predict:
    """A model of one column: late where it is above a limit."""

    def predict(inputs: pd.DataFrame) -> dict[str, np.ndarray]:
        late = np.where(inputs["x"].to_numpy(float) > limit, 0.8, 0.3)
        return {"": np.stack([1 - late, late], axis=1)}

    return predict


def asked(predict: Predict, number: int = 2, required: tuple[str, ...] = ()) -> ReplayedVersion:
    return ReplayedVersion(number, predict, required)


def replayed(
    logged: pd.DataFrame, staging: ReplayedVersion, production: ReplayedVersion | None = None, **limits: int
) -> Replay:
    return replay.replay(logged, staging, production, at(0), at(60), **limits)


@pytest.fixture
def logged(tmp_path: Path) -> pd.DataFrame:
    """Ten requests of two rows, x from 0 to 19; the last four of version 3, the others of version 1."""
    for minute in range(10):
        version, limit = (1, 9.5) if minute < 6 else (3, 15.5)
        inputs = {"x": [2.0 * minute, 2.0 * minute + 1]}
        write(tmp_path, minute, inputs, late_above(limit)(pd.DataFrame(inputs)), version=version)
    return read(tmp_path, MODEL, at(0))


def test_predictions_of_staging_are_compared_with_the_logged_ones(logged: pd.DataFrame) -> None:
    found = replayed(logged, asked(late_above(7.5)), ReplayedVersion(1, late_above(9.5)))
    assert (found.requests, found.rows, found.is_cut) == (10, 20, False)
    assert found.rows_by_version == {"1": 12, "3": 8}
    # 8 and 9 of version 1; 12 to 15 of version 3.
    assert (found.disagreements, found.share) == (6, 0.3)
    assert found.largest_difference == pytest.approx(0.5)
    assert found.mean_difference == pytest.approx(0.3 * 0.5)
    assert (found.unscored_rows, found.problem) == (0, None)
    assert (found.recomputed_rows, found.recomputed_differently) == (12, 0)
    assert (found.since, found.until) == ("2026-11-03T12:00:00+00:00", "2026-11-03T13:00:00+00:00")


def test_a_log_that_differs_from_the_production_version_is_detected(logged: pd.DataFrame) -> None:
    found = replayed(logged, asked(late_above(7.5)), ReplayedVersion(3, late_above(13.5)))
    assert (found.recomputed_rows, found.recomputed_differently) == (8, 2)


def test_production_without_logged_predictions_is_only_timed(logged: pd.DataFrame) -> None:
    found = replayed(logged, asked(late_above(7.5)), ReplayedVersion(4, late_above(7.5)))
    assert (found.recomputed_rows, found.recomputed_differently) == (0, 0)
    assert found.production_ms is not None


def test_without_production_only_staging_predicts(logged: pd.DataFrame) -> None:
    found = replayed(logged, asked(late_above(9.5)))
    assert found.production_ms is None
    assert found.recomputed_rows == 0
    assert found.staging_ms is not None
    assert 0 < found.staging_ms.p50_ms <= found.staging_ms.p99_ms
    assert found.timed_requests == 10


def test_it_is_json(logged: pd.DataFrame) -> None:
    document = json.loads(json.dumps(replayed(logged, asked(late_above(7.5))).as_dict(), allow_nan=False))
    assert document["disagreements"] == 6
    assert document["staging_ms"].keys() == {"p50_ms", "p99_ms"}


def test_requests_are_predicted_in_the_order_of_the_log(logged: pd.DataFrame) -> None:
    sizes = []

    def counting(inputs: pd.DataFrame) -> dict[str, np.ndarray]:
        sizes.append(len(inputs))
        return late_above(9.5)(inputs)

    replayed(logged, asked(counting))
    # All at once for the predictions; then each for the time, the first of them twice.
    assert sizes == [20, *[2] * 11]


def test_requests_that_staging_cannot_score_are_counted_and_the_others_compared(
    logged: pd.DataFrame,
) -> None:
    def fussy(inputs: pd.DataFrame) -> dict[str, np.ndarray]:
        if inputs["x"].isin([4.0, 11.0]).any():
            raise ValueError("I do not know 4 and 11")
        return late_above(7.5)(inputs)

    found = replayed(logged, asked(fussy))
    # A request is scored as a whole or not at all.
    assert (found.unscored_rows, found.problem) == (4, "ValueError: I do not know 4 and 11")
    assert (found.disagreements, found.share) == (6, 6 / 16)


def test_requests_that_a_service_would_refuse_are_not_scored(logged: pd.DataFrame) -> None:
    logged.loc[3, "input.x"] = np.nan
    found = replayed(logged, asked(late_above(7.5), required=("x",)))
    assert (found.unscored_rows, found.problem) == (2, "a value is required of x")
    found = replayed(logged, asked(late_above(7.5), required=("x", "y")))
    assert (found.unscored_rows, found.share) == (20, None)
    assert found.problem == "a value is required of y"


def test_a_version_that_cannot_predict_any_row_is_reported(logged: pd.DataFrame) -> None:
    def broken(inputs: pd.DataFrame) -> dict[str, np.ndarray]:
        raise KeyError("seats")

    found = replayed(logged, asked(broken), ReplayedVersion(1, late_above(9.5)))
    assert (found.unscored_rows, found.share, found.staging_ms) == (20, None, None)
    assert found.problem == "KeyError: 'seats'"
    assert found.production_ms is not None


def test_production_that_fails_now_counts_as_predicting_differently(logged: pd.DataFrame) -> None:
    def broken(inputs: pd.DataFrame) -> dict[str, np.ndarray]:
        raise KeyError("seats")

    found = replayed(logged, asked(late_above(7.5)), ReplayedVersion(1, broken))
    assert (found.recomputed_rows, found.recomputed_differently) == (12, 12)


def test_only_the_latest_whole_requests_are_replayed_of_too_many(logged: pd.DataFrame) -> None:
    found = replayed(logged, asked(late_above(7.5)), most_rows=5)
    assert (found.requests, found.rows, found.is_cut) == (2, 4, True)
    rows, starts = latest_requests(logged, 1)
    assert (list(rows["input.x"]), list(starts)) == ([18.0, 19.0], [0, 2])


@pytest.mark.parametrize("at_once", [1, 5, 100])
def test_the_number_of_batches_does_not_change_scores(logged: pd.DataFrame, at_once: int) -> None:
    rows, starts = latest_requests(logged, 20)
    found = predictions_for(asked(late_above(9.5)), inputs_of(rows), starts, at_once)
    assert found.scored.all()
    assert found.outputs[""][:, 1].tolist() == [0.3] * 10 + [0.8] * 10


def test_an_empty_log_cannot_be_replayed(tmp_path: Path) -> None:
    with pytest.raises(NothingToReplayError, match="There is no request to replay"):
        replayed(read(tmp_path, MODEL, at(0)), asked(late_above(7.5)))


def test_predictions_that_are_not_logged_cannot_be_compared(tmp_path: Path) -> None:
    write(tmp_path, 1, {"x": [1.0]}, {"": [0.5]}, redacted=("",))
    with pytest.raises(NothingToReplayError, match="No prediction of version 1 is logged"):
        replayed(read(tmp_path, MODEL, at(0)), asked(late_above(7.5)))


def test_predictions_of_another_kind_cannot_be_compared(logged: pd.DataFrame) -> None:
    with pytest.raises(NotComparableError):
        replayed(logged, asked(lambda inputs: {"": np.ones(len(inputs))}))
