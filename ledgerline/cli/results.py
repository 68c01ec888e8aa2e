"""Reads the results of runs in the metadata of their materialisations: summaries and registered versions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ledgerline.dagster.released_models.names import ReleaseNames
from ledgerline.dagster.summaries import SUMMARY


def materialisations(instance: dg.DagsterInstance, run_id: str) -> Iterator[dg.AssetMaterialization]:
    """Yield the materialisations of a run, in order."""
    cursor: str | None = None
    while True:
        page = instance.get_records_for_run(
            run_id, cursor=cursor, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
        )
        for record in page.records:
            if record.asset_materialization is not None:
                yield record.asset_materialization
        if not page.has_more:
            return
        cursor = page.cursor


def print_summaries(console: Console, instance: dg.DagsterInstance, run_ids: Sequence[str]) -> None:
    """Print the summary table of every materialisation that has one."""
    for run_id in run_ids:
        for materialisation in materialisations(instance, run_id):
            value = materialisation.metadata.get(SUMMARY)
            if isinstance(value, dg.TableMetadataValue) and value.records:
                name = materialisation.asset_key.to_user_string()
                console.print()
                console.print(_table(f"{name} {materialisation.partition or ''}".rstrip(), value))


def _table(title: str, value: dg.TableMetadataValue) -> Table:
    names = [column.name for column in value.schema.columns]  # stored records lose the order of their columns
    table = Table(title=Text(title), title_justify="left")
    for place, name in enumerate(names):
        numbers = all(isinstance(record.data.get(name, 0), float | int) for record in value.records)
        table.add_column(
            Text(name.replace("_", " ") if place else name), justify="right" if numbers else "left"
        )
    for record in value.records:
        table.add_row(*(_cell(record.data.get(name)) for name in names))
    return table


def _cell(value: str | float | bool | None) -> Text:
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, float):
        return Text(f"{value:,.4f}")
    return Text("" if value is None else f"{value:,}" if isinstance(value, int) else value)


@dataclass(frozen=True)
class NewVersion:
    """A version that a run has registered."""

    number: int
    sha256: str  # of its files; empty if the metadata has no hash

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
