"""What the OpenAPI document says that FastAPI cannot see: bodies, answers, errors. Endpoints are in app.py.

The endpoints read bodies themselves, in whatever columns the model has that answers now; `with_examples`
puts these columns into the document, and rows to try it out with.
"""

import base64
import copy
import csv
import io
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastapi.responses import PlainTextResponse

from ledgerline.serving import open_inference, scoring
from ledgerline.serving.open_inference import DATATYPES, DATATYPES_OF, INPUT
from ledgerline.serving.rows import UNNAMED, Rows
from ledgerline.serving.schema import Column, Schema

if TYPE_CHECKING:
    from ledgerline.serving.loaded import LoadedModel

EXAMPLE_ROWS = 2

TOKEN = "token"  # noqa: S105 (the name of a kind of security in the document)
# Whether tokens are asked for is a setting; without one they are not.
GUARDED: dict[str, Any] = {"security": [{}, {TOKEN: []}]}

_METHODS = ("get", "post")
# What MLflow answers as JSON, and is none.
_NO_JSON = ("/ping", "/health", "/version")


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: Mapping[str, Any], required: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties)} | (
        {"required": list(required)} if required else {}
    )


def _list_of(items: Mapping[str, Any], **limits: int) -> dict[str, Any]:
    return {"type": "array", "items": dict(items), **limits}


def _answer(description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {scoring.JSON: {"schema": dict(schema)}}}


TEXT: dict[str, Any] = {"type": "string"}
WHOLE: dict[str, Any] = {"type": "integer"}

# Why there is no answer. By status; the words are the same in both protocols, the form is not.
BAD_ROWS = "The body, or a row in it, is not what the model takes."
NO_TOKEN = "No token, or an unknown one."  # noqa: S105
NOT_HERE = "No such model, or another version of it, answers here."
NOBODY = "No version answers yet, or the one that does fails whatever it is asked."
REFUSALS = {
    400: BAD_ROWS,
    401: NO_TOKEN,
    404: NOT_HERE,
    408: "The body did not come in time.",
    413: "The body is too large, or has too many rows.",
    429: "Too many requests are being answered already.",
    503: NOBODY,
    504: "There was no answer in time.",
}
WRONG_TYPE = {415: "The body is of a type, or an encoding, that is not read."}


def _refusals(texts: Mapping[int, str], schema: str) -> dict[int | str, dict[str, Any]]:
    return {status: _answer(text, _ref(schema)) for status, text in texts.items()}


