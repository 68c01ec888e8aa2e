#!/usr/bin/env bash
# With a retry policy, Dagster's event log no longer says that it was the storing of an output that failed.
#
# Versions: dagster 1.13.27.
#
# One would expect: an error of an IO manager is a DagsterExecutionHandleOutputError ("Error occurred while handling
# output ..."), whether or not the step is tried again; a retry policy decides about retries only.
#
# Seen: without a policy it is. With one, both the attempt that is retried and the last one have a RetryRequested, whose
# cause is the bare error of the IO manager; no message names the storing or the output. The same holds for
# inputs that cannot be loaded. What is left is the stack: it has Dagster's own function `_store_output`.
#
# Source: dagster/_core/execution/plan/utils.py, op_execution_error_boundary: the policy is looked at, and
# RetryRequestedFromPolicy raised, before the error would be wrapped. Tools that group failures by phase (load, compute, store)
# put all of these under "compute".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check dagster==1.13.27
cat > "$folder/show.py" <<'PYTHON'
import sys

import dagster as dg


class Full(dg.IOManager):
    def handle_output(self, context, obj):
        raise OSError(28, "No space left on device")

    def load_input(self, context): ...


@dg.op
def without_a_policy():
    return 1


@dg.op(retry_policy=dg.RetryPolicy(max_retries=1))
def with_a_policy():
    return 1


@dg.job(resource_defs={"io_manager": dg.IOManagerDefinition.hardcoded_io_manager(Full())})
def storing():
    without_a_policy()
    with_a_policy()


names = {}
with dg.DagsterInstance.ephemeral() as instance:
    result = storing.execute_in_process(instance=instance, raise_on_error=False)
    for entry in instance.all_logs(result.run_id):
        event = entry.dagster_event
        if event is not None and event.event_type_value in ("STEP_FAILURE", "STEP_UP_FOR_RETRY"):
            error, chain = event.event_specific_data.error, []
            at_storing = any("in _store_output" in frame for frame in error.stack)
            while error is not None:
                chain.append(error.cls_name)
                error = error.cause
            print(f"{event.step_key:<17} {event.event_type_value:<18} {' <- '.join(chain)}; _store_output in the stack: {at_storing}")
            names.setdefault(event.step_key, set()).update(chain)
wrapper = "DagsterExecutionHandleOutputError"
as_described = wrapper in names["without_a_policy"] and wrapper not in names["with_a_policy"]
sys.exit(0 if as_described else 1)
PYTHON
cd "$folder" && venv/bin/python show.py 2>/dev/null
