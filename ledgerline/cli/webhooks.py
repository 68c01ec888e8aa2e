"""Registers and receives MLflow's webhooks, for `ledgerline registry webhook` and `listen`."""

import time
from typing import TYPE_CHECKING

import dagster as dg
from rich.console import Console
from rich.text import Text

from ledgerline.cleaning.passwords import without_password
from ledgerline.dagster.registry_notifications import notify
from ledgerline.errors import LedgerlineError
from ledgerline.mlflow_store import webhooks
from ledgerline.mlflow_store.store import connect
from ledgerline.mlflow_store.webhooks import Delivery, DeliveryRefusedError, Verifier
from ledgerline.serving.server import address, bound, run
from ledgerline.settings.extras import require

if TYPE_CHECKING:
    from fastapi import FastAPI

NAME = "ledgerline"
PATH = "/webhooks/registry"
HOST = "127.0.0.1"
PORT = 5010

MAX_BODY_BYTES = 1024 * 1024
BODY_SECONDS = 10
# MLflow sends webhooks from ten threads.
REQUESTS_AT_ONCE = 64
END_SECONDS = 2


class WebhookError(LedgerlineError):
    """Webhooks cannot be signed, because there is no secret."""


def register(console: Console, tracking_uri: str, url: str, secret: str | None, name: str = NAME) -> bool:
    """Register a webhook of MLflow for a URL, and send a test; return whether the URL accepts deliveries.

    Raises:
        WebhookError: There is no secret.
        RegistrationError: MLflow does not accept the webhook.
        StoreUnreachableError: The MLflow server does not respond.
    """
    secret = _required(secret)
    webhooks.require_server(tracking_uri)  # checked before a database is created
    client = connect(tracking_uri)
    webhook = webhooks.register(client, url, secret, name)
    receiver = without_password(webhook.url)
    sends = f"MLflow sends changes of its registry to {receiver} (webhook {webhook.name!r})."
    console.print(Text(sends), soft_wrap=True)
    problem = webhooks.send_test(client, webhook)
    if problem is None:
        console.print("A test delivery was accepted.")
        return True
    message = (
        f"A test delivery was not accepted: {problem}\n"
        "Check that `ledgerline registry listen` or `ledgerline serve` is running there, with the same "
        f"LEDGERLINE_WEBHOOK_SECRET and the path {PATH}. Repeating the command is safe.\n"
        f"{webhooks.SERVER_NEEDS}"
    )
    console.print(Text(message), soft_wrap=True)
    return False


def listen(
    console: Console, instance: dg.DagsterInstance, secret: str | None, host: str = HOST, port: int = PORT
) -> None:
    """Notify the sensors of an instance of each webhook that MLflow sends, until Ctrl-C or SIGTERM.

    Raises:
        WebhookError: There is no secret.
        ListenError: The receiver cannot listen on the address.
    """
    require("serving", "Receiving webhooks")
    app = webhook_app(console, instance, _required(secret))
    with bound(host, port) as listener:
        console.print(
            f"Listening for webhooks on {address(host, listener)}{PATH}; Ctrl-C ends it.", soft_wrap=True
        )
        run(app, listener, END_SECONDS, REQUESTS_AT_ONCE)


def webhook_app(console: Console, instance: dg.DagsterInstance, secret: str) -> "FastAPI":
    """Return the application that receives webhooks for an instance."""
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
            await run_in_threadpool(notify, instance)
        except Exception as error:  # noqa: BLE001 (if Dagster's database is down, MLflow sends the webhook again)
            verifier.forget(delivery)
            log.failed(error)
            return PlainTextResponse("The notification cannot be stored now.", status_code=503)
        log.accepted(delivery)
        return Response(status_code=204)

    return app


class _Log:
    """Prints a line for each delivery, but only the first of each reason for a refusal.

    Otherwise any program could fill the log.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._refused: set[str] = set()

    def accepted(self, delivery: Delivery) -> None:
        self._refused.clear()
        words = (
            f"{delivery.entity}.{delivery.action}",
            delivery.model,
            delivery.version and f"version {delivery.version}",
            delivery.alias and f"alias {delivery.alias}",
        )
        self._print(" ".join(filter(None, words)))

    def refused(self, reason: str) -> None:
        if reason in self._refused:
            return
        self._refused.add(reason)
        self._print(f"Refused: {reason}. Further refusals for this reason are not printed.")

    def failed(self, error: Exception) -> None:
        self._print(f"The notification cannot be stored: {error}")

    def _print(self, text: str) -> None:
        # Users of the registry choose the names, which may have control characters for the terminal.
        printable = "".join(character if character.isprintable() else " " for character in text)
        self._console.print(Text(f"{time.strftime('%H:%M:%S')}  {printable}"), soft_wrap=True)


def _required(secret: str | None) -> str:
    if not secret:
        raise WebhookError(
            "LEDGERLINE_WEBHOOK_SECRET is not set, and webhooks are signed with it.",
            "Make one with `openssl rand -hex 32`, and set it for `ledgerline registry webhook` and for "
            "`ledgerline registry listen`.",
        )
    return secret
