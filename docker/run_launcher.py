"""Launches runs in the code server as Dagster does, but keeps them waiting while the server is being stopped.

A server that is being stopped refuses new runs, and responds until those in progress have ended. Dagster's
launcher marks a refused run as failed. This one treats the server as unavailable, so that the run waits.
"""

from dagster import DefaultRunLauncher

from ledgerline.ledger.dagster_internals import (
    DagsterLaunchFailedError,
    DagsterUserCodeUnreachableError,
    LaunchRunContext,
)

# The message of a server that is being stopped.
REFUSED = "Tried to start a run on a server after telling it to shut down"


class PatientRunLauncher(DefaultRunLauncher):
    """A version of Dagster's launcher whose runs wait while the code server is being stopped."""

    def launch_run(self, context: LaunchRunContext) -> None:
        """Launch a run; raise DagsterUserCodeUnreachableError if the server is being stopped."""
        try:
            super().launch_run(context)
        except DagsterLaunchFailedError as error:
            if REFUSED not in str(error):
                raise
            # The daemon returns the run to the queue (run_queue in dagster.yaml).
            raise DagsterUserCodeUnreachableError(str(error)) from error
