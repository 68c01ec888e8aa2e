"""The parts of the OpenAPI document that FastAPI cannot derive: statuses, and the bodies that a model takes.

app.py has the endpoints, and protocol_types.py declares the bodies. The endpoints read bodies themselves,
because the columns are those of the active version; `with_examples` adds these columns and example rows to
the document.
"""

import base64
import copy
import csv
import io
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastapi.responses import PlainTextResponse, Response

from ledgerline.serving import open_inference, scoring
from ledgerline.serving.json_bodies import plain
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

if TYPE_CHECKING:
    from ledgerline.serving.loaded import LoadedModel

EXAMPLE_ROWS = 2

TOKEN = "token"  # noqa: S105 (the name of a security scheme in the document)
# A setting decides whether tokens are required; the first alternative is a request without one.
GUARDED: dict[str, Any] = {"security": [{}, {TOKEN: []}]}

_METHODS = ("get", "post")
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


def _body(content: Mapping[str, Any]) -> dict[str, Any]:
    return GUARDED | {
        "requestBody": {"required": True, "content": {kind: {"schema": one} for kind, one in content.items()}}
    }


INVOCATIONS: dict[str, Any] = {
    "openapi_extra": _body({scoring.JSON: _ref("Invocation"), scoring.CSV: {"type": "string"}}),
    "responses": _responses({200: "The prediction, by row."}, Predictions) | _responses(REFUSALS, Error),
}
INFER: dict[str, Any] = {
    "openapi_extra": _body({scoring.JSON: _ref(InferenceRequest.__name__)}),
    "responses": _responses({200: "The prediction."}, InferenceResponse)
    | _responses(REFUSALS, InferenceError),
}
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
SERVER: dict[str, Any] = {"openapi_extra": GUARDED, "responses": _responses(NO_TOKEN, InferenceError)}
METADATA: dict[str, Any] = {
    "openapi_extra": GUARDED,
    "responses": _responses(NO_TOKEN | NOT_SERVED | NOT_ACTIVE, InferenceError),
}
MODEL: dict[str, Any] = {
    "openapi_extra": GUARDED,
    "responses": _responses({200: "The active version and its training run."}, dict[str, Any])
    | _responses(NO_TOKEN | NOT_SERVED, Error),
}
MODELS: dict[str, Any] = {
    "openapi_extra": GUARDED,
    "responses": _responses({200: "The models."}, list[dict[str, Any]]) | _responses(NO_TOKEN, Error),
}
METRICS: dict[str, Any] = {
    "openapi_extra": GUARDED,
    "response_class": PlainTextResponse,
    "responses": {200: {"description": "The metrics in the format of Prometheus."}}
    | _responses(NO_TOKEN, Error),
}


def with_examples(document: Mapping[str, Any], served: Mapping[str, "LoadedModel"]) -> dict[str, Any]:
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
    schemas["NamedInvocation"] = (
        {"anyOf": [{"title": model.name} | _invocation(model.schema) for model in models]}
        if len(models) > 1
        else _ref("Invocation")
    )
    # FastAPI has nothing to validate here: the endpoints take any name, and respond with 404.
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for path, operations in document["paths"].items():
        for operation in (operations[method] for method in _METHODS if method in operations):
            operation["responses"].pop("422", None)
            if "{name}" not in path:
                operation["responses"].pop("404", None)
            _fill_in(operation, models if "{name}" in path else models[:1], path)
    return document


def _fill_in(operation: dict[str, Any], models: "list[LoadedModel]", path: str) -> None:
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
        content[scoring.JSON]["schema"] = _ref("NamedInvocation")
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
    described = dict(KINDS[column.type].json_schema)
    if not column.required:
        described["type"] = [described["type"], "null"]
    return described


def _invocations(model: "LoadedModel") -> dict[str, dict[str, Any]]:
    """Return examples of MLflow's bodies, by content type and form."""
    values = _json_values(_example(model))
    if model.schema.tensor is not None:
        return {scoring.JSON: {scoring.INSTANCES: {scoring.INSTANCES: values[UNNAMED]}}}
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
        scoring.JSON: {form: {form: content} for form, content in forms.items()},
        scoring.CSV: {"csv": text.getvalue()},
    }


def _inferences(model: "LoadedModel") -> dict[str, dict[str, Any]]:
    """Return examples of bodies of the Open Inference Protocol."""
    example = _example(model)
    values = _json_values(example)
    tensors = []
    for tensor in open_inference.model_metadata(model)["inputs"]:
        column = UNNAMED if model.schema.tensor is not None else tensor["name"]
        shape = list(example.columns[column].shape)
        tensors.append(
            {"name": tensor["name"], "shape": shape, "datatype": tensor["datatype"], "data": values[column]}
        )
    return {scoring.JSON: {"inputs": {"inputs": tensors}}}


def _example(model: "LoadedModel") -> Rows:
    return model.example.part(0, min(EXAMPLE_ROWS, model.example.count))


def _json_values(rows: Rows) -> dict[str, list[Any]]:
    """Return rows as a client sends them."""
    return {name: [_json_value(value) for value in plain(array)] for name, array in rows.columns.items()}


def _json_value(value: Any) -> Any:
    if isinstance(value, list):
        return [_json_value(one) for one in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return None if isinstance(value, float) and not math.isfinite(value) else value
