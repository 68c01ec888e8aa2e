"""That somebody said the registry has changed, kept in the Dagster instance for the sensors that follow it.

What has changed is not kept: a wake-up can be lost or made up, so it only brings forward when the registry is
read.
"""

import time

import dagster as dg

KEY = "ledgerline/registry-woken"


def wake(instance: dg.DagsterInstance) -> None:
    """Note that the registry should be read now."""
    instance.run_storage.set_cursor_values({KEY: repr(time.time())})


def notified_at(instance: dg.DagsterInstance) -> float | None:
    """When somebody last did so, in seconds since the epoch; None if nobody ever did.

    It is the clock of whoever did: to see whether there was another since, keep the value and compare for
    equality.
    """
    text = instance.run_storage.get_cursor_values({KEY}).get(KEY)
    return None if text is None else float(text)
