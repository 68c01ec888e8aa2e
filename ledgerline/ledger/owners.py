"""Reads the owners of assets from their definitions, because Dagster's storages do not contain them."""

from collections.abc import Mapping

import dagster as dg

from ledgerline.cleaning.texts import clean
from ledgerline.ledger.history import asset_name

Owners = Mapping[str, tuple[str, ...]]  # by asset name


def owners_in(definitions: dg.RepositoryDefinition) -> Owners:
    """Return the owners, by asset name, of the assets of a code location that have owners."""
    nodes = definitions.asset_graph.asset_nodes
    return {asset_name(node.key): tuple(map(clean, node.owners)) for node in nodes if node.owners}
