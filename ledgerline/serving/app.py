"""The HTTP endpoints, and the conversion of errors to responses; the work is done in other modules."""

import re
from typing import Any

import mlflow.version
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from ledgerline.mlflow_store.webhooks import DeliveryRefusedError, Verifier
from ledgerline.serving import description, open_inference, openapi, scoring
from ledgerline.serving.accounting import Accounting
from ledgerline.serving.answering import Answering, Read
from ledgerline.serving.bodies import body_of
from ledgerline.serving.json_bodies import JSON, error_response, json_response
from ledgerline.serving.open_inference import Inference
from ledgerline.serving.protocol_types import ModelMetadata, Ready, ServerMetadata
from ledgerline.serving.request_errors import RequestError
from ledgerline.serving.rows import Rows
from ledgerline.serving.schema import Schema
from ledgerline.serving.service import Service
from ledgerline.settings.version import VERSION

WEBHOOKS = "/webhooks/registry"
WEBHOOK_BYTES, WEBHOOK_SECONDS = 1024 * 1024, 10.0

# Monitoring has no token, and webhooks have a signature.
OPEN = re.compile(
    rf"/ping|/health|/ready|/v2/health/(live|ready)|/v2/models/[^/]+(/versions/[^/]+)?/ready|{WEBHOOKS}"
)

