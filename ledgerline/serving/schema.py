"""The input schema of a model, from its MLflow signature, and the validation of rows against it.

open_inference.py and scoring.py read the rows from requests.
"""

import base64
import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from numpy.typing import NDArray

from ledgerline.errors import LedgerlineError
from ledgerline.serving.request_errors import Problem, RowsRefusedError, abbreviated
from ledgerline.serving.rows import UNNAMED, Rows


class UnsupportedSignatureError(LedgerlineError):
    """A signature that requests cannot be validated against."""


@dataclass(frozen=True)
class Kind:
    """A column type of MLflow.

    Attributes:
        dtype: The numpy type of the array.
        accepted: Python types of its values in parsed JSON.
        expected: Description of a value, for messages.
        json_schema: JSON Schema of a value.
        missing: A missing value in the array; None if arrays of this type cannot have one.
        convert: Function from a value of JSON to one of numpy; None if they are the same.
    """

    dtype: str
    accepted: frozenset[type]
    expected: str
    json_schema: Mapping[str, Any]
    missing: Any = None
    convert: Callable[[Any], Any] | None = None


def _integer(low: int, high: int) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if not low <= value <= high:
            raise ValueError(f"it is not between {low} and {high}")
        return value

    return convert


def _single(value: float) -> float:
    if math.isfinite(value) and abs(value) > MAX_SINGLE:
        raise ValueError(f"it is not between -{MAX_SINGLE} and {MAX_SINGLE}")
    return float(value)


# An ISO 8601 date in the extended form, with an optional time; pandas and databases write a blank instead of
# T. Pandas itself would also read "12:00" as today at noon, and "2013" as a day.
_DATETIME_PATTERN = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?(?P<zone>Z|[+-][0-9]{2}(:?[0-9]{2})?)?)?"
)


def _datetime(value: str) -> Any:
    match = _DATETIME_PATTERN.fullmatch(value)
    if match is None:
        raise ValueError("it is not an ISO 8601 date (year-month-day), with or without a time")
    if match["zone"] is None and "1678" <= value[:4] <= "2261":
        return np.datetime64(value, "ns")  # ten times as fast, and exact in these years
    timestamp = pd.Timestamp(value)
    # Training data have no time zones: a value that has one is converted to UTC.
    timestamp = timestamp.tz_convert("UTC").tz_localize(None) if timestamp.tz is not None else timestamp
    # Pandas refuses dates that do not fit in nanoseconds; numpy would wrap them around.
    return timestamp.as_unit("ns").to_datetime64()


_binary = partial(base64.b64decode, validate=True)

# The largest float of 32 bits; larger numbers become infinite.
MAX_SINGLE = 3.4028234e38
MAX_EXACT = 2**53  # floats represent integers below it exactly
INT32, INT64 = (-(2**31), 2**31 - 1), (-(2**63), 2**63 - 1)

# The keys are MLflow's names of column types (mlflow.types.DataType).
_NUMBER, _INTEGER = {"type": "number"}, {"type": "integer"}
_BASE64 = {"type": "string", "contentEncoding": "base64"}
_DATETIME = {"type": "string", "description": "A datetime like 2026-01-31T12:00:00; UTC without a time zone."}
KINDS = {
    "double": Kind("float64", frozenset({float, int}), "a number", _NUMBER, math.nan, float),
    "float": Kind("float32", frozenset({float, int}), "a number", _NUMBER, math.nan, _single),
    "long": Kind("int64", frozenset({int}), "an integer", _INTEGER, convert=_integer(*INT64)),
    "integer": Kind("int32", frozenset({int}), "an integer", _INTEGER, convert=_integer(*INT32)),
    "boolean": Kind("bool", frozenset({bool}), "true or false", {"type": "boolean"}),
    # Encoders would treat None as a category, and not as a missing value.
    "string": Kind("object", frozenset({str}), "a string", {"type": "string"}, math.nan),
    "binary": Kind("object", frozenset({str}), "bytes in base64", _BASE64, math.nan, _binary),
    "datetime": Kind(
        "datetime64[ns]", frozenset({str}), "a datetime like 2026-01-31T12:00:00", _DATETIME, "NaT", _datetime
    ),
}
INTEGERS = frozenset({"long", "integer"})


