"""The Open Inference Protocol: bodies to rows, and what a model said to a body. What rows must be: schema.py.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
Tensors are JSON; the extension that puts them behind the JSON as bytes is not spoken here.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import orjson

from ledgerline.mlflow_store.stored_model import PYFUNC
from ledgerline.serving.rows import UNNAMED, Rows
from ledgerline.serving.schema import Column, Problem, RowsRefusedError, Schema, shown
from ledgerline.serving.scoring import BodyRefusedError, as_json, parsed, plain, require_rows
from ledgerline.settings.version import VERSION

if TYPE_CHECKING:
    from mlflow.models import ModelSignature
    from numpy.typing import NDArray

    from ledgerline.serving.loaded import LoadedModel

# What tensors without a name in the signature are called.
INPUT, PREDICTIONS = "inputs", "predictions"

# The protocol's word for how a model is stored, by MLflow's flavours: mlflow_sklearn, mlflow_onnx ...
PLATFORM, PYFUNC_PLATFORM = "mlflow_", "mlflow_pyfunc"

# The header of a request whose tensors come as bytes behind the JSON, and their parameter in it.
BINARY_HEADER, BINARY_PARAMETER = "Inference-Header-Content-Length", "binary_data_size"
NO_BINARY = "binary tensors are not taken: send their data as JSON (clients call it binary_data=False)"

FORM = "send a JSON object whose inputs are tensors with name, shape, datatype and data"


@dataclass(frozen=True)
class Datatype:
    """A type of the protocol, and the values that are of it.

    Attributes:
        accepted: The types of values, as JSON has them.
        said: What a value should be, for messages.
        between: The lowest and the highest, of whole numbers.
    """

    accepted: frozenset[type]
    said: str
    between: tuple[int, int] | None = None


def _whole(low: int, high: int) -> Datatype:
    return Datatype(frozenset({int}), f"a whole number between {low} and {high}", (low, high))


WHOLE = {f"INT{bits}": _whole(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)} | {
    f"UINT{bits}": _whole(0, 2**bits - 1) for bits in (8, 16, 32, 64)
}
FLOATING = {f"FP{bits}": Datatype(frozenset({float, int}), "a number") for bits in (16, 32, 64)}
DATATYPES = {
    "BOOL": Datatype(frozenset({bool}), "true or false"),
    **WHOLE,
    **FLOATING,
    "BYTES": Datatype(frozenset({str}), "a text"),
}

# By MLflow's names of column types: the one that says it best comes first.
DATATYPES_OF = {
    "double": ("FP64", *FLOATING, *WHOLE),
    "float": ("FP32", *FLOATING, *WHOLE),
    "long": ("INT64", *WHOLE),
    "integer": ("INT32", *WHOLE),
    "boolean": ("BOOL",),
    "string": ("BYTES",),
    "binary": ("BYTES",),
    "datetime": ("BYTES",),
}
# What the text of a BYTES tensor is, in the words of MLServer, where it is not just text.
CONTENT_TYPES = {"binary": "base64", "datetime": "datetime"}

# By numpy's names; what is not here is text.
_OF_NUMPY = {
    "bool": "BOOL",
    **{name.lower(): name for name in WHOLE},
    **{f"float{bits}": f"FP{bits}" for bits in (16, 32, 64)},
}


@dataclass(frozen=True)
class Inference:
    """A request.

    Attributes:
        rows: The rows in it.
        id: What it calls itself, to be said in the answer; None: nothing.
        outputs: The outputs that are asked for; empty: all.
        unknown: Tensors that the model does not know.
    """

    rows: Rows
    id: str | None
    outputs: tuple[str, ...]
    unknown: list[str]


@dataclass(frozen=True)
class _Tensor:
    name: str
    shape: tuple[int, ...]
    datatype: str
    data: list[Any]

    @property
    def count(self) -> int:
        """How many rows it says it has."""
        return self.shape[0] if self.shape else 0

    def problem(self, text: str, row: int | None = None) -> RowsRefusedError:
        return RowsRefusedError([Problem(text, row, self.name)])

    def values(self) -> list[Any]:
        """The values one after another, the last axis first.

        Raises:
            RowsRefusedError: They are not of the shape that it says.
        """
        if self.data and isinstance(self.data[0], list):
            return self._unnested()
        needed = math.prod(self.shape)
        if len(self.data) != needed:
            raise self.problem(f"it has {len(self.data)} values, its shape {list(self.shape)} needs {needed}")
        return self.data

    def _unnested(self) -> list[Any]:
        level = self.data
        if len(level) != self.count:
            raise self.problem(f"it has {len(level)} rows, its shape {list(self.shape)} needs {self.count}")
        for length in self.shape[1:]:
            for number, part in enumerate(level):
                if not isinstance(part, list) or len(part) != length:
                    row = number * self.count // len(level)
                    raise self.problem(f"its data are not of its shape {list(self.shape)}", row)
            level = list(chain.from_iterable(level))
        return level

    def problems(self, values: Sequence[Any]) -> list[Problem]:
        """What is wrong with the values, for the datatype that it says they have."""
        datatype = DATATYPES[self.datatype]
        types = set(map(type, values))
        if types <= datatype.accepted:
            if datatype.between is None or not values:
                return []
            if datatype.between[0] <= min(values) and max(values) <= datatype.between[1]:
                return []
        each = len(values) // self.count
        return [
            Problem(f"{shown(value)} is not {datatype.said}, its datatype is {self.datatype}", row, self.name)
            for row, value in ((number // each, value) for number, value in enumerate(values))
            if value is not None and not _is_of(value, datatype)
        ]


def inference_of(body: bytes, schema: Schema, most_rows: int) -> Inference:
    """What a body asks.

    A model of columns takes a tensor for each, of shape [rows] or [rows, 1]; a model of one array takes one
    tensor, whatever its name. A null among the data is a missing value.

    Args:
        body: As it came.
        schema: What the model takes.
        most_rows: How many rows are accepted.

    Raises:
        BodyRefusedError: It is no JSON of the protocol.
        RowsRefusedError: The rows are not what the model takes; the tensors are its columns.
        TooManyRowsError: There are more.
    """
    content = parsed(body)
    if not isinstance(content, dict):
        raise BodyRefusedError(f"the body is no JSON object: {FORM}")
    _require_parameters(content, "the body")
    identifier = content.get("id")
    if identifier is not None and not isinstance(identifier, str):
        raise BodyRefusedError("the id is no text")
    asked = _list(content["outputs"], "outputs") if content.get("outputs") is not None else []
    # What is asked for twice is answered once.
    outputs = tuple(dict.fromkeys(_name(output, f"output {number}") for number, output in enumerate(asked)))
    tensors = _tensors(_list(content.get("inputs"), "inputs"))
    for tensor in tensors:
        if tensor.count != tensors[0].count:
            raise tensor.problem(f"it has {tensor.count} rows, {tensors[0].name} has {tensors[0].count}")
    require_rows(tensors[0].count, most_rows)
    if schema.tensor is not None:
        return Inference(_array_rows(tensors, schema), identifier, outputs, [])
    rows = _column_rows(tensors, schema)
    return Inference(rows, identifier, outputs, schema.unknown([tensor.name for tensor in tensors]))


def require_outputs(inference: Inference, names: Iterable[str]) -> None:
    """Make sure that the model has the outputs that are asked for.

    Raises:
        BodyRefusedError: It does not.
    """
    known = tuple(names)
    for output in inference.outputs:
        if output not in known:
            raise BodyRefusedError(f"the model has no output {shown(output)}; it has {', '.join(known)}")


def output_names(signature: "ModelSignature") -> tuple[str, ...]:
    """The outputs of a model, by its signature."""
    return tuple(tensor["name"] for tensor in _outputs(signature))


def answer(outputs: Rows, model: str, version: int, inference: Inference) -> bytes:
    """What a model said, as the body of an answer; numbers that are none become null.

    Raises:
        BodyRefusedError: It does not have an output that is asked for.
    """
    named = {name if name != UNNAMED else PREDICTIONS: values for name, values in outputs.columns.items()}
    if len(named) == 1 and len(inference.outputs) == 1:
        # Then it is this one, whatever the signature calls it: some models give an array without a name.
        named = dict.fromkeys(inference.outputs, next(iter(named.values())))
    require_outputs(inference, named)
    content: dict[str, Any] = {
        "model_name": model,
        "model_version": str(version),
        "outputs": [_tensor(name, named[name]) for name in inference.outputs or named],
    }
    if inference.id is not None:
        content["id"] = inference.id
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def model_metadata(loaded: "LoadedModel") -> dict[str, Any]:
    """What a model takes and gives."""
    schema = loaded.schema
    if schema.tensor is not None:
        datatype = _OF_NUMPY.get(schema.tensor.dtype, "BYTES")
        inputs = [{"name": INPUT, "datatype": datatype, "shape": list(schema.tensor.shape)}]
    else:
        inputs = [_described(column) for column in schema.columns]
    flavour = loaded.model.flavour
    return {
        "name": loaded.name,
        "versions": [str(loaded.version.number)],
        "platform": PYFUNC_PLATFORM if flavour == PYFUNC else PLATFORM + flavour,
        "inputs": inputs,
        "outputs": _outputs(loaded.signature),
    }


def server_metadata() -> dict[str, Any]:
    """What answers."""
    return {"name": "ledgerline", "version": VERSION, "extensions": []}


def require_no_binary(headers: Mapping[str, str]) -> None:
    """Make sure that the body is all JSON.

    Args:
        headers: Of the request; looked up without regard to case.

    Raises:
        BodyRefusedError: There are tensors behind it.
    """
    if BINARY_HEADER in headers:
        raise BodyRefusedError(NO_BINARY)


def _list(value: Any, subject: str) -> list[Any]:
    if not isinstance(value, list):
        raise BodyRefusedError(f"the {subject} are no list: {FORM}")
    return value


def _name(value: Any, subject: str) -> str:
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(name, str):
        raise BodyRefusedError(f"{subject} has no name: {FORM}")
    _require_parameters(value, subject)
    return name


def _require_parameters(content: Mapping[str, Any], subject: str) -> None:
    parameters = content.get("parameters")
    if parameters is None:
        return
    if not isinstance(parameters, dict):
        raise BodyRefusedError(f"the parameters of {subject} are no object")
    if BINARY_PARAMETER in parameters:
        raise BodyRefusedError(f"{subject}: {NO_BINARY}")


def _tensors(inputs: list[Any]) -> list[_Tensor]:
    if not inputs:
        raise BodyRefusedError(f"there are no inputs: {FORM}")
    tensors: dict[str, _Tensor] = {}
    for number, value in enumerate(inputs):
        name = _name(value, f"input {number}")
        shape, datatype, data = value.get("shape"), value.get("datatype"), value.get("data")
        if name in tensors:
            raise RowsRefusedError([Problem("the tensor is there twice", column=name)])
        if not isinstance(shape, list) or not all(type(length) is int and length >= 0 for length in shape):
            raise RowsRefusedError([Problem("its shape is no list of lengths", column=name)])
        if not isinstance(datatype, str) or datatype not in DATATYPES:
            known = ", ".join(DATATYPES)
            text = f"its datatype is {shown(datatype)}; it can be {known}"
            raise RowsRefusedError([Problem(text, column=name)])
        if not isinstance(data, list):
            raise RowsRefusedError([Problem("its data are no list", column=name)])
        tensors[name] = _Tensor(name, tuple(shape), datatype, data)
    return list(tensors.values())


def _column_rows(tensors: Sequence[_Tensor], schema: Schema) -> Rows:
    columns = {column.name: column for column in schema.columns}
    values: dict[str, Sequence[Any]] = {}
    problems: list[Problem] = []
    for tensor in tensors:
        column = columns.get(tensor.name)
        if column is None:
            continue
        if len(tensor.shape) > 2 or tensor.shape[1:] not in ((), (1,)):
            raise tensor.problem(f"its shape is {list(tensor.shape)}; a column has [rows] or [rows, 1]")
        fitting = DATATYPES_OF[column.type]
        if tensor.datatype not in fitting:
            text = f"its datatype is {tensor.datatype}, the model takes {column.type}: send {fitting[0]}"
            raise tensor.problem(text)
        values[tensor.name] = tensor.values()
        problems += tensor.problems(values[tensor.name])
    if problems:
        raise RowsRefusedError(sorted(problems, key=lambda problem: problem.row or 0))
    return schema.rows(values, tensors[0].count)


def _array_rows(tensors: Sequence[_Tensor], schema: Schema) -> Rows:
    import numpy as np

    assert schema.tensor is not None  # noqa: S101 (who calls has looked)
    if len(tensors) > 1:
        raise BodyRefusedError(f"the model takes one tensor; there are {len(tensors)}")
    tensor = tensors[0]
    if len(tensor.shape) != len(schema.tensor.shape):
        raise tensor.problem(
            f"its shape is {list(tensor.shape)}, the model takes {list(schema.tensor.shape)}"
        )
    values = tensor.values()
    problems = tensor.problems(values)
    if tensor.datatype not in FLOATING:
        each = max(1, len(values) // tensor.count)
        problems += [
            Problem("a value is required", number // each, tensor.name)
            for number, value in enumerate(values)
            if value is None
        ]
    if problems:
        raise RowsRefusedError(problems)
    try:
        array = np.array(values, dtype="float64" if tensor.datatype in FLOATING else None)
    except OverflowError:
        raise tensor.problem("it has a number that no float can hold") from None
    try:
        return schema.array_rows(array.reshape(tensor.shape))
    except RowsRefusedError as error:
        raise RowsRefusedError(
            [Problem(problem.text, problem.row, tensor.name) for problem in error.problems]
        ) from None


def _is_of(value: Any, datatype: Datatype) -> bool:
    if type(value) not in datatype.accepted:
        return False
    return datatype.between is None or datatype.between[0] <= value <= datatype.between[1]


def _described(column: Column) -> dict[str, Any]:
    tensor: dict[str, Any] = {
        "name": column.name,
        "datatype": DATATYPES_OF[column.type][0],
        "shape": [-1],
    }
    parameters: dict[str, Any] = {} if column.required else {"optional": True}
    if column.type in CONTENT_TYPES:
        parameters["content_type"] = CONTENT_TYPES[column.type]
    return tensor | ({"parameters": parameters} if parameters else {})


def _outputs(signature: "ModelSignature") -> list[dict[str, Any]]:
    described: list[dict[str, Any]] = []
    output: Any
    for output in signature.outputs.inputs if signature.outputs is not None else []:
        name = str(output.name) if output.name else PREDICTIONS
        if hasattr(output, "shape"):
            datatype, shape = _OF_NUMPY.get(output.type.name, "BYTES"), [int(one) for one in output.shape]
        else:
            datatype, shape = DATATYPES_OF.get(getattr(output.type, "name", ""), ("BYTES",))[0], [-1]
        described.append({"name": name, "datatype": datatype, "shape": shape})
    return described


def _tensor(name: str, values: "NDArray[Any]") -> dict[str, Any]:
    import numpy as np
    import pandas as pd

    flat = values.reshape(-1)
    datatype = _OF_NUMPY.get(flat.dtype.name)
    data: Any
    if datatype is not None:
        # orjson writes arrays that lie as the processor has them.
        data = np.ascontiguousarray(flat, dtype=flat.dtype.newbyteorder("="))
    else:
        data = [None if gone else value for value, gone in zip(plain(flat), pd.isna(flat), strict=True)]
        datatype = _datatype_of(data)
        if datatype == "BYTES":
            data = [value if value is None or isinstance(value, str) else _text(value) for value in data]
    return {"name": name, "datatype": datatype, "shape": list(values.shape), "data": data}


def _datatype_of(values: Iterable[Any]) -> str:
    """Of values that numpy has as objects, such as whole numbers with gaps."""
    types = set(map(type, values)) - {type(None)}
    for datatype, accepted in (("BOOL", {bool}), ("INT64", {int}), ("FP64", {int, float})):
        if types and types <= accepted:
            return datatype
    return "BYTES"


def _text(value: Any) -> str:
    return orjson.dumps(value, default=as_json, option=orjson.OPT_SERIALIZE_NUMPY).decode()
