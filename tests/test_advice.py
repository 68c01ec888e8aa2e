"""Tests that commands, targets, settings and pages in messages, docstrings and pages exist."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import mlflow.environment_variables
import opentelemetry.sdk.environment_variables
import pytest
import typer
from typer.core import TyperGroup

from ledgerline.cli.main import app

ROOT = Path(__file__).parents[1]
PACKAGES = ("assets", "ledgerline", "pipelines", "resources", "benchmarks", "checks")
OF_A_NEW_PROJECT = ROOT / "ledgerline" / "new_project" / "templates" / "Makefile.jinja"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))]
TEMPLATES = sorted(OF_A_NEW_PROJECT.parent.rglob("*.jinja"))
OF_DEPLOYMENT = [ROOT / "Makefile", ROOT / ".env.example", *sorted(ROOT.glob("docker/**/*.yaml"))]
HISTORY = "CHANGELOG.md"  # names what was renamed

# A command stands in backticks, in bold, or at the start of a line that is to be typed.
MAKE = re.compile(r"(?:`|\[bold\]|^(?:\$ )?)make ([a-z][a-z-]*)\b", re.MULTILINE)
LEDGERLINE = re.compile(r"(?<!-n )(?<![\w-])ledgerline ([a-z][^`\n|]*)")
TARGET = re.compile(r"^([a-z][a-z-]*):", re.MULTILINE)
PREFIXES = "LEDGERLINE|MLFLOW|DAGSTER|OTEL|OPENLINEAGE|OLLAMA|OPENAI"
# A trailing asterisk stands for all settings that begin like this.
VARIABLE = re.compile(rf"(?<![A-Za-z0-9_])(?:{PREFIXES})_[A-Z0-9_]*(?:[A-Z0-9](?![A-Za-z0-9_])|\*)")
PAGE = re.compile(r"(?<![\w/.-])docs/[\w./-]+\.md(?:#[\w-]+)?")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


def texts_of(module: Path) -> Iterator[str]:
    """Yield the texts in a module: docstrings, messages, and formatted ones with {} for their values."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def texts() -> Iterator[tuple[str, str]]:
    """Yield each file with its texts."""
    for package in PACKAGES:
        for module in sorted((ROOT / package).rglob("*.py")):
            yield from ((str(module.relative_to(ROOT)), text) for text in texts_of(module))
    yield from ((str(page.relative_to(ROOT)), page.read_text(encoding="utf-8")) for page in PAGES)


