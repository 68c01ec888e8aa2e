"""The endpoints. What answers them is in the module each of them calls."""

import re
from typing import TYPE_CHECKING, Any

import mlflow.version
import orjson
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from ledgerline.mlflow_store.webhooks import DeliveryRefusedError, Verifier
from ledgerline.serving import description, open_inference, openapi, scoring
from ledgerline.serving.accounting import Accounting
from ledgerline.serving.answering import Answering, Read, RefusedError, refusal
from ledgerline.serving.bodies import body_of
from ledgerline.serving.open_inference import Inference
from ledgerline.serving.rows import Rows
from ledgerline.serving.schema import Schema
from ledgerline.serving.service import Service
from ledgerline.settings.version import VERSION

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

WEBHOOKS = "/webhooks/registry"
WEBHOOK_BYTES, WEBHOOK_SECONDS = 1024 * 1024, 10.0

# Who watches a process has no token, and a webhook has a signature.
OPEN = re.compile(
    rf"/ping|/health|/ready|/v2/health/(live|ready)|/v2/models/[^/]+(/versions/[^/]+)?/ready|{WEBHOOKS}"
)

JSON = "application/json"
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([^\s;\"]+)", re.IGNORECASE)

# MLflow's names of what HTTP says by a number.
ERROR_CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    404: "RESOURCE_DOES_NOT_EXIST",
    405: "ENDPOINT_NOT_FOUND",
    408: "BAD_REQUEST",
    413: "BAD_REQUEST",
    415: "BAD_REQUEST",
    429: "REQUEST_LIMIT_EXCEEDED",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "TEMPORARILY_UNAVAILABLE",
}


def application(service: Service) -> FastAPI:
    """The application that answers for a service."""
    answering = Answering(service)
    app = _documented() if not service.settings.tokens else FastAPI(openapi_url=None, redirect_slashes=False)
    app.add_middleware(Tokens, answering=answering)
    app.add_middleware(Accounting, tracing=service.tracing, metrics=service.metrics)
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(HTTPException, _refused)
    _add_scoring(app, answering)
    _add_open_inference(app, answering)
    _add_open_inference_states(app, answering)
    _add_pages(app, answering)
    if service.settings.webhook_secret:
        _add_webhooks(app, service, Verifier(service.settings.webhook_secret))
    _add_heads(app)
    return app


def _add_heads(app: FastAPI) -> None:
    """Answer HEAD wherever GET is answered, as HTTP demands and probes of load balancers use."""
    for route in list(app.routes):
        if isinstance(route, APIRoute) and "GET" in (route.methods or ()):
            app.add_api_route(
                route.path,
                route.endpoint,
                methods=["HEAD"],
                response_class=route.response_class,
                include_in_schema=False,
            )


def _documented() -> FastAPI:
    """With a page that documents it, which needs nothing from the internet.

    A browser shows no token when it opens a page: where tokens are needed, there is none.
    """
    return FastAPIOffline(
        docs_url="/docs",
        redoc_url=None,
        title="Ledgerline serving",
        description="Answers with the version of each model that carries its alias in the registry.",
        version=VERSION,
        redirect_slashes=False,
    )


class Tokens:
    """Lets requests without a token see nothing but whether there is an answer, if there are tokens."""

    def __init__(self, app: "ASGIApp", answering: Answering) -> None:
        self._app = app
        self._answering = answering

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer a request, as ASGI has it."""
        app = self._app
        if scope["type"] == "http" and not OPEN.fullmatch(scope["path"]):
            request = Request(scope)
            if not self._answering.has_token(request):
                app = await _refused(
                    request,
                    RefusedError(
                        401, "Send Authorization: Bearer TOKEN.", headers={"WWW-Authenticate": "Bearer"}
                    ),
                )
        await app(scope, receive, send)


def _add_scoring(app: FastAPI, answering: Answering) -> None:
    """MLflow's scoring protocol."""

    async def answered(request: Request, name: str | None) -> Response:
        served = answering.served(name)
        prediction = await answering.answer(request, served, _reader(request))
        return Response(scoring.answer(prediction.outputs), media_type=JSON)

    @app.post("/invocations", tags=["MLflow"], **openapi.INVOCATIONS)
    async def invocations(request: Request) -> Response:
        """Ask the first model about some rows."""
        return await answered(request, None)

    @app.post("/models/{name}/invocations", tags=["MLflow"], **openapi.INVOCATIONS)
    async def model_invocations(request: Request, name: str) -> Response:
        """Ask a model about some rows."""
        return await answered(request, name)

    @app.get("/ping", tags=["MLflow"], **openapi.PING)
    @app.get("/health", tags=["MLflow"], **openapi.PING)
    async def ping() -> Response:
        """Whether the first model answers."""
        service = answering.service
        return Response("\n", 200 if service.answers(service.default.followed.name) else 503, media_type=JSON)

    @app.get("/version", tags=["MLflow"], **openapi.VERSION)
    async def version() -> Response:
        """The version of MLflow."""
        return Response(mlflow.version.VERSION, media_type=JSON)


