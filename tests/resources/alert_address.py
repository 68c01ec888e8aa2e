"""An address on this machine that takes messages, as chat programs do."""

import json
from dataclasses import dataclass, field
from typing import Any

from ledgerline.testing.loopback_servers import LoopbackServer, Request


@dataclass
class AlertAddress(LoopbackServer):
    """Keeps what it is told.

    Attributes:
        status: What it answers with.
        location: Where it sends on to, if the status says so.
        messages: The JSON documents that it took.
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
