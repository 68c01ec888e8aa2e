"""Deliveries of a webhook, signed as MLflow documents it."""

import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

SECRET = "the secret of these tests"

ALIAS_SET = {
    "entity": "model_version_alias",
    "action": "created",
    "timestamp": "2026-01-31T12:00:00.000000+00:00",
    "data": {"name": "flight_delay", "alias": "production", "version": "3"},
}


@dataclass(frozen=True)
class Sent:
    """A request, as MLflow sends it."""

    body: bytes = json.dumps(ALIAS_SET).encode()
    secret: str = SECRET
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    timestamp: str = field(default_factory=lambda: str(int(time.time())))

    @property
    def signature(self) -> str:
        content = f"{self.id}.{self.timestamp}.".encode() + self.body
        digest = hmac.new(self.secret.encode(), content, hashlib.sha256).digest()
        return f"v1,{base64.b64encode(digest).decode()}"

    @property
    def headers(self) -> dict[str, str]:
        return {
            "X-MLflow-Delivery-Id": self.id,
            "X-MLflow-Timestamp": self.timestamp,
            "X-MLflow-Signature": self.signature,
        }

    def but(self, **headers: str) -> Mapping[str, str]:
        """The headers, with others of these: `id`, `timestamp`, `signature`."""
        changed = replace(self, **{name: value for name, value in headers.items() if name != "signature"})
        signature = headers.get("signature", self.signature)
        return {**changed.headers, "X-MLflow-Signature": signature}
