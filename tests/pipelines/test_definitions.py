"""Tests the definitions: light to load, valid, and with the policies that every asset should have."""

import subprocess
import sys
from collections.abc import Iterator

import dagster as dg
import pytest
import yaml

from assets.partitions import DAYS, MONTHS
from assets.policies import REGISTRY_POOL, RETRY
from ledgerline.dagster.executors import USES, USES_LANGUAGE_MODEL, executor_for
from ledgerline.dagster.settings import Settings
from pipelines.definitions import build_definitions, defs
from pipelines.jobs import JOBS
from tests.project import PROJECT_ROOT

HEAVY = [
    "duckdb",
    "jinja2.sandbox",
    "lancedb",
    "matplotlib",
    "mlflow",
    "numpy",
    "ollama",
    "openai",
    "pandas",
    "pyarrow",
    "scipy",
    "sklearn",
    "skops",
]

DAY_ASSETS = {"flights", "features", "delay_predictions"}
MODEL_ASSETS = {"delay_model", "delay_model_evaluation", "delay_model_version"}
MONTH_ASSETS = MODEL_ASSETS | {"drift_flight_delay"}
REQUEST_ASSETS = {"requests_drift_flight_delay"}
REGISTRY_ASSETS = {"comparison_flight_delay", "production_flight_delay"}
MINUTES_ASSETS = {"delay_minutes_version", "comparison_delay_minutes", "production_delay_minutes"}
EVALUATION_ASSETS = {"analyst_questions", "analyst_answers", "analyst_scores"}
ANALYST_ASSETS = EVALUATION_ASSETS | {"analyst_memory"}
REFERENCE_ASSETS = {"airports", "airlines", "planes", "weather"}

RESOLVED = defs.get_repository_def()
ASSETS = {
    key.to_user_string(): RESOLVED.asset_graph.get(key) for key in RESOLVED.asset_graph.get_all_asset_keys()
}


def executed_by(job_name: str) -> set[str]:
    job = defs.resolve_job_def(job_name)
    return {key.to_user_string() for key in job.asset_layer.executable_asset_keys}


def test_loading_the_definitions_imports_no_heavy_library() -> None:
    program = f"""
import sys
import pipelines.definitions
print([name for name in {HEAVY} if name in sys.modules])
"""
    command = [sys.executable, "-c", program]
    loaded = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_the_definitions_are_valid() -> None:
    dg.Definitions.validate_loadable(defs)


def test_the_definitions_can_be_built_for_other_settings() -> None:
    settings = Settings.from_environment({"LEDGERLINE_HOME": "/nowhere"})
    dg.Definitions.validate_loadable(build_definitions(settings, executor_for("in_process", 0, 1)))


def test_these_are_all_assets() -> None:
    of_models = MONTH_ASSETS | REQUEST_ASSETS | REGISTRY_ASSETS | MINUTES_ASSETS
    assert set(ASSETS) == DAY_ASSETS | of_models | REFERENCE_ASSETS | ANALYST_ASSETS


@pytest.mark.parametrize(
    ("job_name", "partitions", "executed"),
    [
        ("ingest_flights", DAYS, REFERENCE_ASSETS | {"flights", "features"}),
        ("train_delay_model", MONTHS, MODEL_ASSETS),
        ("train_delay_minutes", MONTHS, {"delay_minutes_version"}),
        ("release_delay_minutes", None, {"comparison_delay_minutes", "production_delay_minutes"}),
        ("score_flights", DAYS, {"delay_predictions"}),
        ("replay_day", DAYS, DAY_ASSETS),
        ("watch_flight_delay", MONTHS, {"drift_flight_delay"}),
        ("watch_requests_flight_delay", None, REQUEST_ASSETS),
        ("compare_flight_delay", None, {"comparison_flight_delay"}),
        ("promote_flight_delay", None, {"production_flight_delay"}),
        ("release_flight_delay", None, REGISTRY_ASSETS),
        ("evaluate_analyst", None, EVALUATION_ASSETS),
        ("remember_reports", None, {"analyst_memory"}),
    ],
)
def test_a_job_executes_its_assets_over_its_partitions(
    job_name: str, partitions: dg.PartitionsDefinition | None, executed: set[str]
) -> None:
    assert executed_by(job_name) == executed
    assert defs.resolve_job_def(job_name).partitions_def == partitions


