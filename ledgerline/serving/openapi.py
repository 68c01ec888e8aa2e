"""The parts of the OpenAPI document that FastAPI cannot derive: statuses, and the bodies that a model takes.

app.py has the endpoints, and protocol_types.py declares the bodies. The endpoints read bodies themselves,
because the columns are those of the active version; `with_examples` adds these columns and example rows to
the document.
"""

import copy
import csv
import io
from collections.abc import Mapping
from typing import Any

import orjson
from fastapi.responses import PlainTextResponse, Response

from ledgerline.serving import open_inference, scoring
from ledgerline.serving.json_bodies import JSON, as_json, plain
from ledgerline.serving.loaded import LoadedModel
from ledgerline.serving.protocol_types import (
    Error,
    InferenceError,
    InferenceRequest,
    InferenceResponse,
    ModelReady,
    Predictions,
    Ready,
)
from ledgerline.serving.rows import UNNAMED, Rows
from ledgerline.serving.schema import KINDS, Column, Schema

EXAMPLE_ROWS = 2

TOKEN = "token"  # noqa: S105 (the name of a security scheme in the document)

_REFERENCES = "#/components/schemas/{model}"


def _ref(name: str) -> dict[str, str]:
    return {"$ref": _REFERENCES.format(model=name)}


def _responses(descriptions: Mapping[int, str], model: Any) -> dict[int | str, dict[str, Any]]:
    return {status: {"description": text, "model": model} for status, text in descriptions.items()}


# Both protocols refuse requests for the same reasons, but report them in different forms.
NO_TOKEN = {401: "The token is missing or unknown."}
NOT_SERVED = {404: "This model is not served here, or another version of it is active."}
NOT_ACTIVE = {503: "No version is active yet."}
REFUSALS = {
    400: "The body, or a row in it, does not fit the model.",
    **NO_TOKEN,
    **NOT_SERVED,
    408: "The body did not arrive in time.",
    413: "The body is too large, or has too many rows.",
    415: "The content type or the encoding of the body is not supported.",
    429: "Too many requests are in progress.",
    503: "No version is active yet, or the active version fails on every request.",
    504: "The prediction took too long.",
}


def _guarded(responses: Mapping[int | str, Any], bodies: Mapping[str, Any] | None = None) -> dict[str, Any]:
    # A setting decides whether tokens are required; the first alternative is a request without one.
    extra: dict[str, Any] = {"security": [{}, {TOKEN: []}]}
    if bodies is not None:
        content = {kind: {"schema": schema} for kind, schema in bodies.items()}
        extra["requestBody"] = {"required": True, "content": content}
    return {"openapi_extra": extra, "responses": responses}


INVOCATIONS = _guarded(
    _responses({200: "The prediction, by row."}, Predictions) | _responses(REFUSALS, Error),
    {JSON: _ref("Invocation"), scoring.CSV: {"type": "string"}},
)
INFER = _guarded(
    _responses({200: "The prediction."}, InferenceResponse) | _responses(REFUSALS, InferenceError),
    {JSON: _ref(InferenceRequest.__name__)},
)
# MLflow's content type of its health checks is JSON, but their content is not.
VERSION: dict[str, Any] = {"response_class": Response}
PING: dict[str, Any] = VERSION | {"responses": {503: {"description": NOT_ACTIVE[503]}}}
READY: dict[str, Any] = {
    "responses": _responses(
        {
            200: "Each model with a version in its stage has an active version.",
            503: "A model has no active version, or no model has a version in its stage.",
        },
        Ready,
    )
}
MODEL_READY: dict[str, Any] = {
    "responses": _responses({200: "A version is active.", **NOT_ACTIVE}, ModelReady)
    | _responses(NOT_SERVED, InferenceError)
}
SERVER = _guarded(_responses(NO_TOKEN, InferenceError))
METADATA = _guarded(_responses(NO_TOKEN | NOT_SERVED | NOT_ACTIVE, InferenceError))
MODEL = _guarded(
    _responses({200: "The active version and its training run."}, dict[str, Any])
    | _responses(NO_TOKEN | NOT_SERVED, Error)
)
MODELS = _guarded(_responses({200: "The models."}, list[dict[str, Any]]) | _responses(NO_TOKEN, Error))
METRICS: dict[str, Any] = {"response_class": PlainTextResponse} | _guarded(
    {200: {"description": "The metrics in the format of Prometheus."}} | _responses(NO_TOKEN, Error)
)


