"""Tests headers of responses, and metrics for Prometheus."""

import json
import re
import time
import uuid
from collections.abc import Iterator, Mapping

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from ledgerline.testing.waiting import wait_until
from tests.serving.conftest import MODEL, Running, Serve, ServedModels, flight_rows

SECONDS = 120.0
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def records() -> list[dict[str, object]]:
    return json.loads(flight_rows(3).to_json(orient="records"))


@pytest.fixture
def fresh(served_models: ServedModels, serve: Serve) -> Iterator[Running]:
    """A service that has received no request."""
    served_models.serve(served_models.version())
    with serve(LEDGERLINE_SERVING_ROWS="2") as started:
        yield started


def ask(service: Running, content: object, path: str = "/invocations", **headers: str) -> requests.Response:
    return requests.post(f"{service.url}{path}", json=content, headers=headers, timeout=SECONDS)


def samples(service: Running) -> Samples:
    """Return the metrics as Prometheus reads them."""
    answer = requests.get(f"{service.url}/metrics", timeout=SECONDS)
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def of(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((name, frozenset(labels.items())))


def reported_versions(found: Samples) -> list[dict[str, str]]:
    """Return the labels of the versions that are reported as active."""
    return [dict(labels) for name, labels in found if name == "ledgerline_model_info"]


# Ids


@pytest.mark.parametrize("given", ["a", "0af7.51:91_6c-D", "x" * 128])
def test_a_request_keeps_its_id(shared_service: Running, given: str) -> None:
    answer = requests.get(f"{shared_service.url}/ping", headers={"X-Request-Id": given}, timeout=SECONDS)

    assert answer.headers["X-Request-Id"] == given


@pytest.mark.parametrize(
    "given", [None, "", "x" * 129, "two words", "<script>", "caf\xe9", "a,b", "%0d%0aX:1"]
)
def test_a_request_without_an_acceptable_id_gets_one(shared_service: Running, given: str | None) -> None:
    headers = {} if given is None else {"X-Request-Id": given.encode("latin-1")}

    answer = requests.get(f"{shared_service.url}/ping", headers=headers, timeout=SECONDS)

    assert str(uuid.UUID(answer.headers["X-Request-Id"])) == answer.headers["X-Request-Id"]


def test_no_two_requests_get_the_same_id(shared_service: Running) -> None:
    url = f"{shared_service.url}/nowhere"

    ids = {requests.get(url, timeout=SECONDS).headers["X-Request-Id"] for _ in range(5)}

    assert len(ids) == 5


# Versions


@pytest.mark.parametrize("path", ["/invocations", f"/models/{MODEL}/invocations"])
def test_an_answer_names_the_version_that_gave_it(
    shared_service: Running, records: list[dict[str, object]], path: str
) -> None:
    answer = ask(shared_service, {"dataframe_records": records}, path)

    assert answer.status_code == 200
    assert (answer.headers["X-Model-Name"], answer.headers["X-Model-Version"]) == (MODEL, "1")
    assert "X-Ignored-Columns" not in answer.headers


def test_a_refusal_names_the_version_that_it_would_have_been(shared_service: Running) -> None:
    answer = ask(shared_service, {"dataframe_records": [{"carrier": 7}]})

    assert answer.status_code == 400
    assert (answer.headers["X-Model-Name"], answer.headers["X-Model-Version"]) == (MODEL, "1")


@pytest.mark.parametrize("path", ["/ping", "/nowhere", "/metrics", f"/v2/models/{MODEL}"])
def test_a_response_without_a_prediction_names_no_version(shared_service: Running, path: str) -> None:
    answer = requests.get(f"{shared_service.url}{path}", timeout=SECONDS)

    assert "X-Model-Version" not in answer.headers


def test_columns_that_the_model_does_not_have_are_named(
    shared_service: Running, records: list[dict[str, object]]
) -> None:
    more = [record | {"gate": "A1", "smörgås": 1, "line\nbreak": 2} for record in records]

    answer = ask(shared_service, {"dataframe_records": more})

    assert answer.status_code == 200
    assert answer.headers["X-Ignored-Columns"] == "gate, sm?rg?s"


def test_the_number_of_named_columns_is_limited_for_every_client(
    shared_service: Running, records: list[dict[str, object]]
) -> None:
    many = {f"{number}{'x' * 100_000}": 1 for number in range(30)}

    answer = ask(shared_service, {"dataframe_records": [records[0] | many]})

    assert answer.status_code == 200
    assert len(answer.headers["X-Ignored-Columns"]) < 1000


# Traces


@pytest.mark.parametrize("flags", ["00", "01"])
def test_a_span_is_in_the_trace_of_its_caller_whose_sampling_decision_it_follows(
    shared_service: Running, flags: str
) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-{flags}"}

    answer = requests.get(f"{shared_service.url}/ping", headers=headers, timeout=SECONDS)

    version, trace, span, kept = answer.headers["traceparent"].split("-")
    assert (version, trace) == ("00", TRACE)
    assert re.fullmatch("[0-9a-f]{16}", span)
    assert span not in (PARENT, "0" * 16)
    assert int(kept, 16) & 1 == int(flags)


@pytest.mark.parametrize("given", ["", "nonsense", f"00-{'0' * 32}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01"])
def test_an_invalid_traceparent_is_ignored(shared_service: Running, given: str) -> None:
    answer = requests.get(f"{shared_service.url}/ping", headers={"traceparent": given}, timeout=SECONDS)

    assert answer.status_code == 200
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3]", answer.headers["traceparent"])
    assert TRACE not in answer.headers["traceparent"]


