"""The project that settings and commands are about: `[tool.ledgerline]` in its pyproject.toml.

[tool.ledgerline]
definitions = "pipelines.definitions"  # the module with Dagster's definitions, as `defs`
experiment = "oven_demand"             # the MLflow experiment that shows its runs
models = ["oven_demand"]               # the registered models that `ledgerline serve` serves
run = ["bake", "train", "release"]     # the jobs that `ledgerline run` runs, in this order
run_partition = "2026-07-01"           # for this partition of the one that trains; default: the last
commands = "pipelines.commands"        # a module with further commands, as the Typer app `app`
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from ledgerline.errors import LedgerlineError

FILE = "pyproject.toml"
VARIABLE = "LEDGERLINE_PROJECT"  # its folder, for processes that work in another one, as containers do


class ProjectError(LedgerlineError):
    """A project cannot be used, or is missing where a command needs one."""


@dataclass(frozen=True)
class Project:
    """A folder, and what its pyproject.toml says to this library.

    Attributes:
        root: The folder. State is kept in it, and `.env` is read from it.
        definitions: The module that has Dagster's definitions as `defs`; None without a project.
        experiment: The MLflow experiment that shows its runs, unless a variable names another.
        models: The registered models that are served, unless a variable names others.
        run: The jobs that `ledgerline run` runs, in this order.
        run_partition: The partition of the main one of them, unless another is asked for; None: its last.
        commands: The module that has commands of its own for `ledgerline`, as the Typer app `app`.
    """

    root: Path
    definitions: str | None = None
    experiment: str = "ledgerline"
    models: tuple[str, ...] = ()
    commands: str | None = None
    run: tuple[str, ...] = ()
    run_partition: str | None = None

    @classmethod
    def here(cls) -> Self:
        """Return the project of this process: of the working folder, or that which LEDGERLINE_PROJECT names.

        Raises:
            ProjectError: The pyproject.toml cannot be read, or says what is not understood.
        """
        return cls.found(os.environ)

    @classmethod
    def found(cls, environment: Mapping[str, str], folder: Path | None = None) -> Self:
        """Return the project in a folder, or in the nearest one above; where there is none, the folder alone.

        Args:
            environment: Variables, of which LEDGERLINE_PROJECT may name the folder.
            folder: Where to look without that; default: the working folder.

        Raises:
            ProjectError: The pyproject.toml cannot be read, or says what is not understood.
        """
        named = environment.get(VARIABLE)
        start = Path(named or folder or Path.cwd()).absolute()
        for each in (start, *start.parents):
            if (each / FILE).is_file() and (project := cls._read(each / FILE)) is not None:
                return project
        return cls(start)

    @property
    def module(self) -> str:
        """The module with the definitions, for what cannot do without.

        Raises:
            ProjectError: There is none.
        """
        if self.definitions is None:
            raise ProjectError(
                f"There is no project in {self.root} or above it.",
                f"Change to the folder of yours: its {FILE} "
                'names the definitions, as `definitions = "pipelines.definitions"` of [tool.ledgerline]. '
                "`ledgerline observe` and `trace` need none: --dagster-home or DAGSTER_HOME names an "
                "instance.",
            )
        return self.definitions

    @classmethod
    def _read(cls, path: Path) -> Self | None:
        """Return the project of a pyproject.toml, if it is one of this library's."""
        try:
            table: Any = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("ledgerline")
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ProjectError(f"{path} cannot be read: {error}") from error
        if table is None:
            return None
        where = f"[tool.ledgerline] in {path}"
        known = [field.name for field in fields(cls) if field.name != "root"]
        if not isinstance(table, dict) or not table.keys() <= set(known):
            raise ProjectError(f"{where} is {table!r}; it is a table that may have {', '.join(known)}.")
        for name in ("definitions", "experiment", "commands", "run_partition"):
            if name in table and (not isinstance(table[name], str) or not table[name]):
                raise ProjectError(f"{name} of {where} is {table[name]!r}; it must be a text.")
        lists = {name: table.get(name, []) for name in ("models", "run")}
        for name, found in lists.items():
            if not isinstance(found, list) or not all(isinstance(each, str) and each for each in found):
                raise ProjectError(f"{name} of {where} is {found!r}; it must be a list of texts.")
        return cls(root=path.parent, **{**table, **{name: tuple(found) for name, found in lists.items()}})