def with_examples(document: Mapping[str, Any], served: Mapping[str, LoadedModel]) -> dict[str, Any]:
    """Return the document with the inputs of the active versions.

    Args:
        document: The document that FastAPI generates; it is not changed.
        served: The active versions by the names of their models; the first is the default.
    """
    document = copy.deepcopy(dict(document))
    components = document.setdefault("components", {})
    components["securitySchemes"] = {TOKEN: {"type": "http", "scheme": "bearer"}}
    schemas = components.setdefault("schemas", {})
    request = InferenceRequest.model_json_schema(ref_template=_REFERENCES)
    schemas |= request.pop("$defs") | {InferenceRequest.__name__: request}
    models = list(served.values())
    schemas["Invocation"] = _invocation(models[0].schema if models else None)
    named = [{"title": model.name} | _invocation(model.schema) for model in models]
    schemas["NamedInvocation"] = {"anyOf": named} if len(models) > 1 else _ref("Invocation")
    # FastAPI has nothing to validate here: the endpoints take any name, and respond with 404.
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            if "{name}" not in path:
                operation["responses"].pop("404", None)
            _fill_in(operation, models if "{name}" in path else models[:1], path)
    return document


def _fill_in(operation: dict[str, Any], models: list[LoadedModel], path: str) -> None:
    for parameter in operation.get("parameters", ()):
        known = {
            "name": [model.name for model in models],
            "version": sorted({str(model.version.number) for model in models}),
        }.get(parameter["name"])
        if known and parameter["in"] == "path":
            parameter["schema"] = parameter["schema"] | {"enum": known}
    if "requestBody" not in operation:
        return
    content = operation["requestBody"]["content"]
    is_inference = path.endswith("/infer")
    if "{name}" in path and not is_inference:
        content[JSON]["schema"] = _ref("NamedInvocation")
    for model in models:
        title = f"{model.name}: " if len(models) > 1 else ""
        for kind, bodies in (_inferences(model) if is_inference else _invocations(model)).items():
            content[kind].setdefault("examples", {}).update(
                {f"{title}{name}": {"value": value} for name, value in bodies.items()}
            )


def _invocation(schema: Schema | None) -> dict[str, Any]:
    """Return the schema of MLflow's bodies for a model, or for any model."""
    params = {scoring.PARAMS: {"type": ["object", "null"], "maxProperties": 0}}

    def of(properties: Mapping[str, Any], *required: str) -> dict[str, Any]:
        return {"type": "object", "properties": dict(properties), "required": list(required)}

    def rows(items: Mapping[str, Any]) -> dict[str, Any]:
        return {"type": "array", "minItems": 1, "items": dict(items)}

    columns = schema.columns if schema is not None else ()
    required = [column.name for column in columns if column.required]
    records = rows(of({column.name: _value(column) for column in columns}, *required))
    by_column = of(
        {
            column.name: {"anyOf": [{"type": "array", "items": _value(column)}, _value(column)]}
            for column in columns
        },
        *required,
    )
    names = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
    forms = {
        scoring.SPLIT: of({"columns": names, "data": rows({"type": "array"})}, "data"),
        scoring.RECORDS: records,
        scoring.INSTANCES: records,
        scoring.INPUTS: {"anyOf": [by_column, records]},
    }
    if schema is not None and schema.tensor is not None:
        forms = {scoring.INSTANCES: rows({}), scoring.INPUTS: rows({})}
    return {"oneOf": [of({form: content} | params, form) for form, content in forms.items()]}


def _value(column: Column) -> dict[str, Any]:
    described = KINDS[column.type].json_schema
    return {**described} if column.required else {**described, "type": [described["type"], "null"]}


def _invocations(model: LoadedModel) -> dict[str, dict[str, Any]]:
    """Return examples of MLflow's bodies, by content type and form."""
    values = _json_values(model.example)
    if model.schema.tensor is not None:
        return {JSON: {scoring.INSTANCES: {scoring.INSTANCES: values[UNNAMED]}}}
    rows = [list(row) for row in zip(*values.values(), strict=True)]
    records = [dict(zip(values, row, strict=True)) for row in rows]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([values, *rows])
    forms = {
        scoring.SPLIT: {"columns": list(values), "data": rows},
        scoring.RECORDS: records,
        scoring.INSTANCES: records,
        scoring.INPUTS: values,
    }
    return {
        JSON: {form: {form: content} for form, content in forms.items()},
        scoring.CSV: {"csv": text.getvalue()},
    }


def _inferences(model: LoadedModel) -> dict[str, dict[str, Any]]:
    """Return examples of bodies of the Open Inference Protocol."""
    values = _json_values(model.example)
    tensors = []
    for tensor in open_inference.model_metadata(model)["inputs"]:
        name = UNNAMED if model.schema.tensor is not None else tensor["name"]
        shape = [len(values[name]), *model.example.columns[name].shape[1:]]
        tensors.append(
            {"name": tensor["name"], "shape": shape, "datatype": tensor["datatype"], "data": values[name]}
        )
    return {JSON: {"inputs": {"inputs": tensors}}}


def _json_values(example: Rows) -> dict[str, list[Any]]:
    """Return the first rows of an example as a client sends them."""
    columns = {name: plain(values[:EXAMPLE_ROWS]) for name, values in example.columns.items()}
    return orjson.loads(orjson.dumps(columns, default=as_json, option=orjson.OPT_SERIALIZE_NUMPY))
