"""What a model takes, by its MLflow signature, and whether rows are that. How they come: scoring.py."""

import base64
import math
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ledgerline.serving.rows import UNNAMED, Rows

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import ModelSignature
    from numpy.typing import NDArray

# More are counted, not listed: whoever sent a column of the wrong kind knows it by the first rows.
LISTED_PROBLEMS = 20
SHOWN_CHARACTERS = 40

# The whole text of a value may be as long as a body, and too deep to be written.
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxlong = 2, 2 * SHOWN_CHARACTERS, 2 * SHOWN_CHARACTERS


class UnsupportedSignatureError(Exception):
    """Requests for a model with this signature cannot be checked."""


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with the rows of a request.

    Attributes:
        text: What, in a sentence without its subject.
        row: The row, counted from 0; None: all of them.
        column: The column; None: none in particular.
    """

    text: str
    row: int | None = None
    column: str | None = None

    def __str__(self) -> str:
        place = [f"row {self.row}"] if self.row is not None else []
        place += [f"column {self.column}"] if self.column is not None else []
        return f"{', '.join(place)}: {self.text}" if place else self.text


class RowsRefusedError(Exception):
    """Rows are not what a model takes.

    Attributes:
        problems: What is wrong, at most `LISTED_PROBLEMS`.
        count: How many problems there are.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = problems[:LISTED_PROBLEMS]
        self.count = len(problems)
        more = f" (and {self.count - 1} more)" if self.count > 1 else ""
        super().__init__(f"{problems[0]}{more}")


@dataclass(frozen=True)
class Kind:
    """A type of the signature, and the values of a request that are of it.

    Attributes:
        dtype: The numpy type of the array.
        accepted: The types of values, as JSON has them.
        said: What a value should be, for messages.
        missing: What stands for a missing value in the array; None: it cannot have gaps.
        convert: Of one value to what numpy takes; None: as it is.
    """

    dtype: str
    accepted: frozenset[type]
    said: str
    missing: Any = None
    convert: Callable[[Any], Any] | None = None


def _whole(low: int, high: int) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if not low <= value <= high:
            raise ValueError(f"it is not between {low} and {high}")
        return value

    return convert


def _single(value: float) -> float:
    if math.isfinite(value) and abs(value) > MAX_SINGLE:
        raise ValueError(f"it is not between -{MAX_SINGLE} and {MAX_SINGLE}")
    return float(value)


# A date of ISO 8601 in its extended form, and a time of day if there is one; a blank may stand for the T, as
# pandas and databases write it. Pandas itself would take "12:00" for today at noon, and "2013" for a day.
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?(?P<zone>Z|[+-][0-9]{2}(:?[0-9]{2})?)?)?"
)


def _moment(value: str) -> Any:
    import numpy as np
    import pandas as pd

    found = _MOMENT.fullmatch(value)
    if found is None:
        raise ValueError("it is not a date of ISO 8601, year-month-day, with or without a time")
    if found["zone"] is None and "1678" <= value[:4] <= "2261":
        return np.datetime64(value, "ns")  # ten times as fast; in these years every nanosecond has its place
    moment = pd.Timestamp(value)
    # The columns that models are trained on have no time zone; one that is named is meant.
    moment = moment.tz_convert("UTC").tz_localize(None) if moment.tz is not None else moment
    # What lies centuries away does not fit, and numpy would make another moment of it.
    return moment.as_unit("ns").to_datetime64()


def _binary(value: str) -> bytes:
    return base64.b64decode(value, validate=True)


# What is further from 0 becomes infinite in 32 bits.
MAX_SINGLE = 3.4028234e38
MAX_EXACT = 2**53  # below it, every whole number is a float, and of no other
INT32, INT64 = (-(2**31), 2**31 - 1), (-(2**63), 2**63 - 1)

