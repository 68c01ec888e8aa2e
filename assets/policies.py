"""How assets behave when they fail, are backfilled, or should appear by themselves."""

import dagster as dg

# For what may pass by itself (a killed worker, a storage that does not answer). Bad input raises
# PermanentFailure instead, which is not retried.
RETRY = dg.RetryPolicy(max_retries=2, delay=2, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)

# Any number of days is one run: a year is a loop over files, not 365 processes.
ALL_DAYS_IN_ONE_RUN = dg.BackfillPolicy.single_run()

# Reference tables have no rhythm a schedule could follow: they are needed once they are missing. Not
# on_missing(): it waits for something upstream to appear, and these have nothing upstream. What has
# failed is left to a person, instead of being tried again at every tick.
WHEN_MISSING = (
    dg.AutomationCondition.missing()
    & ~dg.AutomationCondition.in_progress()
    & ~dg.AutomationCondition.execution_failed()
).with_label("when_missing")

# A model that somebody trains by itself still gets judged, whichever month it is of.
WHEN_INPUTS_CHANGE = dg.AutomationCondition.eager().without(dg.AutomationCondition.in_latest_time_window())

# The registry's aliases: one step at a time may move them.
REGISTRY_POOL = "model_registry"
