"""The serving process: listens on a socket, and lets requests in progress finish when it ends."""

import gc
import logging
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from ledgerline.cleaning.texts import clean
from ledgerline.errors import LedgerlineError
from ledgerline.settings.extras import require

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from ledgerline.serving.settings import ServingSettings

MAX_PORT = 65_535
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

# Maximum time for requests in progress to finish at shutdown.
END_SECONDS = 10
# Proxies keep connections open for a minute; the server must not close them first.
KEEP_ALIVE_SECONDS = 75
CONNECTIONS = 2048
BACKLOG_CONNECTIONS = 512

# Python would let a prediction delay the event loop by up to 5 ms at a time.
SWITCH_SECONDS = 0.0005

LOG = "%(asctime)s %(levelname)-7s %(message)s"

logger = logging.getLogger(__name__)


class CacheError(LedgerlineError):
    """The folder with the cache of models cannot be created."""


class ListenError(LedgerlineError):
    """An address that the server cannot listen on."""


class CleanFormatter(logging.Formatter):
    """Formats log lines without secrets, which errors and stack traces of models and stores can contain."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with the stack trace if it has one."""
        return clean(super().format(record))


def serve(settings: "ServingSettings") -> None:
    """Serve until Ctrl-C or SIGTERM.

    Raises:
        MissingExtraError: The extra `serving` is not installed.
        CacheError: The folder of the cache cannot be created.
        ListenError: The server cannot listen on the address.

    Example:
        >>> import subprocess
        >>> program = '''
        ... from ledgerline.serving.server import serve
        ... from ledgerline.serving.settings import ServingSettings
        ... serve(ServingSettings.from_environment({
        ...     "LEDGERLINE_HOME": ".",
        ...     "LEDGERLINE_SERVING_MODELS": "oven_demand",
        ...     "LEDGERLINE_SERVING_PORT": "0",  # any free one
        ...     "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db",
        ... }))'''
        >>> command = [sys.executable, "-c", program]
        >>> with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        ...     print(next(line for line in process.stderr if "Serving" in line).split("INFO")[1].strip())
        ...     process.terminate()
        Serving oven_demand on http://127.0.0.1:...
    """
    require("serving", "Serving")
    handler = logging.StreamHandler()
    handler.setFormatter(CleanFormatter(LOG))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # uvicorn would log each request.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    # These log each failed export; exporting.py logs the first one of an outage.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
    try:
        settings.cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CacheError(
            f"The cache {settings.cache} cannot be created: {error.strerror}.",
            "Set LEDGERLINE_SERVING_CACHE to a folder that you can write.",
        ) from error
    with bound(settings.host, settings.serving_port) as listener:
        from ledgerline.serving.app import application
        from ledgerline.serving.service import service_for

        sys.setswitchinterval(SWITCH_SECONDS)
        service = service_for(settings)
        with service.running():
            # Imported objects are never freed: without this, each full garbage collection would visit half a
            # million of them, and delay all requests by a tenth of a second.
            gc.collect()
            gc.freeze()
            logger.info("Serving %s on %s", ", ".join(service.served), address(settings.host, listener))
            run(application(service), listener, END_SECONDS, CONNECTIONS)
            logger.info("Ending.")


def run(app: "FastAPI", listener: socket.socket, end_seconds: int, connections: int) -> None:
    """Serve on a socket until Ctrl-C or SIGTERM, and then finish requests for at most `end_seconds`."""
    import uvicorn

    server = uvicorn.Server(
        uvicorn.Config(
            app,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=connections,
            backlog=BACKLOG_CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=end_seconds,
        )
    )
    with _signals(server):
        server.run(sockets=[listener])


def bound(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address.

    Raises:
        ListenError: The address is in use, or does not exist on this machine.
    """
    if port > MAX_PORT:
        raise ListenError(f"{port} is not a port.", f"Choose a port of at most {MAX_PORT}.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG_CONNECTIONS)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]
        raise ListenError(
            f"The server cannot listen on {_in_url(host)}:{port}: {reason}.",
            "Stop the process that uses the port, or choose another one by --port or "
            "LEDGERLINE_SERVING_PORT.",
        ) from error


def address(host: str, listener: socket.socket) -> str:
    """Return the URL of a socket."""
    return f"http://{_in_url(host)}:{listener.getsockname()[1]}"


@contextmanager
def _signals(server: "uvicorn.Server") -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn raises the signal again after it has ended. The default handlers would then end this process
    # with an error, and a process that a script starts in the background would ignore Ctrl-C.
    before = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