# By MLflow's names of column types (mlflow.types.DataType).
KINDS = {
    "double": Kind("float64", frozenset({float, int}), "a number", math.nan, float),
    "float": Kind("float32", frozenset({float, int}), "a number", math.nan, _single),
    "long": Kind("int64", frozenset({int}), "a whole number", convert=_whole(*INT64)),
    "integer": Kind("int32", frozenset({int}), "a whole number", convert=_whole(*INT32)),
    "boolean": Kind("bool", frozenset({bool}), "true or false"),
    # Not None: an encoder would take it for a category of its own.
    "string": Kind("object", frozenset({str}), "a text", math.nan),
    "binary": Kind("object", frozenset({str}), "bytes in base64", math.nan, _binary),
    "datetime": Kind("datetime64[ns]", frozenset({str}), "a moment like 2026-01-31T12:00:00", "NaT", _moment),
}


WHOLE = frozenset({"long", "integer"})


@dataclass(frozen=True)
class Column:
    """A column that a model takes.

    Attributes:
        name: Its name.
        type: MLflow's name of its type, a key of `KINDS`.
        required: Whether it must be there, and without gaps.
    """

    name: str
    type: str
    required: bool

    def array(self, values: Sequence[Any], problems: list[Problem]) -> "NDArray[Any] | None":
        """The values as the model takes them; None, and what is wrong, if they are not of its type."""
        import numpy as np

        kind = KINDS[self.type]
        types = set(map(type, values))
        gaps = type(None) in types or float in types
        plain = types - {type(None)} <= kind.accepted
        # The usual ways. Where numpy cannot take a value, the slow way says which.
        with suppress(OverflowError):
            if plain and float in kind.accepted:
                array = np.array(values, dtype="float64")  # None becomes NaN
                small = kind.dtype == "float64" or not np.any(np.abs(array) > MAX_SINGLE)
                if small and not (self.required and np.isnan(array).any()):
                    return array.astype(kind.dtype, copy=False)
            elif plain and not gaps and (kind.convert is None or int in kind.accepted):
                return np.array(values, dtype=kind.dtype)
        return self._converted(values, kind, problems)

    def _converted(self, values: Sequence[Any], kind: Kind, problems: list[Problem]) -> "NDArray[Any] | None":
        import numpy as np

        converted, before = [], len(problems)
        has_gaps = False
        for row, value in enumerate(values):
            if _is_missing(value):
                has_gaps = True
                if self.required:
                    problems.append(Problem("a value is required", row, self.name))
                converted.append(kind.missing)
                continue
            if type(value) not in kind.accepted:
                problems.append(Problem(f"{shown(value)} is not {kind.said}", row, self.name))
                continue
            try:
                converted.append(value if kind.convert is None else kind.convert(value))
            except (ValueError, OverflowError) as error:
                problems.append(Problem(f"{shown(value)} is not {kind.said}: {error}", row, self.name))
        if len(problems) > before:
            return None
        if has_gaps and kind.missing is None:
            # Whole numbers and truth values with gaps: as objects they stay exact, also beside other rows.
            return np.array([math.nan if value is None else value for value in converted], dtype="object")
        return np.array(converted, dtype=kind.dtype)


@dataclass(frozen=True)
class Tensor:
    """The one array that a model takes.

    Attributes:
        dtype: Its numpy type.
        shape: Its shape; -1 is any length. The first axis is the row.
    """

    dtype: str
    shape: tuple[int, ...]

    def array(self, values: Any) -> "NDArray[Any]":
        """The values as an array.

        Raises:
            RowsRefusedError: They have another shape or type.
        """
        import numpy as np

        try:
            found = np.array(values)
        except (ValueError, OverflowError):
            raise RowsRefusedError([Problem("the rows are not all of one shape")]) from None
        wanted = np.dtype(self.dtype)
        if found.dtype.kind not in _KINDS_INTO[wanted.kind]:
            raise RowsRefusedError([Problem(f"the values are {found.dtype}, the model takes {self.dtype}")])
        expected = ", ".join("any" if length == -1 else str(length) for length in self.shape)
        if found.ndim != len(self.shape) or any(
            length not in (-1, there) for length, there in zip(self.shape, found.shape, strict=True)
        ):
            raise RowsRefusedError(
                [Problem(f"the shape is {found.shape}, the model takes ({expected}); the first is the row")]
            )
        if wanted.kind in "iu" and found.size:
            low, high = np.iinfo(wanted).min, np.iinfo(wanted).max
            if int(found.min()) < low or int(found.max()) > high:
                raise RowsRefusedError([Problem(f"there are values that are not between {low} and {high}")])
        with np.errstate(over="ignore"):
            return found.astype(wanted)


