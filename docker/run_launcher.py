"""Gives runs to the code server, as Dagster's own launcher does, but for a server that is being stopped.

Such a server takes no more runs, and answers until those under way have ended. To Dagster's launcher a run
that it refuses has failed; to this one it is as if there were no server, and the run waits.
"""

from collections.abc import Mapping
from typing import Any

from dagster import DefaultRunLauncher

from ledgerline.ledger.dagster_internals import (
    ConfigurableClassData,
    DagsterLaunchFailedError,
    DagsterUserCodeUnreachableError,
    LaunchRunContext,
)

# What a server that was asked to stop says to a run.
REFUSED = "Tried to start a run on a server after telling it to shut down"


class PatientRunLauncher(DefaultRunLauncher):
    """Dagster's launcher, whose runs wait for a code server that is being stopped."""

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "PatientRunLauncher":
        """Make it, as the instance does."""
        return cls(inst_data, **config_value)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Give a run to the code server, or say that there is none."""
        try:
            super().launch_run(context)
        except DagsterLaunchFailedError as error:
            if REFUSED not in str(error):
                raise
            # The daemon puts the run back into the queue (run_queue in dagster.yaml).
            raise DagsterUserCodeUnreachableError(str(error)) from error