@dataclass(frozen=True)
class Column:
    """A column that a model takes.

    Attributes:
        type: MLflow's name of its type, a key of `KINDS`.
        required: True if a request must have it, without missing values.
    """

    name: str
    type: str
    required: bool

    def array(self, values: Sequence[Any], problems: list[Problem]) -> NDArray[Any] | None:
        """Return values as an array of the column's type, or append to `problems` and return None."""
        kind = KINDS[self.type]
        types = set(map(type, values))
        gaps = type(None) in types or float in types
        plain = types - {type(None)} <= kind.accepted
        # Whole arrays are converted first. If numpy refuses one, `_converted` finds the value.
        with suppress(OverflowError):
            if plain and float in kind.accepted:
                array = np.array(values, dtype="float64")  # None becomes NaN
                small = kind.dtype == "float64" or not np.any(np.abs(array) > MAX_SINGLE)
                if small and not (self.required and np.isnan(array).any()):
                    return array.astype(kind.dtype, copy=False)
            elif plain and not gaps and (kind.convert is None or int in kind.accepted):
                return np.array(values, dtype=kind.dtype)
        return self._converted(values, kind, problems)

    def _converted(self, values: Sequence[Any], kind: Kind, problems: list[Problem]) -> NDArray[Any] | None:
        converted, before, has_gaps = [], len(problems), False
        for row, value in enumerate(values):
            if value is None or (type(value) is float and math.isnan(value)):
                has_gaps = True
                if self.required:
                    problems.append(Problem("a value is required", row, self.name))
                converted.append(kind.missing)
                continue
            if type(value) not in kind.accepted:
                problems.append(Problem(f"{abbreviated(value)} is not {kind.expected}", row, self.name))
                continue
            try:
                converted.append(value if kind.convert is None else kind.convert(value))
            except (ValueError, OverflowError) as error:
                problems.append(
                    Problem(f"{abbreviated(value)} is not {kind.expected}: {error}", row, self.name)
                )
        if len(problems) > before:
            return None
        if has_gaps and kind.missing is None:
            # Integers and booleans with missing values stay exact as objects, also when batches are joined.
            return np.array([math.nan if value is None else value for value in converted], dtype="object")
        return np.array(converted, dtype=kind.dtype)


@dataclass(frozen=True)
class Tensor:
    """The array that a model takes instead of columns. Its first axis is the row, and -1 is any length."""

    dtype: str
    shape: tuple[int, ...]

    def array(self, values: Any, name: str | None = None) -> NDArray[Any]:
        """Return nested lists as an array; `name` is that of the problems' column.

        Raises:
            RowsRefusedError: The lists have another shape or type.
        """
        try:
            array = np.array(values)
        except (ValueError, OverflowError):
            raise RowsRefusedError([Problem("the rows have different shapes", column=name)]) from None
        if problem := self._problem(array):
            raise RowsRefusedError([Problem(problem, column=name)])
        with np.errstate(over="ignore"):
            return array.astype(self.dtype)

    def _problem(self, array: NDArray[Any]) -> str:
        wanted = np.dtype(self.dtype)
        if array.dtype.kind not in _KINDS_INTO[wanted.kind]:
            return f"the values are {array.dtype}, the model takes {self.dtype}"
        lengths = zip(self.shape, array.shape, strict=False)
        if array.ndim != len(self.shape) or any(ours not in (-1, theirs) for ours, theirs in lengths):
            expected = ", ".join("any" if length == -1 else str(length) for length in self.shape)
            return f"the shape is {array.shape}, the model takes ({expected}); the first axis is the row"
        if wanted.kind in "iu" and array.size:
            low, high = np.iinfo(wanted).min, np.iinfo(wanted).max
            if int(array.min()) < low or int(array.max()) > high:
                return f"some values are not between {low} and {high}"
        return ""


# Kinds of numpy types, and the kinds that can be converted to them without a change of meaning.
_KINDS_INTO = {"f": "fiu", "i": "iu", "u": "iu", "b": "b", "U": "U", "O": "UOfiub", "S": "SU"}


