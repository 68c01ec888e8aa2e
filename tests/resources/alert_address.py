"""A server on loopback that accepts messages, as chat programs do."""

import json
from dataclasses import dataclass, field
from typing import Any

from ledgerline.testing.loopback_servers import LoopbackServer, Request


@dataclass
class AlertAddress(LoopbackServer):
    """A server that keeps the alerts that it receives.

    Attributes:
        status: The status of its responses.
        location: The target of redirects, if the status is one.
        messages: The received JSON documents.
        paths: Where they were posted to.
    """

    status: int = 200
    location: str = ""
    messages: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def respond(self, request: Request, body: bytes) -> None:
        self.paths.append(f"{request.command} {request.path}")
        if self.status == 200:
            self.messages.append(json.loads(body))
        request.answer(self.status, {"Location": self.location} if self.location else {})
