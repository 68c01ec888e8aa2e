"""Tests the checks as Dagster runs them: which rows they evaluate, and that they stop later steps."""

from collections.abc import Callable, Sequence
from pathlib import Path

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets import checks, features, flights, reference
from ledgerline.dagster.settings import Settings
from resources.wiring import resources_for

RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"

CHECKS = {table.asset: check for table, check in zip(checks.TABLES, checks.CHECKS, strict=True)}
TABLES = [
    reference.airports,
    reference.airlines,
    reference.planes,
    reference.weather,
    flights.flights,
    features.features,
]

DAMAGED_DAY = "2013-02-03"


def evaluated_alone(settings: Settings, selection: dg.AssetSelection) -> dict[str, dg.AssetCheckEvaluation]:
    """Return the evaluations of checks that are executed alone, by name."""
    run = dg.materialize(
        [*TABLES, *CHECKS.values()],
        selection=selection,
        resources=resources_for(settings),
        raise_on_error=False,
    )
    return {evaluation.check_name: evaluation for evaluation in run.get_asset_check_evaluations()}


def checked_table(settings: Settings, asset: str) -> dict[str, dg.AssetCheckEvaluation]:
    return evaluated_alone(settings, dg.AssetSelection.checks(CHECKS[asset]))


def failed(evaluations: dict[str, dg.AssetCheckEvaluation]) -> set[str]:
    return {name for name, evaluation in evaluations.items() if not evaluation.passed}


def run_after_flights(settings: Settings, days: Sequence[str]) -> dg.ExecuteInProcessResult:
    """Check the stored flights of some days and, if they pass, build their features."""
    assets = [*TABLES, CHECKS["flights"]]
    return dg.materialize(
        assets,
        selection=dg.AssetSelection.checks(CHECKS["flights"]) | dg.AssetSelection.assets("features"),
        resources=resources_for(settings),
        tags={RANGE_START: days[0], RANGE_END: days[-1]},
        raise_on_error=False,
    )


def rewrite(settings: Settings, file: str, change: Callable[[pa.Table], pa.Table]) -> None:
    path = Path(settings.data, f"{file}.parquet")
    pq.write_table(change(pq.ParquetFile(path).read()), path)


def with_first_row_twice(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table.slice(0, 1), table])


@pytest.mark.parametrize("asset", CHECKS)
def test_real_tables_pass_all_their_checks(asset: str, ingested: Settings) -> None:
    evaluations = checked_table(ingested, asset)
    assert set(evaluations) == {spec.name for spec in CHECKS[asset].check_specs}
    assert failed(evaluations) == set()


@pytest.mark.parametrize("asset", CHECKS)
def test_every_check_blocks_and_is_described(asset: str) -> None:
    assert all(spec.blocking and spec.description for spec in CHECKS[asset].check_specs)


def test_only_features_are_checked_for_leakage() -> None:
    evaluated = {
        asset
        for asset, definition in CHECKS.items()
        for spec in definition.check_specs
        if spec.name == checks.KNOWN_BEFORE_DEPARTURE
    }
    assert evaluated == {"features"}


def test_checks_executed_alone_evaluate_all_stored_days(ingested: Settings) -> None:
    evaluations = checked_table(ingested, "flights")
    counts = evaluations[checks.ROWS_OF_SOURCE].metadata
    assert counts["stored_rows"].value == counts["source_rows"].value == 27_004 + 24_951 + 28_834


def test_a_single_check_can_be_executed(ingested: Settings) -> None:
    key = dg.AssetCheckKey(dg.AssetKey("flights"), checks.UNIQUE_KEY)
    assert set(evaluated_alone(ingested, dg.AssetSelection.checks(key))) == {checks.UNIQUE_KEY}


def test_features_are_built_of_good_flights(damageable: Settings) -> None:
    run = run_after_flights(damageable, [DAMAGED_DAY])
    assert run.success
    assert [event.asset_key for event in run.get_asset_materialization_events()] == [dg.AssetKey("features")]


def test_a_row_stored_twice_stops_features_from_being_built(damageable: Settings) -> None:
    rewrite(damageable, f"flights/{DAMAGED_DAY}", with_first_row_twice)
    features_before = Path(damageable.data, f"features/{DAMAGED_DAY}.parquet").read_bytes()
    run = run_after_flights(damageable, [DAMAGED_DAY])
    assert not run.success
    assert run.get_asset_materialization_events() == []
    evaluations = {found.check_name: found for found in run.get_asset_check_evaluations()}
    assert failed(evaluations) == {checks.UNIQUE_KEY, checks.ROWS_OF_SOURCE}
    assert str(evaluations[checks.UNIQUE_KEY].description).startswith("2 rows share a key")
    assert str(evaluations[checks.ROWS_OF_SOURCE].description).startswith("1 of 1 partitions differ")
    assert Path(damageable.data, f"features/{DAMAGED_DAY}.parquet").read_bytes() == features_before


