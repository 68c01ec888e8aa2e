"""Converts bodies of the Open Inference Protocol to rows, and predictions to bodies. schema.py checks values.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
Tensors are JSON; the extension for binary tensors is not supported.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, get_args

import numpy as np
import orjson
import pandas as pd
from mlflow.models import ModelSignature
from numpy.typing import NDArray

from ledgerline.mlflow_store.stored_model import PYFUNC
from ledgerline.serving.json_bodies import as_json, checked, parsed, plain, require_rows
from ledgerline.serving.loaded import LoadedModel
from ledgerline.serving.protocol_types import (
    NO_BINARY,
    DatatypeName,
    FloatName,
    InferenceRequest,
    InferenceResponse,
    IntegerName,
    ModelMetadata,
    RequestTensor,
    Tensor,
    TensorMetadata,
)
from ledgerline.serving.request_errors import BodyRefusedError, Problem, RowsRefusedError, abbreviated
from ledgerline.serving.rows import UNNAMED, Rows
from ledgerline.serving.schema import Column, Schema

# Names of tensors that have no name in the signature.
INPUT, PREDICTIONS = "inputs", "predictions"

# The header of a request whose tensors follow the JSON as bytes.
BINARY_HEADER = "Inference-Header-Content-Length"

FORM = "Send a JSON object whose inputs are tensors with name, shape, datatype and data."


@dataclass(frozen=True)
class Datatype:
    """A datatype of the protocol: the Python types of its values in parsed JSON, and limits of integers."""

    accepted: frozenset[type]
    expected: str
    limits: tuple[int, int] | None = None

    def accepts(self, value: Any) -> bool:
        """Return whether a value is of this datatype."""
        if type(value) not in self.accepted:
            return False
        return self.limits is None or self.limits[0] <= value <= self.limits[1]


def _integer(name: str) -> Datatype:
    low, high = np.iinfo(name.lower()).min, np.iinfo(name.lower()).max
    return Datatype(frozenset({int}), f"an integer between {low} and {high}", (low, high))


INTEGERS: tuple[IntegerName, ...] = get_args(IntegerName)
FLOATS: tuple[FloatName, ...] = get_args(FloatName)
DATATYPES: dict[DatatypeName, Datatype] = {
    "BOOL": Datatype(frozenset({bool}), "true or false"),
    **{name: _integer(name) for name in INTEGERS},
    **dict.fromkeys(FLOATS, Datatype(frozenset({float, int}), "a number")),
    "BYTES": Datatype(frozenset({str}), "a string"),
}

# Datatypes that fit MLflow's column types; the first is the one that metadata report.
DATATYPES_OF: dict[str, tuple[DatatypeName, ...]] = {
    "double": ("FP64", *FLOATS, *INTEGERS),
    "float": ("FP32", *FLOATS, *INTEGERS),
    "long": ("INT64", *INTEGERS),
    "integer": ("INT32", *INTEGERS),
    "boolean": ("BOOL",),
    "string": ("BYTES",),
    "binary": ("BYTES",),
    "datetime": ("BYTES",),
}
# MLServer's content types of BYTES tensors that are more than strings.
CONTENT_TYPES = {"binary": "base64", "datetime": "datetime"}

# Datatypes of numpy's types; all others become BYTES.
_OF_NUMPY: dict[str, DatatypeName] = {
    "bool": "BOOL",
    **{name.lower(): name for name in INTEGERS},
    **{name.lower().replace("fp", "float"): name for name in FLOATS},
}


@dataclass(frozen=True)
class Inference:
    """A parsed request.

    Attributes:
        id: Id that the response repeats.
        outputs: Names of the requested outputs; empty for all.
        unknown: Names of tensors that the model does not take.
    """

    rows: Rows
    id: str | None
    outputs: tuple[str, ...]
    unknown: list[str]


def inference_of(body: bytes, schema: Schema, max_rows: int) -> Inference:
    """Parse a request.

    A model with columns takes a tensor for each, of shape [rows] or [rows, 1]. A model of one array takes one
    tensor of any name. A null in the data is a missing value.

    Raises:
        BodyRefusedError: The body does not follow the protocol.
        RowsRefusedError: The rows do not fit the schema; the problems name tensors as columns.
        TooManyRowsError: There are more than `max_rows` rows.

    Example:
        >>> from ledgerline.serving.schema import Column
        >>> schema = Schema((Column("hour", "long", required=True),))
        >>> body = b'{"inputs": [{"name": "hour", "shape": [2], "datatype": "INT64", "data": [7, 22]}]}'
        >>> inference_of(body, schema, max_rows=1000).rows
        Rows(columns={'hour': array([ 7, 22])}, count=2)
    """
    request = checked(InferenceRequest, parsed(body), FORM)
    names = [tensor.name for tensor in request.inputs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise RowsRefusedError([Problem("the tensor occurs twice", column=twice)])
    first = request.inputs[0]
    count = first.rows
    for tensor in request.inputs:
        if tensor.rows != count:
            raise _refusal(tensor, f"it has {tensor.rows} rows, {first.name} has {count}")
    require_rows(count, max_rows)
    # An output that is requested twice is returned once.
    outputs = tuple(dict.fromkeys(output.name for output in request.outputs or ()))
    if schema.tensor is not None:
        return Inference(_array_rows(request.inputs, schema), request.id, outputs, [])
    rows = _column_rows(request.inputs, schema, count)
    return Inference(rows, request.id, outputs, schema.unknown(names))


def require_outputs(inference: Inference, names: Iterable[str]) -> None:
    """Make sure that the model has the requested outputs.

    Raises:
        BodyRefusedError: The model lacks one of them.
    """
    known = tuple(names)
    for output in inference.outputs:
        if output not in known:
            raise BodyRefusedError(
                f"The model has no output {abbreviated(output)}; it has {', '.join(known)}."
            )


def require_no_binary(headers: Mapping[str, str]) -> None:
    """Make sure that no tensors follow the JSON of a body.

    Raises:
        BodyRefusedError: Tensors follow the JSON.
    """
    if BINARY_HEADER in headers:
        raise BodyRefusedError(f"{NO_BINARY[0].upper()}{NO_BINARY[1:]}.")


def response_body(outputs: Rows, model: str, version: int, inference: Inference) -> bytes:
    """Return a prediction as the body of a response; NaN and infinity become null.

    Raises:
        BodyRefusedError: The prediction lacks a requested output.
    """
    named = {name if name != UNNAMED else PREDICTIONS: values for name, values in outputs.columns.items()}
    if len(named) == 1 and len(inference.outputs) == 1:
        # Some models return an array without a name, whatever name the signature has for it.
        named = dict.fromkeys(inference.outputs, next(iter(named.values())))
    require_outputs(inference, named)
    content: InferenceResponse = {
        "model_name": model,
        "model_version": str(version),
        "outputs": [_tensor(name, named[name]) for name in inference.outputs or named],
    }
    if inference.id is not None:
        content["id"] = inference.id
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def model_metadata(loaded: LoadedModel) -> ModelMetadata:
    """Return the inputs and outputs of a model."""
    schema, flavour = loaded.schema, loaded.model.flavour
    if schema.tensor is not None:
        inputs = [_metadata(INPUT, _OF_NUMPY.get(schema.tensor.dtype, "BYTES"), schema.tensor.shape)]
    else:
        inputs = [_column_metadata(column) for column in schema.columns]
    return {
        "name": loaded.name,
        "versions": [str(loaded.version.number)],
        "platform": f"mlflow_{'pyfunc' if flavour == PYFUNC else flavour}",
        "inputs": inputs,
        "outputs": _outputs(loaded.signature),
    }


def output_names(signature: ModelSignature) -> tuple[str, ...]:
    """Return the names of a model's outputs."""
    return tuple(output["name"] for output in _outputs(signature))


