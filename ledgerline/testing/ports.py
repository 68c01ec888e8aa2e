"""Ports of this machine for servers that tests start."""

import socket

HOST = "127.0.0.1"


def unused_port() -> int:
    """A port that nothing listens on, and that nobody else is given while a server starts.

    The system hands out a port again as soon as it is closed, and tests in other processes ask for ports as
    well. A port with a connection that has just ended is kept back for half a minute or longer: only who asks
    for this very number gets it, as servers do.
    """
    with socket.create_server((HOST, 0)) as listener:
        address = listener.getsockname()
        with socket.create_connection(address):
            accepted, _ = listener.accept()
            accepted.close()  # before the other end does: who closes first keeps the port
        return address[1]
