#!/usr/bin/env bash
# Asking Dagster for the event log of a run makes a database file in DAGSTER_HOME, even for a run that does not exist.
#
# Versions: dagster 1.13.27, Python 3.11.
# Expected: reading changes nothing; a run without a log has no records.
# Seen: `get_records_for_run("no-such-run")` returns no records, and leaves `history/runs/no-such-run.db` with all tables
#   behind (dagster/_core/storage/event_log/sqlite/sqlite_event_log.py: `_connect` initialises each database it is asked for).
#   Opening an instance for reading makes files, too: also at a `base_dir` that is misspelt.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check dagster==1.13.27

mkdir "$folder/home"
touch "$folder/home/dagster.yaml"
"$folder/venv/bin/python" - "$folder/home" <<'PYTHON'
import sys
from pathlib import Path

import dagster as dg

home = Path(sys.argv[1])
with dg.DagsterInstance.from_config(str(home)) as instance:
    before = {file.name for file in home.rglob("*.db")}
    records = instance.get_records_for_run("no-such-run").records
    made = sorted({file.name for file in home.rglob("*.db")} - before)
print("records:", len(records), "- files made by reading:", made)
sys.exit(0 if not records and made == ["no-such-run.db"] else 1)
PYTHON
