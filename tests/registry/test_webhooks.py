"""Tests deliveries of MLflow: accepted requests, their contents, and their registration."""

import json
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count

import pytest

from ledgerline.mlflow_store.webhooks import (
    TOLERANCE_SECONDS,
    Delivery,
    DeliveryRefusedError,
    RegistrationError,
    Verifier,
    register,
)
from tests.project import PROJECT_ROOT
from tests.registry.deliveries import ALIAS_SET, SECRET, Sent

NOW = 1_800_000_000


@dataclass
class Clock:
    """A clock that is set by hand."""

    seconds: float = NOW

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def verifier(clock: Clock) -> Verifier:
    return Verifier(SECRET, now=clock)


def sent(content: object = ALIAS_SET, at: int = NOW, **fields: str) -> Sent:
    return Sent(body=json.dumps(content).encode(), timestamp=str(at), **fields)


def refusal(verifier: Verifier, headers: Mapping[str, str], body: bytes) -> str:
    """Return why a request is refused, which never contains anything secret."""
    with pytest.raises(DeliveryRefusedError) as error:
        verifier.verify(headers, body)
    assert SECRET not in str(error.value)
    assert "v1," not in str(error.value)
    assert error.value.__cause__ is None
    return str(error.value)


# Accepted


def test_a_body_signed_by_mlflow_is_read(verifier: Verifier) -> None:
    request = sent()
    assert verifier.verify(request.headers, request.body) == Delivery(
        id=request.id,
        entity="model_version_alias",
        action="created",
        model="flight_delay",
        version="3",
        alias="production",
        at=NOW,
    )


def test_upper_and_lower_case_of_headers_make_no_difference(verifier: Verifier) -> None:
    for change in (str.lower, str.upper):
        request = sent()
        headers = {change(name): value for name, value in request.headers.items()}
        assert verifier.verify(headers, request.body).id == request.id


def test_one_right_signature_of_several_is_enough(verifier: Verifier) -> None:
    request = sent()
    other = sent(secret="the one before", id=request.id).signature
    headers = request.but(signature=f"{other} v1a,something {request.signature}")
    assert verifier.verify(headers, request.body).model == "flight_delay"


@pytest.mark.parametrize("difference", [-TOLERANCE_SECONDS, -1, 0, 1, TOLERANCE_SECONDS])
def test_clocks_may_differ_a_little(verifier: Verifier, difference: int) -> None:
    request = sent(at=NOW + difference)
    assert verifier.verify(request.headers, request.body).at == NOW + difference


@pytest.mark.parametrize(
    ("content", "fields"),
    [
        ({"entity": "model_version", "action": "created", "data": {"name": "m", "version": "1"}}, "m 1 -"),
        (
            {"entity": "model_version_alias", "action": "deleted", "data": {"name": "m", "alias": "a"}},
            "m - a",
        ),
        ({"entity": "model_version_tag", "action": "set", "data": {"name": "m", "version": 2}}, "m 2 -"),
        ({"entity": "registered_model", "action": "created", "data": {"name": "m"}}, "m - -"),
        ({"entity": "prompt_alias", "action": "created", "data": {"name": "p", "alias": "a"}}, "- - -"),
        ({"entity": "of next year", "action": "exploded", "data": {"name": ["x"]}}, "- - -"),
        ({"entity": "model_version", "action": "created", "data": {"name": ["x"], "version": None}}, "- - -"),
        ({"entity": "model_version", "action": "created", "data": "m"}, "- - -"),
        ({"entity": 5, "action": None}, "- - -"),
        ({}, "- - -"),
    ],
)
def test_every_event_is_a_delivery_and_missing_fields_are_empty(
    verifier: Verifier, content: object, fields: str
) -> None:
    request = sent(content)
    delivery = verifier.verify(request.headers, request.body)
    assert " ".join(field or "-" for field in (delivery.model, delivery.version, delivery.alias)) == fields


# Refused


@pytest.mark.parametrize("body", [b"", b"{}", Sent().body + b" ", Sent().body.replace(b"3", b"4")])
def test_another_body_than_the_signed_one_is_refused(verifier: Verifier, body: bytes) -> None:
    assert refusal(verifier, sent().headers, body) == "the signature does not match"


@pytest.mark.parametrize("secret", ["another", SECRET + " ", SECRET.upper()])
def test_a_signature_of_another_secret_is_refused(verifier: Verifier, secret: str) -> None:
    request = sent(secret=secret)
    assert refusal(verifier, request.headers, request.body) == "the signature does not match"


@pytest.mark.parametrize("changed", [{"id": "another"}, {"timestamp": str(NOW + 1)}, {"id": ""}])
def test_id_and_time_are_signed_too(verifier: Verifier, changed: dict[str, str]) -> None:
    request = sent()
    assert refusal(verifier, request.but(**changed), request.body) == "the signature does not match"


@pytest.mark.parametrize("signature", ["", "v1,", "v1,AAAA", "v1", "sha256=abc", "v1,é", "v1,\x00"])
def test_a_malformed_signature_is_refused(verifier: Verifier, signature: str) -> None:
    request = sent()
    headers = request.but(signature=signature)
    assert refusal(verifier, headers, request.body) == "the signature does not match"


