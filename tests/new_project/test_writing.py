"""Tests writing a new project: complete or not at all, with well-formed code."""

import csv
import resource
import subprocess
import sys
import tomllib
from io import StringIO
from pathlib import Path

import pytest

from ledgerline.new_project.kind import Kind
from ledgerline.new_project.made_rows import made_rows
from ledgerline.new_project.writing import NewProjectError, rendered, write_project

MAX_LINES = 350
RUFF = [Path(sys.executable).with_name("ruff"), "--isolated"]
LINE_LENGTH = "line-length = 110"


def test_a_project_has_the_layout_that_is_given(tmp_path: Path) -> None:
    folder = write_project(tmp_path / "oven-demand", Kind.REGRESSION, "0.2.0")
    assert {path.name for path in folder.iterdir()} == {
        *(".gitignore", "Makefile", "README.md", "dagster.yaml", "pyproject.toml", "workspace.yaml"),
        *("assets", "data", "pipelines", "resources", "tests"),
    }
    table = tomllib.loads((folder / "pyproject.toml").read_text())
    assert table["project"]["name"] == "oven-demand"
    assert table["project"]["dependencies"] == ["ledgerline-mlops[serving,plots,ui]==0.2.0"]
    assert table["tool"]["ledgerline"]["models"] == ["oven_demand"]
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("kind", list(Kind), ids=str)
def test_the_code_of_each_kind_is_short_formatted_and_clean(kind: Kind, tmp_path: Path) -> None:
    folder = write_project(tmp_path / "oven-demand", kind, "0.2.0")
    code = [line for path in folder.rglob("*.py") for line in path.read_text().splitlines()]
    assert len([line for line in code if line.strip()]) < MAX_LINES
    rules = ("--select", "A,B,E,F,I,PERF,PIE,PT,RET,RUF,SIM,UP,W,PL", "--ignore", "PLC0415,PLR0913,PLR0917")
    for command in (("format", "--check"), ("check", *rules)):
        arguments = [*RUFF, *command, "--config", LINE_LENGTH, "."]
        done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("kind", list(Kind), ids=str)
def test_nothing_of_a_template_is_left_in_a_file(kind: Kind) -> None:
    for path, text in rendered("oven-demand", kind, "0.2.0").items():
        assert "{%" not in text, path
        assert "{{" not in text, path
        assert text == "" or text.endswith("\n"), path
        assert "\n\n\n\n" not in text, path


def test_the_example_rows_are_the_same_each_time_and_half_a_year_long() -> None:
    texts = {kind: made_rows(kind) for kind in Kind}
    assert texts == {kind: made_rows(kind) for kind in Kind}
    assert texts[Kind.REGRESSION] == texts[Kind.QUANTILES]
    for kind, text in texts.items():
        rows = list(csv.DictReader(StringIO(text)))
        assert len(rows) == 181 * 8 * 4
        assert (rows[0]["date"], rows[-1]["date"]) == ("2025-01-01", "2025-06-30")
        assert len({(row["date"], row["shop"], row["time"]) for row in rows}) == len(rows)
        assert all(row[kind.outcome] for row in rows)


@pytest.mark.parametrize("name", ["1oven", "oven.demand", "oven demand", "öfen", "oven-", "_oven", "o" * 65])
def test_an_invalid_name_is_refused_with_the_allowed_characters(name: str, tmp_path: Path) -> None:
    with pytest.raises(NewProjectError, match=r"cannot be the name of a project.*letters \(a to z\)"):
        write_project(tmp_path / name, Kind.REGRESSION, "0.2.0")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["o", "oven2", "Oven_Demand", "o" * 64])
def test_a_name_of_letters_digits_and_dashes_is_taken(name: str, tmp_path: Path) -> None:
    assert write_project(tmp_path / name, Kind.REGRESSION, "0.2.0") == tmp_path / name


def test_a_folder_that_is_not_empty_is_left_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "oven"
    folder.mkdir()
    (folder / ".hidden").write_text("mine")
    with pytest.raises(NewProjectError, match=r"oven is not empty\. Nothing was changed"):
        write_project(folder, Kind.REGRESSION, "0.2.0")
    assert [path.name for path in tmp_path.rglob("*")] == ["oven", ".hidden"]


def test_a_file_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "oven").write_text("mine")
    for folder, problem in (
        (tmp_path / "oven", "is not a folder"),
        (tmp_path / "oven/in", "cannot be written"),
    ):
        with pytest.raises(NewProjectError, match=problem):
            write_project(folder, Kind.REGRESSION, "0.2.0")
    assert (tmp_path / "oven").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_working_folder_that_is_empty_can_be_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "oven"
    folder.mkdir()
    number = folder.stat().st_ino
    monkeypatch.chdir(folder)
    assert write_project(Path(), Kind.BINARY, "0.2.0") == folder
    assert folder.stat().st_ino == number  # a shell in it has the files
    assert Path("Makefile").is_file()
    assert list(tmp_path.iterdir()) == [folder]


def test_folders_above_are_made(tmp_path: Path) -> None:
    write_project(tmp_path / "a" / "b" / "oven", Kind.REGRESSION, "0.2.0")
    assert (tmp_path / "a/b/oven/data/rows.csv").is_file()


def test_a_full_disk_leaves_no_files(tmp_path: Path) -> None:
    def allow_small_files_only() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # data/rows.csv is larger

    done = subprocess.run(
        [Path(sys.executable).with_name("ledgerline"), "new", "oven"],
        cwd=tmp_path,
        preexec_fn=allow_small_files_only,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "oven cannot be written: File too large. Nothing was changed" in done.stderr
    assert list(tmp_path.iterdir()) == []
