"""Tests that the errors of the library are one tree, which is drawn where their base is declared."""

import pytest

from checks import error_tree
from ledgerline.errors import LedgerlineError


@pytest.fixture(scope="module", autouse=True)
def all_modules() -> None:
    """Import all modules, so that all classes are known."""
    error_tree.import_all()


def classes(cls: type[LedgerlineError] = LedgerlineError) -> list[type[LedgerlineError]]:
    return [cls, *(each for child in cls.__subclasses__() for each in classes(child))]


def test_each_public_exception_is_in_the_tree() -> None:
    assert error_tree.outside() == set()


def test_the_tree_is_drawn_as_it_is() -> None:
    assert error_tree.in_docstring() == error_tree.drawn(), "Run `python -m checks.error_tree`."


def test_each_class_has_a_subject() -> None:
    assert len(classes()) > 40
    ours = [cls for cls in classes() if cls.__module__.startswith(error_tree.PACKAGES)]
    assert [cls.__name__ for cls in ours if not cls.__dict__.get("__doc__")] == []


def test_a_message_is_the_problem_and_the_remedy() -> None:
    assert str(LedgerlineError("Port 3000 is in use.", "Choose another.")) == (
        "Port 3000 is in use. Choose another."
    )
    assert str(LedgerlineError("Port 3000 is in use.")) == "Port 3000 is in use."
