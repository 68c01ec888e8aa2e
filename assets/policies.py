"""Policies of the assets for retries, backfills, automation and concurrency."""

import dagster as dg

# Transient failures (a killed worker, a storage that does not respond) are retried. Bad input raises
# PermanentFailure instead, which is not retried.
RETRY = dg.RetryPolicy(max_retries=2, delay=2, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)

# A backfill of any number of days is one run: a year is a loop over files, not 365 processes.
ALL_DAYS_IN_ONE_RUN = dg.BackfillPolicy.single_run()

# Reference tables need no schedule: they are materialised if they are missing. on_missing() does not fit,
# because it waits for an upstream asset, and these have none. A failed table is not retried at every tick.
WHEN_MISSING = (
    dg.AutomationCondition.missing()
    & ~dg.AutomationCondition.in_progress()
    & ~dg.AutomationCondition.execution_failed()
).with_label("when_missing")

# A model that is trained alone is evaluated, too, whichever month it belongs to.
WHEN_INPUTS_CHANGE = dg.AutomationCondition.eager().without(dg.AutomationCondition.in_latest_time_window())

# Only one step at a time may move the registry's aliases.
REGISTRY_POOL = "model_registry"
