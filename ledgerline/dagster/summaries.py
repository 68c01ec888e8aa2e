"""Makes tables that `ledgerline run` prints at its end, from the metadata of assets."""

from collections.abc import Mapping

import dagster as dg

SUMMARY = "ledgerline/summary"  # metadata of a materialisation: a table


def summary(rows: Mapping[str, Mapping[str, float]]) -> Mapping[str, dg.TableMetadataValue]:
    """Return metadata with a table that `ledgerline run` prints.

    Args:
        rows: For the name of each row, its numbers by column.

    Example:
        >>> metadata = summary({"log_loss": {"model": 0.5368, "baseline": 0.579}})
        >>> metadata["ledgerline/summary"].records[0].data
        {'': 'log_loss', 'model': 0.5368, 'baseline': 0.579}
    """
    records = [dg.TableRecord({"": name, **numbers}) for name, numbers in rows.items()]
    return {SUMMARY: dg.MetadataValue.table(records)}