@dataclass(frozen=True)
class Schema:
    """The inputs of a model: named columns, or one tensor.

    Attributes:
        columns: The columns, in the order of the signature; empty for a tensor.
        tensor: The tensor; None for columns.

    Example:
        >>> schema = Schema((Column("hour", "long", required=True),))
        >>> schema.rows({"hour": [7, None]}, 2)
        Traceback (most recent call last):
        ledgerline.serving.request_errors.RowsRefusedError: row 1, column hour: a value is required.
    """

    columns: tuple[Column, ...] = ()
    tensor: Tensor | None = None

    def rows(self, columns: Mapping[str, Sequence[Any]], count: int) -> Rows:
        """Return rows from values of parsed JSON; columns that the model does not take are left out.

        Raises:
            RowsRefusedError: The rows do not fit the schema.
        """
        if self.tensor is not None:
            raise RowsRefusedError([Problem("the model takes one array; send an array instead of columns")])
        problems: list[Problem] = []
        arrays: dict[str, Any] = {}
        for column in self.columns:
            values = columns.get(column.name)
            if values is not None:
                arrays[column.name] = column.array(values, problems)
            elif column.required:
                problems.append(Problem("the column is required", column=column.name))
            else:
                arrays[column.name] = column.array([None] * count, problems)
        if problems:
            raise RowsRefusedError(sorted(problems, key=lambda problem: problem.row or 0))
        return Rows(arrays, count)

    def model_input(self, rows: Rows) -> pd.DataFrame | NDArray[Any]:
        """Return rows in the form that a model takes: a data frame of the columns, or the array.

        Integers with missing values become floats, as in pandas and in most training data, unless a float
        cannot hold them exactly.
        """
        if UNNAMED in rows.columns:
            return rows.columns[UNNAMED]
        columns = dict(rows.columns)
        for name in self._integers_with_gaps:
            if columns[name].dtype == object:
                floats = columns[name].astype("float64")
                if not (abs(floats) >= MAX_EXACT).any():
                    columns[name] = floats
        return pd.DataFrame(columns, copy=False)

    @cached_property
    def _integers_with_gaps(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.columns if not one.required and one.type in INTEGERS)

    def array_rows(self, values: Any, name: str | None = None) -> Rows:
        """Return rows from one nested array; `name` is that of the problems' column.

        Raises:
            RowsRefusedError: The rows do not fit the schema.
        """
        if self.tensor is None:
            names = ", ".join(column.name for column in self.columns)
            raise RowsRefusedError([Problem(f"the model takes columns: {names}")])
        array = self.tensor.array(values, name)
        return Rows({UNNAMED: array}, len(array))

    def unknown(self, names: Sequence[str]) -> list[str]:
        """Return the given names that the model does not take."""
        known = {column.name for column in self.columns}
        return [name for name in names if name not in known]


def schema_of(signature: ModelSignature | None) -> Schema:
    """Return the input schema of a model.

    Raises:
        UnsupportedSignatureError: The model has no signature, or one that is not supported.
    """
    if signature is None or signature.inputs is None or signature.outputs is None:
        raise UnsupportedSignatureError(
            "The model has no signature of inputs and outputs.", "Log it with one."
        )
    inputs = signature.inputs
    if inputs.is_tensor_spec():
        if len(inputs.inputs) > 1 or inputs.inputs[0].name:
            raise UnsupportedSignatureError(
                "The model takes named tensors.",
                "Give it a signature of columns, or of one tensor without a name.",
            )
        tensor: Any = inputs.inputs[0]
        return Schema(tensor=Tensor(tensor.type.name, tuple(int(length) for length in tensor.shape)))
    columns = []
    column: Any
    for number, column in enumerate(inputs.inputs):
        name = getattr(column.type, "name", str(column.type))
        if not column.name:
            raise UnsupportedSignatureError(f"Column {number} of the signature has no name.")
        if name not in KINDS:
            raise UnsupportedSignatureError(
                f"Column {column.name} of the signature is {name}, which is not supported."
            )
        columns.append(Column(str(column.name), name, column.required))
    return Schema(tuple(columns))
