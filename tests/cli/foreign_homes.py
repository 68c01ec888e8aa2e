"""The home of another project's instance, and what was exported of it."""

import hashlib
from pathlib import Path

import dagster as dg
from mlflow import MlflowClient

from ledgerline.ledger.event_log import read_history
from ledgerline.ledger.storages.instances import only_read_instance


@dg.asset
def flour() -> int:
    return 3


@dg.asset
def bread(flour: int) -> int:
    return flour


def baked(instance: dg.DagsterInstance) -> str:
    return dg.materialize([flour, bread], instance=instance).run_id


def run_ids(home: Path, scratch: Path) -> list[str]:
    with only_read_instance(home, scratch / "cursors") as observed:
        return [run.run_id for run in observed.instance.get_runs()]


def runs_in(client: MlflowClient, experiment: str) -> list[str]:
    """Return the ids of the Dagster runs of an experiment."""
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return []
    return sorted(run.data.tags["dagster.run_id"] for run in client.search_runs([found.experiment_id]))


def links_reported(home: Path, run_id: str) -> bool:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        history = read_history(instance, run_id)
        assert history is not None
        return history.links_reported


def contents(folder: Path) -> dict[str, str]:
    """Each file, with the digest of its content and its times."""
    found = {}
    for file in sorted(folder.rglob("*")):
        digest = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "a folder"
        found[str(file)] = f"{digest} {file.stat().st_mtime_ns}"
    return found
