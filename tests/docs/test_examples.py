"""The Python examples of how-to pages run."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from ledgerline.evaluation.policy import Policy

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"


def code_of(name: str) -> list[str]:
    """Return the Python blocks of a page."""
    return re.findall(r"```python\n(.*?)```", (HOW_TO / name).read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def module() -> Iterator[ModuleType]:
    """A module for the code of a page; dataclasses need it among the imported ones."""
    module = ModuleType("example_of_a_page")
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


def run(code: str, module: ModuleType) -> None:
    exec(compile(code, module.__name__, "exec"), vars(module))  # noqa: S102 (the page is ours)


def test_the_projection_of_the_page_exports_a_run(module: ModuleType, tmp_path: Path) -> None:
    run("\n".join(code_of("write-a-projection.md")), module)
    module.test_the_seconds_of_a_step_are_in_the_file_of_its_run(tmp_path)
    assert module.export_step_seconds.name == "export_step_seconds"


def test_the_gate_of_the_page_refuses_too_few_rows(module: ModuleType) -> None:
    (code,) = (block for block in code_of("add-a-model.md") if "(Gate)" in block)
    run(code, module)
    gate = module.EnoughRows(least=10_000)
    ruling = gate.evaluate(SimpleNamespace(comparison=SimpleNamespace(rows=9_000)))
    assert (ruling.passed, ruling.text) == (False, "9,000 rows were compared, and 10,000 are required.")
    assert Policy([gate]).gates == (gate,)
