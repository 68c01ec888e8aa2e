"""Registers webhooks of MLflow's registry, and verifies deliveries.

A delivery is only a notification: it can be lost, and receivers read the change itself from the registry.
"""

import base64
import hashlib
import hmac
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ledgerline.cleaning.passwords import without_password
from ledgerline.errors import LedgerlineError
from ledgerline.mlflow_store.store import SERVER_SCHEMES, paged

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.webhook import Webhook, WebhookEventStr

# Copies of the constants in mlflow.webhooks.constants, because importing MLflow takes seconds.
SIGNATURE_HEADER = "X-MLflow-Signature"
DELIVERY_ID_HEADER = "X-MLflow-Delivery-Id"
TIMESTAMP_HEADER = "X-MLflow-Timestamp"
SIGNATURE_VERSION = "v1"

# The tolerance that https://www.standardwebhooks.com suggests.
TOLERANCE_SECONDS = 300
# A registry sends far fewer deliveries while their ids are remembered; only signed deliveries count.
REMEMBERED_DELIVERIES = 10_000

EVENTS: "tuple[WebhookEventStr, ...]" = (
    "model_version_alias.created",
    "model_version_alias.deleted",
    "model_version.created",
    "model_version_tag.set",
    "model_version_tag.deleted",
)
# Deliveries of these entities name a registered model.
MODEL_ENTITIES = ("registered_model", "model_version", "model_version_tag", "model_version_alias")

DESCRIPTION = "Notifies followers of the registry."
ANSWER_CHARACTERS = 200

SERVER_NEEDS = (
    "To send webhooks, the MLflow server needs MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY, the same at each start "
    "(openssl rand -base64 32 | tr '+/' '-_' makes one); to send them inside a private network, also "
    "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true and, without TLS, MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http,https."
)


class DeliveryRefusedError(LedgerlineError):
    """Raised when a request is not a valid delivery. The message may be sent to the sender of the request."""


class RegistrationError(LedgerlineError):
    """Raised when MLflow does not accept a webhook. The message states what MLflow needs."""


@dataclass(frozen=True)
class Delivery:
    """A change that a webhook reports. Fields that it does not report are empty.

    Attributes:
        id: MLflow's id of this delivery, which is the same if it is sent again.
        entity: Kind of the changed entity, for instance "model_version_alias".
        action: "created", "deleted" or "set".
        version: Number of the version, as text.
        at: Time of sending, in seconds since the epoch.
    """

    id: str
    entity: str
    action: str
    model: str
    version: str
    alias: str
    at: int


class Verifier:
    """Accepts each delivery once, if MLflow signed it with the secret a short time ago.

    It can be used from several threads at once.
    """

    def __init__(
        self, secret: str, remembered: int = REMEMBERED_DELIVERIES, now: Callable[[], float] = time.time
    ) -> None:
        if not secret:
            raise ValueError("The secret of a webhook is empty: anyone could sign with it.")
        self._secret = secret.encode()
        self._remembered = remembered
        self._now = now
        self._lock = threading.Lock()
        # Ids of deliveries in the order of arrival, with the time from which they can be forgotten.
        self._accepted: dict[str, float] = {}

    def verify(self, headers: Mapping[str, str], body: bytes) -> Delivery:
        """Verify and parse a delivery from the headers of a request, in any case, and its raw body.

        Raises:
            DeliveryRefusedError: It is not signed with the secret, is too old or from the future, was
                received before, or cannot be read.
        """
        values = {name.lower(): value for name, value in headers.items()}
        delivery_id = _required(values, DELIVERY_ID_HEADER)
        timestamp = _required(values, TIMESTAMP_HEADER)
        signatures = _required(values, SIGNATURE_HEADER)
        # The signature is checked first, so that no other part of an unsigned request is read.
        if not self._is_signed(f"{delivery_id}.{timestamp}.".encode() + body, signatures):
            raise DeliveryRefusedError("the signature does not match")
        now = self._now()
        if not re.fullmatch("[0-9]{1,12}", timestamp) or abs(now - int(timestamp)) > TOLERANCE_SECONDS:
            raise DeliveryRefusedError(
                f"it was not sent within {TOLERANCE_SECONDS // 60} minutes of the time here"
            )
        delivery = _parsed(delivery_id, int(timestamp), body)
        self._accept_once(delivery_id, now)
        return delivery

    def forget(self, delivery: Delivery) -> None:
        """Accept a delivery again that could not be handled, because MLflow will send it again."""
        with self._lock:
            self._accepted.pop(delivery.id, None)

    def _is_signed(self, content: bytes, signatures: str) -> bool:
        digest = hmac.digest(self._secret, content, hashlib.sha256)
        expected = f"{SIGNATURE_VERSION},".encode() + base64.b64encode(digest)
        # There are several signatures while a secret is being replaced.
        return any(hmac.compare_digest(expected, signature.encode()) for signature in signatures.split())

    def _accept_once(self, delivery_id: str, now: float) -> None:
        with self._lock:
            while self._accepted and next(iter(self._accepted.values())) < now:
                del self._accepted[next(iter(self._accepted))]
            if delivery_id in self._accepted:
                raise DeliveryRefusedError("it was received before")
            if len(self._accepted) >= self._remembered:
                del self._accepted[next(iter(self._accepted))]
            # A delivery with a time in the future is too old only after twice the tolerance.
            self._accepted[delivery_id] = now + 2 * TOLERANCE_SECONDS