def test_a_signature_of_another_version_is_refused(verifier: Verifier) -> None:
    request = sent()
    for signature in (request.signature.replace("v1,", "v2,"), request.signature.removeprefix("v1,")):
        headers = request.but(signature=signature)
        assert refusal(verifier, headers, request.body) == "the signature does not match"


@pytest.mark.parametrize("name", ["X-MLflow-Delivery-Id", "X-MLflow-Timestamp", "X-MLflow-Signature"])
def test_a_missing_header_is_named(verifier: Verifier, name: str) -> None:
    request = sent()
    headers = {key: value for key, value in request.headers.items() if key != name}
    assert refusal(verifier, headers, request.body) == f"it has no {name}"


@pytest.mark.parametrize("difference", [-TOLERANCE_SECONDS - 1, TOLERANCE_SECONDS + 1, -NOW, 10 * NOW])
def test_a_delivery_from_the_past_or_the_future_is_refused(verifier: Verifier, difference: int) -> None:
    request = sent(at=NOW + difference)
    reason = refusal(verifier, request.headers, request.body)
    assert reason == "it was not sent within 5 minutes of the time here"


@pytest.mark.parametrize("timestamp", ["", "now", "1e9", f"{NOW}.0", f" {NOW}", "-1", "9" * 5000, "١٢٣"])
def test_a_malformed_time_is_refused(verifier: Verifier, timestamp: str) -> None:
    request = Sent(timestamp=timestamp)
    reason = refusal(verifier, request.headers, request.body)
    assert reason == "it was not sent within 5 minutes of the time here"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "its body is not JSON"),
        (b"{", "its body is not JSON"),
        (b"\xff\xfe\x00", "its body is not JSON"),
        (b"[" * 200_000, "its body is not JSON"),
        (b"[]", "its body is not a JSON object"),
        (b"null", "its body is not a JSON object"),
    ],
    ids=["empty", "cut off", "no text", "deep", "list", "null"],
)
def test_a_body_without_content_is_refused(verifier: Verifier, body: bytes, reason: str) -> None:
    request = Sent(body=body, timestamp=str(NOW))
    assert refusal(verifier, request.headers, request.body) == reason


def test_an_empty_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="The secret of a webhook is empty"):
        Verifier("")


# Once


def test_a_delivery_is_accepted_once(verifier: Verifier, clock: Clock) -> None:
    request = sent()
    verifier.verify(request.headers, request.body)
    for seconds in (0, 1, TOLERANCE_SECONDS):
        clock.seconds = NOW + seconds
        assert refusal(verifier, request.headers, request.body) == "it was received before"


def test_a_delivery_from_a_clock_ahead_is_accepted_once_as_long_as_it_is_not_too_old(
    verifier: Verifier, clock: Clock
) -> None:
    request = sent(at=NOW + TOLERANCE_SECONDS)
    verifier.verify(request.headers, request.body)
    clock.seconds = NOW + 2 * TOLERANCE_SECONDS
    assert refusal(verifier, request.headers, request.body) == "it was received before"
    clock.seconds += 1
    assert "5 minutes" in refusal(verifier, request.headers, request.body)


def test_a_failed_delivery_can_be_repeated(verifier: Verifier) -> None:
    request = sent()
    verifier.forget(verifier.verify(request.headers, request.body))
    assert verifier.verify(request.headers, request.body).id == request.id
    assert refusal(verifier, request.headers, request.body) == "it was received before"


def test_a_refused_delivery_does_not_count_as_received(verifier: Verifier) -> None:
    request = sent()
    refusal(verifier, request.but(signature="v1,AAAA"), request.body)
    assert verifier.verify(request.headers, request.body).id == request.id


def test_the_number_of_remembered_deliveries_is_limited(clock: Clock) -> None:
    verifier = Verifier(SECRET, remembered=3, now=clock)
    requests = [sent() for _ in range(10)]
    for request in requests:
        verifier.verify(request.headers, request.body)
    for request in requests[-3:]:
        assert refusal(verifier, request.headers, request.body) == "it was received before"
    assert len(verifier._accepted) == 3


def test_deliveries_are_remembered_only_for_so_long(verifier: Verifier, clock: Clock) -> None:
    for number in count():
        clock.seconds = NOW + 60 * number
        request = sent(at=int(clock.seconds))
        verifier.verify(request.headers, request.body)
        if number == 100:
            break
    assert len(verifier._accepted) == 2 * TOLERANCE_SECONDS / 60 + 1


def test_one_of_many_concurrent_deliveries_with_one_id_is_accepted(verifier: Verifier) -> None:
    request = sent()

    def accepted(_: int) -> bool:
        try:
            verifier.verify(request.headers, request.body)
        except DeliveryRefusedError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(accepted, range(200))) == 1


# Around it


def test_verifying_does_not_import_mlflow() -> None:
    code = (
        "import sys, ledgerline.mlflow_store.webhooks; "
        "sys.exit('mlflow' in sys.modules or 'dagster' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, check=False).returncode == 0


def test_a_bare_database_cannot_send_webhooks(mlflow_database: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(mlflow_database)
    with pytest.raises(RegistrationError) as error:
        register(client, "https://ledgerline.example/webhooks/registry", SECRET, "ledgerline")
    assert str(error.value) == (
        f"Webhooks are sent by an MLflow server, and {mlflow_database} is not one. Set "
        "MLFLOW_TRACKING_URI to the address of a server, like http://127.0.0.1:5000."
    )
