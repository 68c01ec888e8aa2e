"""Tests refusals and their messages: sizes, time, concurrency, types, paths, failures."""

import json
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from ledgerline.testing.waiting import wait_until
from tests.serving.conftest import (
    HOST,
    MODEL,
    Running,
    Serve,
    ServedModels,
    flight_rows,
    running,
    serving_settings,
)
from tests.serving.scripted_versions import SCRIPTED, SCRIPTED_SERVING, pickled_version, row_with

SECONDS = 120.0
MEGABYTE = 1024 * 1024
MAX_REQUESTS = 3
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def strict(scripted_models: ServedModels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service with small limits."""
    limits = {
        "LEDGERLINE_SERVING_BODY_MEGABYTES": "1",
        "LEDGERLINE_SERVING_BODY_SECONDS": "0.3",
        "LEDGERLINE_SERVING_ROWS": "3",
        "LEDGERLINE_SERVING_REQUESTS": str(MAX_REQUESTS),
    }
    folder = tmp_path_factory.mktemp("strict")
    with running(serving_settings(folder, scripted_models.uri, **SCRIPTED_SERVING, **limits)) as started:
        yield started


@pytest.fixture
def connection(strict: Running) -> Iterator[socket.socket]:
    """For what no client library would send."""
    with socket.create_connection((HOST, strict.port), SECONDS) as opened:
        yield opened


def ask(service: Running, content: Any, path: str = "/invocations", **headers: str) -> requests.Response:
    return requests.post(f"{service.url}{path}", json=content, headers=headers, timeout=SECONDS)


def received(connection: socket.socket) -> tuple[int, dict[str, str], Any]:
    """An answer with its end: the server closes the connection."""
    whole = b""
    while part := connection.recv(65536):
        whole += part
    head, _, body = whole.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(first.split()[1]), headers, json.loads(body)


def head(*headers: str) -> bytes:
    lines = ["POST /invocations HTTP/1.1", f"Host: {HOST}", "Content-Type: application/json", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


# How much, and how fast


def test_a_body_with_a_too_large_content_length_is_refused_before_it_is_read(
    connection: socket.socket,
) -> None:
    connection.sendall(head(f"Content-Length: {MEGABYTE + 1}"))

    status, headers, content = received(connection)

    assert status == 413
    assert headers["connection"] == "close"
    assert content == {"error_code": "BAD_REQUEST", "message": "The body is larger than 1048576 bytes."}


def test_a_body_without_a_content_length_is_refused_when_it_becomes_too_large(
    connection: socket.socket,
) -> None:
    chunk = b"x" * 65536
    connection.sendall(head("Transfer-Encoding: chunked"))
    for _ in range(MEGABYTE // len(chunk)):
        connection.sendall(b"%x\r\n%s\r\n" % (len(chunk), chunk))
    connection.sendall(b"1\r\nx\r\n")

    status, headers, content = received(connection)

    assert (status, headers["connection"]) == (413, "close")
    assert content["message"] == "The body is larger than 1048576 bytes."


def test_a_body_of_just_the_size_is_read(strict: Running) -> None:
    content = json.dumps(row_with()).encode().ljust(MEGABYTE)

    answer = requests.post(f"{strict.url}/invocations", content, headers=JSON, timeout=SECONDS)

    assert (answer.status_code, answer.json()) == (200, {"predictions": [2.0]})


def test_a_body_that_arrives_too_slowly_is_refused(connection: socket.socket) -> None:
    connection.sendall(head("Content-Length: 100") + b"{")

    status, headers, content = received(connection)

    assert (status, headers["connection"]) == (408, "close")
    assert content == {
        "error_code": "BAD_REQUEST",
        "message": "The body did not arrive within 0.3 seconds.",
    }


def test_a_client_that_disconnects_leaves_nothing_behind(strict: Running) -> None:
    with socket.create_connection((HOST, strict.port), SECONDS) as connection:
        connection.sendall(head("Content-Length: 100") + b"{")

    def only_this_one_is_left() -> bool:
        metrics = requests.get(f"{strict.url}/metrics", timeout=SECONDS).text
        return "ledgerline_requests_now 1.0" in metrics

    wait_until(only_this_one_is_left, "the request has ended")
    assert ask(strict, row_with()).status_code == 200


@pytest.mark.parametrize(
    ("path", "content", "error"),
    [
        (
            "/invocations",
            {"dataframe_split": {"columns": ["what", "value"], "data": [["answer", 1.0]] * 4}},
            {"error_code": "BAD_REQUEST", "message": "The body has 4 rows. Send at most 3 at once."},
        ),
        (
            f"/v2/models/{SCRIPTED}/infer",
            {
                "inputs": [
                    {"name": "what", "shape": [4], "datatype": "BYTES", "data": ["answer"] * 4},
                    {"name": "value", "shape": [4], "datatype": "FP64", "data": [1.0] * 4},
                ]
            },
            {"error": "The body has 4 rows. Send at most 3 at once."},
        ),
    ],
)
def test_more_rows_than_a_request_may_have_are_refused(
    strict: Running, path: str, content: Any, error: Any
) -> None:
    answer = ask(strict, content, path)

    assert (answer.status_code, answer.json()) == (413, error)


# How many at once, and how long


def test_more_requests_at_once_than_are_allowed_get_the_advice_to_try_again(
    strict: Running, tmp_path: Path
) -> None:
    go = tmp_path / "go.now"
    with ThreadPoolExecutor(MAX_REQUESTS) as clients:
        try:
            waiting = [
                clients.submit(ask, strict, row_with(f"wait for {go}", value))
                for value in range(MAX_REQUESTS)
            ]
            wait_until(
                lambda: strict.service.metrics.requests_now._value.get() >= MAX_REQUESTS,
                "all requests are in progress",
            )
            refused = ask(strict, row_with())
        finally:
            go.touch()
        answers = [one.result() for one in waiting]

    assert refused.status_code == 429
    assert refused.headers["Retry-After"] == "1"
    assert refused.headers["Connection"] == "close"
    assert refused.json() == {
        "error_code": "REQUEST_LIMIT_EXCEEDED",
        "message": "The limit of 3 concurrent requests is reached. Try again later.",
    }
    assert [answer.json() for answer in answers] == [{"predictions": [2.0 * n]} for n in range(MAX_REQUESTS)]
    assert ask(strict, row_with()).status_code == 200


def test_a_late_prediction_is_given_up_and_later_requests_are_answered(
    scripted_models: ServedModels, tmp_path: Path
) -> None:
    go = tmp_path / "go.now"
    settings = serving_settings(
        tmp_path / "home", scripted_models.uri, **SCRIPTED_SERVING, LEDGERLINE_SERVING_SECONDS="0.3"
    )

    received: list[requests.Response] = []

    def status(value: float) -> int:
        received.append(ask(service, row_with(value=value)))
        return received[-1].status_code

    with running(settings) as service:
        try:
            late = ask(service, row_with(f"wait for {go}"))
            # On a busy machine the service itself may take longer than a request has.
            wait_until(lambda: status(7.0) != 504, "the service answers in time")
            behind = received[-1]
            watched = requests.get(f"{service.url}/ping", timeout=SECONDS)
        finally:
            go.touch()
        wait_until(lambda: status(3.0) not in (503, 504), "the service predicts again")
        answer = received[-1]

    assert (late.status_code, late.headers["X-Model-Version"]) == (504, "1")
    assert late.json() == {
        "error_code": "TEMPORARILY_UNAVAILABLE",
        "message": "The prediction took longer than 0.3 seconds.",
    }
    # Other requests do not wait for a model that hangs, and the health page reports it.
    assert (behind.status_code, watched.status_code) == (503, 503)
    assert "hangs" in behind.json()["message"]
    assert answer.json() == {"predictions": [6.0]}


# Types and paths


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        (
            {"Content-Type": "text/plain"},
            "The content type of the body is text/plain. Send application/json or text/csv.",
        ),
        ({}, "The content type of the body is missing. Send application/json or text/csv."),
    ],
)
def test_bodies_of_other_types_are_refused(
    shared_service: Running, headers: dict[str, str], message: str
) -> None:
    url = f"{shared_service.url}/invocations"

    answer = requests.post(url, b"carrier\nAA\n", headers=headers, timeout=SECONDS)

    assert answer.status_code == 415
    assert answer.json() == {"error_code": "BAD_REQUEST", "message": message}


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "APPLICATION/JSON"])
def test_the_spelling_of_a_content_type_does_not_matter(strict: Running, kind: str) -> None:
    answer = requests.post(
        f"{strict.url}/invocations", json.dumps(row_with()), headers={"Content-Type": kind}, timeout=SECONDS
    )

    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        ("GET", "/nowhere", {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "Not Found"}),
        ("GET", "/v2/nowhere", {"error": "Not Found"}),
        (
            "POST",
            "/models/unknown/invocations",
            {
                "error_code": "RESOURCE_DOES_NOT_EXIST",
                "message": f"No model 'unknown' is served here; there is {MODEL}.",
            },
        ),
        (
            "GET",
            "/models/unknown",
            {
                "error_code": "RESOURCE_DOES_NOT_EXIST",
                "message": f"No model 'unknown' is served here; there is {MODEL}.",
            },
        ),
        (
            "POST",
            "/v2/models/unknown/infer",
            {"error": f"No model 'unknown' is served here; there is {MODEL}."},
        ),
        (
            "POST",
            f"/v2/models/{MODEL}/versions/7/infer",
            {"error": f"Version '7' of {MODEL} is not active; version 1 is."},
        ),
        (
            "GET",
            "/v2/models/unknown/ready",
            {"error": f"No model 'unknown' is served here; there is {MODEL}."},
        ),
    ],
)
def test_an_unknown_path_is_reported_in_the_form_of_the_protocol(
    shared_service: Running, method: str, path: str, content: Any
) -> None:
    answer = requests.request(method, f"{shared_service.url}{path}", json={}, timeout=SECONDS)

    assert (answer.status_code, answer.json()) == (404, content)


def test_an_unsupported_method_gets_the_list_of_supported_ones(shared_service: Running) -> None:
    answer = requests.get(f"{shared_service.url}/invocations", timeout=SECONDS)

    assert answer.status_code == 405
    assert answer.headers["Allow"] == "POST"
    assert answer.json() == {"error_code": "ENDPOINT_NOT_FOUND", "message": "Method Not Allowed"}


# Models that are code


def test_a_pickled_model_is_loaded_where_that_is_allowed_and_nowhere_else(
    served_models: ServedModels, serve: Serve
) -> None:
    served_models.serve(pickled_version(served_models))
    with serve(**SCRIPTED_SERVING) as service:
        answer = ask(service, row_with())
    with serve(LEDGERLINE_SERVING_MODELS=SCRIPTED, LEDGERLINE_SERVING_UNPICKLE="another") as service:
        refused = ask(service, row_with())

    assert (answer.status_code, answer.json()) == (200, {"predictions": [3.0]})
    assert refused.status_code == 503


# Failures reveal no internal details


def telling(text: str) -> list[str]:
    """Return the internals in a text: paths, stack traces, names of exceptions."""
    return re.findall(r"Traceback|File \"|\.py\b|/tmp|/home|sqlite|\w+Error\b", text)


def test_rows_that_the_model_fails_on_are_refused_without_its_error(strict: Running) -> None:
    answer = ask(strict, row_with("fail"))

    assert answer.status_code == 400
    assert telling(answer.text) == []
    assert answer.json()["message"] == ("The model fails on these rows, although they fit its signature.")


@pytest.mark.parametrize(
    ("path", "content", "expected"),
    [
        (
            "/invocations",
            row_with("unsayable"),
            '{"error_code":"INTERNAL_ERROR","message":"The request failed; its id is my-id."}',
        ),
        (
            f"/v2/models/{SCRIPTED}/infer",
            {
                "inputs": [
                    {"name": "what", "shape": [1], "datatype": "BYTES", "data": ["unsayable"]},
                    {"name": "value", "shape": [1], "datatype": "FP64", "data": [1.0]},
                ]
            },
            '{"error":"The request failed; its id is my-id."}',
        ),
    ],
)
def test_an_unexpected_failure_reports_the_id_of_the_request_only(
    strict: Running, path: str, content: Any, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = ask(strict, content, path, **{"X-Request-Id": "my-id"})

    assert (answer.status_code, answer.text) == (500, expected)
    assert answer.headers["X-Request-Id"] == "my-id"
    (logged,) = [record for record in caplog.records if record.name == "ledgerline.serving.accounting"]
    assert logged.getMessage() == "Request my-id failed."
    assert logged.exc_info is not None
    assert ask(strict, row_with()).status_code == 200


def test_the_reason_for_no_active_version_is_on_the_status_page_and_not_in_responses(
    scripted_models: ServedModels, tmp_path: Path
) -> None:
    """The settings do not allow to load this model; the reason names its folder."""
    settings = serving_settings(tmp_path / "home", scripted_models.uri, LEDGERLINE_SERVING_MODELS=SCRIPTED)
    with running(settings) as service:
        scored = ask(service, row_with())
        inferred = ask(service, {"inputs": []}, f"/v2/models/{SCRIPTED}/infer")
        ready = requests.get(f"{service.url}/ready", timeout=SECONDS)

    said = f"No version of {SCRIPTED} is active yet; GET /ready has the reason."
    assert (scored.status_code, scored.headers["Retry-After"]) == (503, "1")
    assert scored.json() == {"error_code": "TEMPORARILY_UNAVAILABLE", "message": said}
    assert (inferred.status_code, inferred.json()) == (503, {"error": said})
    assert (ready.status_code, ready.json()["ready"]) == (503, False)
    assert "pickled models are not loaded" in ready.json()["models"][SCRIPTED]["refused"]["reason"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"\xff", b'{"inputs": {"carrier": [1e999]}}', b"[" * 5000, b"\0" * 200_000]
)
@pytest.mark.parametrize("path", ["/invocations", f"/v2/models/{MODEL}/infer"])
def test_invalid_bodies_are_refused_without_internal_details(
    shared_service: Running, path: str, body: bytes
) -> None:
    url = f"{shared_service.url}{path}"

    answer = requests.post(url, body, headers=JSON, timeout=SECONDS)

    assert answer.status_code == 400
    assert telling(answer.text) == []


def test_many_concurrent_clients_receive_their_predictions(shared_service: Running) -> None:
    rows = flight_rows(64, seed=5)
    records = json.loads(rows.to_json(orient="records"))
    together = ask(shared_service, {"dataframe_records": records}).json()["predictions"]
    before = threading.active_count()

    with ThreadPoolExecutor(16) as clients:
        alone = list(
            clients.map(lambda one: ask(shared_service, {"dataframe_records": [one]}).json(), records)
        )

    assert [answer["predictions"][0] for answer in alone] == [pytest.approx(one) for one in together]
    assert threading.active_count() <= before + 1  # at most one that reads bodies
