"""Tests commands that a project adds to those of `ledgerline`, and the messages for broken ones."""

import re
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ledgerline.cli.main import app

NUMBERS = count()  # each test has another module: they are imported into this process
GREET = """
import typer

app = typer.Typer()


@app.command()
def greet(name: str, loud: bool = False) -> None:
    \"\"\"Say hello to a person.\"\"\"
    typer.echo(f"Hello {name}{'!' if loud else '.'}")
"""


@pytest.fixture
def module() -> str:
    return f"greetings_{next(NUMBERS)}"


def project(folder: Path, module: str, text: str | None) -> Path:
    (folder / "pyproject.toml").write_text(f'[tool.ledgerline]\ncommands = "{module}"\n')
    if text is not None:
        (folder / f"{module}.py").write_text(text)
    return folder


def ledgerline(folder: Path, *arguments: str) -> Result:
    environment = {
        "LEDGERLINE_PROJECT": str(folder),
        "LEDGERLINE_HOME": str(folder / "home"),
        "COLUMNS": "200",
    }
    return CliRunner().invoke(app, list(arguments), env=environment)


def commands_in(help_text: str) -> list[str]:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", help_text)
    return re.findall(r"^│ (\w+)  ", plain, re.MULTILINE)


def test_a_command_of_the_project_is_listed_after_the_built_in_ones_and_runs_like_them(
    tmp_path: Path, module: str
) -> None:
    folder = project(tmp_path, module, GREET)
    listed = commands_in(ledgerline(folder, "--help").stdout)
    assert listed[-1] == "greet"
    assert "observe" in listed
    assert ledgerline(folder, "greet", "Ada", "--loud").stdout == "Hello Ada!\n"
    assert "Say hello to a person." in ledgerline(folder, "greet", "--help").stdout
    assert ledgerline(folder, "greet").exit_code == 2  # NAME is missing


def test_groups_of_commands_are_listed_too(tmp_path: Path, module: str) -> None:
    group = "party = typer.Typer(name='party', help='Greet many.')\nparty.command()(greet)\n"
    folder = project(tmp_path, module, f"{GREET}\n{group}\napp.add_typer(party)\n")
    assert commands_in(ledgerline(folder, "--help").stdout)[-2:] == ["greet", "party"]
    assert ledgerline(folder, "party", "greet", "Bob").stdout == "Hello Bob.\n"


def test_the_commands_of_the_example_belong_to_the_example() -> None:
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"})
    assert {"ask", "memory"} <= set(commands_in(shown.stdout))


def test_without_a_project_there_are_the_built_in_commands_only(tmp_path: Path) -> None:
    listed = commands_in(ledgerline(tmp_path, "--help").stdout)
    assert "observe" in listed
    assert not {"ask", "memory"} & set(listed)
    assert ledgerline(tmp_path, "ask", "why?").exit_code == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "cannot be imported: ModuleNotFoundError: No module named '{module}'"),
        (
            "import no_such_library",
            "cannot be imported: ModuleNotFoundError: No module named 'no_such_library'",
        ),
        ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero"),
        ("def (", "cannot be imported: SyntaxError: "),
        ("app = 1", "has no commands. Assign a typer.Typer to 'app' in it."),
        ("", "has no commands. Assign a typer.Typer to 'app' in it."),
        (
            GREET.replace("greet", "serve"),
            "has commands with the names of built-in commands: serve. Give",
        ),
    ],
)
def test_commands_that_cannot_be_used_are_named_and_leave_the_others_alone(
    text: str | None, problem: str, tmp_path: Path, module: str
) -> None:
    folder = project(tmp_path, module, text)
    refused = ledgerline(folder, "greet", "Ada")
    assert refused.exit_code == 2
    assert refused.stderr.startswith(module)
    assert problem.format(module=module) in refused.stderr
    assert "Traceback" not in refused.output

    shown = ledgerline(folder, "--help")
    assert shown.exit_code == 0
    assert "observe" in commands_in(shown.stdout)
    assert problem.format(module=module) in shown.stderr
    # A built-in command imports none of it.
    observed = ledgerline(folder, "observe", "--help")
    assert (observed.exit_code, observed.stderr) == (0, "")


def test_a_project_that_cannot_be_read_is_named_beside_the_built_in_commands(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.ledgerline")
    shown = ledgerline(tmp_path, "--help")
    assert shown.exit_code == 0
    assert f"{tmp_path / 'pyproject.toml'} cannot be read" in shown.stderr
    assert "observe" in commands_in(shown.stdout)


def test_help_imports_nothing_heavy() -> None:
    program = """
import sys
from typer.testing import CliRunner
from ledgerline.cli.main import app
assert CliRunner().invoke(app, ["--help"]).exit_code == 0
print(sorted(name for name in ("dagster", "mlflow", "pandas", "pydantic", "requests") if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


FAILING = """
import typer
from ledgerline.errors import LedgerlineError

app = typer.Typer()


@app.command()
def bake() -> None:
    raise LedgerlineError("There is no flour.", "Buy some.")


@app.command()
def mix() -> None:
    raise ValueError("a fault of the program")
"""


def test_an_error_of_the_library_ends_a_command_with_one_message(tmp_path: Path, module: str) -> None:
    result = ledgerline(project(tmp_path, module, FAILING), "bake")
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", "There is no flour. Buy some.\n")


def test_a_fault_of_a_program_keeps_its_stack_trace(tmp_path: Path, module: str) -> None:
    result = ledgerline(project(tmp_path, module, FAILING), "mix")
    assert result.exit_code == 1
    assert isinstance(result.exception, ValueError)
