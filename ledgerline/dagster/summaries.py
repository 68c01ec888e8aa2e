"""Tables that assets hand to `ledgerline run`, which prints them once everything is done."""

from collections.abc import Mapping

import dagster as dg

SUMMARY = "ledgerline/summary"  # metadata of a materialisation: a table


def summary(rows: Mapping[str, Mapping[str, float]]) -> Mapping[str, dg.TableMetadataValue]:
    """Return metadata with a table that `ledgerline run` prints.

    >>> context.add_asset_metadata(summary({"log_loss": {"model": 0.5368, "baseline": 0.5790}}))

    Args:
        rows: Numbers by column, by the name of the row.
    """
    records = [dg.TableRecord({"": name, **numbers}) for name, numbers in rows.items()]
    return {SUMMARY: dg.MetadataValue.table(records)}
