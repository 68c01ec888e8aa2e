"""Commands that messages, docstrings and pages advise: each exists, with the options that are named."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from ledgerline.cli.main import app

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "assets",
    "ledgerline",
    "pipelines",
    "resources",
    "benchmarks",
)
OF_A_NEW_PROJECT = ROOT / "ledgerline" / "new_project" / "templates" / "Makefile.jinja"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))]

# A command stands in backticks, in bold, or at the start of a line that is to be typed.
MAKE = re.compile(r"(?:`|\[bold\]|^(?:\$ )?)make ([a-z][a-z-]*)\b", re.MULTILINE)
LEDGERLINE = re.compile(r"(?<!-n )(?<![\w-])ledgerline ([a-z][^`\n|]*)")
TARGET = re.compile(r"^([a-z][a-z-]*):", re.MULTILINE)


def texts_of(module: Path) -> Iterator[str]:
    """The texts in a module: docstrings, messages, and formatted ones with {} for what is put in."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def advised() -> Iterator[tuple[str, str]]:
    """Each place, and its text."""
    for package in PACKAGES:
        for module in sorted((ROOT / package).rglob("*.py")):
            yield from ((str(module.relative_to(ROOT)), text) for text in texts_of(module))
    yield from ((str(page.relative_to(ROOT)), page.read_text()) for page in PAGES)


def unknown_in(command: str) -> str | None:
    """The first word of a command line that the command line tool does not know."""
    at: Any = typer.main.get_command(app)
    context: Any = None
    options = {"--help"}
    for word in command.split():
        name = word.rstrip(".,;:)'\"")
        if isinstance(at, TyperGroup):
            found: Any = at.get_command(context, name)  # of the project, too
            if found is None:
                return name
            at = found
            options |= {option for parameter in at.params for option in parameter.opts}
        elif name.startswith("--") and name.split("=")[0] not in options:
            return name
    return None


def test_each_make_target_that_is_advised_exists() -> None:
    here, there = (
        set(TARGET.findall(makefile.read_text())) for makefile in (ROOT / "Makefile", OF_A_NEW_PROJECT)
    )
    named = [(place, target) for place, text in advised() for target in MAKE.findall(text)]

    assert len(named) > 20
    assert [
        (place, target) for place, target in named if target not in (there if is_about_new(place) else here)
    ] == []


def is_about_new(place: str) -> bool:
    """Return whether a place is about a project that `ledgerline new` writes, and so about its Makefile."""
    return place == "docs/tutorial.md" or place.startswith("ledgerline/new_project/")


def test_each_command_that_is_advised_exists_with_its_options() -> None:
    named = [(place, command) for place, text in advised() for command in LEDGERLINE.findall(text)]

    assert len(named) > 50
    assert [(place, command) for place, command in named if unknown_in(command)] == []


@pytest.mark.parametrize(
    ("command", "unknown"),
    [
        ("run", None),
        ("registry list", None),
        ("observe --help.", None),
        ("backfill ingest_flights --from 2013-01-01", None),
        ("install", "install"),
        ("registry remove", "remove"),
        ("backfill ingest_flights --since 2013-01-01", "--since"),
    ],
)
def test_words_that_the_tool_does_not_know_are_found(command: str, unknown: str | None) -> None:
    assert unknown_in(command) == unknown
