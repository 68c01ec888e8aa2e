"""`ledgerline settings`: lists the value of each setting and its origin, without secrets."""

import os

from dotenv import dotenv_values
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ledgerline.cleaning.passwords import without_password
from ledgerline.settings.declaration import Setting, as_text, settings_of
from ledgerline.settings.libraries import LibraryVariables
from ledgerline.settings.pipelines import PipelineVariables
from ledgerline.settings.project import Project
from ledgerline.settings.serving import ServingVariables


def print_settings(console: Console) -> None:
    """Print a table of all settings.

    Raises:
        SettingsError: Variables have values that cannot be used.
        ProjectError: The pyproject.toml of the project cannot be used.
    """
    environment = dict(os.environ)  # This is read before `.env` is loaded into the environment.
    in_file = dotenv_values(Project.here().root / ".env")
    pipelines, libraries = PipelineVariables.from_environment(), LibraryVariables.from_environment()
    settings = {
        setting.name: (setting, as_text(getattr(group, setting.attribute)))
        for group in (pipelines, pipelines.agent, ServingVariables.from_environment(), libraries)
        for setting in settings_of(type(group))
        if isinstance(group, setting.owner)
    }
    table = Table("Setting", "Value", "From", box=None, pad_edge=False)
    for name, (setting, value) in settings.items():
        if environment.get(name):
            origin = "environment"
        elif in_file.get(name):
            origin = ".env"
        elif "[tool.ledgerline]" in setting.default and value not in ("", Project.experiment):
            origin = "pyproject.toml"
        else:
            origin = "default"
        displayed = _displayed(setting, value or (setting.default if origin == "default" else ""))
        cells = name, displayed, origin
        table.add_row(*(Text(cell, overflow="fold") for cell in cells))
    console.print(table)


def _displayed(setting: Setting, value: str) -> str:
    if setting.hides == "value" and value:
        return "***"
    return without_password(value) if "://" in value else value
