"""Reads JSON bodies into the structures of protocol_types.py, and writes values and errors as JSON."""

import base64
import json
import math
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import orjson
import pandas as pd
from fastapi import Response
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ledgerline.serving.protocol_types import Error
from ledgerline.serving.request_errors import (
    BodyRefusedError,
    Problem,
    RequestError,
    RowsRefusedError,
    TooManyRowsError,
    abbreviated,
)

JSON = "application/json"

# MLflow's error codes for HTTP statuses; BAD_REQUEST is that of all others.
ERROR_CODES = {
    401: "UNAUTHENTICATED",
    404: "RESOURCE_DOES_NOT_EXIST",
    405: "ENDPOINT_NOT_FOUND",
    429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "TEMPORARILY_UNAVAILABLE",
}

Structure = TypeVar("Structure", bound=BaseModel)

# Pydantic's messages use the names of Python's types, so these texts replace them.
_EXPECTED = {
    "model_type": "an object",
    "dict_type": "an object",
    "list_type": "a list",
    "is_instance_of": "a list",
    "string_type": "a string",
    "int_type": "an integer",
    "too_short": "a list with at least one item",
}


def parsed(body: bytes) -> Any:
    """Return the content of a JSON body; NaN and Infinity are accepted, because clients in Python write them.

    Raises:
        BodyRefusedError: The body is not JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        text = body.decode("utf-8-sig")  # a byte order mark is allowed, as in CSV
        content = json.loads(text, parse_float=_finite)
        if "\\u" in text:
            # JSON can escape half of a surrogate pair, which no response could repeat.
            json.dumps(content, ensure_ascii=False).encode()
        return content
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError, too
        raise BodyRefusedError(f"The body is not JSON: {error}.") from None


def _finite(text: str) -> float:
    """Read a number, and refuse one that would become infinite."""
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"no float can hold {text[:40]}")
    return number


def checked(structure: type[Structure], content: Any, remedy: str, path: str = "") -> Structure:
    """Return parsed JSON as a typed structure; `remedy` and the path in the body are for the message.

    Raises:
        BodyRefusedError: The content is not of this structure.
        RowsRefusedError: A tensor does not have the structure; the problem names the tensor.
    """
    try:
        return structure.model_validate(content)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)[0]
        match details["loc"]:
            case ("inputs", int() as number, _, *_):
                name = content["inputs"][number].get("name")
                if isinstance(name, str):
                    raise RowsRefusedError([Problem(_message(details, path), column=name)]) from None
        raise BodyRefusedError(f"{_message(details, path)}.", remedy) from None


def _message(details: ErrorDetails, path: str) -> str:
    """Return the problem with a value, and its path."""
    path += "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in details["loc"])
    subject = path.lstrip(".") or "The body"
    if details["type"] == "missing":
        return f"{subject} is missing"
    if details["type"] == "value_error":
        return f"{subject}: {details['msg'].removeprefix('Value error, ')}"
    expected = _EXPECTED.get(details["type"]) or details["msg"].removeprefix("Input should be ")
    return f"{subject} is {abbreviated(details['input'])}; it should be {expected}"


def require_rows(count: int, max_rows: int) -> None:
    """Make sure that a request has rows, and not too many.

    Raises:
        BodyRefusedError: The request has no rows.
        TooManyRowsError: The request has more than `max_rows` rows.
    """
    if count == 0:
        raise BodyRefusedError("The body has no rows.")
    if count > max_rows:
        raise TooManyRowsError(f"The body has {count} rows.", f"Send at most {max_rows} at once.")


def plain(values: NDArray[Any]) -> list[Any]:
    """Return an array as lists; datetimes become strings, and missing datetimes become None."""
    if values.dtype.kind != "M":
        return values.tolist()
    texts = [as_json(moment) for moment in pd.DatetimeIndex(values.reshape(-1))]
    return np.array(texts, dtype="object").reshape(values.shape).tolist()


def as_json(value: Any) -> Any:
    """Convert an output of a model that orjson cannot write."""
    if value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a value as a response."""
    return Response(orjson.dumps(content), status, headers, JSON)


def error_response(path: str, error: RequestError) -> Response:
    """Return an error in the form of the protocol that the path of the request belongs to."""
    if path.startswith("/v2"):
        return json_response({"error": str(error)}, error.status, error.headers)
    content: Error = {"error_code": ERROR_CODES.get(error.status, "BAD_REQUEST"), "message": str(error)}
    if error.problems:
        content["problems"] = list(error.problems)
    return json_response(content, error.status, error.headers)
