"""Tests comparisons of real versions on real flights: evidence, promotion and refusal."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from assets import metrics
from assets.delay_model import MODEL_NAME, model_input, read_days, with_outcome
from assets.delay_model_version import FLIGHT_DELAY
from assets.features import FEATURES_SCHEMA, LABEL
from assets.partitions import evaluation_days
from ledgerline.dagster.released_models.comparison import EvaluatedVersion, comparison_asset, gate_checks
from ledgerline.dagster.released_models.production import production_asset, recorded_check
from ledgerline.dagster.released_models.registration import RegisteredVersion
from ledgerline.dagster.resources import registry_of
from ledgerline.dagster.settings import Settings
from ledgerline.dagster.storage.io_managers import RecordStorage, open_records, open_tables
from ledgerline.mlflow_store.store import connect, downloaded
from ledgerline.registry.versions import RegisteredModel
from resources.wiring import resources_for

MARCH = "2013-03-01"
FEBRUARY_VERSION, MARCH_VERSION, FEBRUARY_AGAIN = 1, 2, 3

COMPARISON_ASSET, PRODUCTION_ASSET = FLIGHT_DELAY.names.comparison, FLIGHT_DELAY.names.production
RULES = [gate.rule for gate in FLIGHT_DELAY.evaluated_by.gates]
DEFINITIONS = [
    comparison_asset(FLIGHT_DELAY),
    gate_checks(FLIGHT_DELAY),
    production_asset(FLIGHT_DELAY),
    recorded_check(FLIGHT_DELAY),
]
COMPARING, PROMOTING = [COMPARISON_ASSET], [PRODUCTION_ASSET]


@pytest.fixture
def judging(registrations: list[RegisteredVersion], ingested: Settings, settings: Settings) -> Settings:
    """A registry of this test's own, with the tables that all share; version 2 is in staging."""
    settings.home.mkdir(parents=True)
    database = Path(ingested.tracking_uri.removeprefix("sqlite:///"))
    shutil.copyfile(database, settings.home / "mlflow.db")
    return settings.model_copy(update={"data": ingested.data})


@pytest.fixture
def records(tmp_path: Path) -> str:
    """Return a separate storage of records, since other tests share the default one."""
    return str(tmp_path / "records")


def materialize(
    settings: Settings, records: str, selection: list[dg.AssetKey], config: Mapping[str, Mapping[str, Any]]
) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        DEFINITIONS,
        selection=dg.AssetSelection.assets(*selection),
        resources=resources_for(settings) | {"records": RecordStorage(base=records)},
        run_config={"ops": {name: {"config": values} for name, values in config.items()}},
        raise_on_error=False,
    )


def compare(settings: Settings, records: str, **config: Any) -> dg.ExecuteInProcessResult:
    return materialize(settings, records, COMPARING, {"comparison_flight_delay": config})


def release(settings: Settings, records: str, **config: Any) -> dg.ExecuteInProcessResult:
    configs = {"comparison_flight_delay": config, "production_flight_delay": {"version": config["version"]}}
    return materialize(settings, records, [*COMPARING, *PROMOTING], configs)


def evaluated(records: str) -> EvaluatedVersion:
    return open_records(records).read(COMPARISON_ASSET, None, EvaluatedVersion)


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    failure = result.failure_data_for_node("comparison_flight_delay")
    assert failure is not None
    return str(failure.error)


def evidence_of(settings: Settings, found: EvaluatedVersion) -> tuple[dict[str, Any], str, str]:
    """The document, its hash, and the report beside it."""
    client = connect(settings.tracking_uri)
    location = client.get_run(found.evidence_run_id).info.artifact_uri
    assert location is not None
    with downloaded(client, location) as folder:
        content = (folder / "evidence.json").read_bytes()
        report = (folder / "report.html").read_text()
    return json.loads(content), hashlib.sha256(content).hexdigest(), report


