"""MLflow's scoring protocol: bodies to rows, and what a model said to a body. What rows must be: schema.py.

https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally/ describes the four forms of JSON, and CSV.
"""

import base64
import csv
import io
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import orjson

from ledgerline.serving.rows import UNNAMED, Rows
from ledgerline.serving.schema import Problem, RowsRefusedError, Schema

if TYPE_CHECKING:
    from numpy.typing import NDArray

JSON, CSV = "application/json", "text/csv"

SPLIT, RECORDS, INSTANCES, INPUTS = "dataframe_split", "dataframe_records", "instances", "inputs"
FORMS = (SPLIT, RECORDS, INSTANCES, INPUTS)
PARAMS = "params"

MAX_DIGITS = 32  # of a whole number in CSV; what is longer is out of range, and would take long to be read

ONE_FORM = f"send a JSON object with one of {', '.join(FORMS)}"


class BodyRefusedError(Exception):
    """A body that no rows can be read from; the message says what it should be."""


def rows_of_json(body: bytes, schema: Schema, most_rows: int) -> tuple[Rows, list[str]]:
    """Rows of a JSON body, and the columns in it that the model does not know.

    Args:
        body: As it came.
        schema: What the model takes.
        most_rows: How many rows are accepted.

    Raises:
        BodyRefusedError: It is no JSON of the protocol.
        RowsRefusedError: The rows are not what the model takes.
        TooManyRowsError: There are more.
    """
    content = parsed(body)
    if not isinstance(content, dict):
        raise BodyRefusedError(f"the body is no JSON object: {ONE_FORM}")
    forms = [form for form in FORMS if form in content]
    if len(forms) != 1:
        found = " and ".join(forms) if forms else "none of them"
        raise BodyRefusedError(f"the body has {found}: {ONE_FORM}")
    if content.get(PARAMS) not in (None, {}):
        raise BodyRefusedError("the model takes no params")
    data = content[forms[0]]
    if schema.tensor is not None:
        if forms[0] in (SPLIT, RECORDS):
            raise BodyRefusedError(f"the model takes one array: send it as {INSTANCES} or {INPUTS}")
        require_rows(len(data) if isinstance(data, list) else 0, most_rows)
        return schema.array_rows(data), []
    columns, count = _COLUMNS_OF[forms[0]](data, schema, most_rows)
    return schema.rows(columns, count), schema.unknown(list(columns))


