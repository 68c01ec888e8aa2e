"""The errors that end a request without a prediction. app.py converts each to a response."""

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ledgerline.errors import LedgerlineError

MAX_LISTED_PROBLEMS = 20
MAX_VALUE_LENGTH = 40  # characters of a value in a message

# The whole text of a value may be as long as a body, and too deeply nested to be written.
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxlong = 2, 2 * MAX_VALUE_LENGTH, 2 * MAX_VALUE_LENGTH


def abbreviated(value: Any) -> str:
    """Return a value of a request as text for a message: on one line, and truncated if it is long."""
    text = _SHORT.repr(value)
    return text if len(text) <= MAX_VALUE_LENGTH else f"{text[:MAX_VALUE_LENGTH]}…"


class RequestError(LedgerlineError):
    """A request that cannot be answered with a prediction; `problems` are those of single rows or columns."""

    status: int = 400

    def __init__(
        self,
        problem: str,
        remedy: str = "",
        *,
        status: int | None = None,
        headers: dict[str, str] | None = None,
        problems: "Sequence[Problem]" = (),
    ) -> None:
        super().__init__(problem, remedy)
        self.status = status or self.status
        self.headers = headers or {}
        self.problems = problems


class BodyRefusedError(RequestError):
    """A body that does not follow the protocol."""


class TooManyRowsError(RequestError):
    """A request with more rows than the limit."""

    status = 413


@dataclass(frozen=True)
class Problem:
    """A problem of the rows of a request.

    The row, counted from 0, and the column are null if the problem is not in a single one.
    """

    text: str
    row: int | None = None
    column: str | None = None

    def __str__(self) -> str:
        place = [f"row {self.row}"] if self.row is not None else []
        place += [f"column {self.column}"] if self.column is not None else []
        return f"{', '.join(place)}: {self.text}" if place else self.text


class RowsRefusedError(RequestError):
    """Rows that do not fit the signature of the model; the first `MAX_LISTED_PROBLEMS` problems are kept."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        # A client that sent a column of a wrong type sees it in the first rows.
        super().__init__(f"{problems[0]}{more}.", problems=problems[:MAX_LISTED_PROBLEMS])
