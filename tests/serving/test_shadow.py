"""Tests the shadow: the share of requests sent to staging, the counts, and that clients are unaffected."""

import json
from pathlib import Path

import pytest
import requests

from ledgerline.serving.shadow import MAX_QUEUED
from ledgerline.testing.waiting import wait_until
from tests.serving.conftest import MODEL, Running, Serve, ServedModels, flight_model, flight_rows
from tests.serving.scripted_versions import SCRIPTED, SCRIPTED_SERVING, row_with, scripted_version

SECONDS = 120.0
ALWAYS = {"LEDGERLINE_SERVING_SHADOW_SHARE": "1"}


def ask(service: Running, content: object) -> requests.Response:
    return requests.post(f"{service.url}/invocations", json=content, timeout=SECONDS)


def flights(count: int, seed: int = 0) -> dict[str, object]:
    return {"dataframe_records": json.loads(flight_rows(count, seed).to_json(orient="records"))}


def staging(service: Running) -> int | None:
    """The version in staging, as far as the service has it at hand."""
    loaded = service.service.default.staging
    return loaded.version.number if loaded else None


def asked(service: Running, version: int, model: str = MODEL) -> float:
    return service.service.metrics.shadow_rows.labels(model, str(version))._value.get()


def disagreements(service: Running, version: int) -> float:
    return service.service.metrics.shadow_disagreements.labels(MODEL, str(version))._value.get()


def skipped(service: Running, reason: str, model: str = MODEL) -> float:
    return service.service.metrics.shadow_skipped.labels(model, reason)._value.get()


def test_staging_predicts_the_same_rows_and_different_decisions_are_counted(
    served_models: ServedModels, serve: Serve
) -> None:
    served_models.serve(served_models.version(seed=0))
    served_models.serve(served_models.version(seed=1), "staging")
    rows = flight_rows(50, seed=7)
    with serve(**ALWAYS) as service:
        wait_until(lambda: staging(service) == 2, "version 2 is in staging")
        answers = [ask(service, flights(50, seed=7)) for _ in range(3)]
        wait_until(lambda: asked(service, 2) == 150, "the rows are counted")
        found = disagreements(service, 2)
        exported_metrics = requests.get(f"{service.url}/metrics", timeout=SECONDS).text

    ours, theirs = (flight_model(seed).predict_proba(rows).argmax(1) for seed in (0, 1))
    assert 0 < (ours != theirs).sum() < 50  # or nothing is tested
    assert found == 3 * (ours != theirs).sum()
    for answer in answers:
        assert answer.headers["X-Model-Version"] == "1"
        decided = [row.index(max(row)) for row in answer.json()["predictions"]]
        assert decided == ours.tolist()
    assert f'ledgerline_shadow_rows_total{{model="{MODEL}",version="2"}} 150.0' in exported_metrics


def test_staging_with_the_same_decisions_has_no_disagreement(
    served_models: ServedModels, serve: Serve
) -> None:
    served_models.serve(served_models.version())
    served_models.serve(served_models.version(), "staging")
    with serve(**ALWAYS) as service:
        wait_until(lambda: staging(service) == 2, "version 2 is in staging")
        assert ask(service, flights(20)).status_code == 200
        wait_until(lambda: asked(service, 2) == 20, "the rows are counted")
        assert disagreements(service, 2) == 0


def test_staging_predicts_only_the_share_of_the_requests(served_models: ServedModels, serve: Serve) -> None:
    served_models.serve(served_models.version())
    served_models.serve(served_models.version(), "staging")
    with serve(LEDGERLINE_SERVING_SHADOW_SHARE="0.5") as service, requests.Session() as session:
        wait_until(lambda: staging(service) == 2, "version 2 is in staging")
        for _ in range(40):
            answer = session.post(f"{service.url}/invocations", json=flights(1), timeout=SECONDS)
            assert answer.status_code == 200
    # The requests that were gathered by the end were predicted.
    found = asked(service, 2)

    assert 3 <= found <= 37  # else once in fifty million times


