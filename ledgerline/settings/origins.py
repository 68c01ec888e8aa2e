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
    settings = {
        setting.name: (setting, as_text(getattr(group, setting.attribute)))
        for group in groups
        for setting in settings_of(type(group))
        if isinstance(group, setting.owner)
    }
    for name, (setting, value) in settings.items():
        if environment.get(name):
            yield ValueInForce(setting, value, "environment")
        elif in_file.get(name):
            yield ValueInForce(setting, value, ".env")
        elif "[tool.ledgerline]" in setting.default and value not in ("", Project.experiment):
            yield ValueInForce(setting, value, "pyproject.toml")
        else:
            yield ValueInForce(setting, value or setting.default, "default")