def _refusal(tensor: RequestTensor, text: str, row: int | None = None) -> RowsRefusedError:
    return RowsRefusedError([Problem(text, row, tensor.name)])


def _values(tensor: RequestTensor) -> list[Any]:
    """Return the values of a tensor as a flat list in row-major order.

    Raises:
        RowsRefusedError: The data do not fit the tensor's shape.
    """
    data, shape = tensor.data, tensor.shape
    if not (data and isinstance(data[0], list)):
        needed = math.prod(shape)
        if len(data) != needed:
            raise _refusal(tensor, f"it has {len(data)} values, its shape {shape} needs {needed}")
        return data
    if len(data) != shape[0]:
        raise _refusal(tensor, f"it has {len(data)} rows, its shape {shape} needs {shape[0]}")
    for length in shape[1:]:
        for number, part in enumerate(data):
            if not isinstance(part, list) or len(part) != length:
                row = number * shape[0] // len(data)
                raise _refusal(tensor, f"its data are not of its shape {shape}", row)
        data = list(chain.from_iterable(data))
    return data


def _problems(tensor: RequestTensor, values: Sequence[Any]) -> list[Problem]:
    """Return the problems of values that are not of the tensor's datatype."""
    datatype = DATATYPES[tensor.datatype]
    if set(map(type, values)) <= datatype.accepted:
        if datatype.limits is None or not values:
            return []
        if datatype.limits[0] <= min(values) and max(values) <= datatype.limits[1]:
            return []
    values_by_row = len(values) // tensor.rows
    return [
        Problem(
            f"{abbreviated(value)} is not {datatype.expected}, its datatype is {tensor.datatype}",
            number // values_by_row,
            tensor.name,
        )
        for number, value in enumerate(values)
        if value is not None and not datatype.accepts(value)
    ]


