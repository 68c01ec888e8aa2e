#!/usr/bin/env bash
# The version that Dagster records for an upstream with partitions is not the version of any of them: up to 99
# partitions it is a SHA-256, even of one, and from 100 on the version of whichever was written last.
#
# Versions: dagster 1.13.27.
# Expected: `dagster/input_data_version/days` of a partition made from one partition is that one's
# `dagster/data_version`, so that reader and writer can be joined by it.
# Seen: reading one partition with version `v-007` gives sha256("v-007"); an asset that reads 99 partitions has
# the SHA-256 of their versions joined, and one that reads 100 has `v-007`, as that was written last
# (`_fetch_input_asset_version_info` in dagster/_core/execution/context/data_version_cache.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet dagster==1.13.27

cat > "$folder/seen.py" <<'PYTHON'
import sys
import warnings
from hashlib import sha256

import dagster as dg

warnings.simplefilter("ignore")
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def recorded(partitions: int) -> list[str]:
    """What is recorded of reading one partition, and of reading all."""
    keys = [f"{number:03}" for number in range(partitions)]
    days = dg.StaticPartitionsDefinition(keys)

    @dg.asset(name="one", partitions_def=days, deps=["days"])
    def one(): ...

    @dg.asset(name="all", deps=["days"])
    def all_of_them(): ...

    source = dg.AssetSpec("days", partitions_def=days)
    with dg.DagsterInstance.ephemeral() as instance:
        for key in [*keys[:7], *keys[8:], keys[7]]:
            tags = {"dagster/data_version": f"v-{key}"}
            instance.report_runless_asset_event(dg.AssetMaterialization("days", partition=key, tags=tags))
        found = []
        for asset, key in ((one, "007"), (all_of_them, None)):
            run = dg.materialize(
                [source, asset], instance=instance, selection=[asset], partition_key=key, run_config=QUIET
            )
            (written,) = run.asset_materializations_for_node(asset.op.name)
            found.append(written.tags["dagster/input_data_version/days"])
    return found


def hashed(*versions: str) -> str:
    return sha256("".join(versions).encode()).hexdigest()


as_described = True
for partitions in (99, 100):
    single, whole = recorded(partitions)
    digest = hashed(*(f"v-{number:03}" for number in range(partitions)))
    print(f"{partitions} partitions: reading 007 records {single}, reading all {whole}")
    as_described &= single == hashed("v-007") and whole == (digest if partitions < 100 else "v-007")
sys.exit(0 if as_described else 1)
PYTHON
"$folder/venv/bin/python" "$folder/seen.py"
