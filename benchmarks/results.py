"""What a benchmark found: one table for a person, and the same for a program."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

Value = str | int | float | None


@dataclass(frozen=True)
class Result:
    """A table.

    Attributes:
        section: What was measured; with `--only`, this alone.
        title: The table's.
        columns: With the units of what is below; the first says what a row is about.
        rows: A value for each column; None where there is none.
        notes: What must be known to read it.
    """

    section: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]
    notes: Sequence[str] = ()

    def show(self, console: Console) -> None:
        """Print it."""
        table = Table(title=self.title, title_justify="left", title_style="bold")
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="right" if number else "left", no_wrap=number == 0)
        for row in self.rows:
            table.add_row(*(_text(value) for value in row))
        console.print(table)
        for note in self.notes:
            console.print(f"- {note}", markup=False)
        console.print()

    def as_json(self) -> dict[str, Any]:
        """The same as values of JSON."""
        return {
            "section": self.section,
            "title": self.title,
            "rows": [dict(zip(self.columns, row, strict=True)) for row in self.rows],
            "notes": list(self.notes),
        }


def _text(value: Value) -> str:
    if value is None:
        return ""
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else value
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}"
