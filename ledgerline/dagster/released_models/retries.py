"""How the steps of a release behave when they fail, and what may not run beside them."""

import dagster as dg

# For what may pass by itself (a killed worker, a storage that does not answer). Bad input raises
# PermanentFailure instead, which is not retried.
RETRY = dg.RetryPolicy(max_retries=2, delay=2, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)

# The registry's aliases: one step at a time may move them.
REGISTRY_POOL = "model_registry"
