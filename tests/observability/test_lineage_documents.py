"""Tests the documents of lineage: one for each asset that a run wrote."""

import json
from pathlib import Path

from openlineage.client.serde import Serde

from ledgerline.ledger.history import Outcome, RunHistory
from ledgerline.lineage.events import documents
from tests.observability.lineage_events import CREATED, NAMESPACE, attempt, event_of, made_up, written
from tests.observability.lineage_jobs import DAYS


def test_there_is_one_document_for_each_asset_with_all_its_partitions(weather: RunHistory) -> None:
    found = documents(weather, NAMESPACE)
    assert sorted(found) == [
        "forecast.json",
        "hottest.json",
        "readings.json",
        "reports.hottest.json",
        "stations.json",
    ]
    event = event_of(weather, "observe_weather.readings")
    assert json.loads(found["readings.json"]) == json.loads(Serde.to_json(event))
    [output] = json.loads(found["readings.json"])["outputs"]
    partitions = output["outputFacets"]["ledgerline_partitions"]["partitions"]
    assert [part["partition"] for part in partitions] == list(DAYS)
    assert found["readings.json"].startswith(b'{\n  "eventTime"')


def test_a_document_is_about_one_asset_even_if_its_step_wrote_several(weather: RunHistory) -> None:
    found = documents(weather, NAMESPACE, "abc")
    report = json.loads(found["reports.hottest.json"])
    assert [dataset["name"] for dataset in report["inputs"]] == ["hottest"]
    assert [dataset["name"] for dataset in report["outputs"]] == ["reports/hottest"]
    assert report["run"]["facets"]["ledgerline_run"]["mlflow_run_id"] == "abc"


def test_a_document_is_of_the_last_attempt_that_wrote_the_asset() -> None:
    attempts = [
        attempt(written("features", data_version="v1"), outcome=Outcome.RETRY),
        attempt(written("features", data_version="v2"), number=2, ended=CREATED + 4),
        attempt(written("features", data_version="v3"), number=3, ended=None, outcome=Outcome.RUNNING),
    ]
    [document] = documents(made_up(*attempts), NAMESPACE).values()
    event = json.loads(document)
    assert event["eventType"] == "COMPLETE"
    assert event["outputs"][0]["facets"]["version"]["datasetVersion"] == "v2"


def test_documents_of_different_assets_have_different_names_that_are_fit_for_files(tmp_path: Path) -> None:
    keys = ["a/b", "a.b", "a b", "a_b", "a", "../a", "..", "ä/b", "s3://a?b=c%2F", "a\\b", "", "a:b|c*"]
    found = documents(made_up(attempt(*(written(key) for key in keys))), NAMESPACE)
    assert len({name.lower() for name in found}) == len(keys)
    assert {json.loads(document)["outputs"][0]["name"] for document in found.values()} == set(keys)
    assert "a.b.json" in found
    for name, document in found.items():
        (tmp_path / name).write_bytes(document)
    assert {file.name for file in tmp_path.iterdir()} == set(found)