def _column_rows(tensors: Sequence[RequestTensor], schema: Schema, count: int) -> Rows:
    columns = {column.name: column for column in schema.columns}
    values: dict[str, Sequence[Any]] = {}
    problems: list[Problem] = []
    for tensor in tensors:
        column = columns.get(tensor.name)
        if column is None:
            continue
        if len(tensor.shape) > 2 or tensor.shape[1:] not in ([], [1]):
            raise _refusal(tensor, f"its shape is {tensor.shape}; a column has [rows] or [rows, 1]")
        fitting = DATATYPES_OF[column.type]
        if tensor.datatype not in fitting:
            text = f"its datatype is {tensor.datatype}, the model takes {column.type}: send {fitting[0]}"
            raise _refusal(tensor, text)
        values[tensor.name] = _values(tensor)
        problems += _problems(tensor, values[tensor.name])
    if problems:
        raise RowsRefusedError(sorted(problems, key=lambda problem: problem.row or 0))
    return schema.rows(values, count)


def _array_rows(tensors: Sequence[RequestTensor], schema: Schema) -> Rows:
    assert schema.tensor is not None  # noqa: S101 (the caller has checked it)
    if len(tensors) > 1:
        raise BodyRefusedError(f"The model takes one tensor; the body has {len(tensors)}.")
    tensor = tensors[0]
    if len(tensor.shape) != len(schema.tensor.shape):
        raise _refusal(tensor, f"its shape is {tensor.shape}, the model takes {list(schema.tensor.shape)}")
    values = _values(tensor)
    problems = _problems(tensor, values)
    if tensor.datatype not in FLOATS and None in values:
        values_by_row = max(1, len(values) // tensor.rows)
        problems += [
            Problem("a value is required", number // values_by_row, tensor.name)
            for number, value in enumerate(values)
            if value is None
        ]
    if problems:
        raise RowsRefusedError(problems)
    try:
        array = np.array(values, dtype="float64" if tensor.datatype in FLOATS else None)
        return schema.array_rows(array.reshape(tensor.shape), tensor.name)
    except OverflowError:
        raise _refusal(tensor, "it has a number that no float can hold") from None


def _metadata(name: str, datatype: DatatypeName, shape: Iterable[Any]) -> TensorMetadata:
    return {"name": name, "datatype": datatype, "shape": [int(length) for length in shape]}


def _column_metadata(column: Column) -> TensorMetadata:
    metadata = _metadata(column.name, DATATYPES_OF[column.type][0], [-1])
    parameters: dict[str, Any] = {} if column.required else {"optional": True}
    if column.type in CONTENT_TYPES:
        parameters["content_type"] = CONTENT_TYPES[column.type]
    if parameters:
        metadata["parameters"] = parameters
    return metadata


def _outputs(signature: ModelSignature) -> list[TensorMetadata]:
    outputs: list[TensorMetadata] = []
    output: Any
    for output in signature.outputs.inputs if signature.outputs is not None else []:
        name, type_name = str(output.name) if output.name else PREDICTIONS, getattr(output.type, "name", "")
        if hasattr(output, "shape"):
            outputs.append(_metadata(name, _OF_NUMPY.get(type_name, "BYTES"), output.shape))
        else:
            outputs.append(_metadata(name, DATATYPES_OF.get(type_name, ("BYTES",))[0], [-1]))
    return outputs


def _tensor(name: str, values: NDArray[Any]) -> Tensor:
    flat = values.reshape(-1)
    datatype = _OF_NUMPY.get(flat.dtype.name)
    data: Any
    if datatype is not None:
        # orjson writes arrays in the byte order of the processor.
        data = np.ascontiguousarray(flat, dtype=flat.dtype.newbyteorder("="))
    else:
        data = [None if gone else value for value, gone in zip(plain(flat), pd.isna(flat), strict=True)]
        datatype = _datatype_of(data)
        if datatype == "BYTES":
            data = [
                value
                if value is None or isinstance(value, str)
                else orjson.dumps(value, default=as_json, option=orjson.OPT_SERIALIZE_NUMPY).decode()
                for value in data
            ]
    return {"name": name, "datatype": datatype, "shape": list(values.shape), "data": data}


def _datatype_of(values: Iterable[Any]) -> DatatypeName:
    """Return the datatype of values that numpy stores as objects, such as integers with missing values."""
    types = set(map(type, values)) - {type(None)}
    names: tuple[DatatypeName, ...] = ("BOOL", "INT64", "FP64")
    for name in names:
        if types and types <= DATATYPES[name].accepted:
            return name
    return "BYTES"
