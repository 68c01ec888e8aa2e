"""The resource that gives steps and sensors the model registry of ledgerline/registry/."""

from collections.abc import Mapping
from typing import Any, cast

import dagster as dg
from pydantic import Field

from ledgerline.dagster.failures import permanent_failures
from ledgerline.dagster.tracking import connect
from ledgerline.registry.promotion import InPlaceError, Mode, NotApprovedError, RuleBrokenError
from ledgerline.registry.registry import Model, Registry
from ledgerline.registry.stages import AliasState


class ModelRegistryResource(dg.ConfigurableResource):
    """The model registry in MLflow.

    Errors of its models become failures that Dagster does not retry. Transient errors are raised unchanged.
    So are InPlaceError, NotApprovedError and RuleBrokenError, which are results and not failures.

    Example:
        >>> registry = ModelRegistryResource(tracking_uri="sqlite:///registry.db")
        >>> registry.alias_states()
        {}
        >>> registry.model("churn").version(1)
        Traceback (most recent call last):
        ...
        ledgerline.dagster.failures.PermanentFailure: churn has no version 1. `ledgerline registry ...
    """

    tracking_uri: str = Field(description="URL of an MLflow server, or URI of its database.")
    promotion: Mode = Field(
        default=Mode.automatic,
        description="Whether a version that passes every gate is promoted at once, or after approval.",
    )
    poll_seconds: float = Field(
        default=5,
        ge=0,
        description="How often sensors poll the registry, in seconds, unless a webhook notifies them.",
    )

    def alias_states(self) -> Mapping[str, AliasState]:
        """Return the alias state of every model, by name, in one call."""
        return Registry(connect(self.tracking_uri)).alias_states()

    def model(self, name: str) -> Model:
        """Return the registered model of this name, which need not exist yet.

        Raises:
            PermanentFailure: MLflow cannot be reached.
        """
        return cast("Model", _ModelOfStep(Registry(connect(self.tracking_uri)).model(name)))


class _ModelOfStep:
    """Forwards to a model, and turns its errors into failures that Dagster does not retry."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._model, name)
        if not callable(attribute):
            return attribute
        return permanent_failures(InPlaceError, NotApprovedError, RuleBrokenError)(attribute)
