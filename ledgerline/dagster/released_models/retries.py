"""The retry policy of the steps of a release, and the pool that runs them one at a time."""

import dagster as dg

# The policy is for transient errors (a killed worker, an unreachable storage). Bad input raises
# PermanentFailure instead, which is not retried.
RETRY = dg.RetryPolicy(max_retries=2, delay=2, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)

# Only one step at a time may move aliases of the registry.
REGISTRY_POOL = "model_registry"
