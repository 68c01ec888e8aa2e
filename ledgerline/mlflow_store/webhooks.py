"""Webhooks of MLflow's registry: asking for them, and telling a real delivery from any other request.

A delivery is a wake-up, never the truth: it can be lost, and what has changed is read from the registry. Who
listens, and what is woken, is not known here.
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
from ledgerline.mlflow_store.store import SERVER_SCHEMES

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.webhook import Webhook, WebhookEventStr

# MLflow's (mlflow.webhooks.constants): whoever verifies a delivery need not import MLflow for seconds.
SIGNATURE_HEADER = "X-MLflow-Signature"
DELIVERY_ID_HEADER = "X-MLflow-Delivery-Id"
TIMESTAMP_HEADER = "X-MLflow-Timestamp"
SIGNATURE_VERSION = "v1"

# As https://www.standardwebhooks.com suggests.
TOLERANCE_SECONDS = 300
# Far more than a registry sends in the time they are remembered for; only what MLflow signed is counted.
REMEMBERED_DELIVERIES = 10_000

EVENTS: "tuple[WebhookEventStr, ...]" = (
    "model_version_alias.created",
    "model_version_alias.deleted",
    "model_version.created",
    "model_version_tag.set",
    "model_version_tag.deleted",
)
# Whose deliveries name a registered model.
MODEL_ENTITIES = ("registered_model", "model_version", "model_version_tag", "model_version_alias")

DESCRIPTION = "Wakes who follows the registry."
ANSWER_CHARACTERS = 200

SERVER_NEEDS = (
    "To send webhooks, the MLflow server needs MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY, the same at each start "
    "(openssl rand -base64 32 | tr '+/' '-_' makes one); to send them inside a private network, also "
    "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true and, without TLS, MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http,https."
)


class DeliveryRefusedError(Exception):
    """A request is no delivery to act on; the message may be shown to whoever sent it."""


class RegistrationError(LedgerlineError):
    """MLflow does not take a webhook; the message says what it needs."""


@dataclass(frozen=True)
class Delivery:
    """What a webhook says has happened. Fields it does not tell are empty.

    Attributes:
        id: MLflow's id of this delivery; the same when it is sent again.
        entity: What was changed, for instance "model_version_alias".
        action: "created", "deleted" or "set".
        model: The registered model.
        version: The version, as text.
        alias: The alias.
        at: When it was sent, in seconds since the epoch.
    """

    id: str
    entity: str
    action: str
    model: str
    version: str
    alias: str
    at: int


class Verifier:
    """Accepts what MLflow signed with the secret, a short while ago, and each delivery once.

    Any number of threads may use it.
    """

    def __init__(
        self,
        secret: str,
        remembered: int = REMEMBERED_DELIVERIES,
        now: Callable[[], float] = time.time,
    ) -> None:
        if not secret:
            raise ValueError("The secret of a webhook is empty: anybody could sign with it.")
        self._secret = secret.encode()
        self._remembered = remembered
        self._now = now
        self._lock = threading.Lock()
        # Delivery ids in the order they came, and when they can be forgotten.
        self._accepted: dict[str, float] = {}

    def verify(self, headers: Mapping[str, str], body: bytes) -> Delivery:
        """Read a delivery.

        Args:
            headers: Of the request; upper and lower case make no difference.
            body: Of the request, as it came: not decoded, not parsed.

        Raises:
            DeliveryRefusedError: It was not signed with the secret, is too old or from the future, came
                before, or cannot be read.
        """
        values = {name.lower(): value for name, value in headers.items()}
        delivery_id = _required(values, DELIVERY_ID_HEADER)
        timestamp = _required(values, TIMESTAMP_HEADER)
        signatures = _required(values, SIGNATURE_HEADER)
        # The first: of what is not signed, nothing else is looked at.
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
        """Take back that it came: nothing could be done with it now, and MLflow will send it again."""
        with self._lock:
            self._accepted.pop(delivery.id, None)

    def _is_signed(self, content: bytes, signatures: str) -> bool:
        digest = hmac.digest(self._secret, content, hashlib.sha256)
        expected = f"{SIGNATURE_VERSION},".encode() + base64.b64encode(digest)
        # Several, where a secret is being replaced.
        return any(hmac.compare_digest(expected, signature.encode()) for signature in signatures.split())

    def _accept_once(self, delivery_id: str, now: float) -> None:
        with self._lock:
            while self._accepted and next(iter(self._accepted.values())) < now:
                del self._accepted[next(iter(self._accepted))]
            if delivery_id in self._accepted:
                raise DeliveryRefusedError("it was received before")
            if len(self._accepted) >= self._remembered:
                del self._accepted[next(iter(self._accepted))]
            # One from the future is refused for its age only after twice the tolerance.
            self._accepted[delivery_id] = now + 2 * TOLERANCE_SECONDS


def require_server(tracking_uri: str) -> None:
    """Make sure that there is somebody to send webhooks.

    Raises:
        RegistrationError: It is a bare database.
    """
    if urlsplit(tracking_uri).scheme not in SERVER_SCHEMES:
        raise RegistrationError(
            f"Webhooks are sent by an MLflow server, and {without_password(tracking_uri)} is none. "
            "Set MLFLOW_TRACKING_URI to the address of one, like http://127.0.0.1:5000."
        )


def register(client: "MlflowClient", url: str, secret: str, name: str) -> "Webhook":
    """Let MLflow tell this address of new versions, tags and aliases; the same again changes nothing.

    A webhook of this name, or else one to this address, is changed to what is asked for here. A server that
    runs may use what it knew before for as long as its MLFLOW_WEBHOOK_CACHE_TTL, a minute.

    Args:
        client: Client of a server. A bare database has nobody who could send anything.
        url: Where deliveries are sent, with the path.
        secret: What they are signed with.
        name: What the webhook is called in MLflow: small letters, digits, dots, underscores and hyphens.

    Raises:
        RegistrationError: There is no server, or it refuses.
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
            f"MLflow does not take the webhook: {problem}. {SERVER_NEEDS}"
        ) from None  # the cause may show a password


def send_test(client: "MlflowClient", webhook: "Webhook") -> str | None:
    """Let MLflow send a made-up delivery now; says what kept it from being accepted, None if it was."""
    from mlflow.exceptions import MlflowException

    try:
        result = client.test_webhook(webhook.webhook_id)
    except MlflowException as error:  # it waits for an answer longer than this client does
        problem = str(error)
    else:
        if result.success:
            return None
        problem = result.error_message or f"the answer is {result.response_status}"
        if result.response_body:
            problem += f": {result.response_body[:ANSWER_CHARACTERS]}"
    return _without_passwords(problem, client.tracking_uri, webhook.url)


def _known(client: "MlflowClient", url: str, name: str) -> "Webhook | None":
    found: list[Webhook] = []
    page_token = None
    while True:
        page = client.list_webhooks(page_token=page_token)
        found += [webhook for webhook in page if webhook.name == name or webhook.url == url]
        page_token = page.token
        if not page_token:
            break
    return min(found, key=lambda webhook: (webhook.name != name, webhook.creation_timestamp), default=None)


def _required(headers: Mapping[str, str], name: str) -> str:
    try:
        return headers[name.lower()]
    except KeyError:
        raise DeliveryRefusedError(f"it has no {name}") from None


def _parsed(delivery_id: str, at: int, body: bytes) -> Delivery:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise DeliveryRefusedError("its body is no JSON") from None
    if not isinstance(content, dict):
        raise DeliveryRefusedError("its body is no JSON object")
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