def _add_open_inference(app: FastAPI, answering: Answering) -> None:
    """Questions by the Open Inference Protocol, https://github.com/kserve/open-inference-protocol."""

    async def inferred(request: Request, name: str, version: str | None) -> Response:
        served = answering.served(name, version)
        _require_utf8(request)
        asked: list[Inference] = []

        def read(body: bytes, schema: Schema, most_rows: int) -> tuple[Rows, list[str]]:
            open_inference.require_no_binary(request.headers)
            inference = open_inference.inference_of(body, schema, most_rows)
            open_inference.require_outputs(inference, names)
            asked.append(inference)
            return inference.rows, inference.unknown

        # Every version that takes over answers the same: follower.py sees to that.
        names = open_inference.output_names(answering.current(served).signature)
        prediction = await answering.answer(request, served, read)
        loaded = prediction.loaded
        body = open_inference.answer(prediction.outputs, loaded.name, loaded.version.number, asked[0])
        return Response(body, media_type=JSON)

    @app.post("/v2/models/{name}/infer", tags=["Open Inference Protocol"], **openapi.INFER)
    async def infer(request: Request, name: str) -> Response:
        """Ask a model about some rows."""
        return await inferred(request, name, None)

    @app.post("/v2/models/{name}/versions/{version}/infer", tags=["Open Inference Protocol"], **openapi.INFER)
    async def infer_version(request: Request, name: str, version: str) -> Response:
        """Ask a version, if it is the one that answers."""
        return await inferred(request, name, version)


def _add_open_inference_states(app: FastAPI, answering: Answering) -> None:
    """What the Open Inference Protocol says of servers and models."""

    @app.get("/v2", tags=["Open Inference Protocol"], **openapi.SERVER)
    async def server() -> dict[str, Any]:
        """What this is."""
        return open_inference.server_metadata()

    @app.get("/v2/health/live", tags=["Open Inference Protocol"])
    async def live() -> dict[str, bool]:
        """Whether the process answers at all."""
        return {"live": True}

    @app.get("/v2/health/ready", tags=["Open Inference Protocol"], **openapi.READY)
    async def ready() -> Response:
        """Whether a model answers, and so does every other one that has a version in its stage."""
        is_ready = answering.service.is_ready()
        return _json({"ready": is_ready}, 200 if is_ready else 503)

    def model_state(name: str, version: str | None) -> Response:
        served = answering.served(name, version)
        is_ready = answering.service.answers(served.followed.name)
        return _json({"name": name, "ready": is_ready}, 200 if is_ready else 503)

    @app.get("/v2/models/{name}/ready", tags=["Open Inference Protocol"], **openapi.MODEL_READY)
    async def model_ready(name: str) -> Response:
        """Whether a model answers."""
        return model_state(name, None)

    @app.get(
        "/v2/models/{name}/versions/{version}/ready",
        tags=["Open Inference Protocol"],
        **openapi.MODEL_READY,
    )
    async def version_ready(name: str, version: str) -> Response:
        """Whether it is this version that answers."""
        return model_state(name, version)

    @app.get("/v2/models/{name}", tags=["Open Inference Protocol"], **openapi.METADATA)
    async def model(name: str) -> dict[str, Any]:
        """What a model takes and gives."""
        return open_inference.model_metadata(answering.current(answering.served(name)))

    @app.get("/v2/models/{name}/versions/{version}", tags=["Open Inference Protocol"], **openapi.METADATA)
    async def version(name: str, version: str) -> dict[str, Any]:
        """What a version takes and gives, if it is the one that answers."""
        return open_inference.model_metadata(answering.current(answering.served(name, version)))


