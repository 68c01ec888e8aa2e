"""`ledgerline registry webhook` and `ledgerline registry listen`: MLflow wakes who follows its registry."""

import asyncio
import signal
import socket
import time
from types import FrameType
from typing import TYPE_CHECKING

import dagster as dg
from rich.console import Console
from rich.text import Text

from pipelines.wake import wake
from registry import webhooks
from registry.store import StoreUnreachableError, connect, without_password
from registry.webhooks import Delivery, DeliveryRefusedError, RegistrationError, Verifier

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

NAME = "ledgerline"
PATH = "/webhooks/registry"
HOST = "127.0.0.1"
PORT = 5010
MAX_PORT = 65_535

MAX_BODY_BYTES = 1024 * 1024
BODY_SECONDS = 10
# MLflow has ten threads that send.
REQUESTS_AT_ONCE = 64
END_SECONDS = 2

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class WebhookError(Exception):
    """A webhook cannot be registered, or not be listened for; the message says why."""


def register(console: Console, tracking_uri: str, url: str, secret: str | None, name: str = NAME) -> bool:
    """Let MLflow send webhooks to an address, and try it; says whether a delivery was accepted there.

    Raises:
        WebhookError: There is no secret, or MLflow does not take the webhook.
    """
    secret = _required(secret)
    try:
        webhooks.require_server(tracking_uri)  # before a database is created for nothing
        client = connect(tracking_uri)
        webhook = webhooks.register(client, url, secret, name)
    except (StoreUnreachableError, RegistrationError) as error:
        raise WebhookError(str(error)) from None
    shown = without_password(webhook.url)
    console.print(
        Text(f"MLflow sends what happens in its registry to {shown} (webhook {webhook.name!r})."),
        soft_wrap=True,
    )
    problem = webhooks.send_test(client, webhook)
    if problem is None:
        console.print("A test delivery was accepted.")
        return True
    console.print(
        Text(
            f"A test delivery was not accepted: {problem}\n"
            f"Is `ledgerline registry listen` running there, with the same LEDGERLINE_WEBHOOK_SECRET, and is "
            f"the path {PATH}? The same command again is safe.\n{webhooks.SERVER_NEEDS}"
        ),
        soft_wrap=True,
    )
    return False


def listen(
    console: Console,
    instance: dg.DagsterInstance,
    secret: str | None,
    host: str = HOST,
    port: int = PORT,
) -> None:
    """Wake the sensors of an instance whenever MLflow sends a webhook, until Ctrl-C or SIGTERM.

    Raises:
        WebhookError: There is no secret, or the address cannot be listened on.
    """
    import uvicorn

    app = webhook_app(console, instance, _required(secret))
    with _bound(host, port) as listener:
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
                limit_concurrency=REQUESTS_AT_ONCE,
                timeout_graceful_shutdown=END_SECONDS,
            )
        )

        def stop(number: int, frame: FrameType | None) -> None:
            server.should_exit = True

        # uvicorn passes a signal on once it has ended. Handlers, and not the default: that would end this
        # process with an error, and one started in the background by a script would ignore Ctrl-C.
        before = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
        try:
            address = f"http://{_in_url(host)}:{listener.getsockname()[1]}{PATH}"
            console.print(f"Listening for webhooks on {address}; Ctrl-C ends it.", soft_wrap=True)
            server.run(sockets=[listener])
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def webhook_app(console: Console, instance: dg.DagsterInstance, secret: str) -> "FastAPI":
    """The application that receives webhooks for an instance."""
    from fastapi import FastAPI, Request, Response
    from fastapi.responses import PlainTextResponse
    from starlette.concurrency import run_in_threadpool

    verifier, log = Verifier(secret), _Log(console)
    app = FastAPI(openapi_url=None, redirect_slashes=False)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post(PATH)
    async def receive(request: Request) -> Response:
        body = await _body(request)
        try:
            delivery = verifier.verify(request.headers, body)
        except DeliveryRefusedError as error:
            log.refused(str(error))
            return PlainTextResponse(f"Refused: {error}.", status_code=401)
        try:
            await run_in_threadpool(wake, instance)
        except Exception as error:  # noqa: BLE001 (Dagster's database is away, say: MLflow sends it again)
            verifier.forget(delivery)
            log.failed(error)
            return PlainTextResponse("It cannot be kept now.", status_code=503)
        log.accepted(delivery)
        return Response(status_code=204)

    return app


class _Log:
    """What came, a line each; of what is refused, the first of each kind: anybody can send anything."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._refused: set[str] = set()

    def accepted(self, delivery: Delivery) -> None:
        self._refused.clear()
        words = [f"{delivery.entity}.{delivery.action}", delivery.model]
        if delivery.version:
            words.append(f"version {delivery.version}")
        if delivery.alias:
            words.append(f"alias {delivery.alias}")
        self._print(" ".join(word for word in words if word))

    def refused(self, reason: str) -> None:
        if reason in self._refused:
            return
        self._refused.add(reason)
        self._print(f"Refused: {reason}. More of the same are not shown.")

    def failed(self, error: Exception) -> None:
        self._print(f"The wake-up cannot be kept: {error}")

    def _print(self, text: str) -> None:
        # Names come from whoever may write to the registry; a terminal obeys some characters.
        printable = "".join(character if character.isprintable() else " " for character in text)
        self._console.print(Text(f"{time.strftime('%H:%M:%S')}  {printable}"), soft_wrap=True)


async def _body(request: "Request") -> bytes:
    """The body of a request, as far as it is of a size and comes at a pace that can be borne."""
    from fastapi import HTTPException
    from starlette.requests import ClientDisconnect

    # What comes after it is not read.
    close = {"Connection": "close"}
    too_large = HTTPException(413, f"At most {MAX_BODY_BYTES} bytes.", headers=close)
    declared = request.headers.get("Content-Length", "")
    if declared.isdecimal() and int(declared) > MAX_BODY_BYTES:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise too_large
    except TimeoutError:
        raise HTTPException(408, f"At most {BODY_SECONDS} seconds.", headers=close) from None
    except ClientDisconnect:
        raise HTTPException(400, headers=close) from None
    return bytes(body)


def _bound(host: str, port: int) -> socket.socket:
    if port > MAX_PORT:
        raise WebhookError(f"{port} is no port: they end at {MAX_PORT}.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]
        raise WebhookError(f"{_in_url(host)}:{port} cannot be listened on: {reason}.") from error


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _required(secret: str | None) -> str:
    if not secret:
        raise WebhookError(
            "LEDGERLINE_WEBHOOK_SECRET is not set. Webhooks are signed with it, so that nobody else can send "
            "them: make one with `openssl rand -hex 32`, and give it to both `ledgerline registry webhook` "
            "and `ledgerline registry listen`."
        )
    return secret