def test_the_trace_of_an_answer_is_a_new_one_each_time(shared_service: Running) -> None:
    url = f"{shared_service.url}/ping"

    traces = {requests.get(url, timeout=SECONDS).headers["traceparent"].split("-")[1] for _ in range(5)}

    assert len(traces) == 5


def test_no_trace_id_is_returned_where_opentelemetry_is_off(
    served_models: ServedModels, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with serve() as service:
        answer = requests.get(f"{service.url}/v2/health/live", timeout=SECONDS)

    assert answer.status_code == 200
    assert "traceparent" not in answer.headers


# Metrics


def test_answers_are_counted_by_route_status_and_version(
    fresh: Running, records: list[dict[str, object]]
) -> None:
    for _ in range(2):
        assert ask(fresh, {"dataframe_records": records[:1]}).status_code == 200
    assert ask(fresh, {"dataframe_records": records}).status_code == 413
    assert ask(fresh, {"dataframe_records": records[:2]}, f"/models/{MODEL}/invocations").status_code == 200
    assert ask(fresh, {}, "/models/unknown/invocations").status_code == 404
    for path in ("/nowhere", "/elsewhere", "/ping"):
        requests.get(f"{fresh.url}{path}", timeout=SECONDS)

    found = samples(fresh)

    def answers(route: str, status: int, version: str = "") -> float | None:
        model = MODEL if version else ""
        return of(
            found, "ledgerline_requests_total", route=route, status=str(status), model=model, version=version
        )

    assert answers("/invocations", 200, "1") == 2
    assert answers("/invocations", 413, "1") == 1
    assert answers("/models/{name}/invocations", 200, "1") == 1
    assert answers("/models/{name}/invocations", 404) == 1
    assert answers("", 404) == 2  # for any client: names of clients are not labels
    assert answers("/ping", 200) == 1
    total = sum(value for (name, _), value in found.items() if name == "ledgerline_requests_total")
    assert total == 8
    assert of(found, "ledgerline_requests_now") == 1  # the request for metrics itself
    assert of(found, "ledgerline_request_seconds_count", route="/invocations", model=MODEL) == 3


def test_predictions_are_counted_by_rows_and_requests(
    fresh: Running, records: list[dict[str, object]]
) -> None:
    for rows in (records[:1], records[:2]):
        assert ask(fresh, {"dataframe_records": rows}).status_code == 200
    # Predictions are counted after they were delivered.
    wait_until(
        lambda: of(samples(fresh), "ledgerline_predict_seconds_count", model=MODEL) == 2,
        "both predictions are counted",
    )
    found = samples(fresh)

    assert of(found, "ledgerline_predict_rows_sum", model=MODEL) == 3
    assert of(found, "ledgerline_predict_requests_sum", model=MODEL) == 2
    seconds = of(found, "ledgerline_predict_seconds_sum", model=MODEL)
    assert seconds is not None
    assert 0 < seconds < SECONDS


def test_the_active_version_is_exported_until_another_is_activated(
    served_models: ServedModels, serve: Serve
) -> None:
    old, new = served_models.version(), served_models.version(seed=1)
    served_models.serve(old)
    with serve() as service:
        before = samples(service)
        served_models.serve(new)
        service.service.notify("")
        wait_until(
            lambda: of(samples(service), "ledgerline_swaps_total", model=MODEL) == 1, "version 2 is active"
        )
        after = samples(service)

    for found, version in ((before, old), (after, new)):
        assert reported_versions(found) == [
            {
                "model": MODEL,
                "alias": "production",
                "version": str(version.number),
                "sha256": version.tags["sha256"],
                "training_run_id": "",
            }
        ]
        assert of(found, "ledgerline_registry_up", model=MODEL) == 1
        assert of(found, "ledgerline_refused_version", model=MODEL) == 0
    look = of(after, "ledgerline_registry_poll_timestamp_seconds", model=MODEL)
    assert look == pytest.approx(time.time(), abs=SECONDS)


def test_metrics_of_the_process_are_exported_too(shared_service: Running) -> None:
    found = samples(shared_service)

    assert (of(found, "process_resident_memory_bytes") or 0) > 0
