"""Tests that contradictory declarations are refused when definitions are loaded, with model and field."""

from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest

from ledgerline.dagster.released_models.declaration import Baseline, DeclarationError, ReleasedModel
from ledgerline.dagster.released_models.holdout import Holdout
from ledgerline.dagster.released_models.names import released_models
from ledgerline.dagster.released_models.released import released
from ledgerline.dagster.resources import library_resources
from ledgerline.dagster.settings import Settings
from ledgerline.evaluation.gates import Better, Calibrated, NoSliceWorse
from ledgerline.evaluation.kinds import Binary, Multiclass, Quantiles, Regression
from ledgerline.evaluation.metrics import row_metric
from ledgerline.evaluation.policy import Policy
from tests.released_models.declared import DAYS, declared

SCHEMA = dg.TableSchema([dg.TableColumn(name) for name in ("x", "y", "day", "city")])


def several() -> dg.AssetsDefinition:
    @dg.multi_asset(specs=[dg.AssetSpec("a"), dg.AssetSpec("b")])
    def both(): ...

    return both


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"slices": ["district"]}, "slices: rows has no column 'district'; it has city, day, x, y"),
        ({"outcome": "z"}, "outcome: rows has no column 'z'"),
        ({"clusters": "week"}, "clusters: rows has no column 'week'"),
        ({"features": ["x", "w"]}, "features: rows has no column 'w'"),
        ({"partitions": None}, "holdout: rows has no partitions"),
        ({"partitions": None, "holdout": Holdout(0.2, ["id"])}, "holdout: rows has no column 'id'"),
        ({"holdout": Holdout(0.2, ["day"])}, "holdout: rows has partitions"),
        (
            {"baseline": Baseline("shares", lambda a, b: b, Multiclass)},
            "baseline: shares predicts Multiclass",
        ),
        ({"policy": Policy((Calibrated(0.1),))}, "policy: "),
        ({"policy": Policy((Better("brier"),))}, "policy: "),
        ({"metrics": [row_metric("rmse", lambda a, b: a)]}, "metrics: two metrics have the name 'rmse'"),
        ({"versions": several()}, "versions: the definition makes several assets"),
        ({"rows": "rows"}, "rows: 'rows' is neither an asset nor an AssetSpec"),
    ],
)
def test_a_declaration_that_contradicts_itself_names_model_and_field(
    fields: dict[str, Any], problem: str
) -> None:
    with pytest.raises(DeclarationError) as refused:
        declared(name="demand", schema=SCHEMA, **fields)
    assert f"Released model 'demand': {problem}" in str(refused.value)


@pytest.mark.parametrize("name", ["", " demand"])
def test_a_model_needs_a_name(name: str) -> None:
    with pytest.raises(DeclarationError, match="The name of a released model is"):
        ReleasedModel(
            name=name,
            kind=Regression(),
            versions=dg.AssetSpec("v", partitions_def=DAYS),
            rows=dg.AssetSpec("r", partitions_def=DAYS),
            outcome="y",
            inputs=lambda rows: rows,
            clusters=None,
        )


@pytest.mark.parametrize(
    "kind",
    [
        lambda: Quantiles(()),
        lambda: Quantiles((0.9, 0.1)),
        lambda: Quantiles((0.5, 1.5)),
        lambda: Multiclass(("a",)),
    ],
)
def test_an_incomplete_kind_is_refused(kind: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=r"levels|classes"):
        kind()


def test_columns_that_are_not_declared_are_not_guessed() -> None:
    assert declared(name="demand", slices=["anything"]).slices == ["anything"]


@pytest.mark.parametrize("other", ["demand", "de-mand", "de_mand"])
def test_two_models_that_are_one_in_dagster_are_refused(other: str) -> None:
    first = {"demand": "demand"}.get(other, "de.mand")
    with pytest.raises(DeclarationError, match=f"Released model '{first}': name: another declared model"):
        released(declared(name=first), declared(name=other))


def test_two_models_in_one_code_location_share_nothing(settings: Settings) -> None:
    rows = dg.AssetSpec("rows", partitions_def=DAYS)
    models = [
        declared(name="heat.demand", rows=rows, policy=Policy((Better(margin=2.0), NoSliceWorse(5.0)))),
        declared(name="open", rows=rows, kind=Binary()),
    ]
    project = dg.Definitions(
        assets=[rows, *(model.versions for model in models)], resources=library_resources(settings)
    )
    definitions = dg.Definitions.merge(project, released(*models))
    found = released_models(definitions)
    assert list(found) == ["heat.demand", "open"]
    assert found["heat.demand"] == models[0].names
    assert (found["open"].release_job, found["open"].comparison_op) == ("release_open", "comparison_open")
    graph = definitions.resolve_asset_graph()
    checks = {(key.asset_key.to_user_string(), key.name) for key in graph.asset_check_keys}
    assert ("comparison_heat_demand", "better_than_production") in checks
    assert ("comparison_heat_demand", "fast_enough") not in checks
    assert ("comparison_open", "fast_enough") in checks
    sensors = {sensor.name for sensor in definitions.sensors or []}
    assert {"staging_changed_open", "production_changed_heat_demand", "registry_drift_open"} <= sensors