def test_a_run_over_partitions_evaluates_only_these(
    damageable: Settings, source_flights: pd.DataFrame
) -> None:
    rewrite(damageable, f"flights/{DAMAGED_DAY}", with_first_row_twice)
    days = ["2013-02-04", "2013-02-05", "2013-02-06"]
    other_days = run_after_flights(damageable, days)
    assert other_days.success
    evaluations = {found.check_name: found for found in other_days.get_asset_check_evaluations()}
    assert evaluations[checks.ROWS_OF_SOURCE].metadata["source_rows"].value == int(
        source_flights["date"].isin(days).sum()
    )
    assert failed(checked_table(damageable, "flights")) == {checks.UNIQUE_KEY, checks.ROWS_OF_SOURCE}


def test_missing_rows_are_reported_with_their_day(damageable: Settings) -> None:
    rewrite(damageable, f"flights/{DAMAGED_DAY}", lambda table: table.slice(3))
    evaluations = checked_table(damageable, "flights")
    assert failed(evaluations) == {checks.ROWS_OF_SOURCE}
    assert f"1 of 9 partitions differ: {DAMAGED_DAY} has " in str(
        evaluations[checks.ROWS_OF_SOURCE].description
    )


def test_without_a_declared_column_nothing_else_is_evaluated(damageable: Settings) -> None:
    rewrite(damageable, f"flights/{DAMAGED_DAY}", lambda table: table.drop_columns("tailnum"))
    evaluations = checked_table(damageable, "flights")
    assert failed(evaluations) == set(evaluations)
    assert evaluations[checks.DECLARED_COLUMNS].description == "tailnum is missing"
    assert evaluations[checks.UNIQUE_KEY].description == "Cannot be evaluated: tailnum is missing"


@pytest.mark.parametrize("asset", ["airports", "airlines", "planes", "weather"])
def test_a_reference_table_with_a_row_too_many_fails(asset: str, damageable: Settings) -> None:
    rewrite(damageable, asset, with_first_row_twice)
    assert failed(checked_table(damageable, asset)) == {checks.UNIQUE_KEY, checks.ROWS_OF_SOURCE}


def test_features_are_counted_against_the_stored_flights(damageable: Settings) -> None:
    rewrite(damageable, f"flights/{DAMAGED_DAY}", lambda table: table.slice(3))
    assert failed(checked_table(damageable, "features")) == {checks.ROWS_OF_SOURCE}


def test_an_impossible_value_is_reported(damageable: Settings) -> None:
    def with_a_storm(table: pa.Table) -> pa.Table:
        speeds = pa.array([1048.4] * table.num_rows, pa.float64())
        return table.set_column(table.column_names.index("wind_speed"), "wind_speed", speeds)

    rewrite(damageable, f"features/{DAMAGED_DAY}", with_a_storm)
    evaluations = checked_table(damageable, "features")
    assert failed(evaluations) == {checks.PLAUSIBLE_VALUES}
    assert "outside 0 to 253, as 1048.4" in str(evaluations[checks.PLAUSIBLE_VALUES].description)


@pytest.mark.parametrize("outcome", ["dep_delay", "arr_delay"])
def test_an_outcome_that_leaks_into_a_feature_is_detected(outcome: str, damageable: Settings) -> None:
    for file in Path(damageable.data, "features").iterdir():
        delays = pq.ParquetFile(Path(damageable.data, "flights", file.name)).read()[outcome]

        def leak(table: pa.Table, delays: pa.ChunkedArray = delays) -> pa.Table:
            return table.set_column(table.column_names.index("pressure"), "pressure", delays.cast("double"))

        rewrite(damageable, f"features/{file.stem}", leak)
    evaluations = checked_table(damageable, "features")
    assert checks.KNOWN_BEFORE_DEPARTURE in failed(evaluations)
    assert "pressure alone tells the outcome (ROC AUC" in str(
        evaluations[checks.KNOWN_BEFORE_DEPARTURE].description
    )


@pytest.mark.parametrize(
    "asset",
    ["planes", "flights"],
)
def test_a_table_that_was_never_written_fails_its_checks_by_name(asset: str, settings: Settings) -> None:
    run = dg.materialize(
        [*TABLES, *CHECKS.values()],
        selection=dg.AssetSelection.checks(CHECKS[asset]),
        resources=resources_for(settings),
        raise_on_error=False,
    )
    failure = run.failure_data_for_node(f"{asset}_checks")
    if failure is None:
        assert failed({found.check_name: found for found in run.get_asset_check_evaluations()})
    else:
        assert "PermanentFailure" in str(failure.error)
        assert asset in str(failure.error).partition("Stack Trace")[0]
