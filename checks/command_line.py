"""Writes the reference page of the command line from the Typer application.

Run it as `python -m checks.command_line` after a change to a command; a test compares the page.
"""

import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from ledgerline.cli.main import app

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "command-line.md"
WIDTH = 120
BEGINNING = """# Command line

`ledgerline` finds its project from the folder in which it is called: the nearest `pyproject.toml` with a
table `[tool.ledgerline]`. In a checkout of this repository the program is `.venv/bin/ledgerline`. `ask` and
`memory` are commands of the example project; all others exist in every project.

A command exits with 0 after success, with 1 if the answer is no (a refused version, a failed run), and with 2
if it could not do its work; it then prints one message on stderr.

This page is generated from the help texts by `python -m checks.command_line`.
"""


def page() -> str:
    """Return the whole page."""
    command: Any = typer.main.get_command(app)
    context = typer.Context(command, info_name="ledgerline")
    return BEGINNING + "".join(_sections(command, context))


def _sections(group: Any, context: Any) -> Iterator[str]:
    """Yield a section for each command, including those of groups."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        inner = typer.Context(command, parent=context, info_name=name)
        if isinstance(command, TyperGroup):
            yield f"\n## ledgerline {name}\n\n{_text(command.help)}\n"
            yield from _sections(command, inner)
        else:
            level = "##" if context.parent is None else "###"
            yield f"\n{level} {inner.command_path}\n\n{_text(command.help)}\n{_parameters(command)}"


def _parameters(command: Any) -> str:
    """Return a table of the arguments and options of a command."""
    rows = []
    for parameter in command.params:
        if parameter.name == "help" or getattr(parameter, "hidden", False):
            continue
        if parameter.param_type_name == "argument":
            name = f"`{parameter.name.upper()}`"
        else:
            name = ", ".join(f"`{option}`" for option in parameter.opts)
        required = " Required." if parameter.required else ""
        rows.append(f"| {name} | {_cell(parameter.help)}{required}{_default(parameter)} |")
    return "\n| parameter | description |\n| --- | --- |\n" + "\n".join(rows) + "\n" if rows else ""


def _default(parameter: Any) -> str:
    """Return the default in words; empty if the option has no meaningful default."""
    value = parameter.default
    if (
        value is None
        or isinstance(value, bool)
        or callable(value)
        or value in ((), [], "")
        or parameter.required
    ):
        return ""
    return f" Default: `{getattr(value, 'value', value)}`."


def _text(text: str | None) -> str:
    """Return a help text as Markdown paragraphs with short lines."""
    paragraphs = re.split(r"\n\s*\n", (text or "").replace("\f", "").replace("\\[", "[").strip())
    return "\n\n".join(
        textwrap.fill(" ".join(each.split()), WIDTH, break_on_hyphens=False) for each in paragraphs
    )


def _cell(text: str | None) -> str:
    """Return a help text as a cell of a table."""
    return " ".join(_text(text).split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE} is written.\n")
