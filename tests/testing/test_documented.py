"""Tests that the examples of docs/how-to/test-your-project.md run, and that it names every module."""

import re
from collections.abc import Callable
from pathlib import Path
from types import FunctionType

import pytest

from ledgerline.testing import recordings

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "test-your-project.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def function_of(example: str) -> Callable[..., None]:
    names: dict[str, object] = {"__name__": "example"}
    exec(compile(example, "docs/how-to/test-your-project.md", "exec"), names)  # noqa: S102 (the page is ours)
    (found,) = [value for name, value in names.items() if name.startswith("test_")]
    assert isinstance(found, FunctionType)
    return found


def test_the_page_names_every_module() -> None:
    modules = {file.stem for file in Path(recordings.__file__).parent.glob("*.py")} - {"__init__"}
    assert {module for module in modules if module not in PAGE} == set()


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_passes(example: str, tmp_path: Path) -> None:
    test = function_of(example)
    test(**({"tmp_path": tmp_path} if "tmp_path" in example else {}))
