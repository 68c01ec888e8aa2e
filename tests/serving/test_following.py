"""Tests the active version after promotions, refusals, outages and restarts, with a real registry."""

import http.client
import json
import threading
import time
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ledgerline.registry.versions import SHA256_TAG, RegisteredModel, Version
from ledgerline.testing.waiting import wait_until
from tests.registry.deliveries import SECRET, Sent
from tests.serving.conftest import MODEL, Running, Serve, ServedModels, flight_rows


def body() -> bytes:
    rows = flight_rows(20).tail(3)
    records = json.loads(rows.to_json(orient="records"))
    return json.dumps({"dataframe_records": records}).encode()


def ask(service: Running, path: str = "/invocations") -> tuple[int, str, Any]:
    """Return the status, version and content of a response."""
    with closing(http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)) as connection:
        connection.request("POST", path, body(), {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.headers.get("X-Model-Version", ""), json.loads(response.read())


def get(service: Running, path: str) -> tuple[int, Any]:
    with closing(http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        content = response.read()
        return response.status, json.loads(content) if path != "/metrics" else content.decode()


def answers(service: Running, version: Version) -> bool:
    return ask(service)[:2] == (200, str(version.number))


def refused(service: Running, number: int) -> str:
    """Return why a version is refused; empty if it is not."""
    refusal = get(service, "/ready")[1]["models"][MODEL]["refused"]
    return refusal["reason"] if refusal and refusal["version"] == number else ""


def files_of(version: Version) -> Path:
    return Path(version.location.removeprefix("file://"))


def test_a_promoted_version_is_activated_without_a_restart(serve: Serve, served_models: ServedModels):
    first, second = served_models.version(seed=1), served_models.version(seed=2)
    served_models.serve(first)
    with serve() as service:
        before = ask(service)
        # MLflow's own page does it like this.
        served_models.client.set_registered_model_alias(MODEL, "production", str(second.number))
        wait_until(lambda: answers(service, second), "version 2 answers")
        after = ask(service)

    assert before[:2] == (200, "1")
    assert after[:2] == (200, "2")
    assert before[2] != after[2]
    assert after[2]["predictions"] == expected(served_models, second)


def test_a_webhook_is_faster_than_looking(serve: Serve, served_models: ServedModels):
    first, second = served_models.version(seed=1), served_models.version(seed=2)
    served_models.serve(first)
    variables = {"LEDGERLINE_SERVING_POLL_SECONDS": "3600", "LEDGERLINE_WEBHOOK_SECRET": SECRET}
    with serve(**variables) as service:
        served_models.serve(second)
        forged, sent = Sent(secret="another"), Sent()
        assert post_delivery(service, forged) == 401
        assert answers(service, first)
        assert post_delivery(service, sent) == 204
        wait_until(lambda: answers(service, second), "version 2 answers")


def test_without_a_secret_no_webhooks_are_taken(serve: Serve):
    with serve() as service:
        assert post_delivery(service, Sent()) == 404


def test_no_version_is_active_before_the_first_which_is_activated_without_a_restart(
    serve: Serve, served_models: ServedModels
):
    with serve() as service:
        assert ask(service)[0] == 503
        status, ready = get(service, "/ready")
        assert (status, ready["ready"]) == (503, False)
        assert "no registered model" in ready["models"][MODEL]["registry"]
        version = served_models.version()
        wait_until(
            lambda: "No version" in get(service, "/ready")[1]["models"][MODEL]["registry"],
            "the model is seen",
        )
        served_models.serve(version)
        wait_until(lambda: answers(service, version), "version 1 answers")
        assert get(service, "/ready")[0] == 200


def test_a_model_that_is_not_in_production_yet_does_not_make_the_service_unready(
    serve: Serve, served_models: ServedModels
):
    other = f"{MODEL}_of_tomorrow"
    served_models.serve(served_models.version(seed=1))
    with serve(LEDGERLINE_SERVING_MODELS=f"{MODEL},{other}") as service:
        wait_until(lambda: get(service, "/ready")[0] == 200, "the model in production answers")
        assert get(service, f"/v2/models/{other}/ready")[0] == 503
        assert "no registered model" in get(service, "/ready")[1]["models"][other]["registry"]
        broken = served_models.version(other, seed=2)
        requirements = files_of(broken) / "requirements.txt"
        registered = requirements.read_text()
        requirements.write_text(f"{registered}evil\n")
        served_models.serve(broken)
        wait_until(lambda: get(service, "/ready")[0] == 503, "a version that cannot answer is waited for")
        requirements.write_text(registered)
        wait_until(lambda: get(service, "/ready")[0] == 200, "both answer")
        assert get(service, f"/v2/models/{other}/ready")[0] == 200


def test_changed_files_are_refused_and_the_old_version_stays_active(
    serve: Serve, served_models: ServedModels
):
    first, second = served_models.version(seed=1), served_models.version(seed=2)
    served_models.serve(first)
    requirements = files_of(second) / "requirements.txt"
    registered = requirements.read_text()
    with serve() as service:
        requirements.write_text(f"{registered}evil\n")
        served_models.serve(second)
        wait_until(lambda: "is not what was registered" in refused(service, 2), "version 2 is refused")
        assert answers(service, first)
        assert get(service, "/ready")[0] == 200
        metrics = get(service, "/metrics")[1]
        assert f'ledgerline_refused_version{{model="{MODEL}"}} 2.0' in metrics

        requirements.write_text(registered)
        wait_until(lambda: answers(service, second), "version 2 answers once it is whole again")
        assert refused(service, 2) == ""


def test_a_version_without_a_recorded_hash_is_refused(serve: Serve, served_models: ServedModels):
    first, second = served_models.version(seed=1), served_models.version(seed=2)
    served_models.client.delete_model_version_tag(MODEL, "2", SHA256_TAG)
    served_models.serve(first)
    with serve() as service:
        served_models.serve(second)
        wait_until(lambda: "recorded sha256 is missing" in refused(service, 2), "version 2 is refused")
        assert answers(service, first)


def test_a_changed_hash_of_the_active_version_is_noticed(
    serve: Serve, served_models: ServedModels, monkeypatch: pytest.MonkeyPatch
):
    from ledgerline.serving import follower

    monkeypatch.setattr(follower, "RECHECK_SECONDS", 0.0)
    first = served_models.version(seed=1)
    served_models.serve(first)
    with serve() as service:
        served_models.client.set_model_version_tag(MODEL, "1", SHA256_TAG, "0" * 64)
        wait_until(lambda: "is not what was registered" in refused(service, 1), "the other hash is refused")
        assert answers(service, first)


def test_a_version_that_clients_would_have_to_change_for_is_refused_unless_it_is_allowed(
    serve: Serve, served_models: ServedModels
):
    first = served_models.version(seed=1)
    served_models.serve(first)
    other = register(served_models, other_columns(), flight_rows()[["distance"]])
    with serve() as service:
        served_models.serve(other)
        wait_until(lambda: "cannot use version 2" in refused(service, 2), "version 2 is refused")
        assert answers(service, first)
    with serve(LEDGERLINE_SERVING_SIGNATURE="any") as service:
        wait_until(lambda: ask(service)[1] == "2", "version 2 answers")


def test_a_pickled_model_is_refused_unless_it_is_allowed(serve: Serve, served_models: ServedModels):
    version = register_pickled(served_models)
    served_models.serve(version)
    with serve() as service:
        wait_until(lambda: "pickled models are not loaded" in refused(service, 1), "version 1 is refused")
        assert ask(service)[0] == 503


def test_a_model_that_may_run_code_is_served_where_that_is_allowed(
    serve: Serve, served_models: ServedModels, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")  # put back in the end
    served_models.serve(register_pickled(served_models))
    with serve(LEDGERLINE_SERVING_UNPICKLE=MODEL) as service:
        wait_until(lambda: ask(service)[:2] == (200, "1") or refused(service, 1), "version 1 is judged")
        assert refused(service, 1) == ""


def test_the_active_version_stays_active_when_the_alias_is_removed(serve: Serve, served_models: ServedModels):
    first = served_models.version()
    served_models.serve(first)
    with serve() as service:
        served_models.client.delete_registered_model_alias(MODEL, "production")
        wait_until(
            lambda: "has the alias production" in get(service, "/ready")[1]["models"][MODEL]["registry"],
            "it is said",
        )
        assert answers(service, first)
    # But a service that starts then must not activate it again.
    with serve() as service:
        assert ask(service)[0] == 503


def test_staging_and_the_version_before_are_kept_warm(
    serve: Serve, served_models: ServedModels, caplog: pytest.LogCaptureFixture
):
    first, second = served_models.version(seed=1), served_models.version(seed=2)
    served_models.serve(first)
    served_models.serve(second, "staging")
    caplog.set_level("INFO", "ledgerline.serving.follower")
    with serve() as service:
        wait_until(lambda: get(service, "/model")[1]["warm_in_staging"] == 2, "staging is loaded")
        for version in (second, first, second):
            served_models.serve(version)
            wait_until(lambda version=version: answers(service, version), f"version {version.number} answers")

    assert sum("is loaded" in record.message for record in caplog.records) == 2


class TestARecreatedModel:
    """A model that was deleted and created again: its version 1 is another version 1."""

    def recreate(self, models: ServedModels, seed: int, alias: str = "production") -> Version:
        models.client.delete_registered_model(MODEL)
        version = models.version(seed=seed)
        models.serve(version, alias)
        return version

    def test_its_version_is_active_at_the_next_poll_though_the_number_is_the_same(
        self, serve: Serve, served_models: ServedModels
    ):
        first = served_models.version(seed=1)
        served_models.serve(first)
        before = expected(served_models, first)
        with serve() as service:
            assert ask(service)[2]["predictions"] == before
            anew = self.recreate(served_models, seed=2)
            wait_until(lambda: get(service, "/model")[1]["sha256"] == anew.tags[SHA256_TAG], "it is active")
            predicted = ask(service)[2]["predictions"]

        assert predicted == expected(served_models, anew) != before

    def test_nothing_is_served_from_the_cache_of_the_earlier_model(
        self, serve: Serve, served_models: ServedModels
    ):
        served_models.serve(served_models.version(seed=1))
        with serve() as service:
            assert ask(service)[0] == 200
        anew = self.recreate(served_models, seed=2)
        with serve() as service:  # with the same folder
            assert get(service, "/model")[1]["sha256"] == anew.tags[SHA256_TAG]
            assert ask(service)[2]["predictions"] == expected(served_models, anew)

    def test_the_same_files_are_described_as_the_version_that_they_are_of_now(
        self, serve: Serve, served_models: ServedModels
    ):
        first = served_models.version(seed=1)
        served_models.serve(first)
        with serve() as service:
            assert get(service, "/model")[1]["training"]["mlflow_run_id"] == first.run_id
            served_models.client.delete_registered_model(MODEL)
            again = served_models.version(seed=1)
            served_models.serve(again)
            wait_until(
                lambda: get(service, "/model")[1]["training"]["mlflow_run_id"] == again.run_id,
                "it is described",
            )

    def test_its_version_in_staging_is_loaded(self, serve: Serve, served_models: ServedModels):
        served_models.serve(served_models.version(seed=1), "staging")
        with serve() as service:
            served = service.service.followers[MODEL].served
            wait_until(lambda: served.staging, "staging is loaded")
            anew = self.recreate(served_models, seed=2, alias="staging")
            wait_until(
                lambda: served.staging and served.staging.sha256 == anew.tags[SHA256_TAG],
                "the new version in staging is loaded",
            )

    def test_its_refused_version_is_reported_as_long_as_it_is_refused(
        self, serve: Serve, served_models: ServedModels
    ):
        first = served_models.version(seed=1)
        served_models.serve(first)
        with serve() as service:
            before = ask(service)[2]
            served_models.client.delete_registered_model(MODEL)
            anew = served_models.version(seed=2)
            requirements = files_of(anew) / "requirements.txt"
            registered = requirements.read_text()
            requirements.write_text(f"{registered}evil\n")
            served_models.serve(anew)
            wait_until(lambda: refused(service, 1), "version 1 of the new model is refused")
            served = service.service.followers[MODEL].served
            polled_at = served.polled_at
            wait_until(lambda: served.polled_at != polled_at, "the registry was read again")
            polled_at = served.polled_at
            wait_until(lambda: served.polled_at != polled_at, "and what it said is followed")
            assert refused(service, 1)
            assert ask(service)[2] == before
            requirements.write_text(registered)
            wait_until(lambda: get(service, "/model")[1]["sha256"] == anew.tags[SHA256_TAG], "it is active")
            assert not refused(service, 1)


def test_a_model_with_another_alias_and_a_second_model_are_served_side_by_side(
    serve: Serve, served_models: ServedModels
):
    champion, other = served_models.version(seed=1), served_models.version("other_model", seed=2)
    served_models.serve(champion, "champion")
    served_models.serve(other)
    with serve(LEDGERLINE_SERVING_MODELS=f"{MODEL}@champion, other_model") as service:
        assert ask(service)[:2] == (200, "1")
        status, version, content = ask(service, "/models/other_model/invocations")
        assert (status, version) == (200, "1")
        assert content["predictions"] == expected(served_models, other)
        assert [model["name"] for model in get(service, "/models")[1]] == [MODEL, "other_model"]
        assert ask(service, "/models/no_model/invocations")[0] == 404


def test_the_description_of_a_version_links_to_its_training_run(serve: Serve, served_models: ServedModels):
    run_id = "5e26834f-6dd1-4f33-9e3a-518b11bfe1a2"
    version = served_models.version()
    RegisteredModel(served_models.client, MODEL).set_version_tags(1, {"dagster.run_id": run_id})
    served_models.serve(version)
    with serve(LEDGERLINE_JAEGER_URL="http://127.0.0.1:16686") as service:
        model = get(service, "/model")[1]

    experiment = served_models.client.get_run(version.run_id).info.experiment_id
    assert model["sha256"] == version.tags[SHA256_TAG]
    assert model["training"] == {
        "run_id": run_id,
        "run_url": f"http://127.0.0.1:3000/runs/{run_id}",
        "trace_id": run_id.replace("-", ""),
        "trace_url": f"http://127.0.0.1:16686/trace/{run_id.replace('-', '')}",
        "mlflow_run_id": version.run_id,
        "mlflow_run_url": f"http://127.0.0.1:5000/#/experiments/{experiment}/runs/{version.run_id}",
    }


def test_no_request_fails_while_versions_change_and_each_response_names_its_version(
    serve: Serve, served_models: ServedModels
):
    turns = [served_models.version(seed=seed) for seed in (1, 2, 3, 4)]
    expected_responses = {str(version.number): expected(served_models, version) for version in turns}
    assert len({json.dumps(answer) for answer in expected_responses.values()}) == len(turns)
    served_models.serve(turns[0])
    found: list[tuple[int, str, Any]] = []
    ended = threading.Event()

    def keep_predicting(service: Running) -> None:
        while not ended.is_set():
            found.append(ask(service))

    with serve(LEDGERLINE_SERVING_POLL_SECONDS="0.02") as service:
        clients = [threading.Thread(target=keep_predicting, args=(service,)) for _ in range(3)]
        for client in clients:
            client.start()
        try:
            for turn in range(12):
                version = turns[turn % len(turns)]
                served_models.serve(version)
                wait_until(
                    lambda version=version: found and found[-1][1] == str(version.number),
                    f"version {version.number} answers",
                )
        finally:
            ended.set()
            for client in clients:
                client.join()

    assert {status for status, _, _ in found} == {200}
    assert {version for _, version, _ in found} == set(expected_responses)
    assert all(content["predictions"] == expected_responses[version] for _, version, content in found)


def post_delivery(service: Running, sent: Sent) -> int:
    with closing(http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)) as connection:
        connection.request("POST", "/webhooks/registry", sent.body, sent.headers)
        return connection.getresponse().status


def expected(models: ServedModels, version: Version) -> Any:
    """Return the prediction of a version for the rows of `body`, without a server."""
    model = RegisteredModel(models.client, version.name).load(version)
    return model.answer(flight_rows(20).tail(3)).tolist()


def other_columns() -> Any:
    from sklearn.linear_model import LogisticRegression

    rows = flight_rows()
    return LogisticRegression().fit(rows[["distance"]], rows["holiday"])


def register(models: ServedModels, model: Any, inputs: Any) -> Version:
    """Register a model that takes other columns."""
    import tempfile

    from ledgerline.mlflow_store import model_files

    experiment = models.client.create_experiment(f"other {time.monotonic_ns()}")
    run_id = models.client.create_run(experiment).info.run_id
    logged = models.client.create_logged_model(experiment, "other", run_id)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent, "model")
        model_files.save(model, folder, inputs, logged, run_id, method="predict_proba")
        models.client.log_model_artifacts(logged.model_id, str(folder))
    models.client.finalize_logged_model(logged.model_id, "READY")
    return RegisteredModel(models.client, MODEL).register(logged.model_id, {})


def register_pickled(models: ServedModels) -> Version:
    """Register a model as `mlflow.sklearn.save_model` pickles it."""
    import tempfile

    from mlflow import sklearn as mlflow_sklearn
    from mlflow.models import infer_signature

    model, rows = other_columns(), flight_rows()[["distance"]]
    experiment = models.client.create_experiment(f"pickled {time.monotonic_ns()}")
    run_id = models.client.create_run(experiment).info.run_id
    logged = models.client.create_logged_model(experiment, "pickled", run_id)
    with tempfile.TemporaryDirectory() as parent, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(parent, "model")
        mlflow_sklearn.save_model(
            model,
            str(folder),
            serialization_format="pickle",
            signature=infer_signature(rows, model.predict(rows)),
            input_example=rows.head(2),
            pip_requirements=[],
        )
        models.client.log_model_artifacts(logged.model_id, str(folder))
    models.client.finalize_logged_model(logged.model_id, "READY")
    return RegisteredModel(models.client, MODEL).register(logged.model_id, {})
