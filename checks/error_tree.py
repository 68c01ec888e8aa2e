"""Writes the tree of the library's errors into the docstring of ledgerline/errors.py.

Run it as `python -m checks.error_tree` after a change to an error class; a test compares the docstring.
"""

import importlib
import pkgutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from ledgerline import errors
from ledgerline.errors import LedgerlineError

ROOT = Path(__file__).parents[1]
PACKAGES = ("ledgerline", "assets", "pipelines", "resources")
MODULE = Path(errors.__file__)
BEGIN, END = "The tree, with the module that declares each class:\n\n", '"""\n'


def drawn() -> str:
    """Return the tree, with a line for each class."""
    rows = list(_rows(LedgerlineError, 1))
    width = max(len(name) for name, _ in rows)
    return "".join(f"{name:<{width}}  {module}".rstrip() + "\n" for name, module in rows)


def outside() -> set[str]:
    """Return the exception classes that are public and not in the tree."""
    classes = {
        value
        for name in _modules()
        for value in vars(importlib.import_module(name)).values()
        if isinstance(value, type) and issubclass(value, BaseException)
    }
    return {
        f"{each.__module__}.{each.__name__}"
        for each in classes
        if each.__module__.startswith(PACKAGES)
        and not each.__name__.startswith("_")
        and not issubclass(each, LedgerlineError)
    }


def in_docstring() -> str:
    """Return the tree in the docstring of the module."""
    return MODULE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]


def main() -> int:
    """Write the tree into the docstring."""
    import_all()
    text = MODULE.read_text(encoding="utf-8")
    MODULE.write_text(text.replace(in_docstring(), drawn(), 1), encoding="utf-8")
    print(f"{MODULE} is written.")
    return 0


def import_all() -> None:
    """Import all modules, so that all subclasses are defined."""
    for name in _modules():
        importlib.import_module(name)


def _modules() -> Iterator[str]:
    for package in PACKAGES:
        for module in pkgutil.walk_packages([str(ROOT / package)], f"{package}."):
            yield module.name


def _rows(cls: type[LedgerlineError], depth: int) -> Iterator[tuple[str, str]]:
    """Yield the indented name and the file of a class and its subclasses, sorted by name."""
    is_root = cls is LedgerlineError
    yield "    " * depth + cls.__name__, "" if is_root else f"{cls.__module__.replace('.', '/')}.py"
    for each in sorted(cls.__subclasses__(), key=lambda each: (each.__name__, each.__module__)):
        if each.__module__.startswith(PACKAGES) and not each.__name__.startswith("_"):
            yield from _rows(each, depth + 1)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # warnings about features of Dagster that are in beta
    sys.exit(main())
