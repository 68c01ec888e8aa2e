#!/usr/bin/env bash
# Behaviour: in a run over a range of static partitions, the `asset_partition_keys` of an IO manager come in another
#   order in another process (they pass through a Python set), while the `partition_keys` of the step are in order.
# Seen with: dagster 1.13.27, Python 3.11.
# One would expect: the order of the definition, which get_partition_keys_in_range has, and which time windows keep.
#   What an IO manager joins or hashes "in partition order" otherwise differs from run to run, with no error.
# Seen: another order with each hash seed; one order in the step.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check dagster==1.13.27
cat > "$work/order.py" <<'PYTHON'
import logging

import dagster as dg

logging.disable(logging.CRITICAL)
SIZES = dg.StaticPartitionsDefinition(["small", "medium", "large", "huge", "vast"])
RANGE = dg.PartitionKeyRange("small", "vast")


class Printing(dg.IOManager):
    def handle_output(self, context, obj):
        print("storage", *context.asset_partition_keys)

    def load_input(self, context):
        raise NotImplementedError


@dg.asset(partitions_def=SIZES, backfill_policy=dg.BackfillPolicy.single_run())
def boxes(context: dg.AssetExecutionContext) -> int:
    print("step", *context.partition_keys)
    return 1


tags = {"dagster/asset_partition_range_start": RANGE.start, "dagster/asset_partition_range_end": RANGE.end}
dg.materialize([boxes], tags=tags, resources={"io_manager": Printing()})
PYTHON
for seed in 1 2 3 4; do
  PYTHONHASHSEED=$seed "$work/venv/bin/python" -W ignore "$work/order.py" 2>/dev/null | sed "s/^/seed $seed: /"
done | tee "$work/orders"
steps=$(grep -o 'step .*' "$work/orders" | sort -u | wc -l)
storages=$(grep -o 'storage .*' "$work/orders" | sort -u | wc -l)
echo "orders in steps: $steps, in IO managers: $storages"
test "$steps" -eq 1 && test "$storages" -gt 1