def _body(content: Mapping[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": dict(content)}}


INVOCATIONS: dict[str, Any] = {
    "openapi_extra": GUARDED
    | _body({scoring.JSON: {"schema": _ref("Invocation")}, scoring.CSV: {"schema": TEXT}}),
    "responses": {200: _answer("What the model says, by row.", _ref("Predictions"))}
    | _refusals(REFUSALS | WRONG_TYPE, "Error"),
}
INFER: dict[str, Any] = {
    "openapi_extra": GUARDED | _body({scoring.JSON: {"schema": _ref("InferenceRequest")}}),
    "responses": {200: _answer("What the model says.", _ref("InferenceResponse"))}
    | _refusals(REFUSALS | {415: "The body is in an encoding that is not read."}, "InferenceError"),
}
PING: dict[str, Any] = {"responses": {503: {"description": "No version answers yet."}}}
VERSION: dict[str, Any] = {}
READY: dict[str, Any] = {
    "responses": {
        200: _answer(
            "All models in production answer.",
            _object({"ready": {"type": "boolean"}}, ("ready",)),
        ),
        503: _answer(
            "One does not answer, or none is in production.",
            _object({"ready": {"type": "boolean"}}, ("ready",)),
        ),
    }
}
MODEL_READY: dict[str, Any] = {
    "responses": {
        200: _answer("It answers.", _ref("ModelReady")),
        404: _answer(NOT_HERE, _ref("InferenceError")),
        503: _answer("It does not answer yet.", _ref("ModelReady")),
    }
}
SERVER: dict[str, Any] = {
    "openapi_extra": GUARDED,
    "responses": {200: _answer("What this is.", _ref("ServerMetadata"))}
    | _refusals({401: NO_TOKEN}, "InferenceError"),
}
METADATA: dict[str, Any] = {
    "openapi_extra": GUARDED,
    "responses": {200: _answer("Its tensors.", _ref("ModelMetadata"))}
    | _refusals({401: NO_TOKEN, 404: NOT_HERE, 503: "No version answers yet."}, "InferenceError"),
}
MODEL: dict[str, Any] = {
    "openapi_extra": GUARDED,
    "responses": {200: _answer("Who answers, and where it came from.", {"type": "object"})}
    | _refusals({401: NO_TOKEN, 404: NOT_HERE}, "Error"),
}
MODELS: dict[str, Any] = {
    "openapi_extra": GUARDED,
    "responses": {200: _answer("Each model.", _list_of({"type": "object"}))}
    | _refusals({401: NO_TOKEN}, "Error"),
}
METRICS: dict[str, Any] = {
    "openapi_extra": GUARDED,
    "response_class": PlainTextResponse,
    "responses": {200: {"description": "In the format of Prometheus."}} | _refusals({401: NO_TOKEN}, "Error"),
}

_PARAMETERS = {"type": ["object", "null"]}
_TENSOR = {
    "name": TEXT,
    "shape": _list_of({"type": "integer", "minimum": 0}),
    "datatype": {"enum": [*DATATYPES]},
}
_METADATA = _object(
    _TENSOR | {"shape": _list_of({"type": "integer", "minimum": -1})}, ("name", "datatype", "shape")
)

SCHEMAS: dict[str, Any] = {
    "Predictions": _object({"predictions": {"type": "array"}}, ("predictions",)),
    "Error": _object(
        {
            "error_code": TEXT,
            "message": TEXT,
            "problems": _list_of(_ref("Problem")),
        },
        ("error_code", "message"),
    )
    | {"description": "Why there is no answer, as MLflow says it."},
    "Problem": _object(
        {"row": {"type": ["integer", "null"]}, "column": {"type": ["string", "null"]}, "text": TEXT},
        ("row", "column", "text"),
    )
    | {"description": "What is wrong, in which row (the first is 0) and column."},
    "InferenceRequest": _object(
        {
            "id": {"type": ["string", "null"]},
            "parameters": _PARAMETERS,
            "inputs": _list_of(_ref("RequestTensor"), minItems=1),
            "outputs": {"type": ["array", "null"], "items": _ref("RequestedOutput")},
        },
        ("inputs",),
    ),
    "RequestTensor": _object(
        _TENSOR
        | {
            "parameters": _PARAMETERS,
            "data": {"type": "array", "description": "By row; flat or nested. null is a missing value."},
        },
        ("name", "shape", "datatype", "data"),
    ),
    "RequestedOutput": _object({"name": TEXT, "parameters": _PARAMETERS}, ("name",)),
    "InferenceResponse": _object(
        {
            "model_name": TEXT,
            "model_version": TEXT,
            "id": TEXT,
            "outputs": _list_of(
                _object(_TENSOR | {"data": {"type": "array"}}, ("name", "shape", "datatype", "data"))
            ),
        },
        ("model_name", "model_version", "outputs"),
    ),
    "InferenceError": _object({"error": TEXT}, ("error",)),
    "ModelReady": _object({"name": TEXT, "ready": {"type": "boolean"}}, ("name", "ready")),
    "ServerMetadata": _object(
        {"name": TEXT, "version": TEXT, "extensions": _list_of(TEXT)}, ("name", "version", "extensions")
    ),
    "ModelMetadata": _object(
        {
            "name": TEXT,
            "versions": _list_of(TEXT),
            "platform": TEXT,
            "inputs": _list_of(_METADATA),
            "outputs": _list_of(_METADATA),
        },
        ("name", "platform", "inputs", "outputs"),
    ),
}

_TYPES: dict[str, dict[str, Any]] = {
    "double": {"type": "number"},
    "float": {"type": "number"},
    "long": {"type": "integer"},
    "integer": {"type": "integer"},
    "boolean": {"type": "boolean"},
    "string": {"type": "string"},
    "binary": {"type": "string", "contentEncoding": "base64"},
    "datetime": {"type": "string", "description": "A moment like 2026-01-31T12:00:00; without a zone UTC."},
}


def with_examples(document: Mapping[str, Any], served: Mapping[str, "LoadedModel"]) -> dict[str, Any]:
    """The document, with what the models take that answer now.

    Args:
        document: As FastAPI makes it; it stays as it is.
        served: The models that answer, by name; the first answers where none is named.
    """
    found = copy.deepcopy(dict(document))
    components = found.setdefault("components", {})
    components["securitySchemes"] = {TOKEN: {"type": "http", "scheme": "bearer"}}
    schemas = components.setdefault("schemas", {})
    schemas |= SCHEMAS
    models = list(served.values())
    schemas["Invocation"] = _invocation(models[0].schema if models else None)
    schemas["NamedInvocation"] = (
        {"anyOf": [{"title": model.name} | _invocation(model.schema) for model in models]}
        if len(models) > 1
        else _ref("Invocation")
    )
    # The endpoints take what FastAPI would check as it comes, and say 404.
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for path, operations in found["paths"].items():
        for operation in (operations[method] for method in _METHODS if method in operations):
            operation["responses"].pop("422", None)
            if "{name}" not in path:
                operation["responses"].pop("404", None)
            if path in _NO_JSON:
                operation["responses"]["200"].pop("content", None)
            _fill_in(operation, models if "{name}" in path else models[:1], path)
    return found


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
    inference = path.endswith("/infer")
    if "{name}" in path and not inference:
        content[scoring.JSON]["schema"] = _ref("NamedInvocation")
    for model in models:
        title = f"{model.name}: " if len(models) > 1 else ""
        found = _inferences(model) if inference else _invocations(model)
        for kind, bodies in found.items():
            content[kind].setdefault("examples", {}).update(
                {f"{title}{name}": {"value": value} for name, value in bodies.items()}
            )


def _invocation(schema: Schema | None) -> dict[str, Any]:
    """The bodies of MLflow's protocol for a model; without one, for any."""
    params = {scoring.PARAMS: {"type": ["object", "null"], "maxProperties": 0}}

    def one(form: str, content: Mapping[str, Any]) -> dict[str, Any]:
        return _object({form: content} | params, (form,))

    if schema is not None and schema.tensor is not None:
        array = {"type": "array", "minItems": 1}
        return {"oneOf": [one(scoring.INSTANCES, array), one(scoring.INPUTS, array)]}
    columns = schema.columns if schema is not None else ()
    record = _object(
        {column.name: _value(column) for column in columns},
        tuple(column.name for column in columns if column.required),
    )
    records = _list_of(record, minItems=1)
    split = _object(
        {"columns": _list_of(TEXT, uniqueItems=True), "data": _list_of({"type": "array"}, minItems=1)},
        ("data",),
    )
    by_column = _object(
        {column.name: {"anyOf": [_list_of(_value(column)), _value(column)]} for column in columns},
        tuple(column.name for column in columns if column.required),
    )
    return {
        "oneOf": [
            one(scoring.SPLIT, split),
            one(scoring.RECORDS, records),
            one(scoring.INSTANCES, records),
            one(scoring.INPUTS, {"anyOf": [by_column, records]}),
        ]
    }


def _value(column: Column) -> dict[str, Any]:
    described = dict(_TYPES[column.type])
    if not column.required:
        described["type"] = [described["type"], "null"]
    return described


def _invocations(model: "LoadedModel") -> dict[str, dict[str, Any]]:
    """Bodies of MLflow's protocol that the model answers, by type of content and by form."""
    rows = model.example.part(0, min(EXAMPLE_ROWS, model.example.count))
    values = _json_values(rows)
    if model.schema.tensor is not None:
        array = values[UNNAMED]
        return {scoring.JSON: {scoring.INSTANCES: {scoring.INSTANCES: array}}}
    records = [dict(zip(values, record, strict=True)) for record in zip(*values.values(), strict=True)]
    split = {"columns": list(values), "data": [list(record.values()) for record in records]}
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([values, *split["data"]])
    return {
        scoring.JSON: {
            scoring.SPLIT: {scoring.SPLIT: split},
            scoring.RECORDS: {scoring.RECORDS: records},
            scoring.INSTANCES: {scoring.INSTANCES: records},
            scoring.INPUTS: {scoring.INPUTS: values},
        },
        scoring.CSV: {"csv": text.getvalue()},
    }


def _inferences(model: "LoadedModel") -> dict[str, dict[str, Any]]:
    """Bodies of the Open Inference Protocol that the model answers."""
    rows = model.example.part(0, min(EXAMPLE_ROWS, model.example.count))
    values = _json_values(rows)
    if model.schema.tensor is not None:
        array = rows.columns[UNNAMED]
        datatype = open_inference.model_metadata(model)["inputs"][0]["datatype"]
        tensors = [{"name": INPUT, "shape": list(array.shape), "datatype": datatype, "data": values[UNNAMED]}]
    else:
        tensors = [
            {
                "name": column.name,
                "shape": [rows.count],
                "datatype": DATATYPES_OF[column.type][0],
                "data": values[column.name],
            }
            for column in model.schema.columns
        ]
    return {scoring.JSON: {"inputs": {"inputs": tensors}}}


def _json_values(rows: Rows) -> dict[str, list[Any]]:
    """The rows as a client would send them."""
    return {
        name: [_json_value(value) for value in scoring.plain(array)] for name, array in rows.columns.items()
    }


def _json_value(value: Any) -> Any:
    if isinstance(value, list):
        return [_json_value(one) for one in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return None if isinstance(value, float) and not math.isfinite(value) else value
