"""Makes an asset from its spec, which a translator may have changed."""

from collections.abc import Callable
from typing import Any

import dagster as dg

# Dagster stores the kinds of an asset among its tags, but refuses such tags as an argument.
KIND_TAG_PREFIX = "dagster/kind/"

# The policy is for transient errors (a killed worker, an unreachable storage). Bad input raises
# PermanentFailure instead, which is not retried.
RETRY = dg.RetryPolicy(max_retries=2, delay=2, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)


def asset_of_spec(spec: dg.AssetSpec, **options: Any) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Return `@dg.asset` with all fields of the spec, retries, and options that a spec does not have."""
    return dg.asset(
        key=spec.key,
        deps=list(spec.deps),
        partitions_def=spec.partitions_def,
        description=spec.description,
        metadata=spec.metadata,
        group_name=spec.group_name,
        kinds=spec.kinds,
        owners=list(spec.owners),
        tags={name: value for name, value in spec.tags.items() if not name.startswith(KIND_TAG_PREFIX)},
        automation_condition=spec.automation_condition,
        code_version=spec.code_version,
        retry_policy=RETRY,
        **options,
    )
