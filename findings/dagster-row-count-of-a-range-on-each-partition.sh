#!/usr/bin/env bash
# Dagster repeats the metadata of an output on each partition of a range, `dagster/row_count` too: whoever adds up
# the materialisations of a run counts the rows of the output once for each partition.
#
# Versions: dagster 1.13.27.
# Expected: the count of an output is told apart from that of a partition, or is on one materialisation.
# Seen: four materialisations with 40 rows each, of a run that wrote 40. dagster-duckdb and dagster-snowflake add
# `dagster/row_count` to the output whenever it has several partitions (`_get_output_asset_events` in
# dagster/_core/execution/plan/execute_step.py makes one materialisation for each, with the same metadata).
# `dagster/partition_row_count`, given for one partition by `context.add_asset_metadata`, is not repeated.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet dagster==1.13.27

cat > "$folder/seen.py" <<'PYTHON'
import sys
import warnings

import dagster as dg

warnings.simplefilter("ignore")
DAYS = dg.StaticPartitionsDefinition(["d1", "d2", "d3", "d4"])


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
def flights():
    return dg.MaterializeResult(metadata={"dagster/row_count": 40})


run = dg.materialize(
    [flights],
    tags={"dagster/asset_partition_range_start": "d1", "dagster/asset_partition_range_end": "d4"},
    run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
)
counts = {
    each.partition: each.metadata["dagster/row_count"].value
    for each in run.asset_materializations_for_node("flights")
}
print(f"rows by partition: {counts}; the run wrote 40")
sys.exit(0 if list(counts.values()) == [40] * 4 else 1)
PYTHON
"$folder/venv/bin/python" "$folder/seen.py"
