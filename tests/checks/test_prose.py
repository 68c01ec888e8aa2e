"""Tests that the check of the project's English detects what it lists, and passes plain sentences."""

import subprocess
import sys
from pathlib import Path

import pytest

from checks import prose

PLAIN = '''"""Reads rows of a table."""


def rows(limit: int) -> list[int]:
    """Return the first rows."""
    # The limit is inclusive.
    return list(range(limit))
'''


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository with one module of plain sentences."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "ledgerline").mkdir()
    (tmp_path / "ledgerline" / "rows.py").write_text(PLAIN)
    return tmp_path


def check(repository: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the check in a repository, as `make check` does."""
    return subprocess.run(
        [sys.executable, prose.__file__, *options],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )


def test_plain_sentences_pass(repository: Path) -> None:
    result = check(repository)
    assert (result.returncode, result.stdout) == (
        0,
        "0 of 3 docstrings and comments begin like a fragment (0.0%).\n",
    )


@pytest.mark.parametrize(
    ("plain", "planted", "finding"),
    [
        ("Return the first rows.", "What is first.", "rows.py:5: begins like a fragment: What is first."),
        ("# The limit is", "# Of the limit it is", "rows.py:6: begins like a fragment: Of the limit it is"),
        ("rows(limit", "rows_found(limit", "rows.py:4: rows_found is a listed word"),
        ("def rows(", "def listRowsShown(", "rows.py:4: listRowsShown is a listed word"),
        ("return list", "MOST_ROWS = 3\n    return list", "rows.py:7: MOST_ROWS is a listed word"),
        ("Return the first rows.", "Return rows for somebody.", "rows.py:5: somebody is a listed word"),
        ("list(range(limit))", '["there is none", "it is none"]', "rows.py:7: is none is a listed word"),
    ],
)
def test_a_planted_fragment_name_or_phrase_is_found(
    repository: Path, plain: str, planted: str, finding: str
) -> None:
    module = repository / "ledgerline" / "rows.py"
    module.write_text(PLAIN.replace(plain, planted))
    result = check(repository)
    assert result.returncode == 1
    assert f"ledgerline/{finding}" in result.stdout


def test_a_phrase_in_a_page_is_found(repository: Path) -> None:
    (repository / "README.md").write_text("# Rows\n\nNobody is served.\n")
    result = check(repository)
    assert result.returncode == 1
    assert "README.md:3: Nobody is a listed word" in result.stdout


def test_a_few_fragments_in_many_sentences_pass_and_are_listed_on_demand(repository: Path) -> None:
    lines = [f"# Line {number}.\nROW_{number} = {number}\n" for number in range(50)]
    (repository / "ledgerline" / "many.py").write_text("".join(["# Of all lines.\nROWS = 50\n", *lines]))
    assert check(repository).returncode == 0
    assert "many.py:1: begins like a fragment: Of all lines." in check(repository, "--list").stdout


def test_tests_are_read_for_fragments_and_not_for_names(repository: Path) -> None:
    (repository / "tests").mkdir()
    (repository / "tests" / "test_rows.py").write_text('"""Whose rows these are."""\nfound = 1\n')
    result = check(repository)
    assert "tests/test_rows.py:1: begins like a fragment: Whose rows these are." in result.stdout
    assert "listed word" not in result.stdout
