"""Tests drift of stored predictions, for each kind of prediction: what is compared, and failing checks."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from ledgerline.dagster.released_models.watch import FEATURES_STABLE, SCORES_STABLE, Bound
from ledgerline.dagster.settings import Settings
from ledgerline.dagster.storage.io_managers import open_tables
from ledgerline.evaluation.kinds import Regression
from ledgerline.evaluation.metrics import row_metric
from ledgerline.evaluation.stability import population_stability_index
from ledgerline.mlflow_store.store import connect
from ledgerline.registry.provenance import TRAINED_ON_TAG
from tests.released_models.watched import (
    FEBRUARY,
    JANUARY,
    MARCH,
    NAME,
    ROWS_A_DAY,
    Project,
    checks_of,
    copied,
    days_of,
    made,
    problem_of,
)

OUTCOME_CHECKS = {
    "binary": "calibrated_on_outcomes",
    "multiclass": "calibrated_on_outcomes",
    "regression": "unbiased_on_outcomes",
    "quantiles": "covers_outcomes",
}


def test_a_month_like_the_one_before_passes_every_check(of_kind: Project) -> None:
    run = of_kind.compare(FEBRUARY)
    assert run.success
    assert {name: found.passed for name, found in checks_of(run).items()} == {
        SCORES_STABLE: True,
        FEATURES_STABLE: True,
        OUTCOME_CHECKS[of_kind.model.kind.name]: True,
    }
    found = of_kind.drift(FEBRUARY)
    assert (found.partition, found.version, found.rows, found.clusters) == (FEBRUARY, 1, 28 * ROWS_A_DAY, 28)
    assert found.rows_by_version == {"1": 28 * ROWS_A_DAY}
    assert (found.first_training_partition, found.last_training_partition) == (JANUARY, "2013-01-31")
    assert found.training_rows == 31 * ROWS_A_DAY
    assert list(found.score_psi) == list(of_kind.model.kind.score_names)
    assert max(found.score_psi.values()) < 0.05


def test_a_month_unlike_the_one_before_fails_every_check(of_kind: Project) -> None:
    run = of_kind.compare(MARCH)
    assert run.success
    checks = checks_of(run)
    assert {name: found.passed for name, found in checks.items()} == {
        SCORES_STABLE: False,
        FEATURES_STABLE: False,
        OUTCOME_CHECKS[of_kind.model.kind.name]: False,
    }
    severities = {name: found.severity.value for name, found in checks.items()}
    assert severities == {name: "WARN" if name == FEATURES_STABLE else "ERROR" for name in severities}
    assert all(found.metadata["partition"].value == MARCH for found in checks.values())
    assert str(checks[FEATURES_STABLE].description).startswith("PSI above 0.2: x ")
    assert "steady" not in str(checks[FEATURES_STABLE].description)


def test_the_numbers_are_those_of_the_stored_predictions(of_kind: Project) -> None:
    of_kind.compare(FEBRUARY)
    found, kind = of_kind.drift(FEBRUARY), of_kind.model.kind
    rows, predictions = (of_kind.stored(name, days_of(FEBRUARY)) for name in ("rows", "predictions"))
    learned = of_kind.stored("rows", days_of(JANUARY))
    assert found.feature_psi["x"] == population_stability_index(learned["x"], rows["x"])
    answers = predictions[list(of_kind.watch.answers)].to_numpy()
    assert list(found.mean_score.values()) == pytest.approx(answers.mean(axis=0).tolist())
    scores = kind.score(rows["y"], answers if answers.shape[1] > 1 else answers[:, 0])
    assert found.metrics == pytest.approx(scores)
    assert found.rows_with_outcome == len(rows)
    happened = {
        "binary": lambda: [rows["y"].mean()],
        "multiclass": lambda: [(rows["y"] == label).mean() for label in kind.score_names],
        "regression": lambda: [rows["y"].mean()],
        "quantiles": lambda: [(rows["y"] <= answers[:, number]).mean() for number in range(3)],
    }[kind.name]()
    assert list(found.observed.values()) == pytest.approx(happened)
    assert list(found.predicted) == list(kind.score_names)


def test_the_report_has_numbers_tables_and_plots(of_kind: Project) -> None:
    run = of_kind.compare(FEBRUARY)
    metadata = run.asset_materializations_for_node("drift_demand")[0].metadata
    found = of_kind.drift(FEBRUARY)
    assert metadata["largest_score_psi"].value == max(found.score_psi.values())
    assert metadata["rows"].value == found.rows
    for metric, value in found.metrics.items():
        assert metadata[metric].value == value
    lengths = {"scores": len(found.score_psi), "outcomes": len(found.observed), "feature_psi": 2}
    for name, length in lengths.items():
        table = metadata[name]
        assert isinstance(table, dg.TableMetadataValue)
        assert len(table.records) == length
    for name in ("scores_plot", "calibration_plot"):
        assert str(metadata[name].value).startswith("![plot](data:image/png;base64,")


# One kind is enough for what does not depend on it.


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Project:
    settings = Settings.from_environment({"LEDGERLINE_HOME": str(tmp_path_factory.mktemp("base") / "home")})
    return made(settings, Regression())


@pytest.fixture
def numbers(base: Project, tmp_path: Path) -> Project:
    """A project whose state a test may change."""
    return copied(base, tmp_path / "home")


def rewrite(found: Project, asset: str, day: str, **columns: Any) -> None:
    """Change columns of a stored day."""
    path = Path(found.settings.data, asset, f"{day}.parquet")
    found.stored(asset, [day]).assign(**columns).to_parquet(path, index=False)


def test_numbers_without_a_bound_have_no_check_of_outcomes(numbers: Project) -> None:
    run = numbers.compare(MARCH)
    assert set(checks_of(run)) == {SCORES_STABLE, FEATURES_STABLE}
    assert numbers.drift(MARCH).metrics["bias"] > 5


def test_a_bound_may_be_of_a_custom_metric_and_of_either_direction(numbers: Project) -> None:
    far = row_metric("far", by_row=lambda outcome, predicted: np.abs(outcome - predicted) > 5)
    found = numbers.watching(on_outcomes=Bound(far, 0.1))
    check = checks_of(found.compare(MARCH))["accurate_on_outcomes"]
    assert not check.passed
    assert str(check.description).startswith("far 0.9")
    explained = found.watching(on_outcomes=Bound("r2", 0.5))
    assert checks_of(explained.compare(FEBRUARY))["accurate_on_outcomes"].passed
    assert not checks_of(explained.compare(MARCH))["accurate_on_outcomes"].passed


def test_gaps_are_evaluated_where_a_feature_may_change(numbers: Project) -> None:
    found = numbers.watching(features=["steady"], gaps=["x"])
    assert checks_of(found.compare(MARCH))[FEATURES_STABLE].passed
    for day in days_of(MARCH)[:20]:
        rewrite(found, "rows", day, x=float("nan"))
    check = checks_of(found.compare(MARCH))[FEATURES_STABLE]
    assert str(check.description).startswith("PSI above 0.2: gaps of x ")


def test_few_clusters_or_rows_are_reported_and_not_evaluated(numbers: Project) -> None:
    for fields in ({"min_clusters": 32}, {"min_rows": 31 * ROWS_A_DAY + 1}):
        checks = checks_of(numbers.watching(**fields).compare(MARCH))
        assert all(check.passed for check in checks.values())
        assert "1,240 rows in 31 clusters" in str(checks[SCORES_STABLE].description)
    assert numbers.drift(MARCH).score_psi["value"] > 1


def test_outcomes_that_are_not_known_yet_are_not_evaluated(numbers: Project) -> None:
    found = numbers.watching(on_outcomes=Bound("bias", 1.0))
    for day in days_of(MARCH)[2:]:
        rewrite(found, "rows", day, y=float("nan"))
    check = checks_of(found.compare(MARCH))["unbiased_on_outcomes"]
    assert check.passed
    assert "outcomes are known of 80 rows in 2 clusters" in str(check.description)
    for day in days_of(MARCH)[:2]:
        rewrite(found, "rows", day, y=float("nan"))
    run = found.compare(MARCH)
    assert (found.drift(MARCH).rows_with_outcome, found.drift(MARCH).metrics) == (0, {})
    assert "calibration_plot" not in run.asset_materializations_for_node("drift_demand")[0].metadata


def test_the_version_with_the_most_predictions_is_compared_unless_one_is_named(
    numbers: Project,
) -> None:
    numbers.train(MARCH)
    numbers.make(["predictions"], MARCH, "2013-03-10")
    assert numbers.compare(MARCH).success
    found = numbers.drift(MARCH)
    assert (found.version, found.rows_by_version) == (1, {"1": 21 * ROWS_A_DAY, "2": 10 * ROWS_A_DAY})
    assert numbers.compare(MARCH, version=2).success
    found = numbers.drift(MARCH)
    assert (found.version, found.rows, found.first_training_partition) == (2, 10 * ROWS_A_DAY, FEBRUARY)
    problem = problem_of(numbers.compare(MARCH, version=9), "drift_demand")
    assert "predictions has no prediction of version 9 of 2013-03-01; it has those of 1, 2" in problem


def test_one_table_of_all_predictions_is_compared_partition_by_partition(numbers: Project) -> None:
    asset = dg.AssetSpec("all_predictions", metadata={"dagster/io_manager_key": "tables"})
    file = open_tables(numbers.settings.data).path_of(asset.key, None)
    days = [*days_of(FEBRUARY), *days_of(MARCH)[:9]]
    numbers.stored("predictions", days).to_parquet(str(file), index=False)
    found = replace(numbers.watching(predictions=asset), assets=[*numbers.assets, asset])
    assert numbers.compare(FEBRUARY).success
    expected = numbers.drift(FEBRUARY)
    assert found.compare(FEBRUARY).success
    assert found.drift(FEBRUARY) == expected
    assert found.compare(MARCH).success
    assert (found.drift(MARCH).rows, found.drift(MARCH).clusters) == (9 * ROWS_A_DAY, 9)
    numbers.stored("predictions", days_of(FEBRUARY)).to_parquet(str(file), index=False)
    problem = problem_of(found.compare(MARCH), "drift_demand")
    assert "all_predictions has no prediction of 2013-03-01" in problem


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("answer_0", float("nan"), "40 of 1,240 predictions of predictions (version 1) are NaN"),
        ("v", "first", "40 of 1,240 predictions of predictions name no version in v; the first is 'first'"),
        ("v", 1.5, "name no version in v; the first is 1.5"),
        ("id", 3, "39 of 1,240 rows of predictions have the same day, id as another one"),
        ("id", "3", "cannot be joined by day, id"),
        ("id", 999, "40 of 1,240 predictions of predictions of 2013-03-01 have no row in rows any more"),
    ],
)
def test_predictions_that_cannot_be_compared_are_named(
    numbers: Project, column: str, value: Any, problem: str
) -> None:
    days = days_of(MARCH) if isinstance(value, str) else [MARCH]
    for day in days:
        change = {column: value} if day == MARCH or column == "id" else {column: 1}
        if column == "v" and value == "first":
            change = {column: value if day == MARCH else "1"}
        rewrite(numbers, "predictions", day, **change)
    assert problem in problem_of(numbers.compare(MARCH), "drift_demand")


def test_a_partition_without_predictions_is_named(numbers: Project) -> None:
    problem = problem_of(numbers.compare("2013-04-01"), "drift_demand")
    assert "predictions has no stored partition of 2013-04-01. Materialise predictions first." in problem


def test_the_error_of_a_version_without_recorded_rows_names_the_tag_to_set(numbers: Project) -> None:
    connect(numbers.settings.tracking_uri).delete_model_version_tag(NAME, "1", TRAINED_ON_TAG)
    problem = problem_of(numbers.compare(MARCH), "drift_demand")
    assert "demand version 1 does not record which partitions it was trained on" in problem


def test_without_the_extra_for_pictures_there_are_none(
    numbers: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    run = numbers.compare(FEBRUARY)
    assert run.success
    metadata = run.asset_materializations_for_node("drift_demand")[0].metadata
    assert not {"scores_plot", "calibration_plot"} & metadata.keys()
    assert "scores" in metadata


def test_the_last_stored_partition_is_evaluated_where_a_check_is_executed_alone(numbers: Project) -> None:
    for month in (MARCH, FEBRUARY):
        assert numbers.compare(month).success
    found, problem = numbers.check_alone([MARCH, FEBRUARY]), numbers.check_alone([])
    (evaluation,) = found.get_asset_check_evaluations()
    assert evaluation.metadata["partition"].value == MARCH
    assert "Run the job watch_demand first." in problem_of(problem, "drift_demand_checks")
