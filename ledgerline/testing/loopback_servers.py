"""HTTP servers on the loopback address that can be stopped, and started again on the same port."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from ledgerline.testing.fake_http import Handler, Listener
from ledgerline.testing.ports import HOST, unused_port


@dataclass(frozen=True)
class Refusal:
    """A response with another status than 200; `retry_after` is in seconds."""

    status: int
    retry_after: int | None = None


class Request(Handler):
    """A request that the server responds to."""

    protocol_version = "HTTP/1.0"  # each connection ends with its response

    def respond(self) -> None:
        """Let the server respond."""
        self.server.owner.respond(self, self.content())

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = respond  # noqa: N815 (their names in the library)

    def refuse(self, refusal: Refusal) -> None:
        """Send a response with another status than 200."""
        after = refusal.retry_after
        self.answer(refusal.status, {"Retry-After": str(after)} if after is not None else {})


@dataclass
class LoopbackServer:
    """A server that keeps its port when it is restarted. A subclass responds to the requests."""

    port: int = 0
    _listener: Listener | None = field(default=None, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        """The URL of the server."""
        return f"http://{HOST}:{self.port}"

    @property
    def listens(self) -> bool:
        """True while the server listens."""
        return self._listener is not None

    def respond(self, request: Request, body: bytes) -> None:
        """Respond to a request."""
        raise NotImplementedError

    def start(self) -> None:
        """Start to listen."""
        # No other process receives a port of unused_port() while this server is stopped.
        self.port = self.port or unused_port()
        self._listener = Listener(self, Request, self.port)
        self._thread = self._listener.started()

    def stop(self) -> None:
        """Stop listening after the responses to current requests."""
        if self._listener is not None and self._thread is not None:
            self._listener.shutdown()
            self._thread.join()
            self._listener.server_close()
            self._listener = self._thread = None


Server = TypeVar("Server", bound=LoopbackServer)


@contextmanager
def listening(server: Server) -> Iterator[Server]:
    """Start a server, and stop it afterwards."""
    server.start()
    try:
        yield server
    finally:
        server.stop()