def test_every_job_is_described() -> None:
    assert [job.name for job in JOBS if not job.description] == []


@pytest.mark.parametrize("job_name", ["ingest_flights", "replay_day"])
def test_a_job_checks_the_assets_that_it_writes(job_name: str) -> None:
    steps = {node.name for node in defs.resolve_job_def(job_name).nodes}
    assert steps - ASSETS.keys() == {
        f"{asset}_checks" for asset in executed_by(job_name) - {"delay_predictions"}
    }


@pytest.mark.parametrize("asset", sorted(DAY_ASSETS))
def test_any_number_of_days_is_one_run(asset: str) -> None:
    assert ASSETS[asset].backfill_policy == dg.BackfillPolicy.single_run()
    assert ASSETS[asset].partitions_def == DAYS


@pytest.mark.parametrize("asset", sorted(MONTH_ASSETS))
def test_a_model_and_its_drift_have_a_month(asset: str) -> None:
    assert ASSETS[asset].partitions_def == MONTHS


@pytest.mark.parametrize("asset", sorted(ASSETS))
def test_every_asset_has_a_description_and_a_retry_policy(asset: str) -> None:
    node = ASSETS[asset]
    assert node.group_name not in (None, "default")
    assert node.kinds
    assert node.description
    assert node.code_version
    assert {operation.retry_policy for operation in operations_of(node.assets_def.node_def)} == {RETRY}


def operations_of(node: object) -> Iterator[dg.OpDefinition]:
    """Steps that are executed; an asset may be made of several."""
    if isinstance(node, dg.OpDefinition):
        yield node
    else:
        assert isinstance(node, dg.GraphDefinition)
        for part in node.node_defs:
            yield from operations_of(part)


def test_one_run_at_a_time_uses_the_language_model() -> None:
    tagged = {
        job.name for job in JOBS if USES_LANGUAGE_MODEL.items() <= defs.resolve_job_def(job.name).tags.items()
    }
    assert tagged == {"evaluate_analyst"}
    instance = yaml.safe_load((PROJECT_ROOT / "dagster.yaml").read_text())
    ((name, value),) = USES_LANGUAGE_MODEL.items()
    assert {"key": name, "value": value, "limit": 1} in (
        instance["concurrency"]["runs"]["tag_concurrency_limits"]
    )


def test_steps_that_use_it_are_counted_and_the_others_are_not() -> None:
    answers = ASSETS["analyst_answers"].assets_def
    counted = {part.name for part in operations_of(answers.node_def) if USES in part.tags}
    assert counted == {"answer"}


def test_one_step_at_a_time_moves_aliases() -> None:
    assert {name: node.pools for name, node in ASSETS.items() if node.pools} == {
        "delay_model_version": {REGISTRY_POOL},
        "production_flight_delay": {REGISTRY_POOL},
        "production_delay_minutes": {REGISTRY_POOL},
    }


def test_reference_tables_are_made_when_missing_and_models_evaluated_when_trained() -> None:
    automated = {name for name, node in ASSETS.items() if node.automation_condition is not None}
    assert automated == REFERENCE_ASSETS | {"delay_model_evaluation"}


def asked_for(instance: dg.DagsterInstance) -> set[str]:
    evaluated = dg.evaluate_automation_conditions(defs, instance)
    return {name for name, node in ASSETS.items() if evaluated.get_num_requested(node.key)}


def test_reference_tables_are_requested_until_they_are_materialised() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert asked_for(instance) == REFERENCE_ASSETS
        instance.report_runless_asset_event(dg.AssetMaterialization("planes"))
        assert asked_for(instance) == REFERENCE_ASSETS - {"planes"}


def test_automation_runs_without_being_switched_on() -> None:
    automation = [
        sensor
        for sensor in RESOLVED.sensor_defs
        if isinstance(sensor, dg.AutomationConditionSensorDefinition)
    ]
    (sensor,) = automation
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert sensor.asset_selection.resolve(RESOLVED.asset_graph) == RESOLVED.asset_graph.get_all_asset_keys()
