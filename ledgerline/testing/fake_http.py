"""HTTP servers on loopback for the fakes of language model servers in fake_ollama.py and fake_openai.py."""

import json
import re
import socket
import threading
from collections.abc import Callable, Mapping
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
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"http://{HOST}:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.hang_up()
        self._server.server_close()  # waits for the threads
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 256

    def __init__(self, fake: FakeServer) -> None:
        self.fake = fake
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__((HOST, 0), fake.handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
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

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body in one packet

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (its name in the library)
        """Do not log requests."""

    def body(self) -> dict[str, Any]:
        """Return the JSON of the request's body."""
        return json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")

    def send(self, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Send a whole response."""
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

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


class FixedResponseServer:
    """Responds to every request with the same bytes, and repeats other bytes until it ends."""

    def __init__(self) -> None:
        self.connections: list[socket.socket] = []
        self._over = threading.Event()
        self._listener = socket.create_server((HOST, 0))
        self._threads: list[threading.Thread] = []

    def __call__(self, start: bytes, again: bytes = b"") -> str:
        """Start responding, and return the address.

        Args:
            start: First bytes of each response.
            again: Bytes that are repeated after them until the end.
        """
        self._run(self._accept, start, again)
        return f"http://{HOST}:{self._listener.getsockname()[1]}"

    def _run(self, target: Callable[..., None], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=target, args=arguments))
        self._threads[-1].start()

    def _accept(self, start: bytes, again: bytes) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            self._run(self._respond, connection, start, again)

    def _respond(self, connection: socket.socket, start: bytes, again: bytes) -> None:
        try:
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(65536)
            length = int((re.search(rb"(?i)content-length: (\d+)", request) or [0, 0])[1])
            while len(request.partition(b"\r\n\r\n")[2]) < length:
                request += connection.recv(65536)
            connection.sendall(start)
            while again and not self._over.wait(0.01):
                connection.sendall(again)
        except OSError:
            return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self.connections):
            connection.close()
        for thread in self._threads:
            thread.join()
