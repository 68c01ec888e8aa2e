"""Adds the commands of a project to those of `ledgerline`, and ends commands that raise an error.

A project declares them as a Typer app, `app`, in the module that `commands` of [tool.ledgerline] names. The
module is imported for help, and for a command that is not built in. A broken module leaves the built-in
commands usable.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

from ledgerline.cli.commands import print_error
from ledgerline.errors import LedgerlineError
from ledgerline.settings.project import Project

ATTRIBUTE = "app"


class CommandsError(LedgerlineError):
    """The commands of a project cannot be loaded."""


class WithProjectCommands(TyperGroup):
    """The built-in commands, followed by those of the project."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands; print why the project's cannot be loaded."""
        names = super().list_commands(ctx)
        try:
            return [*names, *self._of_project]
        except LedgerlineError as error:
            print_error(error)
            return names

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command by its name."""
        built_in = super().get_command(ctx, cmd_name)
        return self._of_project.get(cmd_name) if built_in is None else built_in

    def invoke(self, ctx: Any) -> Any:
        """Run a command; an error of the library ends it with one message on stderr and exit status 2."""
        try:
            return super().invoke(ctx)
        except LedgerlineError as error:
            print_error(error)
            raise typer.Exit(2) from None

    @cached_property
    def _of_project(self) -> Mapping[str, Any]:
        project = Project.here()
        if project.commands is None:
            return {}
        commands = get_group(app_of(project)).commands
        if taken := sorted(self.commands.keys() & commands.keys()):
            raise CommandsError(
                f"{project.commands} has commands with the names of built-in commands: {', '.join(taken)}.",
                "Give them other names.",
            )
        return commands


def app_of(project: Project) -> typer.Typer:
    """Import the commands of a project.

    Raises:
        CommandsError: The commands cannot be imported, or the module has no Typer app.
    """
    name = project.commands or ""
    subject = f"{name}, the module with the commands of {project.root},"
    try:
        module = project.imported(name)
    except Exception as error:
        raise CommandsError(f"{subject} cannot be imported: {type(error).__name__}: {error}") from error
    app = getattr(module, ATTRIBUTE, None)
    if not isinstance(app, typer.Typer):
        raise CommandsError(f"{subject} has no commands.", f"Assign a typer.Typer to {ATTRIBUTE!r} in it.")
    return app
