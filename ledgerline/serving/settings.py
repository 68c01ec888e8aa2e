"""The settings of serving, and the variables of libraries that serving sets. No Dagster is imported."""

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from pydantic import field_validator

from ledgerline.ledger.links import Links
from ledgerline.registry.stages import PRODUCTION
from ledgerline.settings import library_defaults
from ledgerline.settings.serving import ServingVariables
from ledgerline.traces.telemetry import Telemetry

# The registry is polled again a second later, so a slow call is not worth waiting for.
IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


@dataclass(frozen=True)
class Followed:
    """A registered model, and the alias of its version to serve."""

    name: str
    alias: str = PRODUCTION

    @classmethod
    def parsed(cls, text: str) -> Self:
        """Return the model that `name` or `name@alias` means.

        Raises:
            ValueError: The text is neither.
        """
        name, at, alias = text.partition("@")
        # The name becomes that of a folder.
        if not name or (at and not alias) or "/" in text or name.startswith("."):
            raise ValueError(f"write name or name@alias instead of {text!r}")
        return cls(name, alias or PRODUCTION)


class ServingSettings(ServingVariables):
    """All settings of serving, with the objects that other packages create from them.

    The fields are declared in ledgerline/settings/; the reference is docs/reference/settings.md.

    Example:
        >>> settings = ServingSettings.from_environment({"LEDGERLINE_SERVING_MODELS": "oven_demand@staging"})
        >>> settings.models
        (Followed(name='oven_demand', alias='staging'),)
    """

    @field_validator("model_names")
    @classmethod
    def _require_distinct_models(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        models = {Followed.parsed(name).name for name in names}
        if not models or len(models) < len(names):
            raise ValueError("name at least one model, and each of them once")
        return names

    @property
    def models(self) -> tuple[Followed, ...]:
        """The models to serve; requests that name no model go to the first."""
        return tuple(Followed.parsed(name) for name in self.model_names)

    @cached_property  # It warns of unusable values, for which one warning is enough.
    def telemetry(self) -> Telemetry:
        """Destination and sampling of traces."""
        return Telemetry.of(self)

    @property
    def links(self) -> Links:
        """Addresses of the pages of runs and traces."""
        return Links.of(self)


def prepare_libraries() -> None:
    """Set the variables that libraries read when they are imported."""
    for name, value in IMPATIENT.items():
        os.environ.setdefault(name, value)
    library_defaults.set_in(os.environ)


def allow_unpickling() -> None:
    """Allow MLflow to load models that run code in this process; loaded.py decides for which models."""
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "true"
