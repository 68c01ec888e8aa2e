"""Tests that a watch that contradicts its model is refused when definitions are loaded."""

from typing import Any

import dagster as dg
import pytest

from ledgerline.dagster.released_models.declaration import DeclarationError
from ledgerline.dagster.released_models.released import released
from ledgerline.dagster.released_models.watch import Bound, Watch
from ledgerline.dagster.resources import library_resources
from ledgerline.dagster.settings import Settings
from ledgerline.evaluation.kinds import Binary, Multiclass, Quantiles, Regression
from ledgerline.evaluation.metrics import row_metric
from ledgerline.evaluation.prediction_kind import PredictionKind
from tests.released_models.declared import DAYS, declared

ROWS = dg.TableSchema([dg.TableColumn(name) for name in ("x", "y", "day", "id")])
STORED = dg.TableSchema([dg.TableColumn(name) for name in ("day", "id", "answer", "version")])


def table(partitions: dg.PartitionsDefinition | None = DAYS) -> dg.AssetSpec:
    metadata = {"dagster/column_schema": STORED}
    return dg.AssetSpec("answers", partitions_def=partitions, metadata=metadata)


def watch(**fields: Any) -> Watch:
    given = {"predictions": table(), "join": ["day", "id"], "answers": ["answer"], "version": "version"}
    return Watch(**{**given, **fields})


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"predictions": "answers"}, "watch.predictions: 'answers' is neither an asset nor an AssetSpec"),
        (
            {"predictions": table(dg.StaticPartitionsDefinition(["a"]))},
            "watch.predictions: answers has other partitions than the rows",
        ),
        (
            {"join": ["day", "order"]},
            "watch.join: answers has no column 'order'; it has answer",
        ),
        ({"join": []}, "watch.join: [] is not a list of different columns"),
        ({"join": "day"}, "watch.join: 'day' is not a list of different columns"),
        (
            {"join": ["day", "answer"]},
            "watch.join: the rows have no column 'answer'; they have day",
        ),
        ({"answers": ["value"]}, "watch.answers: answers has no column 'value'"),
        ({"answers": ["answer", "id"]}, "watch.answers: 2 columns, and a prediction has 1: value"),
        ({"version": "model"}, "watch.version: answers has no column 'model'"),
        ({"features": ["id"]}, "watch.features: 'id' is not one of the features of the model"),
        ({"gaps": ["y"]}, "watch.gaps: 'y' is not one of the features of the model"),
        ({"max_score_psi": 0}, "watch.max_score_psi: 0 is not above 0"),
        ({"max_feature_psi": float("nan")}, "watch.max_feature_psi: nan is not above 0"),
        ({"min_clusters": 0}, "watch.min_clusters: 0 is not at least 1"),
        ({"on_outcomes": Bound("brier", 0.1)}, "watch.on_outcomes: Unknown metrics: brier; for regression"),
    ],
)
def test_a_watch_that_contradicts_its_model_names_model_and_field(
    fields: dict[str, Any], problem: str
) -> None:
    with pytest.raises(DeclarationError) as refused:
        declared(name="demand", schema=ROWS, features=["x"], watch=watch(**fields))
    assert f"Released model 'demand': {problem}" in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "fields", "names"),
    [
        (Binary(), {}, ["scores_stable", "features_stable", "calibrated_on_outcomes"]),
        (
            Multiclass(("a", "b")),
            {"answers": ["p", "q"]},
            ["scores_stable", "features_stable", "calibrated_on_outcomes"],
        ),
        (
            Quantiles((0.1, 0.9)),
            {"answers": ["p", "q"]},
            ["scores_stable", "features_stable", "covers_outcomes"],
        ),
        (Regression(), {}, ["scores_stable", "features_stable"]),
        (Regression(), {"features": []}, ["scores_stable"]),
        (
            Regression(),
            {"on_outcomes": Bound("bias", 2.0)},
            ["scores_stable", "features_stable", "unbiased_on_outcomes"],
        ),
        (
            Regression(),
            {"on_outcomes": Bound(row_metric("cost", lambda outcome, predicted: outcome), 2.0)},
            ["scores_stable", "features_stable", "accurate_on_outcomes"],
        ),
    ],
)
def test_each_kind_of_prediction_has_its_checks(
    kind: PredictionKind, fields: dict[str, Any], names: list[str], settings: Settings
) -> None:
    spec = dg.AssetSpec("answers", partitions_def=DAYS)
    model = declared(name="demand", kind=kind, features=["x"], watch=watch(predictions=spec, **fields))
    resources = library_resources(settings)
    project = dg.Definitions(assets=[model.versions, model.rows, spec], resources=resources)
    graph = dg.Definitions.merge(project, released(model)).resolve_asset_graph()
    found = [key.name for key in graph.asset_check_keys if key.asset_key == model.names.drift]
    assert sorted(found) == sorted(names)
    requests = [key.name for key in graph.asset_check_keys if key.asset_key == model.names.requests_drift]
    assert requests == ["scores_stable"]


def test_predictions_of_other_first_and_last_days_are_the_same_partitions() -> None:
    longer = dg.DailyPartitionsDefinition(start_date="2010-01-01")
    assert declared(name="demand", watch=watch(predictions=table(longer))).watch is not None
    weekly = watch(predictions=table(dg.WeeklyPartitionsDefinition(start_date="2013-01-01")))
    with pytest.raises(DeclarationError, match="other partitions than the rows"):
        declared(name="demand", watch=weekly)


def test_a_model_without_a_watch_has_no_assets_of_drift() -> None:
    model = declared(name="demand")
    keys = {key for asset in released(model).assets or [] for key in asset.keys}  # pyright: ignore
    assert not {model.names.drift, model.names.requests_drift} & keys


def test_two_models_whose_jobs_would_have_one_name_are_refused() -> None:
    first = declared(name="demand", watch=watch())
    other = declared(name="requests_demand", watch=watch())
    with pytest.raises(DeclarationError, match=r"'requests_demand': name: its job watch_requests_demand"):
        released(first, other)
