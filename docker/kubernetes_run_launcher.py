"""Dagster's launcher of runs on Kubernetes, for an instance that is also opened without a token.

With `max_resume_run_attempts` above 0, Dagster 1.13.27 makes the run launcher whenever an instance is opened
(`_initialize_run_monitoring` in dagster/_core/instance/methods/settings_methods.py), and its own launcher
reads the token of the pod's service account at once. Steps, the observer and a computer outside the cluster
open the instance, too; they launch nothing, and so have no token.
"""

from collections.abc import Mapping
from typing import Any

from dagster_k8s import K8sRunLauncher
from kubernetes.config import ConfigException

from ledgerline.ledger.dagster_internals import ConfigurableClassData, RunLauncher


class NoTokenError(Exception):
    """A run was to be launched, ended or checked by a process that may not use Kubernetes' API."""


class OptionalTokenRunLauncher(K8sRunLauncher):
    """Dagster's launcher, which without access to Kubernetes can be made, and not used."""

    def __init__(self, inst_data: ConfigurableClassData | None = None, **config: Any) -> None:
        self._refused: ConfigException | None = None
        try:
            super().__init__(inst_data=inst_data, **config)
        except ConfigException as error:
            RunLauncher.__init__(self)
            self._inst_data = inst_data
            self._refused = error

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "OptionalTokenRunLauncher":
        """Make the launcher, as the instance does."""
        return cls(inst_data, **config_value)

    def __getattr__(self, name: str) -> Any:
        # Python asks here only for what is missing: what Dagster's launcher sets up once it has the token.
        if vars(self).get("_refused") is None:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}.")
        raise NoTokenError(
            f"This process may not launch, end or check runs on Kubernetes: {self._refused} Do it on "
            "Dagster's page, or in the pod of the daemon or of the webserver, whose service account may."
        ) from self._refused
