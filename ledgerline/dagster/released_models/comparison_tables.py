"""A comparison as Dagster's UI shows it: tables and pictures in the metadata."""

import base64
from collections.abc import Sequence

import dagster as dg

from ledgerline.evaluation.comparison import Comparison
from ledgerline.evaluation.rulings import Ruling


def metrics_table(compared: Comparison) -> dg.TableMetadataValue:
    """Return every metric of both, with the interval of the gain."""
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "metric": found.metric,
                    "staging": _shown(found.staging),
                    compared.production_name: _shown(found.production),
                    "gain": _shown(found.gain),
                    "from": _shown(found.low),
                    "to": _shown(found.high),
                }
            )
            for found in compared.differences
        ]
    )


def gates_table(rulings: Sequence[Ruling]) -> dg.TableMetadataValue:
    """Return every gate, whether it let the version pass, and why."""
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {"gate": found.rule, "passed": "yes" if found.passed else "NO", "because": found.text}
            )
            for found in rulings
        ]
    )


def as_markdown(png: bytes) -> dg.MarkdownMetadataValue:
    """Return a PNG inline."""
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(png).decode()})")


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
