"""Adds the commands that a project has of its own to those of `ledgerline`.

They are those of a Typer app, `app`, in the module that `commands` of [tool.ledgerline] names. It is imported
for help, and for a command that is not built in; so one that is broken leaves the built-in commands alone.
"""

import importlib
import sys
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

from ledgerline.cli.commands import say, stop
from ledgerline.settings.extras import MissingExtraError
from ledgerline.settings.project import Project, ProjectError

ATTRIBUTE = "app"


class CommandsError(Exception):
    """The commands of a project cannot be used; the message names the module and says why."""


class WithProjectCommands(TyperGroup):
    """The built-in commands, and after them those of the project."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands; of those of the project that cannot be loaded, say why."""
        names = super().list_commands(ctx)
        try:
            return [*names, *self._of_project]
        except (CommandsError, ProjectError) as error:
            say(error)
            return names

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command by its name."""
        built_in = super().get_command(ctx, cmd_name)
        if built_in is not None:
            return built_in
        try:
            return self._of_project.get(cmd_name)
        except (CommandsError, ProjectError) as error:
            stop(error)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; one whose extra is not installed ends with the name of it."""
        try:
            return super().invoke(ctx)
        except MissingExtraError as error:
            stop(error)

    @cached_property
    def _of_project(self) -> Mapping[str, Any]:
        project = Project.here()
        if project.commands is None:
            return {}
        found = get_group(app_of(project)).commands
        if taken := sorted(self.commands.keys() & found.keys()):
            raise CommandsError(
                f"{project.commands} has commands of the names of built-in ones: {', '.join(taken)}. Give "
                "them other names."
            )
        return found


def app_of(project: Project) -> typer.Typer:
    """Import the commands of a project.

    Raises:
        CommandsError: They cannot be imported, or are not a Typer app.
    """
    name, root = project.commands or "", str(project.root)
    where = f"{name}, the commands of {project.root},"
    if root not in sys.path:
        sys.path.insert(0, root)  # the script's own folder is there, and not the working folder
    try:
        module = importlib.import_module(name)
    except Exception as error:
        raise CommandsError(f"{where} cannot be imported: {type(error).__name__}: {error}") from error
    found = getattr(module, ATTRIBUTE, None)
    if not isinstance(found, typer.Typer):
        raise CommandsError(f"{where} has no commands: assign a typer.Typer to {ATTRIBUTE!r} in it.")
    return found
