"""The library stands beside its example, and knows nothing of it."""

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
    assert len(modules) > 30
    assert [module.name for module in modules if importing.search(module.read_text())] == []
