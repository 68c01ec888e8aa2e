"""Finds the versions of released models that runs have registered, in the metadata of materialisations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from ledgerline.cli.summaries import materialisations
from ledgerline.dagster.released_models.names import ReleaseNames


@dataclass(frozen=True)
class NewVersion:
    """A version that a run has registered.

    Attributes:
        number: Version number. sha256: Hash of its files; empty if the metadata has no hash.
    """

    number: int
    sha256: str

    @property
    def files(self) -> str:
        """Text with the hash of its files."""
        return f"sha256 {self.sha256[:12]}…" if self.sha256 else "without a sha256 in its materialisation"


def registered_versions(
    instance: dg.DagsterInstance, models: Mapping[str, ReleaseNames], run_ids: Sequence[str]
) -> dict[str, NewVersion]:
    """Return the last version of each model that runs have registered."""
    by_asset = {names.versions: model for model, names in models.items()}
    newest: dict[str, NewVersion] = {}
    for run_id in run_ids:
        for each in materialisations(instance, run_id):
            number, sha256 = each.metadata.get("version"), each.metadata.get("sha256")
            if each.asset_key in by_asset and number is not None and isinstance(number.value, int):
                version = NewVersion(number.value, "" if sha256 is None else str(sha256.value))
                newest[by_asset[each.asset_key]] = version
    return newest
