"""Finds the value of each setting in this process, and its origin."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from dotenv import dotenv_values

from ledgerline.settings.declaration import Setting, as_text, settings_of
from ledgerline.settings.libraries import LibraryVariables
from ledgerline.settings.pipelines import PipelineVariables
from ledgerline.settings.project import Project
from ledgerline.settings.serving import ServingVariables


@dataclass(frozen=True)
class ValueInForce:
    """The value of a setting.

    Attributes:
        setting: The setting.
        value: The value as it would be written into the variable, which may be a secret; empty without a
            value.
        origin: "environment", ".env", "pyproject.toml" or "default".
    """

    setting: Setting
    value: str = field(repr=False)
    origin: str


def values_in_force() -> Iterator[ValueInForce]:
    """Return the value of each setting in this process.

    Raises:
        SettingsError: Variables have values that cannot be used.
        ProjectError: The pyproject.toml of the project cannot be used.
    """
    environment = dict(os.environ)  # This is read before `.env` is loaded into the environment.
    in_file = dotenv_values(Project.here().root / ".env")
    pipelines = PipelineVariables.from_environment()
    groups = (
        pipelines,
        pipelines.agent,
        ServingVariables.from_environment(),
        LibraryVariables.from_environment(),
    )
    listed: set[str] = set()
    for group in groups:
        for setting in settings_of(type(group)):
            if setting.name in listed or not isinstance(group, setting.owner):
                continue
            listed.add(setting.name)
            value = as_text(getattr(group, setting.attribute))
            if environment.get(setting.name):
                origin = "environment"
            elif in_file.get(setting.name):
                origin = ".env"
            elif "[tool.ledgerline]" in setting.default and value not in ("", Project.experiment):
                origin = "pyproject.toml"
            else:
                origin = "default"
            yield ValueInForce(setting, value or setting.default if origin == "default" else value, origin)
