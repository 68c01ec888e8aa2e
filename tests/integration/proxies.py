"""A proxy between a server and its clients that fails in configurable ways."""

import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ledgerline.testing.loopback_servers import LoopbackServer, Refusal, Request

# Headers of a connection, which a proxy does not forward.
HOP_BY_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}
TIMEOUT_SECONDS = 60


@dataclass
class Proxy(LoopbackServer):
    """Hands requests on.

    Attributes:
        target: URL of the server behind it.
        refuses: Returns the response to a path, if the request is not passed on.
        answered: Is called with a path when the server has responded, before the client has the response.
        refused: Paths that were not handed on.
    """

    target: str = ""
    refuses: Callable[[str], Refusal | None] = lambda path: None
    answered: Callable[[str], None] = lambda path: None
    refused: list[str] = field(default_factory=list)

    def reset(self) -> None:
        """Be as in the beginning."""
        self.refuses, self.answered, self.refused = Proxy.refuses, Proxy.answered, []
        if not self.listens:
            self.start()

    def respond(self, request: Request, body: bytes) -> None:
        """Hand it on, or refuse it."""
        refusal = self.refuses(request.path)
        if refusal is not None:
            self.refused.append(request.path)
            request.refuse(refusal)
            return
        status, headers, answer = self._forward(request, body)
        self.answered(request.path)
        request.answer(status, headers, answer)

    def _forward(self, request: Request, body: bytes) -> tuple[int, dict[str, str], bytes]:
        headers = _passed_on(request.headers.items())
        url = f"{self.target}{request.path}"
        onward = urllib.request.Request(url, body or None, headers, method=request.command)
        try:
            with urllib.request.urlopen(onward, timeout=TIMEOUT_SECONDS) as response:
                return response.status, _passed_on(response.headers.items()), response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _passed_on(error.headers.items()), error.read()


def _passed_on(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name: value for name, value in headers if name.lower() not in HOP_BY_HOP}