def rows_of_csv(body: bytes, schema: Schema, most_rows: int) -> tuple[Rows, list[str]]:
    """Read the rows of a CSV body, whose first line names the columns.

    A missing value is an empty field and, except in texts, NA, NaN, nan or null.

    Raises:
        BodyRefusedError: It is no CSV.
        RowsRefusedError: The rows are not what the model takes.
        TooManyRowsError: There are more than `most_rows`.
    """
    if schema.tensor is not None:
        raise BodyRefusedError("the model takes one array, and CSV has columns: send JSON")
    try:
        lines = list(csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BodyRefusedError(f"the body is no CSV in UTF-8: {error}") from None
    if not lines:
        raise BodyRefusedError("the body is empty: send CSV whose first line names the columns")
    names, records = lines[0], [line for line in lines[1:] if line]
    require_rows(len(records), most_rows)
    by_name = _split(names, records)
    types = {column.name: column.type for column in schema.columns}
    problems: list[Problem] = []
    columns = {
        name: _read_texts(texts, types[name], name, problems) if name in types else texts
        for name, texts in by_name.items()
    }
    if problems:
        raise RowsRefusedError(problems)
    return schema.rows(columns, len(records)), schema.unknown(names)


def answer(outputs: Rows) -> bytes:
    """What a model said, as the body of an answer; numbers that are none become null."""
    return orjson.dumps({"predictions": _listed(outputs)}, default=as_json, option=orjson.OPT_SERIALIZE_NUMPY)


def parsed(body: bytes) -> Any:
    """The content of a JSON body; NaN counts as a number, as Python's clients write it.

    Raises:
        BodyRefusedError: It is no JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        text = body.decode("utf-8-sig")  # a byte order mark is allowed, as in CSV
        content = json.loads(text, parse_float=_finite)
        if "\\u" in text:
            # Half a character can be escaped, and could never be written into an answer.
            json.dumps(content, ensure_ascii=False).encode()
        return content
    except (ValueError, RecursionError) as error:  # what is no UTF-8 is a ValueError, too
        raise BodyRefusedError(f"the body is no JSON: {error}") from None


def _finite(text: str) -> float:
    """Read a number; one that no float can hold would become infinite."""
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"no float can hold {text[:40]}")
    return number


def require_rows(count: int, most: int) -> None:
    """Make sure that there are some rows, and not too many.

    Raises:
        BodyRefusedError: There are none.
        TooManyRowsError: There are more.
    """
    if count == 0:
        raise BodyRefusedError("there are no rows")
    if count > most:
        raise TooManyRowsError(f"there are {count} rows; send at most {most} at once")


class TooManyRowsError(Exception):
    """More rows than one request may have; the message says how many it may."""


def _split_columns(data: Any, schema: Schema, most_rows: int) -> tuple[Mapping[str, Sequence[Any]], int]:
    if not isinstance(data, dict) or not isinstance(data.get("data"), list):
        raise BodyRefusedError(f"{SPLIT} is no object with columns and data")
    names = data.get("columns", [column.name for column in schema.columns])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BodyRefusedError(f"the columns of {SPLIT} are no list of names")
    require_rows(len(data["data"]), most_rows)
    return _split(names, data["data"]), len(data["data"])


def _split(names: list[str], records: list[Any]) -> dict[str, Sequence[Any]]:
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise RowsRefusedError([Problem("the column is there twice", column=twice)])
    problems = [
        Problem(f"it has {len(record)} values for {len(names)} columns", row)
        if isinstance(record, list)
        else Problem("it is no list of values", row)
        for row, record in enumerate(records)
        if not isinstance(record, list) or len(record) != len(names)
    ]
    if problems:
        raise RowsRefusedError(problems)
    return dict(zip(names, zip(*records, strict=True), strict=True))


def _record_columns(data: Any, schema: Schema, most_rows: int) -> tuple[Mapping[str, Sequence[Any]], int]:
    if not isinstance(data, list):
        raise BodyRefusedError(f"{RECORDS} is no list of objects")
    require_rows(len(data), most_rows)
    problems = [
        Problem("it is no object", row) for row, record in enumerate(data) if not isinstance(record, dict)
    ]
    if problems:
        raise RowsRefusedError(problems)
    names = dict.fromkeys(chain.from_iterable(data))
    return {name: [record.get(name) for record in data] for name in names}, len(data)


def _input_columns(data: Any, schema: Schema, most_rows: int) -> tuple[Mapping[str, Sequence[Any]], int]:
    """Columns by name; a single value is a column of one row, as MLflow takes it."""
    if isinstance(data, list):
        return _record_columns(data, schema, most_rows)
    if not isinstance(data, dict):
        raise BodyRefusedError(f"{INPUTS} is no object of columns")
    columns = {name: values if isinstance(values, list) else [values] for name, values in data.items()}
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        raise BodyRefusedError(f"the columns of {INPUTS} have {' and '.join(map(str, sorted(lengths)))} rows")
    count = lengths.pop() if lengths else 0
    require_rows(count, most_rows)
    return columns, count


_COLUMNS_OF = {
    SPLIT: _split_columns,
    RECORDS: _record_columns,
    INSTANCES: _record_columns,
    INPUTS: _input_columns,
}


# Numbers as programs write them. Python's own rules would take more: 1_000, blanks, digits of other scripts.
_WHOLE = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(inf|Infinity)")
_TRUTH = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}

# These fields mean a missing value. In texts only the empty field does: NA is Namibia, and null a name.
_MISSING = frozenset({"", "NA", "NaN", "nan", "null"})


def _read_texts(texts: Sequence[str], type_name: str, name: str, problems: list[Problem]) -> Sequence[Any]:
    """Read the fields of a column of CSV as JSON would have them."""
    read = _READERS.get(type_name)
    if read is None:
        return [text or None for text in texts]
    values: list[Any] = []
    for row, text in enumerate(texts):
        value = None if text in _MISSING else read(text)
        if value is None and text not in _MISSING:
            problems.append(Problem(f"{text[:40]!r} is no {type_name}", row, name))
        values.append(value)
    return values


def _read_number(text: str) -> float | None:
    if not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    # A number too large for a float would become infinite; an explicit infinity ends with a letter.
    return number if math.isfinite(number) or text[-1] in "fy" else None


def _read_whole(text: str) -> int | None:
    return int(text) if len(text) <= MAX_DIGITS and _WHOLE.fullmatch(text) else None


# Readers of fields, by the type of the column; columns of other types are texts.
_READERS: Mapping[str, Callable[[str], Any]] = {
    "double": _read_number,
    "float": _read_number,
    "long": _read_whole,
    "integer": _read_whole,
    "boolean": _TRUTH.get,
    "datetime": str,
}


def _listed(outputs: Rows) -> Any:
    if UNNAMED in outputs.columns:
        return plain(outputs.columns[UNNAMED])
    names = list(outputs.columns)
    columns = [plain(outputs.columns[name]) for name in names]
    return [dict(zip(names, record, strict=True)) for record in zip(*columns, strict=True)]


def plain(values: "NDArray[Any]") -> list[Any]:
    """An array as lists; moments as text, and None where there is none."""
    import numpy as np
    import pandas as pd

    if values.dtype.kind != "M":
        return values.tolist()
    moments = pd.DatetimeIndex(values.reshape(-1))
    texts = [None if moment is pd.NaT else moment.isoformat() for moment in moments]
    return np.array(texts, dtype="object").reshape(values.shape).tolist()


def as_json(value: Any) -> Any:
    """A value that models give, and orjson does not know."""
    import pandas as pd

    if value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} cannot be said in JSON")