def require_server(tracking_uri: str) -> None:
    """Make sure that MLflow is a server, which can send webhooks.

    Raises:
        RegistrationError: MLflow is a database without a server.
    """
    if urlsplit(tracking_uri).scheme not in SERVER_SCHEMES:
        raise RegistrationError(
            f"Webhooks are sent by an MLflow server, and {without_password(tracking_uri)} is not one.",
            "Set MLFLOW_TRACKING_URI to the address of a server, like http://127.0.0.1:5000.",
        )


def register(client: "MlflowClient", url: str, secret: str, name: str) -> "Webhook":
    """Register a webhook for new versions, tags and aliases. The call is idempotent.

    An existing webhook with this name, or else one with this URL, is updated. A running server may use its
    previous state until its MLFLOW_WEBHOOK_CACHE_TTL, one minute by default, has passed. Its name may have
    lower-case letters, digits, dots, underscores and hyphens.

    Raises:
        RegistrationError: MLflow is not a server, or refuses the webhook.
    """
    from mlflow.exceptions import MlflowException

    require_server(client.tracking_uri)
    try:
        known = _known(client, url, name)
        if known is None:
            return client.create_webhook(name, url, list(EVENTS), DESCRIPTION, secret)
        return client.update_webhook(
            known.webhook_id, name, DESCRIPTION, url, list(EVENTS), secret, status="ACTIVE"
        )
    except MlflowException as error:
        problem = _without_passwords(str(error), client.tracking_uri, url).rstrip(".")
        raise RegistrationError(
            f"MLflow does not accept the webhook: {problem}.", SERVER_NEEDS
        ) from None  # The cause may contain a password.


def send_test(client: "MlflowClient", webhook: "Webhook") -> str | None:
    """Let MLflow send a test delivery; return the reason why it was not accepted, or None if it was."""
    from mlflow.exceptions import MlflowException

    try:
        result = client.test_webhook(webhook.webhook_id)
    except MlflowException as error:  # The server waits longer for the response than this client.
        problem = str(error)
    else:
        if result.success:
            return None
        problem = result.error_message or f"the response is {result.response_status}"
        if result.response_body:
            problem += f": {result.response_body[:ANSWER_CHARACTERS]}"
    return _without_passwords(problem, client.tracking_uri, webhook.url)


def _known(client: "MlflowClient", url: str, name: str) -> "Webhook | None":
    webhooks = paged(lambda token: client.list_webhooks(page_token=token))
    matching = [webhook for webhook in webhooks if webhook.name == name or webhook.url == url]
    return min(matching, key=lambda webhook: (webhook.name != name, webhook.creation_timestamp), default=None)


def _required(headers: Mapping[str, str], name: str) -> str:
    try:
        return headers[name.lower()]
    except KeyError:
        raise DeliveryRefusedError(f"it has no {name}") from None


def _parsed(delivery_id: str, at: int, body: bytes) -> Delivery:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise DeliveryRefusedError("its body is not JSON") from None
    if not isinstance(content, dict):
        raise DeliveryRefusedError("its body is not a JSON object")
    entity = _text(content, "entity")
    data = content.get("data")
    if entity not in MODEL_ENTITIES or not isinstance(data, dict):
        data = {}
    return Delivery(
        id=delivery_id,
        entity=entity,
        action=_text(content, "action"),
        model=_text(data, "name"),
        version=_text(data, "version"),
        alias=_text(data, "alias"),
        at=at,
    )


def _text(fields: Mapping[str, object], name: str) -> str:
    value = fields.get(name)
    return str(value) if isinstance(value, str | int) else ""


def _without_passwords(text: str, *uris: str) -> str:
    for uri in uris:
        text = text.replace(uri.rstrip("/"), without_password(uri).rstrip("/"))
    return text