_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([^\s;\"]+)", re.IGNORECASE)


def application(service: Service) -> FastAPI:
    """Return the ASGI application of a service.

    Example:
        >>> from ledgerline.serving.service import service_for
        >>> from ledgerline.serving.settings import ServingSettings
        >>> settings = ServingSettings.from_environment(
        ...     {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db", "LEDGERLINE_SERVING_MODELS": "oven_demand"}
        ... )
        >>> service = service_for(settings)
        >>> app = application(service)  # run it with any ASGI server inside `with service.running()`
        >>> app.url_path_for("model_invocations", name="oven_demand")
        '/models/oven_demand/invocations'
    """
    answering = Answering(service)
    if service.settings.tokens:
        # Browsers send no token when they open the documentation page.
        app = FastAPI(openapi_url=None, redirect_slashes=False)
    else:
        app = FastAPIOffline(
            docs_url="/docs",
            redoc_url=None,
            title="Ledgerline serving",
            description="Predicts with the version of each model that has its alias in the registry.",
            version=VERSION,
            redirect_slashes=False,
        )
    app.add_middleware(Tokens, answering=answering)
    app.add_middleware(Accounting, tracing=service.tracing, metrics=service.metrics)
    app.add_exception_handler(RequestError, _refused)
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
    """Add HEAD to each endpoint with GET, because HTTP requires it and load balancers use it."""
    for route in list(app.routes):
        if isinstance(route, APIRoute) and "GET" in (route.methods or ()):
            app.add_api_route(
                route.path,
                route.endpoint,
                methods=["HEAD"],
                response_class=route.response_class,
                include_in_schema=False,
            )


class Tokens:
    """Refuses requests without a token, except for health checks, if the service has tokens."""

    def __init__(self, app: ASGIApp, answering: Answering) -> None:
        self._app = app
        self._answering = answering

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application, or refuse the request."""
        app = self._app
        is_guarded = scope["type"] == "http" and not OPEN.fullmatch(scope["path"])
        if is_guarded and not self._answering.has_token(Request(scope)):
            error = RequestError(
                "The token is missing or unknown.",
                "Send the header Authorization: Bearer TOKEN.",
                status=401,
                headers={"WWW-Authenticate": "Bearer"},
            )
            app = error_response(scope["path"], error)
        await app(scope, receive, send)


def _add_scoring(app: FastAPI, answering: Answering) -> None:
    """Add the endpoints of MLflow's scoring protocol."""

    async def scored(request: Request, name: str | None) -> Response:
        served = answering.served(name)
        prediction = await answering.answer(request, served, _reader(request))
        return Response(scoring.response_body(prediction.outputs), media_type=JSON)

    @app.post("/invocations", tags=["MLflow"], **openapi.INVOCATIONS)
    async def invocations(request: Request) -> Response:
        """Predict rows with the default model."""
        return await scored(request, None)

    @app.post("/models/{name}/invocations", tags=["MLflow"], **openapi.INVOCATIONS)
    async def model_invocations(request: Request, name: str) -> Response:
        """Predict rows with a model."""
        return await scored(request, name)

    @app.get("/ping", tags=["MLflow"], **openapi.PING)
    @app.get("/health", tags=["MLflow"], **openapi.PING)
    async def ping() -> Response:
        """Check whether the default model has an active version."""
        service = answering.service
        return Response("\n", 200 if service.answers(service.default.followed.name) else 503, media_type=JSON)

    @app.get("/version", tags=["MLflow"], **openapi.VERSION)
    async def version() -> Response:
        """Return the version of MLflow."""
        return Response(mlflow.version.VERSION, media_type=JSON)


def _add_open_inference(app: FastAPI, answering: Answering) -> None:
    """Add the inference endpoints of https://github.com/kserve/open-inference-protocol."""

    async def inferred(request: Request, name: str, version: str | None) -> Response:
        served = answering.served(name, version)
        _require_utf8(request)
        inferences: list[Inference] = []

        def read(body: bytes, schema: Schema, most_rows: int) -> tuple[Rows, list[str]]:
            open_inference.require_no_binary(request.headers)
            inference = open_inference.inference_of(body, schema, most_rows)
            open_inference.require_outputs(inference, names)
            inferences.append(inference)
            return inference.rows, inference.unknown

        # All versions have the same outputs, because by default follower.py refuses a version with others.
        names = open_inference.output_names(answering.current(served).signature)
        prediction = await answering.answer(request, served, read)
        loaded = prediction.loaded
        number = loaded.version.number
        body = open_inference.response_body(prediction.outputs, loaded.name, number, inferences[0])
        return Response(body, media_type=JSON)

    @app.post("/v2/models/{name}/infer", tags=["Open Inference Protocol"], **openapi.INFER)
    async def infer(request: Request, name: str) -> Response:
        """Predict rows with a model."""
        return await inferred(request, name, None)

    @app.post("/v2/models/{name}/versions/{version}/infer", tags=["Open Inference Protocol"], **openapi.INFER)
    async def infer_version(request: Request, name: str, version: str) -> Response:
        """Predict rows with a version, if it is the active one."""
        return await inferred(request, name, version)


def _add_open_inference_states(app: FastAPI, answering: Answering) -> None:
    """Add the endpoints of the Open Inference Protocol for health and metadata."""

    @app.get("/v2", tags=["Open Inference Protocol"], **openapi.SERVER)
    async def server() -> ServerMetadata:
        """Return the name and version of this server."""
        return {"name": "ledgerline", "version": VERSION, "extensions": []}

    @app.get("/v2/health/live", tags=["Open Inference Protocol"])
    async def live() -> dict[str, bool]:
        """Check whether the process responds."""
        return {"live": True}

    @app.get("/v2/health/ready", tags=["Open Inference Protocol"], **openapi.READY)
    async def ready() -> Response:
        """Check whether each model with a version in its stage has an active version."""
        is_ready = answering.service.is_ready()
        return json_response({"ready": is_ready}, 200 if is_ready else 503)

    def model_state(name: str, version: str | None) -> Response:
        served = answering.served(name, version)
        is_ready = answering.service.answers(served.followed.name)
        return json_response({"name": name, "ready": is_ready}, 200 if is_ready else 503)

    @app.get("/v2/models/{name}/ready", tags=["Open Inference Protocol"], **openapi.MODEL_READY)
    async def model_ready(name: str) -> Response:
        """Check whether a model has an active version."""
        return model_state(name, None)

    @app.get(
        "/v2/models/{name}/versions/{version}/ready",
        tags=["Open Inference Protocol"],
        **openapi.MODEL_READY,
    )
    async def version_ready(name: str, version: str) -> Response:
        """Check whether this version is the active one."""
        return model_state(name, version)

    @app.get("/v2/models/{name}", tags=["Open Inference Protocol"], **openapi.METADATA)
    async def model(name: str) -> ModelMetadata:
        """Return the inputs and outputs of a model."""
        return open_inference.model_metadata(answering.current(answering.served(name)))

    @app.get("/v2/models/{name}/versions/{version}", tags=["Open Inference Protocol"], **openapi.METADATA)
    async def version(name: str, version: str) -> ModelMetadata:
        """Return the inputs and outputs of a version, if it is the active one."""
        return open_inference.model_metadata(answering.current(answering.served(name, version)))


def _add_pages(app: FastAPI, answering: Answering) -> None:
    """Add the endpoints for people, Prometheus and process managers."""
    service = answering.service

    @app.get("/ready", tags=["Service"], **openapi.READY)
    async def ready(request: Request) -> Response:
        """Check whether each model with a version in its stage is active, and list refused versions."""
        is_ready = service.is_ready()
        content: Ready = {"ready": is_ready}
        # The reasons may name folders and servers.
        if answering.has_token(request):
            content["models"] = {name: description.alias_state(one) for name, one in service.served.items()}
        return json_response(content, 200 if is_ready else 503)

    @app.get("/metrics", tags=["Service"], **openapi.METRICS)
    async def metrics() -> Response:
        """Return the metrics in the format of Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/model", tags=["Service"], **openapi.MODEL)
    async def model() -> Response:
        """Return the active version of the default model, and its training run."""
        return json_response(description.model(service.default, service.settings.links))

    @app.get("/models", tags=["Service"], **openapi.MODELS)
    async def models() -> Response:
        """Return the active versions of all models."""
        links = service.settings.links
        return json_response([description.model(served, links) for served in service.served.values()])

    @app.get("/models/{name}", tags=["Service"], **openapi.MODEL)
    async def named_model(name: str) -> Response:
        """Return the active version of a model, and its training run."""
        return json_response(description.model(answering.served(name), service.settings.links))

    known = app.openapi

    def document() -> dict[str, Any]:
        loaded = {name: served.current for name, served in service.served.items() if served.current}
        return openapi.with_examples(known(), loaded)

    app.openapi = document


def _add_webhooks(app: FastAPI, service: Service, verifier: Verifier) -> None:
    @app.post(WEBHOOKS, tags=["Service"], status_code=204, include_in_schema=False)
    async def notify(request: Request) -> Response:
        """Poll the registry now, because MLflow has sent an event of it."""
        body = await body_of(request, WEBHOOK_BYTES, WEBHOOK_SECONDS)
        try:
            delivery = verifier.verify(request.headers, body)
        except DeliveryRefusedError as error:
            return PlainTextResponse(f"Refused: {error}.", status_code=401)
        service.notify(delivery.model)
        return Response(status_code=204)


def _reader(request: Request) -> Read:
    """Return the function that reads a body of this content type."""
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    _require_utf8(request)
    if kind == scoring.CSV:
        return scoring.rows_of_csv
    if kind == JSON:
        return scoring.rows_of_json
    raise RequestError(
        f"The content type of the body is {kind or 'missing'}.",
        f"Send {JSON} or {scoring.CSV}.",
        status=415,
    )


def _require_utf8(request: Request) -> None:
    """Make sure that the charset of a body is UTF-8, which is the default."""
    charset = _CHARSET.search(request.headers.get("Content-Type", ""))
    if charset is not None and charset[1].lower() not in ("utf-8", "utf8", "us-ascii", "ascii"):
        raise RequestError(f"The charset of the body is {charset[1][:40]}.", "Send it in UTF-8.", status=415)


async def _refused(request: Request, error: Exception) -> Response:
    """Convert an error to a response of the protocol that was requested."""
    if isinstance(error, HTTPException):
        error = RequestError(str(error.detail), status=error.status_code, headers=dict(error.headers or {}))
    assert isinstance(error, RequestError)  # noqa: S101 (the handlers are added for these)
    return error_response(request.url.path, error)
