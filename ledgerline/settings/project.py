"""Reads the project that settings and commands are about from `[tool.ledgerline]` in its pyproject.toml."""

import os
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Self

from ledgerline.errors import LedgerlineError

FILE = "pyproject.toml"
VARIABLE = "LEDGERLINE_PROJECT"  # set for processes with another working folder, such as those in containers


class ProjectError(LedgerlineError):
    """Raised when a project cannot be used, or when a command needs a project and does not find it."""


@dataclass(frozen=True)
class Project:
    """A folder with the table `[tool.ledgerline]` of its pyproject.toml.

    Attributes:
        root: Folder that contains the state and `.env`.
        definitions: Module with Dagster's definitions as `defs`; None without a project.
        experiment: MLflow experiment of the runs, unless LEDGERLINE_EXPERIMENT is set.
        models: Registered models to serve, unless LEDGERLINE_SERVING_MODELS is set.
        run: Jobs that `ledgerline run` runs, in this order.
        run_partition: Partition of the job that trains, unless an option names another; None for the last
            one.
        commands: Module with further commands of `ledgerline`, as the Typer app `app`.

    Example:
        >>> _ = Path("pyproject.toml").write_text('tool.ledgerline.models = ["oven_demand"]')
        >>> Project.from_environment({}).models
        ('oven_demand',)
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
        """Return the project of the working folder, or of the folder that LEDGERLINE_PROJECT names.

        Raises:
            ProjectError: The pyproject.toml cannot be read, or has values that cannot be used.
        """
        return cls.from_environment(os.environ)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], folder: Path | None = None) -> Self:
        """Return the project of a folder or its nearest parent with a project; else one without definitions.

        Args:
            environment: Variables; LEDGERLINE_PROJECT may name the folder.
            folder: Folder to start from if that variable is not set; by default, the working folder.

        Raises:
            ProjectError: The pyproject.toml cannot be read, or has values that cannot be used.
        """
        named = environment.get(VARIABLE)
        start = Path(named or folder or Path.cwd()).absolute()
        for each in (start, *start.parents):
            if (each / FILE).is_file() and (project := cls._read(each / FILE)) is not None:
                return project
        return cls(start)

    def imported(self, name: str) -> ModuleType:
        """Import a module of the project, whose folder Python does not search by itself."""
        if str(self.root) not in sys.path:
            sys.path.insert(0, str(self.root))
        return import_module(name)

    @property
    def module(self) -> str:
        """The module with the definitions.

        Raises:
            ProjectError: There is no project.
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
        """Return the project of a pyproject.toml; None if it has no table `[tool.ledgerline]`."""
        try:
            table: Any = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("ledgerline")
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ProjectError(f"{path} cannot be read: {error}") from error
        if table is None:
            return None
        where = f"[tool.ledgerline] in {path}"
        known = [field.name for field in fields(cls) if field.name != "root"]
        if not isinstance(table, dict) or not table.keys() <= set(known):
            raise ProjectError(
                f"{where} is {table!r}; it must be a table with no other keys than {', '.join(known)}."
            )
        for name in ("definitions", "experiment", "commands", "run_partition"):
            if name in table and (not isinstance(table[name], str) or not table[name]):
                raise ProjectError(f"{name} of {where} is {table[name]!r}; it must be a text.")
        lists = {name: table.get(name, []) for name in ("models", "run")}
        for name, value in lists.items():
            if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
                raise ProjectError(f"{name} of {where} is {value!r}; it must be a list of texts.")
        return cls(root=path.parent, **{**table, **{name: tuple(value) for name, value in lists.items()}})
