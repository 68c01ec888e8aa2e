#!/usr/bin/env bash
# MLflow keeps the first profile, schema and source of a dataset of one name and digest in an experiment: another run
# that logs the same name and digest with another profile shows that of the first run, without a word.
#
# Versions: mlflow-skinny 3.17.2 with SQLAlchemy 2.0 (the store of `mlflow server`).
# Expected: what a run logged as its input is what its page shows, or the call is refused.
# Seen: the second run shows 5 rows, and logged 7; within one run, a second context of the same dataset is dropped, too
# (`_log_inputs_impl` in mlflow/store/tracking/sqlalchemy_store.py looks up existing rows by name and digest).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet mlflow==3.17.2

cat > "$folder/seen.py" <<'PYTHON'
import json
import sys

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag

client = MlflowClient(f"sqlite:///{sys.argv[1]}/mlflow.db")
experiment = client.create_experiment("flights", artifact_location=f"{sys.argv[1]}/artifacts")


def logged(rows: int, *contexts: str) -> list[tuple[int, str]]:
    """Log a dataset with so many rows in a new run; returns the rows and contexts that MLflow shows of it."""
    run = client.create_run(experiment).info.run_id
    dataset = Dataset("flights", "v1", "local", "{}", profile=json.dumps({"num_rows": rows}))
    for context in contexts:
        client.log_inputs(run, datasets=[DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])
    shown = client.get_run(run).inputs.dataset_inputs
    return [(json.loads(each.dataset.profile)["num_rows"], each.tags[0].value) for each in shown]


first, second = logged(5, "output"), logged(7, "input", "output")
print(f"the first run logged 5 rows as output and shows {first}")
print(f"the second logged 7 rows as input and as output, and shows {second}")
sys.exit(0 if (first, second) == ([(5, "output")], [(5, "input")]) else 1)
PYTHON
"$folder/venv/bin/python" "$folder/seen.py" "$folder" 2> /dev/null
