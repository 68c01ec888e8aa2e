"""Dagster's run launcher for Kubernetes, for an instance that is also opened without a token.

With `max_resume_run_attempts` above 0, Dagster 1.13.27 creates the run launcher whenever an instance is
opened (`_initialize_run_monitoring` in dagster/_core/instance/methods/settings_methods.py), and Dagster's
launcher reads the token of the pod's service account at once. Steps, the observer and computers outside the
cluster also open the instance. They launch nothing and have no token.
"""

from typing import Any

from dagster_k8s import K8sRunLauncher
from kubernetes.config import ConfigException

from ledgerline.ledger.dagster_internals import ConfigurableClassData, RunLauncher


class NoTokenError(Exception):
    """Raised when a process without access to Kubernetes' API tries to launch, end or check a run."""


class OptionalTokenRunLauncher(K8sRunLauncher):
    """A version of Dagster's launcher that can be created, but not used, without access to Kubernetes."""

    def __init__(self, inst_data: ConfigurableClassData | None = None, **config: Any) -> None:
        self._refused: ConfigException | None = None
        try:
            super().__init__(inst_data=inst_data, **config)
        except ConfigException as error:
            RunLauncher.__init__(self)
            self._inst_data = inst_data
            self._refused = error

    def __getattr__(self, name: str) -> Any:
        # Python calls this only for missing attributes: those that Dagster's launcher sets with the token.
        if vars(self).get("_refused") is None:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}.")
        raise NoTokenError(
            f"This process may not launch, end or check runs on Kubernetes: {self._refused} Use Dagster's "
            "pages, or the pod of the daemon or of the webserver, whose service accounts have the permission."
        ) from self._refused
