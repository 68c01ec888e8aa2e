"""The process that serves: listens, answers, and ends without breaking an answer off."""

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

# Answers that are under way when the end is asked for.
END_SECONDS = 10
# A proxy keeps connections open for a minute; it must not be the server who closes them first.
KEEP_ALIVE_SECONDS = 75
CONNECTIONS = 2048
WAITING_CONNECTIONS = 512

# The predicting thread must not keep the one that reads and writes waiting for 5 ms at a time.
SWITCH_SECONDS = 0.0005

LOG = "%(asctime)s %(levelname)-7s %(message)s"

logger = logging.getLogger(__name__)


class ListenError(LedgerlineError):
    """An address cannot be listened on; the message says why."""


class CleanFormatter(logging.Formatter):
    """Lines of the log without secrets: errors and stack traces repeat what models and stores say."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with the stack trace if it has one."""
        return clean(super().format(record))


def serve(settings: "ServingSettings") -> None:
    """Serve until Ctrl-C or SIGTERM.

    Raises:
        MissingExtraError: The extra `serving` is not installed.
        ListenError: The address cannot be listened on.
    """
    require("serving", "Serving")
    handler = logging.StreamHandler()
    handler.setFormatter(CleanFormatter(LOG))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # uvicorn and libraries say on each request what is not worth a line.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    # tracing.py says once that traces cannot be sent; these say it again and again.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
    settings.cache.mkdir(parents=True, exist_ok=True)
    with bound(settings.host, settings.port) as listener:
        from ledgerline.serving.app import application
        from ledgerline.serving.service import service_for

        sys.setswitchinterval(SWITCH_SECONDS)
        service = service_for(settings)
        with service.running():
            # What was imported stays: the garbage collector need not look at half a million objects again,
            # for a tenth of a second in which nobody is answered.
            gc.collect()
            gc.freeze()
            logger.info("Serving %s on %s", ", ".join(service.served), address(settings.host, listener))
            run(application(service), listener, END_SECONDS, CONNECTIONS)
            logger.info("Ending.")


def run(app: "FastAPI", listener: socket.socket, end_seconds: int, connections: int) -> None:
    """Answer on a socket until Ctrl-C or SIGTERM, and then for at most so long."""
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
            backlog=WAITING_CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=end_seconds,
        )
    )
    with _signals(server):
        server.run(sockets=[listener])


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ListenError: It cannot.
    """
    if port > MAX_PORT:
        raise ListenError(f"{port} is no port: they end at {MAX_PORT}.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=WAITING_CONNECTIONS)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]
        raise ListenError(
            f"{_in_url(host)}:{port} cannot be listened on: {reason}. End what uses it, or choose another "
            "port: --port, or LEDGERLINE_SERVING_PORT."
        ) from error


def address(host: str, listener: socket.socket) -> str:
    """Where a socket is reached."""
    return f"http://{_in_url(host)}:{listener.getsockname()[1]}"


@contextmanager
def _signals(server: "uvicorn.Server") -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn passes a signal on once it has ended. Handlers, and not the default: that would end this process
    # with an error, and one started in the background by a script would ignore Ctrl-C.
    before = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