def _add_pages(app: FastAPI, answering: Answering) -> None:
    """For people, Prometheus, and whoever starts this process."""
    service = answering.service

    @app.get("/ready", tags=["Service"], **openapi.READY)
    async def ready(request: Request) -> Response:
        """Whether the models that have a version answer, and what keeps a newer version from doing so."""
        is_ready = service.is_ready()
        found: dict[str, Any] = {"ready": is_ready}
        # What is said of them may name folders and servers.
        if answering.has_token(request):
            found["models"] = {
                name: description.alias_state(served) for name, served in service.served.items()
            }
        return _json(found, 200 if is_ready else 503)

    @app.get("/metrics", tags=["Service"], **openapi.METRICS)
    async def metrics() -> Response:
        """What Prometheus reads."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/model", tags=["Service"], **openapi.MODEL)
    async def model() -> Response:
        """Which version of the first model answers, and where it came from."""
        return _json(description.model(service.default, service.settings.links))

    @app.get("/models", tags=["Service"], **openapi.MODELS)
    async def models() -> Response:
        """All models."""
        return _json(
            [description.model(served, service.settings.links) for served in service.served.values()]
        )

    @app.get("/models/{name}", tags=["Service"], **openapi.MODEL)
    async def named_model(name: str) -> Response:
        """Which version of a model answers, and where it came from."""
        return _json(description.model(answering.served(name), service.settings.links))

    known = app.openapi

    def document() -> dict[str, Any]:
        loaded = {name: served.current for name, served in service.served.items() if served.current}
        return openapi.with_examples(known(), loaded)

    app.openapi = document


def _add_webhooks(app: FastAPI, service: Service, verifier: Verifier) -> None:
    @app.post(WEBHOOKS, tags=["Service"], status_code=204, include_in_schema=False)
    async def wake(request: Request) -> Response:
        """MLflow says that something has changed in its registry: look now."""
        body = await body_of(request, WEBHOOK_BYTES, WEBHOOK_SECONDS)
        try:
            delivery = verifier.verify(request.headers, body)
        except DeliveryRefusedError as error:
            return PlainTextResponse(f"Refused: {error}.", status_code=401)
        service.wake(delivery.model)
        return Response(status_code=204)


def _reader(request: Request) -> Read:
    """What reads a body of this type."""
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    _require_utf8(request)
    if kind == scoring.CSV:
        return scoring.rows_of_csv
    if kind == scoring.JSON:
        return scoring.rows_of_json
    raise RefusedError(415, f"The body is {kind or 'of no type'}; send {scoring.JSON} or {scoring.CSV}.")


def _require_utf8(request: Request) -> None:
    """Make sure that a body is not read in another encoding than its sender says; without one it is UTF-8."""
    charset = _CHARSET.search(request.headers.get("Content-Type", ""))
    if charset is not None and charset[1].lower() not in ("utf-8", "utf8", "us-ascii", "ascii"):
        raise RefusedError(415, f"The body is in {charset[1][:40]}; send it in UTF-8.")


async def _refused(request: Request, error: Exception) -> Response:
    """Why there is no answer, in the words of the protocol that was asked."""
    assert isinstance(error, RefusedError | HTTPException)  # noqa: S101 (as added)
    refused = refusal(error)
    if request.url.path.startswith("/v2"):
        return _json({"error": refused.message}, refused.status, refused.headers)
    content: dict[str, Any] = {
        "error_code": ERROR_CODES.get(refused.status, "BAD_REQUEST"),
        "message": refused.message,
    }
    if refused.problems:
        content["problems"] = [
            {"row": problem.row, "column": problem.column, "text": problem.text}
            for problem in refused.problems
        ]
    return _json(content, refused.status, refused.headers)


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status, headers, JSON)
