"""`ledgerline registry webhook` and `ledgerline registry listen`: MLflow wakes who follows its registry."""

import time
from typing import TYPE_CHECKING

import dagster as dg
from rich.console import Console
from rich.text import Text

from ledgerline.dagster.registry_notifications import wake
from ledgerline.mlflow_store import webhooks
from ledgerline.mlflow_store.store import StoreUnreachableError, connect, without_password
from ledgerline.mlflow_store.webhooks import Delivery, DeliveryRefusedError, RegistrationError, Verifier
from ledgerline.serving.server import ListenError, address, bound, run
from ledgerline.settings.extras import require

if TYPE_CHECKING:
    from fastapi import FastAPI

NAME = "ledgerline"
PATH = "/webhooks/registry"
HOST = "127.0.0.1"
PORT = 5010

MAX_BODY_BYTES = 1024 * 1024
BODY_SECONDS = 10
# MLflow has ten threads that send.
REQUESTS_AT_ONCE = 64
END_SECONDS = 2


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
            "Is `ledgerline registry listen` or `ledgerline serve` running there, with the same "
            f"LEDGERLINE_WEBHOOK_SECRET, and is the path {PATH}? The same command again is safe.\n"
            f"{webhooks.SERVER_NEEDS}"
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
    require("serving", "Receiving webhooks")
    app = webhook_app(console, instance, _required(secret))
    try:
        listener = bound(host, port)
    except ListenError as error:
        raise WebhookError(str(error)) from None
    with listener:
        console.print(
            f"Listening for webhooks on {address(host, listener)}{PATH}; Ctrl-C ends it.", soft_wrap=True
        )
        run(app, listener, END_SECONDS, REQUESTS_AT_ONCE)


def webhook_app(console: Console, instance: dg.DagsterInstance, secret: str) -> "FastAPI":
    """The application that receives webhooks for an instance."""
    from fastapi import FastAPI, Request, Response
    from fastapi.responses import PlainTextResponse
    from starlette.concurrency import run_in_threadpool

    from ledgerline.serving.bodies import body_of

    verifier, log = Verifier(secret), _Log(console)
    app = FastAPI(openapi_url=None, redirect_slashes=False)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post(PATH)
    async def receive(request: Request) -> Response:
        body = await body_of(request, MAX_BODY_BYTES, BODY_SECONDS)
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


def _required(secret: str | None) -> str:
    if not secret:
        raise WebhookError(
            "LEDGERLINE_WEBHOOK_SECRET is not set. Webhooks are signed with it, so that nobody else can send "
            "them: make one with `openssl rand -hex 32`, and give it to both `ledgerline registry webhook` "
            "and `ledgerline registry listen`."
        )
    return secret