def in_production(settings: Settings) -> int | None:
    found = registry_of(settings).model(MODEL_NAME).version_with_alias("production")
    return found.number if found else None


def test_both_versions_are_scored_afresh_on_the_same_flights(judging: Settings, records: str) -> None:
    compare(judging, records, version=MARCH_VERSION, against=FEBRUARY_VERSION)
    found = evaluated(records)
    document, _, _ = evidence_of(judging, found)
    rows = with_outcome(read_days(open_tables(judging.data), evaluation_days(MARCH), "a test"))
    registered = RegisteredModel(connect(judging.tracking_uri), MODEL_NAME)
    for name, number in (("staging", MARCH_VERSION), ("production", FEBRUARY_VERSION)):
        model = registered.load(registered.version(number))
        predicted = pd.Series(model.answer(model_input(rows))[:, 1], index=rows.index)
        expected = metrics.score(rows[LABEL].astype(bool), predicted)
        recorded = {entry["metric"]: entry[name] for entry in document["comparison"]["differences"]}
        assert recorded == pytest.approx(expected, abs=1e-9)
    assert document["holdout"]["rows"] == found.rows == len(rows)
    assert (document["holdout"]["first_partition"], document["holdout"]["last_partition"]) == (
        "2013-03-01",
        "2013-03-31",
    )


def test_the_evidence_has_everything_that_the_decision_depends_on(judging: Settings, records: str) -> None:
    run = compare(judging, records, version=MARCH_VERSION, against=FEBRUARY_VERSION)
    found = evaluated(records)
    document, sha256, report = evidence_of(judging, found)
    client = connect(judging.tracking_uri)
    version = RegisteredModel(client, MODEL_NAME).version(MARCH_VERSION)
    assert sha256 == found.evidence_sha256 == version.tags["evidence_sha256"]
    assert version.tags["evidence_run_id"] == found.evidence_run_id
    assert version.tags["decision"] == document["decision"] == ("passed" if found.passed else "refused")
    assert document["version_sha256"] == version.tags["sha256"]
    assert document["dagster.run_id"] == run.run_id
    assert document["trace_id"] == run.run_id.replace("-", "")
    assert document["training_data"]["2"]["trained_on"] == '[["2013-02-01", "2013-02-28"]]'
    assert set(document["training_psi"]) >= {"temp", "carrier"}
    assert document["artifact_bytes"]["staging"] > 10_000
    assert [ruling["rule"] for ruling in document["rulings"]] == RULES
    assert f'flight_delay version 2 against version 1: <span class="{document["decision"]}">' in report
    assert report.count("data:image/png;base64,") == 3

    history = registry_of(judging).model(MODEL_NAME).history()
    evaluation = history.evaluation(MARCH_VERSION)
    assert evaluation is not None
    assert (evaluation.evidence, evaluation.against, evaluation.run_id) == (
        sha256,
        FEBRUARY_VERSION,
        run.run_id,
    )
    tracked = client.get_run(found.evidence_run_id)
    assert tracked.data.metrics["staging/log_loss"] > 0
    assert tracked.inputs is not None
    assert tracked.inputs.dataset_inputs[0].dataset.digest == document["holdout"]["sha256"][:36]


def test_the_report_in_dagster_has_numbers_gates_and_plots(judging: Settings, records: str) -> None:
    run = compare(judging, records, version=MARCH_VERSION, against=FEBRUARY_VERSION)
    (event,) = run.asset_materializations_for_node("comparison_flight_delay")
    assert event.metadata["version"].value == MARCH_VERSION
    assert {"comparison", "gates", "gains_plot", "calibration_plot", "slices_plot"} <= event.metadata.keys()
    evaluations = {evaluation.check_name: evaluation for evaluation in run.get_asset_check_evaluations()}
    assert evaluations.keys() == set(RULES)
    for ruling in evaluated(records).rulings:
        assert evaluations[ruling["rule"]].passed is ruling["passed"]
        assert evaluations[ruling["rule"]].description == ruling["text"]


