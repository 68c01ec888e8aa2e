"""A server on loopback that responds with given bytes, valid HTTP or not."""

import re
import socket
import threading
from collections.abc import Callable
from typing import Self

from ledgerline.testing.ports import HOST


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
