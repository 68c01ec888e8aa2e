"""Tests the reports that the analyst remembers, on a real instance, registry and MLflow."""

import json
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from assets.analyst_memory import analyst_memory, comparison_entry, lineage_entry
from ledgerline.dagster.resources import agent_of
from ledgerline.dagster.settings import Settings
from ledgerline.mlflow_store import store
from ledgerline.registry.history import Evaluation
from resources.wiring import resources_for

AT = datetime(2026, 11, 3, 14, 5, tzinfo=UTC)


def evaluation(*, passed: bool, against: int | None) -> Evaluation:
    broken = [] if passed else ["calibrated", "fast_enough"]
    return Evaluation(AT, 7, against, passed, broken, "ab" * 32, "run1", "somebody")


def test_a_comparison_is_remembered_with_the_ruling_of_each_gate() -> None:
    evidence = {"rulings": [{"rule": "calibrated", "text": "calibration_error is 0.2."}]}

    entry = comparison_entry(evaluation(passed=False, against=6), evidence)

    assert entry.text == (
        "Comparison of models on 2026-11-03: version 7 of flight_delay was compared with version 6 in "
        "production, and it broke calibrated, fast_enough.\ncalibration_error is 0.2."
    )
    assert (entry.key, entry.kind, entry.source) == (
        "comparison:abababababababab",
        "report",
        "MLflow run run1",
    )
    assert entry.created == AT


def test_a_comparison_without_its_evidence_is_remembered() -> None:
    entry = comparison_entry(evaluation(passed=True, against=None), None)

    assert entry.text.endswith("was compared with the baseline, and it kept every rule.")


@pytest.mark.parametrize(
    ("inputs", "partition", "text"),
    [
        (
            ["features", "weather"],
            "2013-07-01",
            (
                "delay_model, partition 2013-07-01, was made by step s of job j "
                "on 2026-11-03, from features, weather."
            ),
        ),
        ([], None, "delay_model was made by step s of job j on 2026-11-03, from no other table."),
    ],
)
def test_lineage_is_remembered_as_a_sentence(inputs: list[str], partition: str | None, text: str) -> None:
    run = {"dagster_run_id": "1" * 36, "step": "s", "job": "j", "partition": partition}
    document = {
        "eventTime": "2026-11-03T14:05:00Z",
        "inputs": [{"name": name} for name in inputs],
        "outputs": [{"name": "delay_model"}],
        "run": {"facets": {"ledgerline_run": run}},
    }

    entry = lineage_entry(document)

    assert entry.text == f"Lineage: {text}"
    assert (entry.key, entry.created) == ("lineage:11111111:delay_model", AT)


def test_new_results_are_remembered_once(tmp_path: Path) -> None:
    settings = Settings.from_environment({"LEDGERLINE_HOME": str(tmp_path)})
    client = store.connect(settings.tracking_uri)
    experiment = store.experiment_id(client, "flight_delay", str(tmp_path / "artifacts"))
    run = client.create_run(experiment, tags={"dagster.run_id": "2" * 36})
    facets = {"ledgerline_run": {"dagster_run_id": "2" * 36, "step": "s", "job": "j"}}
    document = {
        "eventTime": "2026-11-03T14:05:00Z",
        "inputs": [],
        "outputs": [{"name": "flights"}],
        "run": {"facets": facets},
    }
    client.log_text(run.info.run_id, json.dumps(document), "lineage/flights.json")
    client.create_run(experiment, tags={"dagster.run_id": "3" * 36})  # without lineage

    def remembered() -> tuple[object, object]:
        given = resources_for(settings)
        needed = {name: given[name] for name in ("agent", "registry", "mlflow")}
        result = dg.materialize([analyst_memory], resources=needed)
        (event,) = result.asset_materializations_for_node("analyst_memory")
        return event.metadata["new"].value, event.metadata["entries"].value

    assert [remembered(), remembered()] == [(1, 1), (0, 1)]
    with agent_of(settings) as agent:
        memory = agent.open_memory()
        assert memory is not None
        assert [entry.key for entry in memory.entries()] == ["lineage:22222222:flights"]


def test_without_a_memory_the_message_names_the_setting(tmp_path: Path) -> None:
    settings = Settings.from_environment({"LEDGERLINE_HOME": str(tmp_path), "LEDGERLINE_MEMORY": "off"})
    given = resources_for(settings)
    needed = {name: given[name] for name in ("agent", "registry", "mlflow")}

    with pytest.raises(dg.Failure, match="LEDGERLINE_MEMORY is off"):
        dg.materialize([analyst_memory], resources=needed)
