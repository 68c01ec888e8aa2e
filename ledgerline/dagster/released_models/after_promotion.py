"""Requests a run of a job when another version is in production."""

from dataclasses import dataclass

import dagster as dg

from ledgerline.dagster.released_models.named_assets import Asset, last_materialised


@dataclass(frozen=True)
class RunAgain:
    """A job that runs again for the last partition of an asset, such as the predictions of the last day.

    Attributes:
        job: Name of the job.
        asset: Asset to materialise again: its last materialised partition, or all of it if it has no
            partitions.
    """

    job: str
    asset: Asset

    def requests(self, instance: dg.DagsterInstance, run_key: str) -> list[dg.RunRequest]:
        """Return the run to start; empty if the asset was never materialised."""
        partitions = self.asset.partitions_def
        if partitions is None:
            if instance.get_latest_materialization_event(self.asset.key) is None:
                return []
            return [dg.RunRequest(run_key=run_key, job_name=self.job)]
        last = last_materialised(instance, self.asset.key, partitions)
        if last is None:
            return []
        return [dg.RunRequest(run_key=run_key, job_name=self.job, partition_key=last)]
