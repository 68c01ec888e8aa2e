"""Converts bodies of MLflow's scoring protocol to rows, and predictions to bodies. schema.py checks values.

https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally/ describes the four forms of JSON, and CSV.
"""

import csv
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import orjson

from ledgerline.serving.json_bodies import as_json, checked, parsed, plain, require_rows
from ledgerline.serving.protocol_types import Split
from ledgerline.serving.request_errors import BodyRefusedError, Problem, RowsRefusedError
from ledgerline.serving.rows import UNNAMED, Rows
from ledgerline.serving.schema import Schema

CSV = "text/csv"

SPLIT, RECORDS, INSTANCES, INPUTS = "dataframe_split", "dataframe_records", "instances", "inputs"
FORMS = (SPLIT, RECORDS, INSTANCES, INPUTS)
PARAMS = "params"

MAX_DIGITS = 32  # of an integer in CSV; longer ones are out of range, and would take long to read

ONE_FORM = f"Send a JSON object with one of {', '.join(FORMS)}."


def rows_of_json(body: bytes, schema: Schema, max_rows: int) -> tuple[Rows, list[str]]:
    """Return the rows of a JSON body, and the names of its columns that the model does not take.

    Raises:
        BodyRefusedError: The body does not follow the protocol.
        RowsRefusedError: The rows do not fit the schema.
        TooManyRowsError: There are more than `max_rows` rows.
    """
    content = parsed(body)
    if not isinstance(content, dict):
        raise BodyRefusedError("The body is not a JSON object.", ONE_FORM)
    forms = [form for form in FORMS if form in content]
    if len(forms) != 1:
        raise BodyRefusedError(f"The body has {' and '.join(forms) or 'none of the forms'}.", ONE_FORM)
    if content.get(PARAMS) not in (None, {}):
        raise BodyRefusedError("The model takes no params.")
    data = content[forms[0]]
    if schema.tensor is not None:
        if forms[0] in (SPLIT, RECORDS):
            raise BodyRefusedError("The model takes one array.", f"Send it as {INSTANCES} or {INPUTS}.")
        require_rows(len(data) if isinstance(data, list) else 0, max_rows)
        return schema.array_rows(data), []
    columns, count = _COLUMNS_OF[forms[0]](data, schema, max_rows)
    return schema.rows(columns, count), schema.unknown(list(columns))


def rows_of_csv(body: bytes, schema: Schema, max_rows: int) -> tuple[Rows, list[str]]:
    """Return the rows of a CSV body, and the names of its columns that the model does not take.

    The first line names the columns. A missing value is an empty field and, except in strings, NA, NaN, nan
    or null.

    Raises:
        BodyRefusedError: The body is not CSV.
        RowsRefusedError: The rows do not fit the schema.
        TooManyRowsError: There are more than `max_rows` rows.
    """
    if schema.tensor is not None:
        raise BodyRefusedError("The model takes one array, and CSV has columns.", "Send JSON.")
    try:
        lines = list(csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BodyRefusedError(f"The body is not CSV in UTF-8: {error}.") from None
    if not lines:
        raise BodyRefusedError("The body is empty.", "Send CSV whose first line names the columns.")
    names, records = lines[0], [line for line in lines[1:] if line]
    require_rows(len(records), max_rows)
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


def response_body(outputs: Rows) -> bytes:
    """Return a prediction as the body of a response; NaN and infinity become null."""
    columns = {name: plain(values) for name, values in outputs.columns.items()}
    if UNNAMED in columns:
        predictions = columns[UNNAMED]
    else:
        predictions = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return orjson.dumps({"predictions": predictions}, default=as_json, option=orjson.OPT_SERIALIZE_NUMPY)


def _split_columns(data: Any, schema: Schema, max_rows: int) -> tuple[Mapping[str, Sequence[Any]], int]:
    split = checked(Split, data, f"Send {SPLIT} as an object with columns and data.", SPLIT)
    names = split.columns if "columns" in split.model_fields_set else [one.name for one in schema.columns]
    require_rows(len(split.data), max_rows)
    return _split(names, split.data), len(split.data)


def _split(names: list[str], records: list[Any]) -> dict[str, Sequence[Any]]:
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise RowsRefusedError([Problem("the column occurs twice", column=twice)])
    problems = [
        Problem(f"it has {len(record)} values for {len(names)} columns", row)
        if isinstance(record, list)
        else Problem("it is not a list of values", row)
        for row, record in enumerate(records)
        if not isinstance(record, list) or len(record) != len(names)
    ]
    if problems:
        raise RowsRefusedError(problems)
    return dict(zip(names, zip(*records, strict=True), strict=True))


def _record_columns(data: Any, schema: Schema, max_rows: int) -> tuple[Mapping[str, Sequence[Any]], int]:
    if not isinstance(data, list):
        raise BodyRefusedError("The rows are not a list of objects.")
    require_rows(len(data), max_rows)
    problems = [
        Problem("it is not an object", row) for row, record in enumerate(data) if not isinstance(record, dict)
    ]
    if problems:
        raise RowsRefusedError(problems)
    names = dict.fromkeys(chain.from_iterable(data))
    return {name: [record.get(name) for record in data] for name in names}, len(data)


def _input_columns(data: Any, schema: Schema, max_rows: int) -> tuple[Mapping[str, Sequence[Any]], int]:
    """Return columns by name; a single value is a column of one row, as in MLflow."""
    if isinstance(data, list):
        return _record_columns(data, schema, max_rows)
    if not isinstance(data, dict):
        raise BodyRefusedError(f"{INPUTS} is neither an object of columns nor a list of objects.")
    columns = {name: values if isinstance(values, list) else [values] for name, values in data.items()}
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        raise BodyRefusedError(
            f"The columns of {INPUTS} have {' and '.join(map(str, sorted(lengths)))} rows."
        )
    count = lengths.pop() if lengths else 0
    require_rows(count, max_rows)
    return columns, count


_COLUMNS_OF = {
    SPLIT: _split_columns,
    RECORDS: _record_columns,
    INSTANCES: _record_columns,
    INPUTS: _input_columns,
}


# Numbers as programs write them. Python itself also reads 1_000, blanks, and digits of other scripts.
_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(inf|Infinity)")
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}

# Fields that are missing values. In a column of strings, only the empty field is one, because NA may be
# Namibia, and Null a name.
_MISSING = frozenset({"", "NA", "NaN", "nan", "null"})


def _read_texts(texts: Sequence[str], type_name: str, name: str, problems: list[Problem]) -> Sequence[Any]:
    """Convert the fields of a CSV column to the values that JSON would have."""
    read = _READERS.get(type_name)
    if read is None:
        return [text or None for text in texts]
    values: list[Any] = []
    for row, text in enumerate(texts):
        value = None if text in _MISSING else read(text)
        if value is None and text not in _MISSING:
            problems.append(Problem(f"{text[:40]!r} is not of type {type_name}", row, name))
        values.append(value)
    return values


def _read_number(text: str) -> float | None:
    if not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    # A number too large for a float becomes infinite; explicit infinities end with a letter.
    return number if math.isfinite(number) or text[-1] in "fy" else None


def _read_integer(text: str) -> int | None:
    return int(text) if len(text) <= MAX_DIGITS and _INTEGER.fullmatch(text) else None


# Readers of fields by the type of the column; the fields of other columns are strings.
_READERS: Mapping[str, Callable[[str], Any]] = {
    "double": _read_number,
    "float": _read_number,
    "long": _read_integer,
    "integer": _read_integer,
    "boolean": _BOOLEANS.get,
    "datetime": str,
}
