"""Finds free ports on this machine for servers in tests."""

import socket

HOST = "127.0.0.1"


def unused_port() -> int:
    """Return a port that is not in use, and that no other process receives while a server starts.

    The system may assign a port again as soon as it is closed, also to tests in other processes. It does not
    assign a port whose last connection ended less than half a minute ago. A server that requests this port by
    its number can still use it.
    """
    with socket.create_server((HOST, 0)) as listener:
        address = listener.getsockname()
        with socket.create_connection(address):
            accepted, _ = listener.accept()
            accepted.close()  # the end that closes first stays in TIME_WAIT
        return address[1]