@pytest.mark.parametrize("share", ["0", "1"])
def test_nothing_is_predicted_in_the_shadow_without_a_share_or_without_staging(
    served_models: ServedModels, serve: Serve, share: str
) -> None:
    served_models.serve(served_models.version())
    if share == "0":
        served_models.serve(served_models.version(seed=1), "staging")
    with serve(LEDGERLINE_SERVING_SHADOW_SHARE=share) as service:
        if share == "0":
            wait_until(lambda: staging(service) == 2, "version 2 is in staging")
        assert ask(service, flights(1)).status_code == 200
        found = requests.get(f"{service.url}/metrics", timeout=SECONDS).text

    assert "ledgerline_shadow_rows_total{" not in found
    assert "ledgerline_shadow_skipped_total{" not in found


def test_a_version_in_both_stages_predicts_once(served_models: ServedModels, serve: Serve) -> None:
    version = served_models.version()
    served_models.serve(version)
    served_models.serve(version, "staging")
    with serve(**ALWAYS) as service:
        assert ask(service, flights(1)).status_code == 200
        assert staging(service) is None
        assert asked(service, 1) == 0


def test_a_failure_of_staging_affects_no_response_and_is_logged_once(
    served_models: ServedModels, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    served_models.serve(scripted_version(served_models))
    served_models.serve(scripted_version(served_models, "new"), "staging")
    with serve(**SCRIPTED_SERVING, **ALWAYS) as service:
        wait_until(lambda: staging(service) == 2, "version 2 is in staging")
        answers = [ask(service, row_with("new: fail", value)) for value in range(4)]
        wait_until(lambda: skipped(service, "failed", SCRIPTED) == 4, "the skipped requests are counted")
        assert asked(service, 2, SCRIPTED) == 0
        assert ask(service, row_with()).status_code == 200
        wait_until(lambda: asked(service, 2, SCRIPTED) == 1, "the rows are counted")

    assert [answer.json() for answer in answers] == [{"predictions": [2.0 * value]} for value in range(4)]
    (warning,) = [
        record.getMessage() for record in caplog.records if record.name == "ledgerline.serving.shadow"
    ]
    assert warning.startswith(f"{SCRIPTED} version 2, in staging, fails on a request: ")


def test_requests_beyond_the_queue_of_staging_are_skipped_without_a_delay(
    served_models: ServedModels, serve: Serve, tmp_path: Path
) -> None:
    go = tmp_path / "go.now"
    served_models.serve(scripted_version(served_models))
    served_models.serve(scripted_version(served_models, "new"), "staging")
    with serve(**SCRIPTED_SERVING, **ALWAYS) as service, requests.Session() as session:
        wait_until(lambda: staging(service) == 2, "version 2 is in staging")
        try:
            assert ask(service, row_with(f"new: wait for {go}")).status_code == 200
            wait_until(go.with_suffix(".waiting").exists, "the model waits")
            for _ in range(MAX_QUEUED + 5):
                answer = session.post(f"{service.url}/invocations", json=row_with(), timeout=SECONDS)
                assert answer.json() == {"predictions": [2.0]}
            assert skipped(service, "busy", SCRIPTED) == 5
            assert asked(service, 2, SCRIPTED) == 0
        finally:
            go.touch()
        wait_until(lambda: asked(service, 2, SCRIPTED) == 1 + MAX_QUEUED, "the rows are counted")
        assert skipped(service, "busy", SCRIPTED) == 5


def test_queued_shadow_predictions_do_not_delay_the_end(
    served_models: ServedModels, serve: Serve, tmp_path: Path
) -> None:
    go = tmp_path / "go.now"
    served_models.serve(scripted_version(served_models))
    served_models.serve(scripted_version(served_models, "new"), "staging")
    try:
        with serve(**SCRIPTED_SERVING, **ALWAYS) as service:
            wait_until(lambda: staging(service) == 2, "version 2 is in staging")
            for _ in range(MAX_QUEUED + 1):
                assert ask(service, row_with(f"new: wait for {go}")).status_code == 200
            shadow = service.service.shadow
        # The model still waits for the file: the end has not waited for the model.
        assert shadow._thread is not None
        assert shadow._thread.is_alive()
    finally:
        go.touch()
    # It ends with the process at the latest; here it is ended by what there was no room for.
    assert shadow._thread.daemon
    shadow.stop(SECONDS)
    assert not shadow._thread.is_alive()
