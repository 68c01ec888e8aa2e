"""Tests a release with a team's rows, model and partitions: promoted, refused, rolled back."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression

from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.dagster.released_models.declaration import ReleasedModel
from ledgerline.dagster.released_models.holdout import Holdout
from ledgerline.dagster.released_models.registration import RegisteredVersion, register_version
from ledgerline.dagster.released_models.released import released
from ledgerline.dagster.resources import library_resources, registry_of
from ledgerline.dagster.settings import Settings
from ledgerline.dagster.tracking import MLflowResource
from ledgerline.evaluation.gates import Better, SameSignature
from ledgerline.evaluation.kinds import Binary, Multiclass, Regression
from ledgerline.evaluation.policy import Policy
from ledgerline.evaluation.prediction_kind import PredictionKind
from ledgerline.registry.moves import MoveRefusedError
from ledgerline.registry.promotion import Request
from ledgerline.registry.provenance import Provenance

DAYS = dg.DailyPartitionsDefinition(start_date="2026-01-01", end_date="2026-01-05")
HOURS = dg.HourlyPartitionsDefinition(start_date="2026-01-01-00:00", end_date="2026-01-01-04:00")
WEEKS = dg.WeeklyPartitionsDefinition(start_date="2026-01-04", end_date="2026-02-01")
CITIES = dg.StaticPartitionsDefinition(["Oslo", "Rome", "a/b", "x y"])
BOTH = dg.MultiPartitionsDefinition(
    {
        "city": dg.StaticPartitionsDefinition(["Oslo", "Rome"]),
        "day": dg.DailyPartitionsDefinition("2026-01-01", end_date="2026-01-03"),
    }
)
NEW = dg.DynamicPartitionsDefinition(name="shops")
NEW_KEYS = ["first", "second", "third", "fourth"]

ESTIMATORS: dict[str, tuple[PredictionKind, Callable[[], Any], Callable[[], Any]]] = {
    "regression": (Regression(), LinearRegression, DummyRegressor),
    "binary": (Binary(), LogisticRegression, DummyClassifier),
    "multiclass": (Multiclass((0, 1, 2)), LogisticRegression, DummyClassifier),
}


class TrainConfig(dg.Config):
    is_good: bool = True


def made(seed: str, kind: PredictionKind) -> pd.DataFrame:
    """Return 300 rows of a partition, in 30 clusters, whose outcome depends on `x`."""
    random = np.random.default_rng(list(seed.encode()))
    x = random.normal(size=300)
    y = 3 * x + random.normal(size=300)
    outcome: Any = y
    if kind.name == "binary":
        outcome = y > 0
    elif kind.name == "multiclass":
        outcome = np.digitize(y, [-1.5, 1.5])
    return pd.DataFrame({"id": range(300), "x": x, "y": outcome, "group": np.arange(300) // 10, "part": seed})


def project(
    kind_name: str, partitions: dg.PartitionsDefinition | None, settings: Settings
) -> tuple[ReleasedModel, dg.Definitions]:
    """Return a project as a team writes one, in few lines."""
    kind, good, bad = ESTIMATORS[kind_name]

    @dg.asset(partitions_def=partitions)
    def rows(context: dg.AssetExecutionContext) -> pd.DataFrame:
        return made(context.partition_key if partitions is not None else "all", kind)

    @dg.asset(partitions_def=partitions, deps=[dg.AssetDep(rows, partition_mapping=dg.AllPartitionMapping())])
    def version(
        context: dg.AssetExecutionContext,
        config: TrainConfig,
        mlflow: MLflowResource,
        registry: ModelRegistryResource,
    ) -> RegisteredVersion:
        key = context.partition_key if partitions is not None else None
        others = [each for each in keys_of(partitions, context.instance) if each != key]
        if holdout is not None:
            everything = made("all", kind)
            trained_on = everything[~holdout.is_held_out(everything)]
        else:
            trained_on = pd.concat([made(each, kind) for each in others])
        estimator = (good if config.is_good else bad)().fit(trained_on[["x"]], trained_on["y"])
        with mlflow.training_run(context, "demand") as run:
            model_id = run.log_model(estimator, "demand", trained_on[["x"]], method=kind.method)
        return register_version(
            context,
            registry,
            model,
            model_id=model_id,
            provenance=Provenance(key, trained_on=others if key else ()),
            metrics={},
        )

    holdout = Holdout(0.3, ["id"]) if partitions is None else None
    model = ReleasedModel(
        name="team.demand",
        kind=kind,
        versions=version,
        rows=rows,
        outcome="y",
        inputs=lambda rows: rows[["x"]],
        clusters="group",
        features=["x"],
        holdout=holdout,
        policy=Policy([Better(), SameSignature()], resamples=200),
    )
    own = dg.Definitions(
        assets=[rows, version],
        jobs=[dg.define_asset_job(each.op.name, [each]) for each in (rows, version)],
        resources=library_resources(settings),
    )
    return model, dg.Definitions.merge(own, released(model))


def keys_of(partitions: dg.PartitionsDefinition | None, instance: dg.DagsterInstance) -> Sequence[str]:
    return [] if partitions is None else partitions.get_partition_keys(dynamic_partitions_store=instance)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    folder = tmp_path / "dagster"
    folder.mkdir()
    with dg.DagsterInstance.local_temp(str(folder)) as instance:
        instance.add_dynamic_partitions("shops", NEW_KEYS)
        yield instance


def run(
    definitions: dg.Definitions, instance: dg.DagsterInstance, asset: str, key: str | None, **config: Any
) -> None:
    ops = {"ops": {asset: {"config": config}}} if config else {}
    job = definitions.resolve_job_def(asset)
    assert job.execute_in_process(instance=instance, partition_key=key, run_config=ops).success


def release(definitions: dg.Definitions, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    job = definitions.resolve_job_def("release_team_demand")
    result = job.execute_in_process(instance=instance)
    assert result.success
    return result


@pytest.mark.parametrize(
    ("kind_name", "partitions"),
    [
        ("regression", None),
        ("regression", DAYS),
        ("regression", HOURS),
        ("regression", WEEKS),
        ("regression", CITIES),
        ("regression", BOTH),
        ("regression", NEW),
        ("binary", None),
        ("binary", DAYS),
        ("multiclass", CITIES),
    ],
    ids=lambda each: each if isinstance(each, str) else type(each).__name__,
)
def test_a_good_version_is_promoted_a_worse_one_refused_and_production_rolled_back(
    settings: Settings,
    instance: dg.DagsterInstance,
    kind_name: str,
    partitions: dg.PartitionsDefinition | None,
) -> None:
    model, definitions = project(kind_name, partitions, settings)
    keys = keys_of(partitions, instance) or [None]
    for key in keys:
        run(definitions, instance, "rows", key)
    registry = registry_of(settings)

    run(definitions, instance, "version", keys[-1])
    release(definitions, instance)
    first = registry.model(model.name).version_with_alias("production")
    assert first is not None
    assert first.number == 1

    run(definitions, instance, "version", keys[-1], is_good=False)
    refused = release(definitions, instance)
    (better,) = [
        check
        for check in refused.get_asset_check_evaluations()
        if check.check_name == "better_than_production"
    ]
    assert not better.passed
    assert "against" in str(better.description)
    registered = registry.model(model.name)
    assert registered.version_with_alias("production") == first

    document = registered.evidence(registered.history().evaluations()[-1])
    assert document is not None
    assert document["comparison"]["kind"]["name"] == kind_name
    if partitions is None:
        assert 60 < document["holdout"]["rows"] < 120
    else:
        assert document["holdout"]["rows"] == 300
        assert document["holdout"]["first_partition"] == keys[-1]
    assert set(document["training_psi"]) == {"x"}

    by_hand = Request(by="a person", reason="a test", run_id="", id="by hand")
    client_moves = registry.model(model.name).history().moves("production")
    assert [move.to_version for _, move, _ in client_moves] == [1]
    with pytest.raises(
        MoveRefusedError, match=r"No version of team\.demand was in production before version 1"
    ):
        registry.model(model.name).rollback(None, by_hand)


def test_a_version_that_was_trained_on_its_evaluation_rows_is_refused(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    model, definitions = project("regression", CITIES, settings)
    for key in CITIES.get_partition_keys():
        run(definitions, instance, "rows", key)
    run(definitions, instance, "version", "Oslo")
    job = definitions.resolve_job_def("compare_team_demand")
    config = {"ops": {model.names.comparison_op: {"config": {"partition": "Rome"}}}}
    result = job.execute_in_process(instance=instance, run_config=config, raise_on_error=False)
    failure = str(result.failure_data_for_node(model.names.comparison_op))
    assert "team.demand version 1 was trained on 1 of the 1 partitions Rome" in failure


def test_rows_that_are_not_stored_are_named(settings: Settings, instance: dg.DagsterInstance) -> None:
    model, definitions = project("regression", CITIES, settings)
    run(definitions, instance, "rows", "Oslo")
    run(definitions, instance, "version", "Oslo")
    job = definitions.resolve_job_def("compare_team_demand")
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    failure = str(result.failure_data_for_node(model.names.comparison_op))
    assert "team.demand version 1 was trained on 3 partitions of rows" in failure
    assert "3 of them are not stored: the first is Rome" in failure


@pytest.mark.parametrize("field", ["features", "slices"])
def test_a_column_that_the_rows_turn_out_to_lack_is_named(
    settings: Settings, instance: dg.DagsterInstance, field: str
) -> None:
    model, definitions = project("regression", CITIES, settings)
    for key in CITIES.get_partition_keys():
        run(definitions, instance, "rows", key)
    run(definitions, instance, "version", "Oslo")
    lacking = replace(model, **{field: ["weather"]})
    own = dg.Definitions(assets=list(definitions.assets or [])[:2], resources=library_resources(settings))
    job = dg.Definitions.merge(own, released(lacking)).resolve_job_def("compare_team_demand")
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    failure = str(result.failure_data_for_node(model.names.comparison_op))
    assert "rows has no column 'weather', which the declaration of team.demand names" in failure
    assert "Its columns are id, x, y, group, part" in failure