def test_the_same_model_again_is_not_better_and_not_promoted(judging: Settings, records: str) -> None:
    compare(judging, records, version=FEBRUARY_AGAIN, against=FEBRUARY_VERSION)
    found = evaluated(records)
    assert not found.passed
    assert [ruling["rule"] for ruling in found.rulings if not ruling["passed"]] == ["better_than_production"]
    assert "a gain of 0.0000" in found.rulings[0]["text"]


def test_the_first_version_is_compared_with_the_baseline_and_promoted(
    judging: Settings, records: str
) -> None:
    result = release(judging, records, version=MARCH_VERSION)
    found = evaluated(records)
    document, _, _ = evidence_of(judging, found)
    assert found.against is None
    assert document["comparison"]["production_name"] == "the baseline carrier_hour_rate"
    assert document["training_psi"] is None
    assert found.passed
    assert result.success
    assert in_production(judging) == MARCH_VERSION
    (event,) = result.asset_materializations_for_node("production_flight_delay")
    assert event.metadata["version"].value == MARCH_VERSION
    assert event.metadata["from_version"].value == "none"
    assert event.metadata["evidence_sha256"].value == found.evidence_sha256
    assert registry_of(judging).model(MODEL_NAME).version_with_alias("staging") is None


def test_a_broken_rule_keeps_a_version_out_of_production(judging: Settings, records: str) -> None:
    assert release(judging, records, version=MARCH_VERSION).success
    result = release(judging, records, version=FEBRUARY_AGAIN, partition=MARCH)
    assert not evaluated(records).passed
    assert not result.asset_materializations_for_node("production_flight_delay")
    assert in_production(judging) == MARCH_VERSION
    tags = RegisteredModel(connect(judging.tracking_uri), MODEL_NAME).version(FEBRUARY_AGAIN).tags
    assert tags["decision"] == "refused"


def test_a_refusal_is_a_result_in_dagster_and_not_a_failure(judging: Settings, records: str) -> None:
    release(judging, records, version=MARCH_VERSION)
    result = release(judging, records, version=FEBRUARY_AGAIN, partition=MARCH)
    assert result.success
    kinds = {event.event_type_value for event in result.all_node_events}
    assert not kinds & {"STEP_FAILURE", "STEP_UP_FOR_RETRY"}
    (compared,) = result.asset_materializations_for_node("comparison_flight_delay")
    assert compared.metadata["decision"].value == "refused"
    broken = {ruling["rule"] for ruling in evaluated(records).rulings if not ruling["passed"]}
    recorded = result.get_asset_check_evaluations()
    assert broken
    assert {each.check_name for each in recorded if not each.passed} == broken
    assert {each.severity for each in recorded} == {dg.AssetCheckSeverity.WARN}
    observed = observation_of(result, "production_flight_delay")
    assert observed.asset_key == PRODUCTION_ASSET
    assert (observed.metadata["decision"].value, observed.metadata["version"].value) == (
        "refused",
        FEBRUARY_AGAIN,
    )
    assert f"it did not pass {', '.join(sorted(broken))}" in str(observed.description)


def test_steps_after_production_are_skipped_when_a_version_is_refused(
    judging: Settings, records: str
) -> None:
    @dg.asset(deps=[PRODUCTION_ASSET])
    def announcement() -> None: ...

    release(judging, records, version=MARCH_VERSION)
    config = {"version": FEBRUARY_AGAIN, "partition": MARCH}
    result = dg.materialize(
        [*DEFINITIONS, announcement],
        selection=dg.AssetSelection.assets(*COMPARING, *PROMOTING, dg.AssetKey("announcement")),
        resources=resources_for(judging) | {"records": RecordStorage(base=records)},
        run_config={
            "ops": {
                "comparison_flight_delay": {"config": config},
                "production_flight_delay": {"config": {"version": FEBRUARY_AGAIN}},
            }
        },
        raise_on_error=False,
    )
    assert result.success
    skipped = {event.step_key for event in result.get_step_skipped_events()}
    assert skipped == {"announcement", "production_flight_delay_registry_as_recorded"}


