"""Reads the lineage documents of runs from MLflow. mlflow_runs/projection.py writes them."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ledgerline.dagster.tracking import MLflowResource
from ledgerline.ledger.ids import RUN_ID_TAG
from ledgerline.mlflow_runs.projection import LINEAGE_FOLDER


def lineage_documents(mlflow: MLflowResource, most_runs: int) -> Iterator[Mapping[str, Any]]:
    """Yield the OpenLineage documents of the latest runs, beginning with the last run.

    Raises:
        PermanentFailure: MLflow cannot be reached.
    """
    client, experiment_id = mlflow.open_experiment()
    runs = client.search_runs(
        [experiment_id],
        f"tags.`{RUN_ID_TAG}` != ''",
        max_results=most_runs,
        order_by=["attributes.start_time DESC"],
    )
    for run in runs:
        files = client.list_artifacts(run.info.run_id, LINEAGE_FOLDER)
        if not files:
            continue  # a step opened this run, which has no documents
        with tempfile.TemporaryDirectory() as folder:
            path = client.download_artifacts(run.info.run_id, LINEAGE_FOLDER, folder)
            for file in sorted(Path(path).glob("*.json")):
                yield json.loads(file.read_text())
