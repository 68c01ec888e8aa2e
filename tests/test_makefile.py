"""Tests that the Makefile finds a Python on machines with several, or with names that do not run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[1] / "Makefile"
PLAIN = {"PATH": os.defpath}
BROKEN = "#!/bin/sh\necho 'command not found' >&2\nexit 127\n"


def chosen(variable: str, path: Path) -> str:
    """Return the value of a variable of the Makefile when `path` is first on PATH."""
    show = f"show: ; @echo '$({variable})'"
    made = subprocess.run(
        ["make", "--silent", "--file", MAKEFILE, "--eval", show, "show"],
        env={"PATH": f"{path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    return made.stdout.strip()


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    """A folder as version managers make it: every name is there, only python3.11 runs."""
    for name in ("python3.13", "python3.12", "python3", "uv"):
        program(tmp_path / name, BROKEN)
    program(tmp_path / "python3.11", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    return tmp_path


def test_a_python_that_is_on_the_path_but_does_not_run_is_passed_over(versions: Path) -> None:
    assert chosen("PYTHON", versions) == "python3.11"


def test_a_uv_that_is_on_the_path_but_does_not_run_is_passed_over(versions: Path) -> None:
    assert chosen("UV", versions) == ".venv/bin/uv"


def test_a_machine_without_a_new_enough_python_has_a_message(tmp_path: Path) -> None:
    for name in ("python3.13", "python3.12", "python3.11", "python3"):
        program(tmp_path / name, BROKEN)
    workplace = tmp_path / "workplace"
    workplace.mkdir()

    made = subprocess.run(
        ["make", "--file", MAKEFILE, ".venv/bin/python"],
        cwd=workplace,
        env={"PATH": f"{tmp_path}:{os.defpath}"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert made.returncode != 0
    assert "needs Python 3.11, 3.12 or 3.13, and none is on PATH" in made.stdout


def test_the_stack_is_started_with_secrets_and_ended_without_losing_anything() -> None:
    def commands(target: str) -> str:
        command = ["make", "--dry-run", "--file", MAKEFILE, target]
        # Without what the make that runs the tests hands on.
        return subprocess.run(command, env=PLAIN, capture_output=True, text=True, check=True).stdout

    start = commands("stack").splitlines()
    assert start[0] == "docker/secrets"
    assert start[1] == "docker compose --file docker/compose.yaml up --detach --build --wait"
    assert "volumes" not in commands("stack-down")


def test_help_lists_every_target_that_a_person_may_type() -> None:
    made = subprocess.run(
        ["make", "--file", MAKEFILE, "help"], env=PLAIN, capture_output=True, text=True, check=True
    )
    phony = next(line for line in MAKEFILE.read_text().splitlines() if line.startswith(".PHONY:")).split()[1:]
    assert [line.split()[1] for line in made.stdout.splitlines()] == phony