def test_promoting_a_version_that_broke_a_rule_is_refused_without_its_comparison(
    judging: Settings, records: str
) -> None:
    release(judging, records, version=MARCH_VERSION)
    compare(judging, records, version=FEBRUARY_AGAIN, partition=MARCH)
    result = materialize(
        judging, records, PROMOTING, {"production_flight_delay": {"version": FEBRUARY_AGAIN}}
    )
    assert result.success
    assert observation_of(result, "production_flight_delay").metadata["decision"].value == "refused"
    assert in_production(judging) == MARCH_VERSION


def test_a_release_that_another_run_has_done_ends_with_success(judging: Settings, records: str) -> None:
    assert release(judging, records, version=MARCH_VERSION).success
    entries = len(registry_of(judging).model(MODEL_NAME).history().entries)
    result = release(judging, records, version=MARCH_VERSION)
    assert result.success
    observed = observation_of(result, "comparison_flight_delay")
    assert observed.description == "Version 2 of flight_delay is in production already: nothing to compare."
    assert observed.metadata["decision"].value == "in production already"
    assert "production_flight_delay" in {event.step_key for event in result.get_step_skipped_events()}
    assert len(registry_of(judging).model(MODEL_NAME).history().entries) == entries


def test_a_promotion_that_another_run_has_done_ends_with_success(judging: Settings, records: str) -> None:
    """The second of two releases that compared at the same time meets this."""
    assert release(judging, records, version=MARCH_VERSION).success
    result = materialize(judging, records, PROMOTING, {"production_flight_delay": {"version": MARCH_VERSION}})
    assert result.success
    observed = observation_of(result, "production_flight_delay")
    assert "Version 2 of flight_delay is in production already, since" in str(observed.description)
    assert len(registry_of(judging).model(MODEL_NAME).history().moves("production")) == 1


def observation_of(result: dg.ExecuteInProcessResult, step: str) -> dg.AssetObservation:
    (event,) = [
        event
        for event in result.all_node_events
        if event.step_key == step and event.event_type is dg.DagsterEventType.ASSET_OBSERVATION
    ]
    return event.asset_observation_data.asset_observation


def test_a_version_that_waits_for_a_person_is_not_in_production(judging: Settings, records: str) -> None:
    from ledgerline.registry.promotion import Mode

    waiting = judging.model_copy(update={"promotion": Mode.approved})
    result = release(waiting, records, version=MARCH_VERSION)
    assert result.success
    assert not result.asset_materializations_for_node("production_flight_delay")
    waits = observation_of(result, "production_flight_delay")
    assert waits.metadata["decision"].value == "waits for a person"
    assert in_production(waiting) is None
    registry_of(waiting).model(MODEL_NAME).approve(MARCH_VERSION, "Ada", "looks good")
    promoted = materialize(
        waiting, records, PROMOTING, {"production_flight_delay": {"version": MARCH_VERSION}}
    )
    assert promoted.success
    assert in_production(waiting) == MARCH_VERSION


