"""The notification that the registry has changed, stored in the Dagster instance for the registry's sensors.

It does not report what has changed. A notification can be lost or forged, so it only makes the sensors poll
the registry earlier.
"""

import time

import dagster as dg

KEY = "ledgerline/registry-notified"


def notify(instance: dg.DagsterInstance) -> None:
    """Store the notification that the registry should be polled now."""
    instance.run_storage.set_cursor_values({KEY: repr(time.time())})


def notified_at(instance: dg.DagsterInstance) -> float | None:
    """Return the time of the last notification, in seconds since the epoch; None before the first one.

    The time is that of the notifier's clock. To detect another notification, compare for equality with the
    value before.
    """
    text = instance.run_storage.get_cursor_values({KEY}).get(KEY)
    return None if text is None else float(text)