def texts_of_all_files() -> Iterator[tuple[str, str]]:
    """Yield each file with its texts, also templates, and the comments of the files of a deployment."""
    yield from texts()
    yield from ((str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")) for path in TEMPLATES)
    for path in OF_DEPLOYMENT:
        yield str(path.relative_to(ROOT)), "\n".join(re.findall("#.*", path.read_text(encoding="utf-8")))


def unknown_in(command: str) -> str | None:
    """Return the first word of a command line that the command line tool does not have."""
    at: Any = typer.main.get_command(app)
    context: Any = None
    options = {"--help"}
    for word in command.split():
        name = word.rstrip(".,;:)'\"")
        if isinstance(at, TyperGroup):
            command_or_group: Any = at.get_command(context, name)  # of the project, too
            if command_or_group is None:
                return name
            at = command_or_group
            options |= {option for parameter in at.params for option in parameter.opts}
        elif name.startswith("--") and name.split("=")[0] not in options:
            return name
    return None


@cache
def settings() -> frozenset[str]:
    """Return the variables that the project, its stack, MLflow and OpenTelemetry declare."""
    declared = re.findall(r"^#? ?([A-Z][A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    stack = [path for path in (ROOT / "docker").rglob("*") if path.is_file() and path.suffix != ".lock"]
    of_stack = [
        name
        for path in stack
        for name in re.findall(r"\$\{(?:env:)?([A-Z][A-Z0-9_]+)", path.read_text(errors="replace"))
    ]
    others = [*vars(mlflow.environment_variables), *vars(opentelemetry.sdk.environment_variables)]
    others = [name.removeprefix("_") for name in others]
    return frozenset([*declared, *of_stack, *others, *DECLARED_ELSEWHERE])


# Variables that are not settings of this library and not found in the modules of other libraries.
DECLARED_ELSEWHERE = (
    "LEDGERLINE_PROJECT",  # names the folder with the .env file
    "MLFLOW_PORT",  # the command `mlflow server`
    "OLLAMA_API_KEY",  # Ollama's client
    "OLLAMA_MODELS",  # Ollama's server
)


def is_declared(variable: str) -> bool:
    """Return whether a variable, or for NAME_* one that begins like this, is declared."""
    if variable.endswith("*"):
        return any(name.startswith(variable.removesuffix("*")) for name in settings())
    return variable in settings()


def page_exists(address: str) -> bool:
    """Return whether a page of docs/ exists, with the heading that its address names."""
    name, _, anchor = address.partition("#")
    path = ROOT / name
    if not path.is_file():
        return name == "docs/reference/settings.md"  # written with the classes of settings
    slugs = {slug(heading) for heading in HEADING.findall(path.read_text(encoding="utf-8"))}
    return not anchor or anchor in slugs


def slug(heading: str) -> str:
    """Return the anchor of a heading, as GitHub and the site make it."""
    words = re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower()
    return re.sub(r"\s", "-", words)


def targets_of(place: str) -> set[str]:
    """Return the targets of the Makefile that a file is about."""
    is_about_new = place == "docs/tutorial.md" or place.startswith("ledgerline/new_project/")
    makefile = OF_A_NEW_PROJECT if is_about_new else ROOT / "Makefile"
    return set(TARGET.findall(makefile.read_text(encoding="utf-8")))


def test_each_make_target_that_is_named_exists() -> None:
    named = [(place, target) for place, text in texts() for target in MAKE.findall(text)]
    assert len(named) > 20
    assert [(place, target) for place, target in named if target not in targets_of(place)] == []


def test_each_command_that_is_named_exists_with_its_options() -> None:
    named = [(place, command) for place, text in texts() for command in LEDGERLINE.findall(text)]
    assert len(named) > 50
    assert [(place, command) for place, command in named if unknown_in(command)] == []


def test_each_setting_that_is_named_is_declared() -> None:
    named = {
        (place, variable)
        for place, text in texts_of_all_files()
        if place != HISTORY
        for variable in VARIABLE.findall(text)
    }
    assert len(named) > 100
    assert sorted((place, variable) for place, variable in named if not is_declared(variable)) == []


def test_each_page_that_is_named_exists_with_its_heading() -> None:
    named = {
        (place, address)
        for place, text in texts_of_all_files()
        if place != HISTORY
        for address in PAGE.findall(text)
    }
    assert len(named) > 20
    assert sorted((place, address) for place, address in named if not page_exists(address)) == []


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
def test_commands_that_the_tool_does_not_have_are_detected(command: str, unknown: str | None) -> None:
    assert unknown_in(command) == unknown


@pytest.mark.parametrize(
    ("text", "target"),
    [("Run `make install`.", "install"), ("$ make run\n", "run"), ("[bold]make tset", "tset")],
)
def test_a_target_in_a_message_is_detected(text: str, target: str) -> None:
    assert MAKE.findall(text) == [target]
    assert (target in targets_of("README.md")) == (target == "run")


@pytest.mark.parametrize(
    ("text", "variable", "declared"),
    [
        ("Set LEDGERLINE_HOME to a folder.", "LEDGERLINE_HOME", True),
        ("its limit (LEDGERLINE_AGENT_*)", "LEDGERLINE_AGENT_*", True),
        ("`MLFLOW_TRACKING_URI`", "MLFLOW_TRACKING_URI", True),
        ("OTEL_EXPORTER_OTLP_ENDPOINT=http://h", "OTEL_EXPORTER_OTLP_ENDPOINT", True),
        ("Set LEDGERLINE_HOUSE to a folder.", "LEDGERLINE_HOUSE", False),
        ("MLFLOW_TRAKING_URI", "MLFLOW_TRAKING_URI", False),
        ("LEDGERLINE_AGENTS_*", "LEDGERLINE_AGENTS_*", False),
    ],
)
def test_a_setting_that_is_not_declared_is_detected(text: str, variable: str, declared: bool) -> None:
    assert VARIABLE.findall(text) == [variable]
    assert is_declared(variable) == declared


@pytest.mark.parametrize(
    ("text", "address", "exists"),
    [
        ("docs/runbook.md says how.", "docs/runbook.md", True),
        ("[gates](docs/how-to/add-a-model.md#write-a-gate)", "docs/how-to/add-a-model.md#write-a-gate", True),
        ("(docs/how-to/add-a-model.md#paint-a-gate)", "docs/how-to/add-a-model.md#paint-a-gate", False),
        ("docs/rumbook.md says how.", "docs/rumbook.md", False),
    ],
)
def test_a_page_that_does_not_exist_is_detected(text: str, address: str, exists: bool) -> None:
    assert PAGE.findall(text) == [address]
    assert page_exists(address) == exists
