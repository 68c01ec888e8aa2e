"""HTTP servers on loopback: for the fakes in fake_*.py, and for the servers in loopback_servers.py."""

import json
import socket
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from ledgerline.testing.ports import HOST


class FakeServer:
    """Handles requests in threads until the end of its `with` block, which also ends delays in progress.

    Attributes:
        stopping: Event that is set at the end; handlers wait for it instead of sleeping.
    """

    handler: type["Handler"]

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._listener = Listener(self, self.handler)

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"http://{HOST}:{self._listener.server_port}"

    def __enter__(self) -> Self:
        self._thread = self._listener.started()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._listener.shutdown()
        self._listener.hang_up()
        self._listener.server_close()  # waits for the threads
        self._thread.join()


class Listener(ThreadingHTTPServer):
    """Listens on a port for a server, its owner; `server_close` waits for current requests."""

    daemon_threads = False
    request_queue_size = 256

    def __init__(self, owner: Any, handler: type["Handler"], port: int = 0) -> None:
        self.owner = owner
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__((HOST, port), handler)

    def started(self) -> threading.Thread:
        """Handle requests in a thread until `shutdown`; return the thread."""
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        return thread

    def process_request(self, request: Any, client_address: Any) -> None:
        """Handle a new connection, which `hang_up` can close."""
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors, since some tests close connections in the middle of a response."""

    def hang_up(self) -> None:
        """Close the open connections, so that no thread waits for another request."""
        with self._lock:
            for connection in self._connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # the connection is already closed


class Handler(BaseHTTPRequestHandler):
    """Handles the requests of one connection, which is kept alive."""

    server: Any
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body in one packet

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (its name in the library)
        """Do not log requests."""

    def content(self) -> bytes:
        """Return the body of the request."""
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def body(self) -> dict[str, Any]:
        """Return the JSON of the request's body."""
        return json.loads(self.content() or b"{}")

    def answer(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        """Send a whole response."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def send(self, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Send a whole response, which is JSON if the headers do not say otherwise."""
        self.answer(status, {"Content-Type": "application/json", **(headers or {})}, body)

    def send_json(self, content: Any, status: int = 200) -> None:
        """Send a whole response of JSON."""
        self.send(json.dumps(content).encode(), status)

    def begin(self, content_type: str) -> None:
        """Begin a response in chunks."""
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, content: bytes) -> None:
        """Send a chunk."""
        self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
        self.wfile.flush()

    def end(self) -> None:
        """End a response in chunks."""
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def hang_up(self) -> None:
        """Close the connection in the middle of a response."""
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)
