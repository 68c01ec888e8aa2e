"""Serves the endpoint of webhooks in a thread."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from threading import Thread

import dagster as dg
from rich.console import Console

from ledgerline.cli import webhooks
from ledgerline.testing.ports import HOST


@contextmanager
def webhook_server(instance: dg.DagsterInstance, secret: str, output: StringIO) -> Iterator[int]:
    """Serve an instance's endpoint of webhooks on the yielded port.

    Args:
        instance: Receives the notifications of the sensors.
        secret: Signs the deliveries.
        output: Receives the printed lines.
    """
    import uvicorn

    app = webhooks.webhook_app(Console(file=output, width=200), instance, secret)
    server = uvicorn.Server(uvicorn.Config(app, ws="none", lifespan="off", log_config=None))
    with socket.create_server((HOST, 0)) as bound:
        thread = Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            yield bound.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()
