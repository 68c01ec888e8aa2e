"""Tests the assets, partitions and checks of a run in its history."""

from dataclasses import replace
from hashlib import sha256

import dagster as dg
import pytest

from ledgerline.ledger.history import Run, RunHistory, RunStatus
from ledgerline.testing.recordings import Recordings
from tests.observability.histories import FAILURE, SUCCESS, attempt_at, failed_phases, outline, words


def test_a_materialisation_names_the_versions_that_it_was_made_from(recorded: Recordings) -> None:
    history = recorded["processes"].history
    assert history.planned == ("airlines", "fleet", "planes")
    written = {each.asset: each for each in history.materialisations}
    versions = {asset: each.data_version for asset, each in written.items()}
    assert len(set(versions.values())) == 3
    assert {asset: each.code_version for asset, each in written.items()} == {
        "planes": "1",
        "airlines": "2",
        "fleet": history.run.run_id,
    }
    assert [(read.asset, read.recorded) for read in written["fleet"].reads] == [
        ("airlines", versions["airlines"]),
        ("planes", versions["planes"]),
    ]
    assert (written["planes"].reads, written["airlines"].reads) == ((), ())
    assert (written["planes"].rows, written["airlines"].rows) == (3_322, None)
    # It depends on airlines without loading them.
    assert attempt_at(history, "fleet").inputs == ("planes",)


def test_a_range_of_partitions_is_one_attempt_with_a_materialisation_for_each(recorded: Recordings) -> None:
    history = recorded["partitions"].history
    assert history.title == "delays, flights, weather monday...tuesday"
    assert history.run.partition_range == ("monday", "tuesday")
    assert outline(history) == [
        ("flights", 1, SUCCESS, ("compute", "store result")),
        ("weather", 1, SUCCESS, ("compute", "store result")),
        ("delays", 1, SUCCESS, ("load flights", "load weather", "compute", "store result")),
    ]
    assert attempt_at(history, "delays").inputs == ("flights", "weather")
    flights = attempt_at(history, "flights").materialisations
    assert {(each.partition, each.rows, each.content_sha256) for each in flights} == {
        ("monday", 100, "digest of monday"),
        ("tuesday", 101, "digest of tuesday"),
    }
    assert flights[0].schema == dg.TableSchema([dg.TableColumn("tailnum", "string")])
    assert flights[0].schema is flights[1].schema
    delays = attempt_at(history, "delays").materialisations
    assert {each.partition for each in delays} == {"monday", "tuesday"}
    assert delays[0].column_lineage is delays[1].column_lineage
    assert delays[0].column_lineage is not None
    assert delays[0].column_lineage.deps_by_column["delay"][0].asset_key == dg.AssetKey("flights")
    # Dagster records one version for several partitions: a digest of their versions.
    of_flights = sha256("".join(str(each.data_version) for each in flights).encode()).hexdigest()
    for each in delays:
        reads = [(read.asset, read.recorded) for read in each.reads]
        assert reads == [("flights", of_flights), ("weather", "weather of 2013")]


def test_an_observation_belongs_to_the_attempt_that_made_it(recorded: Recordings) -> None:
    (observation,) = attempt_at(recorded["partitions"].history, "delays").observations
    assert (observation.asset, observation.partition, observation.data_version) == ("runways", "JFK", None)


def test_an_observed_source_has_its_observed_version(recorded: Recordings) -> None:
    history = recorded["observed"].history
    assert outline(history) == [("tower", 1, SUCCESS, ("resources", "compute"))]
    (observation,) = history.attempts[0].observations
    assert (observation.asset, observation.partition, observation.data_version) == ("tower", None, "open")
    assert history.materialisations == []


