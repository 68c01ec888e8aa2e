"""Tests the examples in the docstrings of the library: each runs, and prints its documented output.

An example runs in an empty folder, without a network. It raises no warnings, and changes nothing elsewhere.
"""

import ast
import doctest
import importlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("ledgerline", "assets", "pipelines", "resources")


def names_with_examples() -> Iterator[tuple[str, str]]:
    """Yield each module and the qualified name in it whose docstring has an example."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            source = path.read_text(encoding="utf-8")
            if ">>> " in source:
                module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                yield from ((module, name) for name in documented(ast.parse(source)))


def documented(node: ast.Module | ast.ClassDef | ast.FunctionDef, prefix: str = "") -> Iterator[str]:
    """Yield the qualified names of what has an example in its docstring; a module has the empty name."""
    if ">>> " in (ast.get_docstring(node) or ""):
        yield prefix
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef):
            yield from documented(child, f"{prefix}.{child.name}".lstrip("."))


@pytest.mark.parametrize(("module", "name"), list(names_with_examples()))
def test_the_example_prints_its_documented_output(
    module: str,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    imported = importlib.import_module(module)
    wanted = f"{module}.{name}".rstrip(".")
    (example,) = [
        each for each in doctest.DocTestFinder(exclude_empty=True).find(imported) if each.name == wanted
    ]
    environment = dict(os.environ)

    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example)

    assert result.attempted > 0
    assert result.failed == 0, capsys.readouterr().out
    assert dict(os.environ) == environment


def test_an_example_that_prints_something_else_fails() -> None:
    wrong = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, None)
    assert doctest.DocTestRunner().run(wrong, out=lambda _: None).failed == 1