# Which kinds of numpy types may become which without a loss of meaning.
_KINDS_INTO = {"f": "fiu", "i": "iu", "u": "iu", "b": "b", "U": "U", "O": "UOfiub", "S": "SU"}


@dataclass(frozen=True)
class Schema:
    """What a model takes: named columns, or one tensor.

    Attributes:
        columns: The columns, in the order of the signature; empty for a tensor.
        tensor: The tensor; None for columns.
    """

    columns: tuple[Column, ...] = ()
    tensor: Tensor | None = None

    def rows(self, columns: Mapping[str, Sequence[Any]], count: int) -> Rows:
        """Rows from the values of a request, by column; columns that the model does not know are left out.

        Args:
            columns: Values as JSON has them; each of `count` values.
            count: How many rows there are.

        Raises:
            RowsRefusedError: They are not what the model takes.
        """
        if self.tensor is not None:
            raise RowsRefusedError([Problem("the model takes one array, not columns")])
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

    def model_input(self, rows: Rows) -> "pd.DataFrame | NDArray[Any]":
        """Return rows as a model takes them: a frame of the columns; of a tensor, the array.

        Whole numbers with gaps become floats, as pandas has them and as most models were trained with them,
        unless they would no longer be the same numbers.
        """
        import pandas as pd

        if UNNAMED in rows.columns:
            return rows.columns[UNNAMED]
        columns = dict(rows.columns)
        for name in self._whole_with_gaps:
            if columns[name].dtype == object:
                columns[name] = _as_floats(columns[name])
        return pd.DataFrame(columns, copy=False)

    @cached_property
    def _whole_with_gaps(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns if not column.required and column.type in WHOLE)

    def array_rows(self, values: Any) -> Rows:
        """Rows from one nested array.

        Raises:
            RowsRefusedError: They are not what the model takes.
        """
        if self.tensor is None:
            raise RowsRefusedError([Problem(f"the model takes columns: {self.names()}")])
        array = self.tensor.array(values)
        return Rows({UNNAMED: array}, len(array))

    def unknown(self, names: Sequence[str]) -> list[str]:
        """Which of these the model does not know."""
        known = {column.name for column in self.columns}
        return [name for name in names if name not in known]

    def names(self) -> str:
        """The columns, for messages."""
        return ", ".join(column.name for column in self.columns)


def schema_of(signature: "ModelSignature | None") -> Schema:
    """What requests for a model with this signature must have.

    Raises:
        UnsupportedSignatureError: It has none, or one of a kind that is not known here.
    """
    if signature is None or signature.inputs is None or signature.outputs is None:
        raise UnsupportedSignatureError("it has no signature of inputs and outputs; log it with one")
    inputs = signature.inputs
    if inputs.is_tensor_spec():
        if len(inputs.inputs) > 1 or inputs.inputs[0].name:
            raise UnsupportedSignatureError("it takes tensors by name; only columns or one tensor are known")
        tensor: Any = inputs.inputs[0]
        return Schema(tensor=Tensor(tensor.type.name, tuple(int(length) for length in tensor.shape)))
    columns = []
    column: Any
    for number, column in enumerate(inputs.inputs):
        name = getattr(column.type, "name", str(column.type))
        if not column.name:
            raise UnsupportedSignatureError(f"column {number} has no name")
        if name not in KINDS:
            raise UnsupportedSignatureError(f"column {column.name} is {name}, which is not known here")
        columns.append(Column(str(column.name), name, column.required))
    return Schema(tuple(columns))


def _as_floats(values: "NDArray[Any]") -> "NDArray[Any]":
    """Whole numbers with gaps as floats; as they are, if floats cannot hold them."""
    floats = values.astype("float64")
    return values if (abs(floats) >= MAX_EXACT).any() else floats


def _is_missing(value: Any) -> bool:
    return value is None or (type(value) is float and math.isnan(value))


def shown(value: Any) -> str:
    """A value of a client as it may be repeated: JSON has no quotes of ours, and large ones are cut."""
    text = _SHORT.repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
