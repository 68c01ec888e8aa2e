"""The context that a scenario receives, and the tables that it returns."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.table import Table

from ledgerline.errors import LedgerlineError

Value = str | int | float | None
Chosen = TypeVar("Chosen")


class BenchmarkError(LedgerlineError):
    """Raised when a program, a run or a response that a scenario needs fails."""


@dataclass
class Context:
    """The place and the size of a scenario.

    Attributes:
        folder: Empty folder that is deleted afterwards.
        quick: Whether tiny sizes are used, which only show that the scenario works.
        until: Stack of the contexts that are closed after the last scenario of an area.
    """

    folder: Path
    quick: bool
    console: Console
    until: ExitStack
    _opened: dict[object, Any] = field(default_factory=dict)

    def pick(self, full: Chosen, quick: Chosen) -> Chosen:
        """Return the size to measure with, of the full and the quick one."""
        return quick if self.quick else full

    def report(self, text: str) -> None:
        """Print a line about progress."""
        self.console.print(text, markup=False, highlight=False)

    def shared(self, open_once: "Callable[[Context], AbstractContextManager[Chosen]]") -> Chosen:
        """Return an object that several scenarios of an area share; the first one opens it."""
        if open_once not in self._opened:
            self._opened[open_once] = self.until.enter_context(open_once(self))
        return self._opened[open_once]


@dataclass(frozen=True)
class Result:
    """A table of measured numbers.

    Attributes:
        columns: Names of the columns, with units; the first column names the case.
        rows: One value for each column; None for a value that was not measured.
        notes: Explanations that are needed to understand the numbers.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]
    notes: Sequence[str] = ()

    def show(self, console: Console) -> None:
        """Print the table and its notes."""
        table = Table(title=self.title, title_justify="left", title_style="bold")
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="right" if number else "left", no_wrap=number == 0)
        for row in self.rows:
            table.add_row(*map(_text, row))
        console.print(table)
        for note in self.notes:
            console.print(f"- {note}", markup=False)

    def as_json(self) -> dict[str, Any]:
        """Return the table as JSON values."""
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return {"title": self.title, "rows": rows, "notes": list(self.notes)}


def _text(value: Value) -> str:
    if value is None:
        return ""
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else value
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}"
