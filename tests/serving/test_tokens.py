"""Tests tokens: which requests need one, and the responses to clients without one."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.serving.conftest import Running, ServedModels, running, serving_settings
from tests.serving.scripted_versions import SCRIPTED, SCRIPTED_SERVING, row_with

SECONDS = 120.0
TOKENS = ("first-token", "second-token")


@pytest.fixture(scope="module")
def closed(scripted_models: ServedModels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service that requires tokens."""
    folder = tmp_path_factory.mktemp("closed")
    tokens = {"LEDGERLINE_SERVING_TOKENS": ", ".join(TOKENS)}
    with running(serving_settings(folder, scripted_models.uri, **SCRIPTED_SERVING, **tokens)) as started:
        yield started


def ask(service: Running, content: Any, path: str = "/invocations", **headers: str) -> requests.Response:
    return requests.post(f"{service.url}{path}", json=content, headers=headers, timeout=SECONDS)


@pytest.mark.parametrize("path", ["/ping", "/health", "/ready", "/v2/health/live", "/v2/health/ready"])
def test_health_checks_of_the_service_need_no_token(closed: Running, path: str) -> None:
    assert requests.get(f"{closed.url}{path}", timeout=SECONDS).status_code == 200


@pytest.mark.parametrize(
    "path",
    [f"/v2/models/{SCRIPTED}/ready", f"/v2/models/{SCRIPTED}/versions/1/ready"],
    ids=["model", "version"],
)
def test_health_checks_of_a_model_need_no_token(closed: Running, path: str) -> None:
    assert requests.get(f"{closed.url}{path}", timeout=SECONDS).json() == {"name": SCRIPTED, "ready": True}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/invocations"),
        ("POST", f"/models/{SCRIPTED}/invocations"),
        ("POST", "/models/unknown/invocations"),
        ("POST", f"/v2/models/{SCRIPTED}/infer"),
        ("POST", f"/v2/models/{SCRIPTED}/versions/1/infer"),
        ("POST", f"/v2/models/{SCRIPTED}/versions/ready"),
        ("POST", "/v2/models/unknown/infer"),
        ("GET", "/v2"),
        ("GET", f"/v2/models/{SCRIPTED}"),
        ("GET", f"/v2/models/{SCRIPTED}/versions/ready"),
        ("GET", "/v2/models/unknown"),
        ("GET", "/metrics"),
        ("GET", "/model"),
        ("GET", "/models"),
        ("GET", f"/models/{SCRIPTED}"),
        ("GET", "/models/unknown"),
        ("GET", "/version"),
        ("GET", "/docs"),
        ("GET", "/redoc"),
        ("GET", "/openapi.json"),
        ("GET", "/nowhere"),
        ("GET", "/ready/"),
        ("GET", "/ping%0A"),
    ],
)
def test_everything_else_needs_a_token_and_returns_nothing_without(
    closed: Running, method: str, path: str
) -> None:
    answer = requests.request(method, f"{closed.url}{path}", timeout=SECONDS)

    message = "The token is missing or unknown. Send the header Authorization: Bearer TOKEN."
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json() == (
        {"error": message}
        if path.startswith("/v2")
        else {"error_code": "UNAUTHENTICATED", "message": message}
    )
    assert "X-Model-Name" not in answer.headers


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_any_of_the_tokens_opens(closed: Running, scheme: str, token: str) -> None:
    answer = ask(closed, row_with(), Authorization=f"{scheme} {token}")

    assert answer.json() == {"predictions": [2.0]}


@pytest.mark.parametrize(
    "given",
    ["Bearer third-token", "Bearer", f"Basic {TOKENS[0]}", TOKENS[0], f"Bearer {', '.join(TOKENS)}"],
)
def test_invalid_tokens_are_refused(closed: Running, given: str) -> None:
    assert ask(closed, row_with(), Authorization=given).status_code == 401


def test_with_a_token_unknown_paths_are_reported_and_there_is_no_documentation_page(closed: Running) -> None:
    for path in ("/nowhere", "/docs", "/openapi.json"):
        headers = {"Authorization": f"Bearer {TOKENS[0]}"}
        answer = requests.get(f"{closed.url}{path}", headers=headers, timeout=SECONDS)
        assert answer.status_code == 404
