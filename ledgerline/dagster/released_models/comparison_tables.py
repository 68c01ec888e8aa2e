"""Tables and pictures of a comparison, for the metadata in Dagster's UI."""

import base64
from collections.abc import Sequence

import dagster as dg

from ledgerline.evaluation.comparison import Comparison
from ledgerline.evaluation.rulings import Ruling


def metrics_table(compared: Comparison) -> dg.TableMetadataValue:
    """Return every metric of both versions, with the interval of the gain."""
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "metric": each.metric,
                    "staging": _text(each.staging),
                    compared.production_name: _text(each.production),
                    "gain": _text(each.gain),
                    "from": _text(each.low),
                    "to": _text(each.high),
                }
            )
            for each in compared.differences
        ]
    )


def gates_table(rulings: Sequence[Ruling]) -> dg.TableMetadataValue:
    """Return every gate, with its ruling and the reason."""
    return dg.MetadataValue.table(
        [
            dg.TableRecord({"gate": each.rule, "passed": "yes" if each.passed else "NO", "reason": each.text})
            for each in rulings
        ]
    )


def as_markdown(png: bytes) -> dg.MarkdownMetadataValue:
    """Return a PNG as an inline picture."""
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(png).decode()})")


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
