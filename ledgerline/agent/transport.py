"""HTTP transport for the clients of language models, whose requests observe a deadline.

httpx limits each wait for bytes, but not the whole request: a client would wait forever for a server that
sends single bytes. This module imports httpx, so import it where it is used.
"""

from collections.abc import Iterable
from typing import Any

import httpcore
import httpx

from ledgerline.agent.retrying import deadline


def client_options(connect_seconds: float, login: tuple[str, str] | None) -> dict[str, Any]:
    """Return arguments for httpx.Client.

    Redirects are not followed, because a conversation is only for the server that was configured. Proxies of
    the environment and passwords of a file in the home directory are not used.
    """
    return {
        "transport": _Transport(),
        "timeout": httpx.Timeout(None, connect=connect_seconds),
        "auth": login,
        "follow_redirects": False,
        "trust_env": False,
    }


class _Transport(httpx.HTTPTransport):
    """Opens a connection for each request.

    Opening a connection takes far less time than a completion. Without reuse, there are no idle connections
    to close, no connections that the server has closed in the meantime, and no limit on their number.
    """

    def __init__(self) -> None:
        context = httpx.create_ssl_context()
        super().__init__(verify=context)
        # httpx has no argument for the network backend; httpcore has one.
        self._pool = httpcore.ConnectionPool(
            ssl_context=context, max_connections=None, max_keepalive_connections=0, network_backend=_Network()
        )


class _Network(httpcore.NetworkBackend):
    """Opens sockets that observe the deadline of the thread that uses them."""

    def __init__(self) -> None:
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        limit = _limited(timeout, httpcore.ConnectTimeout)
        return _Stream(self._backend.connect_tcp(host, port, limit, local_address, socket_options))


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _limited(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _limited(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        limit = _limited(timeout, httpcore.ConnectTimeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, limit))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _limited(timeout: float | None, error: type[httpcore.TimeoutException]) -> float | None:
    limit = deadline()
    left = limit.seconds_left
    if left <= 0:
        raise error(f"the time limit of {limit.seconds:g} seconds is over")
    return min(left, timeout or left) if left < float("inf") else timeout