@pytest.mark.parametrize(
    "job",
    [
        "__ASSET_JOB",
        "__ASSET_JOB_1",
        "__ASSET_JOB_12",
        "__ephemeral_asset_job__",
        "__anonymous_asset_job_of_the_sensor",
    ],
)
def test_a_run_without_a_named_job_is_named_after_its_assets(job: str) -> None:
    run = Run("11111111-2222-4333-8444-555555555555", job, created=1_000.0)
    planned = ("flights", "planes", "weather", "airports", "airlines")
    assert RunHistory(run, planned=planned[:2]).title == "flights, planes"
    assert RunHistory(run, planned=planned).title == "flights, planes, weather and 2 more"
    selected = replace(
        run, selection=("flights", "flights has_rows"), tags={"dagster/partition": "2013-01-01"}
    )
    assert RunHistory(selected).title == "flights, flights has_rows 2013-01-01"
    assert RunHistory(run).title == "assets"
    assert RunHistory(replace(run, job=f"my{job}")).title == f"my{job}"


def test_an_observation_is_named_after_its_asset(recorded: Recordings) -> None:
    assert recorded["observed"].history.title == "tower"


def test_only_the_assets_that_were_selected_are_planned_and_written(recorded: Recordings) -> None:
    history = recorded["some outputs"].history
    assert history.planned == ("departures", "diversions")
    assert outline(history) == [("movements", 1, SUCCESS, ("resources", "compute"))]
    assert [(each.asset, each.rows) for each in history.materialisations] == [
        ("departures", 0),
        ("diversions", 1),
    ]


def test_materialisations_before_a_failure_are_in_the_history(recorded: Recordings) -> None:
    history = recorded["half an output"].history
    assert history.status is RunStatus.FAILURE
    assert history.planned == ("first_half", "second_half")
    phases = ("resources", "compute", "store first_half", "compute #2")
    assert outline(history) == [("halves", 1, FAILURE, phases)]
    assert [each.asset for each in history.materialisations] == ["first_half"]
    (attempt,) = history.attempts
    assert failed_phases(attempt) == ["compute #2"]
    assert words(attempt.error) == ["ValueError: the second half is missing"]


def test_the_steps_of_a_graph_asset_are_in_the_history_and_the_last_writes_it(recorded: Recordings) -> None:
    history = recorded["graph asset"].history
    assert outline(history) == [
        ("oldest_plane.read_planes", 1, SUCCESS, ("compute", "store result")),
        ("oldest_plane.oldest", 1, SUCCESS, ("load planes", "compute", "store result")),
        ("retired", 1, SUCCESS, ("load oldest_plane", "compute", "store result")),
    ]
    assert [attempt.op for attempt in history.attempts] == [attempt.step for attempt in history.attempts]
    oldest, retired = history.materialisations
    assert (oldest.asset, retired.asset) == ("oldest_plane", "retired")
    assert [(read.asset, read.recorded) for read in retired.reads] == [("oldest_plane", oldest.data_version)]


def test_checks_are_in_the_history_and_a_blocking_one_fails_its_step(recorded: Recordings) -> None:
    history = recorded["checks"].history
    assert history.status is RunStatus.FAILURE
    assert outline(history) == [
        ("checked", 1, SUCCESS, ("compute",)),
        ("checked_plausible_values", 1, SUCCESS, ("compute",)),
        ("checked_unique_key", 1, FAILURE, ("compute",)),
    ]
    assert [
        (check.asset, check.name, check.passed, check.severity, check.description)
        for attempt in history.attempts
        for check in attempt.checks
    ] == [
        ("checked", "has_rows", True, "ERROR", "3 rows"),
        ("checked", "plausible_values", False, "WARN", None),
        ("checked", "unique_key", False, "ERROR", "2 rows share a key"),
    ]
    assert [each.asset for each in history.materialisations] == ["checked"]
    assert history.planned == ("after_checked", "checked")
    (error,) = words(history.attempts[-1].error)
    assert error == (
        "dagster._core.errors.DagsterAssetCheckFailedError: "
        "1 blocking asset check failed with ERROR severity:\nchecked: unique_key"
    )


def test_steps_whose_inputs_were_not_made_are_skipped(recorded: Recordings) -> None:
    history = recorded["skipped"].history
    assert history.status is RunStatus.SUCCESS
    assert outline(history) == [
        ("sort_flights", 1, SUCCESS, ("compute", "store late")),
        ("excuse", 1, SUCCESS, ("load flights", "compute", "store result")),
    ]
    assert history.skipped == ("praise", "publish")
