"""HTTP servers on the loopback address that can be stopped, and started again on the same port."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar

from ledgerline.testing.ports import HOST, unused_port


@dataclass(frozen=True)
class Refusal:
    """A response with another status than 200; `retry_after` is in seconds."""

    status: int
    retry_after: int | None = None


class Request(BaseHTTPRequestHandler):
    """A request that the server responds to."""

    def respond(self) -> None:
        """Let the server respond."""
        assert isinstance(self.server, _Listener)
        self.server.owner.respond(self, self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def answer(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        """Send a whole response."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, refusal: Refusal) -> None:
        """Send a response with another status than 200."""
        after = refusal.retry_after
        self.answer(refusal.status, {"Retry-After": str(after)} if after is not None else {})

    def do_GET(self) -> None:
        """Respond to a GET request."""
        self.respond()

    def do_POST(self) -> None:
        """Respond to a POST request."""
        self.respond()

    def do_PUT(self) -> None:
        """Respond to a PUT request."""
        self.respond()

    def do_PATCH(self) -> None:
        """Respond to a PATCH request."""
        self.respond()

    def do_DELETE(self) -> None:
        """Respond to a DELETE request."""
        self.respond()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name in the library)
        """Do not log requests."""


@dataclass
class LoopbackServer:
    """A server that keeps its port when it is restarted. A subclass responds to the requests."""

    port: int = 0
    _listener: "_Listener | None" = field(default=None, init=False)
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
        self._listener = _Listener((HOST, self.port), Request)
        self._listener.owner = self
        self._thread = threading.Thread(target=self._listener.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        """Stop listening after the responses to current requests."""
        if self._listener is not None and self._thread is not None:
            self._listener.shutdown()
            self._thread.join()
            self._listener.server_close()
            self._listener = self._thread = None


class _Listener(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for current requests
    owner: LoopbackServer

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that were killed."""


Server = TypeVar("Server", bound=LoopbackServer)


@contextmanager
def listening(server: Server) -> Iterator[Server]:
    """Start a server, and stop it afterwards."""
    server.start()
    try:
        yield server
    finally:
        server.stop()