def test_a_rollback_is_a_run_that_is_recorded_as_one(judging: Settings, records: str) -> None:
    assert release(judging, records, version=MARCH_VERSION).success
    client = connect(judging.tracking_uri)
    client.set_registered_model_alias(MODEL_NAME, "production", str(FEBRUARY_VERSION))
    config = {"action": "rollback", "approver": "Ada", "reason": "clicked by mistake"}
    result = materialize(judging, records, PROMOTING, {"production_flight_delay": config})
    assert result.success
    assert in_production(judging) == MARCH_VERSION
    (event,) = result.asset_materializations_for_node("production_flight_delay")
    recorded = {name: event.metadata[name].value for name in ("cause", "by", "reason", "version")}
    assert recorded == {
        "cause": "rollback",
        "by": "Ada",
        "reason": "clicked by mistake",
        "version": MARCH_VERSION,
    }
    history = registry_of(judging).model(MODEL_NAME).history()
    assert [move.cause for _, move, _ in history.moves("production")] == ["promotion", "outside", "rollback"]


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"version": 2, "partition": "2013-02-01"}, "version 2 was trained on 28 of the 28 partitions"),
        ({"version": 1, "against": 2}, "version 2 was trained on 28 of the 28 partitions"),
        ({"version": 2, "against": 2}, "cannot be compared with itself"),
        ({"version": 99}, "flight_delay has no version 99"),
        ({"version": 2, "partition": "2013-05-01"}, "31 of them are not stored"),
        ({"version": 2, "partition": "May"}, "'May' is not a partition of delay_model_version"),
        ({"version": 2, "partition": "2019-05-01"}, "which has those from 2013-01-01 to 2013-12-31"),
    ],
)
def test_a_comparison_that_is_impossible_has_a_reason_and_moves_no_alias(
    judging: Settings, records: str, config: dict[str, Any], problem: str
) -> None:
    result = compare(judging, records, **config)
    assert problem in failure_of(result)
    assert in_production(judging) is None
    assert registry_of(judging).model(MODEL_NAME).history().evaluations() == []


def test_without_a_version_in_staging_there_is_nothing_to_compare(judging: Settings, records: str) -> None:
    connect(judging.tracking_uri).delete_registered_model_alias(MODEL_NAME, "staging")
    assert "No version of flight_delay carries the alias staging" in failure_of(compare(judging, records))


def test_a_version_registered_by_hand_needs_a_record_of_its_training_rows(
    judging: Settings, records: str
) -> None:
    client = connect(judging.tracking_uri)
    known = client.get_model_version(MODEL_NAME, str(FEBRUARY_VERSION))
    assert known.source is not None
    by_hand = client.create_model_version(MODEL_NAME, known.source, tags={"sha256": known.tags["sha256"]})
    number = int(by_hand.version)
    assert "does not record which partitions it is evaluated on" in failure_of(
        compare(judging, records, version=number)
    )
    problem = failure_of(compare(judging, records, version=number, partition=MARCH))
    assert "does not record which partitions it was trained on" in problem
    client.set_model_version_tag(MODEL_NAME, by_hand.version, "training_days", "2013-01-01/2013-01-31")
    compare(judging, records, version=number, partition=MARCH)
    document, _, _ = evidence_of(judging, evaluated(records))
    assert document["training_data"][str(number)] == {
        "training_days": "2013-01-01/2013-01-31",
        "mlflow_run_id": "missing",
    }


def test_versions_cannot_be_compared_on_a_month_without_a_late_flight(
    judging: Settings, records: str, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(Path(judging.data, "features"), data / "features")
    for day in evaluation_days(MARCH):
        file = data / "features" / f"{day}.parquet"
        rows = open_tables(judging.data).read(dg.AssetKey("features"), [day], FEATURES_SCHEMA)
        rows[LABEL] = False
        from ledgerline.dagster.storage import arrow_tables, parquet

        table = arrow_tables.to_arrow("features", rows, FEATURES_SCHEMA)
        file.write_bytes(parquet.serialise("features", table))
    problem = failure_of(
        compare(judging.model_copy(update={"data": str(data)}), records, version=MARCH_VERSION)
    )
    assert "Compare on another partition." in problem


def test_a_version_whose_files_were_changed_is_not_compared(judging: Settings, records: str) -> None:
    client = connect(judging.tracking_uri)
    client.set_model_version_tag(MODEL_NAME, str(MARCH_VERSION), "sha256", "0" * 64)
    problem = failure_of(compare(judging, records, version=MARCH_VERSION))
    assert "version 2 is not what was registered" in problem
