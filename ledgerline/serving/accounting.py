"""Adds ids and versions to the headers of responses, and records spans and metrics of requests."""

import logging
import re
import time
import uuid
from dataclasses import dataclass

from fastapi import Request
from opentelemetry.trace import Span
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ledgerline.serving import tracing
from ledgerline.serving.json_bodies import error_response
from ledgerline.serving.loaded import LoadedModel
from ledgerline.serving.metrics import Metrics
from ledgerline.serving.request_errors import RequestError
from ledgerline.serving.tracing import Tracing
from ledgerline.traces import attributes

REQUEST_ID = "X-Request-Id"

# Other ids of clients are neither returned nor logged.
CLIENT_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

SCOPE_KEY = "ledgerline.account"

logger = logging.getLogger(__name__)


@dataclass
class Account:
    """The state of a request.

    Attributes:
        request_id: The client's id, or a new one.
        loaded: The version that predicts for the request; None before it is chosen.
        ignored: Names of columns that the model does not take.
    """

    request_id: str
    span: Span
    loaded: LoadedModel | None = None
    ignored: str = ""

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers of the response."""
        headers = [(b"x-request-id", self.request_id.encode())]
        if traceparent := tracing.traceparent(self.span):
            headers.append((b"traceparent", traceparent.encode()))
        if self.loaded is not None:
            headers.append((b"x-model-name", self.loaded.name.encode("latin-1", "replace")))
            headers.append((b"x-model-version", str(self.loaded.version.number).encode()))
        if self.ignored:
            headers.append((b"x-ignored-columns", self.ignored.encode("ascii", "replace")))
        return headers


def account_of(request: Request) -> Account:
    """Return the account of a request."""
    return request.scope[SCOPE_KEY]


class Accounting:
    """Opens an account for each request, and closes it after the response."""

    def __init__(self, app: ASGIApp, tracing: Tracing, metrics: Metrics) -> None:
        self._app = app
        self._tracing = tracing
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application, and account for the request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        method = scope["method"]
        started = time.perf_counter()
        given = headers.get(REQUEST_ID, "")
        request_id = given if CLIENT_ID.fullmatch(given) else str(uuid.uuid4())
        account = Account(request_id, self._tracing.begin(method, headers))
        account.span.set_attribute(attributes.REQUEST_ID, request_id)
        scope[SCOPE_KEY] = account
        status = 0

        async def accounted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *account.headers()]
            await send(message)

        self._metrics.requests_now.inc()
        try:
            await self._app(scope, receive, accounted)
        except Exception:
            # The client gets only the id, which is also in the log.
            logger.exception("Request %s failed.", request_id)
            if status == 0:
                failure = RequestError(f"The request failed; its id is {request_id}.", status=500)
                await error_response(scope["path"], failure)(scope, receive, accounted)
        finally:
            self._metrics.requests_now.dec()
            route = getattr(scope.get("route"), "path", "")
            model = account.loaded.name if account.loaded else ""
            version = str(account.loaded.version.number) if account.loaded else ""
            self._metrics.requests.labels(route, str(status), model, version).inc()
            self._metrics.request_seconds.labels(route, model).observe(time.perf_counter() - started)
            tracing.end(account.span, method, route, scope["path"], status or 500)
