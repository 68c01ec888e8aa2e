"""Defines the cases of the comparison with other servers: a body, and the answers to it.

Bodies of MLflow's scoring protocol go to `mlflow models serve` (mlflow_cases.py), those of the Open Inference
Protocol to MLServer (inference_cases.py). The model answers with what it was given (echo_model.py), so that
an answer shows what a server makes of a body. Where a server differs, the case names one of DIFFERENCES in
scoring_differences.py, which docs/reference/other-servers.md lists.
"""

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tests.serving.echo_versions import MAYBE, VALUES

# The models: with all types of columns; and one for CSV, without a datetime, for which MLflow takes no CSV.
EVERY, PLAIN = "every", "plain"
TYPES = {EVERY: list(VALUES), PLAIN: [name for name in VALUES if name not in ("binary", "datetime")]}
OPTIONAL = {EVERY: list(VALUES), PLAIN: [name for name in VALUES if name != "datetime"]}

JSON = {"Content-Type": "application/json"}
CSV = {"Content-Type": "text/csv"}
ABSENT: Any = object()

Row = dict[str, Any]


@dataclass(frozen=True)
class Body:
    """A body as a client sends it.

    Attributes:
        content: Its bytes.
        headers: Those that say what it is.
        model: The model that is asked.
        is_inference: Whether it is of the Open Inference Protocol, and not of MLflow's.
    """

    content: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)
    model: str = EVERY
    is_inference: bool = False

    def packed(self, encoding: str) -> "Body":
        """Return the same, compressed."""
        pack = gzip.compress if encoding == "gzip" else zlib.compress
        return replace(
            self, content=pack(self.content), headers={**self.headers, "Content-Encoding": encoding}
        )


def _bytes(content: Any) -> bytes:
    if isinstance(content, bytes):
        return content
    return (content if isinstance(content, str) else json.dumps(content)).encode()


# MLflow's scoring protocol


def row(**changes: Any) -> Row:
    """A row with a value in each required column; a change can be a value of any column, or ABSENT."""
    return {name: value for name, value in (VALUES | changes).items() if value is not ABSENT}


def scoring(content: Any, headers: Mapping[str, str] = JSON) -> Body:
    return Body(_bytes(content), headers)


def records(*rows: Row, headers: Mapping[str, str] = JSON) -> Body:
    return scoring({"dataframe_records": list(rows or (row(),))}, headers)


def split() -> Body:
    return scoring({"dataframe_split": {"columns": list(row()), "data": [list(row().values())]}})


def instances() -> Body:
    return scoring({"instances": [row()]})


def inputs() -> Body:
    return scoring({"inputs": {name: [value] for name, value in row().items()}})


CSV_ROW: dict[str, str] = {name: str(VALUES[name]).replace("True", "true") for name in TYPES[PLAIN]}
CSV_HEADER = ",".join(CSV_ROW) + "\n"
CSV_LINE = ",".join(CSV_ROW.values()) + "\n"


def csv(*rows: Mapping[str, str], headers: Mapping[str, str] = CSV, model: str = PLAIN) -> Body:
    lines = [",".join(rows[0] if rows else CSV_ROW), *(",".join(one.values()) for one in rows or (CSV_ROW,))]
    return Body("".join(f"{line}\n" for line in lines).encode(), headers, model)


def csv_with(**fields: str) -> Body:
    """A row of CSV in which these fields are others."""
    return csv({**CSV_ROW, **fields})


def parquet() -> Body:
    """The same row as a file of Parquet."""
    import pandas as pd

    rows = pd.DataFrame([{name: VALUES[name] for name in TYPES[PLAIN]}])
    content = rows.astype({"float": "float32", "integer": "int32"}).to_parquet(None)
    return Body(content, {"Content-Type": "application/vnd.apache.parquet"}, PLAIN)


def csv_text(text: str | bytes) -> Body:
    return Body(_bytes(text), CSV, PLAIN)


# The Open Inference Protocol

_DATATYPES = {"double": "FP64", "float": "FP32", "long": "INT64", "integer": "INT32", "boolean": "BOOL"}
_CONTENT_TYPES = {"string": "str", "binary": "base64", "datetime": "datetime"}


def of(kind: str, data: Any) -> Row:
    """A tensor of an optional column, with its content type."""
    tensor: Row = {
        "name": MAYBE + kind,
        "shape": [len(data)],
        "datatype": _DATATYPES.get(kind, "BYTES"),
        "data": data,
    }
    if kind in _CONTENT_TYPES:
        tensor["parameters"] = {"content_type": _CONTENT_TYPES[kind]}
    return tensor


def tensors(rows: int = 1, shape: Sequence[int] | None = None) -> list[Row]:
    """A tensor for each required column."""
    found = [of(kind, [value] * rows) | {"name": kind} for kind, value in VALUES.items()]
    return [one | {"shape": list(shape)} for one in found] if shape is not None else found


def tensor(_column: str, **changes: Any) -> list[Row]:
    """All tensors; that of a column with changes."""
    changed = [one | changes if one["name"] == _column else one for one in tensors()]
    return [{key: value for key, value in one.items() if value is not ABSENT} for one in changed]


def inference(content: Any, headers: Mapping[str, str] = JSON) -> Body:
    return Body(_bytes(content), headers, is_inference=True)


def infer(sent: list[Row] | None = None, headers: Mapping[str, str] = JSON, **more: Any) -> Body:
    return inference({"inputs": tensors() if sent is None else sent, **more}, headers)


# Answers

Answer = list[Row] | str
REFUSED = "refused"
ANSWERED = "answered"  # with something that depends on the time
_WRITTEN = VALUES | {"binary": "bytes 00ff", "datetime": "moment 2013-05-01T12:00:00"}


def given(*rows: Row, model: str = EVERY) -> Answer:
    """Return the model's input: the values of `row` with these changes in each row; None: a missing value."""
    written = {name: _WRITTEN[name] for name in TYPES[model]}
    return [
        {name: value for name, value in (written | one).items() if value is not None} for one in rows or ({},)
    ]


@dataclass(frozen=True)
class Case:
    """A body and its answers.

    Attributes:
        name: What is special about it.
        body: The body.
        ours: What the service answers.
        theirs: What the peer answers, if that is something else.
        why: The difference between them, one of DIFFERENCES.
    """

    name: str
    body: Body
    ours: Answer
    theirs: Answer | None = None
    why: str = ""
